"""Layout of a montage of slices: volumes reoriented to RAS+, cropped to the foreground, intensity scales, cells.

Images are in neurological convention: axes grow to the patient's right, to the front and upwards. Nothing is drawn
here; `figures.montage` does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from medjax.errors import DataError

VIEW_AXES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}  # axes to the right, upwards, through
MARGIN_MM, MIN_WIDTH_MM = 8.0, 60.0  # margin and minimum width of the plotted part
MAX_COLUMNS = 5


class Scale(NamedTuple):
    """Intensity scale: colour map with ends at `low` and `high` (default: 99.8th percentile of the bright part)."""

    unit: str = ""  # unit, beside the colour bar
    colormap: str = "inferno"  # name of a Matplotlib colour map
    low: float = 0.0
    high: float | None = None
    clipped: bool = False  # whether values lie beyond both ends: the colour bar has arrows
    classes: tuple[str, ...] = ()  # names of classes 0, 1, …, for a legend of a label map's colours


PET = Scale("activity")
MR = Scale("T1-weighted MR", "gray")
DEVIATION = Scale("standard deviation", "viridis")  # other colours than the image, whose scale it does not share


class MontageCell(NamedTuple):
    """One slice of one image in a montage, and its row and column."""

    name: str
    view: str
    row: int
    column: int
    named: bool  # whether the image's name stands above
    marked: bool  # whether it is labelled with its position and left and right


class RasGrid(NamedTuple):
    """The common grid of the images, axes reoriented to RAS+."""

    corner: np.ndarray  # mm of voxel (0, 0, 0)
    voxel: np.ndarray  # mm
    window: list[tuple[int, int]]  # first voxel plotted, and one past the last

    def extent(self, axis: int) -> tuple[float, float]:
        """Outer edges in mm of the plotted part, along an axis."""
        first, last = (self.corner[axis] + (edge - 0.5) * self.voxel[axis] for edge in self.window[axis])
        return first, last

    def size(self, axis: int) -> float:
        """Length in mm of the plotted part, along an axis."""
        first, last = self.extent(axis)
        return last - first


def reorient_to_ras(
    images: Mapping[str, np.ndarray], affine: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Reorient images to RAS+; returns them, the position of voxel (0, 0, 0) in mm, and the voxel size."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    shape = next(iter(images.values())).shape
    turn = io_orientation(affine)
    turned = {name: np.asarray(apply_orientation(image, turn)) for name, image in images.items()}
    ras = affine @ inv_ornt_aff(turn, shape)
    return turned, ras[:3, 3], np.linalg.norm(ras[:3, :3], axis=0)


def complete_scales(images: Mapping[str, np.ndarray], shared: Scale, others: Mapping[str, Scale]) -> dict[str, Scale]:
    """Intensity scale of each image with both ends; a shared scale takes its upper end from the first image."""
    scales: dict[str, Scale] = {}
    ends: dict[Scale, Scale] = {}
    for name, image in images.items():
        asked = others.get(name, shared)
        if asked not in ends:
            ends[asked] = asked if asked.high is not None else asked._replace(high=_bright(image, asked.low))
        scales[name] = ends[asked]
    return scales


def _bright(image: np.ndarray, low: float) -> float:
    """99.8th percentile of what is brighter than a tenth of that of the whole: a wide dark field does not count."""
    above = image[image > low]
    if not above.size:
        return low + 1.0
    first = np.percentile(above, 99.8)
    return float(f"{np.percentile(above[above >= low + 0.1 * (first - low)], 99.8):.2g}")


def crop_windows(
    images: Mapping[str, np.ndarray], scales: Mapping[str, Scale], voxel: np.ndarray
) -> list[tuple[int, int]]:
    """Crop to the foreground: along each axis the voxels where the images' mean profiles are not dark, and a margin."""
    fractions = [_fraction(image, scales[name]) for name, image in images.items()]
    windows = []
    for axis, size in enumerate(voxel):
        profile = np.max([fraction.mean(axis=tuple({0, 1, 2} - {axis})) for fraction in fractions], axis=0)
        bright = np.flatnonzero(profile > 0.03 * profile.max())
        first, last = (bright[0], bright[-1] + 1) if bright.size else (0, profile.size)
        margin = int(np.ceil(max(MARGIN_MM, (MIN_WIDTH_MM - (last - first) * size) / 2) / size))
        windows.append((max(int(first) - margin, 0), min(int(last) + margin, profile.size)))
    return windows


def mask_windows(mask: np.ndarray, voxel: np.ndarray) -> list[tuple[int, int]]:
    """Crop to a mask: its box and a margin, a twelfth of the longest side and at least two voxels.

    An empty mask leaves all.
    """
    if not mask.any():
        return [(0, size) for size in mask.shape]
    inside = np.argwhere(mask)
    first, last = inside.min(axis=0), inside.max(axis=0) + 1
    margins = np.maximum(np.ceil(((last - first) * voxel).max() / 12 / voxel), 2).astype(int)
    starts, ends = np.maximum(first - margins, 0), np.minimum(last + margins, mask.shape)
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def fullest_slices(mask: np.ndarray) -> np.ndarray:
    """Index along each axis of the slice with the most voxels of a mask."""
    return np.asarray([mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax() for axis in range(3)])


def _fraction(image: np.ndarray, scale: Scale) -> np.ndarray:
    """0 … 1 from the scale's dark end to the other; for a scale around zero, distance from zero."""
    high = 1.0 if scale.high is None else scale.high
    if scale.low < 0 < high:
        return np.clip(np.abs(image) / high, 0, 1)
    return np.clip((image - scale.low) / max(high - scale.low, 1e-30), 0, 1)


def center_of_mass(image: np.ndarray) -> np.ndarray:
    """Centre of mass of the values above 0, in voxels; the middle of the image where there are none."""
    weights = np.clip(image, 0, None).astype(float)
    if not weights.any():
        return (np.asarray(image.shape) - 1) / 2
    sums = [weights.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return np.asarray([np.average(np.arange(one.size), weights=one) for one in sums])


def layout(names: list[str], size_mm: np.ndarray, columns: bool | None) -> list[MontageCell]:
    """Cells of a montage: which slice of which image in which row and column."""
    numbered = list(enumerate(names))
    if size_mm[2] < max(size_mm[:2]) / 6:
        rows = -(-len(names) // MAX_COLUMNS)
        width = -(-len(names) // rows)
        return [MontageCell(name, "axial", k // width, k % width, True, k % width == 0) for k, name in numbered]
    if len(names) > 2 if columns is None else columns:
        return [
            MontageCell(name, view, r, c, r == 0, c == 0) for c, name in numbered for r, view in enumerate(VIEW_AXES)
        ]
    return [MontageCell(name, view, r, c, c == 0, True) for r, name in numbered for c, view in enumerate(VIEW_AXES)]


def check_images(images: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Check the images of a montage; returns them in float32.

    Raises:
        DataError: no image, shapes that differ, or values that are not finite.
    """
    arrays = {name: np.asarray(image, np.float32) for name, image in images.items()}
    shapes = {name: image.shape for name, image in arrays.items()}
    if len(set(shapes.values())) != 1:
        raise DataError(f"montage: shapes {shapes}; expected images of one shape")
    for name, image in arrays.items():
        if not np.isfinite(image).all():
            raise DataError(f"montage: {name} has NaN or infinite voxels; expected finite ones")
    return arrays
