"""NIfTI volumes: reading, writing, affines, and resampling from one grid to another.

A volume is (x, y, z) as nibabel gives it; its affine takes voxel indices, of voxel centres, to RAS+ millimetres.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.atomic import replacing
from medjax.errors import DataError, type_and_message
from medjax.io.grids import TOLERANCE, check_voxel_mm, corner_distance
from medjax.io.nifti_file import SUFFIXES, float_values, load_nifti

if TYPE_CHECKING:
    from nibabel import Nifti1Image
    from scipy.sparse import csr_array

Number = int | float
SHEAR_TOLERANCE = 1e-3  # cosine between two axes: 0.06 degrees, above the rounding of single-precision headers
MM_PER_UNIT = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}  # of NIfTI's codes of lengths


@dataclass(frozen=True)
class Volume:
    """A 3-D image with its affine."""

    array: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]  # voxel index → RAS+ mm

    @property
    def center_mm(self) -> tuple[float, float, float]:
        """Centre of the field of view, RAS+ mm."""
        x, y, z = (self.affine[:3, :3] @ (np.subtract(self.array.shape, 1) / 2) + self.affine[:3, 3]).tolist()
        return x, y, z


@dataclass(frozen=True)
class Series:
    """A 4-D series of frames on one grid, such as a diffusion scan, with its affine."""

    array: Float[np.ndarray, "x y z frame"]
    affine: Float[np.ndarray, "4 4"]  # voxel index → RAS+ mm


def extent_mm(volume: Volume, point: tuple[float, float, float]) -> Float[np.ndarray, "3"]:
    """Extent in mm of the non-zero voxels from a point along x, y and z, edges included; 0 where all are 0."""
    if not volume.array.any():
        return np.zeros(3)
    edges = []
    for axis in range(3):
        inside = np.flatnonzero(volume.array.any(axis=tuple({0, 1, 2} - {axis})))
        edges.append((inside[0] - 0.5, inside[-1] + 0.5))
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.abs(corners @ volume.affine[:3, :3].T + volume.affine[:3, 3] - point).max(axis=0)


def read_nifti(path: str | Path) -> Volume:
    """Read a 3-D volume from a NIfTI file (.nii, .nii.gz) as float32; trailing axes of length 1 are dropped.

    Lengths in metres or microns become mm; where the file states no unit they are mm.

    Raises:
        DataError: missing, not NIfTI, damaged, not 3-D, no affine, sheared, or with NaN or infinite values.
    """
    affine, array = _read(Path(path), _nifti_array)
    return Volume(array, affine)


def read_nifti_series(path: str | Path) -> Series:
    """Read a 4-D series from a NIfTI file as float32, axes as stored; NaN and infinities are kept.

    Raises:
        DataError: missing, not NIfTI, damaged, not 4-D, no affine, or sheared.
    """
    affine, array = _read(Path(path), _nifti_series)
    return Series(array, affine)


def _read(path: Path, array_of: Callable[[Path, "Nifti1Image"], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    image = load_nifti(path)
    return affine_of(path, image), array_of(path, image)


def write_nifti(
    path: str | Path,
    array: Real[np.ndarray | Array, "x y z *frame"],
    affine: Float[np.ndarray, "4 4"],
    dtype: np.dtype | type = np.float32,
) -> None:
    """Write a volume, or a series (frames last), as NIfTI in mm, its affine as qform and sform; whole or not at all.

    Raises:
        DataError: the name ends in neither .nii nor .nii.gz, the array is not 3-D or 4-D, not finite, or not held
            by the type, or the affine is sheared or its origin too far for single precision.
        OSError: it cannot be written (disk full, no permission, no such folder).
    """
    import nibabel

    path, given = Path(path), np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused
        values, stored = given.astype(dtype), np.asarray(affine, np.float32)
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: expected a name that ends in .nii or .nii.gz")
    if values.ndim not in (3, 4) or not np.isfinite(values).all():
        raise DataError(f"{path}: an array of shape {values.shape} to write; expected 3-D or 4-D with finite values")
    if np.issubdtype(values.dtype, np.integer) and not np.array_equal(values, given):
        raise DataError(f"{path}: values that {values.dtype} does not hold; expected whole numbers in its range")
    affine = _checked_affine(affine, f"{path}: affine to write")
    if not (np.isfinite(stored).all() and corner_distance(values.shape[:3], affine, stored)[0] <= TOLERANCE):
        raise DataError(f"{path}: origin {affine[:3, 3].tolist()} mm; expected one that single precision can tell")
    image = nibabel.Nifti1Image(values, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with replacing(path) as file:
        content = image.to_bytes()
        file.write(gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content)


def voxel_mm(affine: Float[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    """Voxel size in mm: the norms of the affine's columns."""
    x, y, z = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0).tolist()
    return x, y, z


def grid_affine(
    shape: tuple[int, int, int],
    voxel_mm: Number | tuple[Number, Number, Number],
    center_mm: tuple[Number, Number, Number] = (0, 0, 0),
) -> Float[np.ndarray, "4 4"]:
    """RAS+ affine of a grid of `shape` voxels whose centre, (shape − 1) / 2, lies at `center_mm`.

    Raises:
        DataError: a side or a voxel size is not positive.
    """
    sizes = np.broadcast_to(np.asarray(voxel_mm, float), 3)
    if not (np.all(sizes > 0) and min(shape) > 0):
        raise DataError(f"grid: shape {shape} of voxels of {voxel_mm} mm; expected positive numbers")
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = np.asarray(center_mm) - sizes * (np.asarray(shape) - 1) / 2
    return affine


def resample(volume: Volume, shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"], order: int = 1) -> Volume:
    """Resample a volume to another grid, by both affines; 0 outside it.

    `order` 0 takes the nearest voxel (labels), 1 interpolates linearly, 3 by cubic splines. Above 0, along an
    axis that gets coarser, values are averaged over the new voxel, so that nothing aliases and the integral is kept:
    exactly for order 1 between grids with parallel axes (flips and swaps included), closely otherwise.

    Raises:
        DataError: an affine is singular or sheared.
    """
    affine = _checked_affine(affine, "affine of the grid to resample to")
    source = _checked_affine(volume.affine, "affine of the volume to resample")
    to_source = np.linalg.inv(source) @ affine  # new voxel index → old voxel index
    axes = _parallel_axes(to_source[:3, :3])
    if order == 1 and axes is not None:
        array = np.transpose(volume.array, axes)
        for new, old in enumerate(
            axes
        ):  # the first axis is always the next one to do; after three the order is restored
            weights = _overlaps(array.shape[0], shape[new], to_source[old, new], to_source[old, 3])
            array = (weights @ array.reshape(array.shape[0], -1)).reshape(shape[new], *array.shape[1:])
            array = np.moveaxis(array, 0, -1)
        return Volume(np.ascontiguousarray(array, volume.array.dtype), affine)
    return Volume(_interpolated(volume.array, shape, to_source, order), affine)


def _interpolated(array: np.ndarray, shape: tuple[int, int, int], to_source: np.ndarray, order: int) -> np.ndarray:
    from scipy import ndimage

    if order > 0:
        for axis, width in enumerate(np.linalg.norm(to_source[:3, :3], axis=1)):
            if width > 1:
                array = ndimage.correlate1d(array, _box(width, array.shape[axis]), axis=axis, mode="constant")
    return ndimage.affine_transform(
        array, to_source[:3, :3], to_source[:3, 3], output_shape=shape, order=order, mode="grid-constant"
    )


def _parallel_axes(matrix: np.ndarray) -> list[int] | None:
    """For each new axis the old axis it runs along, or None where one runs along none."""
    axes = np.abs(matrix).argmax(axis=0)
    along = np.abs(matrix[axes, range(3)])
    parallel = np.abs(matrix).sum(axis=0) - along < 1e-6 * along
    return axes.tolist() if parallel.all() and len(set(axes)) == 3 else None


def _overlaps(old: int, new: int, step: float, start: float) -> "csr_array":
    """(new, old) weights: the fraction of new voxel k, centred at old index start + k·step, in each old voxel.

    A new voxel narrower than an old one is taken as wide as it, which is linear interpolation.
    """
    from scipy.sparse import csr_array

    half = max(abs(step), 1.0) / 2
    centers = start + step * np.arange(new)[:, None]
    cells = np.arange(old)[None, :]
    overlap = np.minimum(centers + half, cells + 0.5) - np.maximum(centers - half, cells - 0.5)
    return csr_array((np.clip(overlap, 0, None) / (2 * half)).astype(np.float32))


def _box(width: float, side: int) -> np.ndarray:
    """Weights of a mean over `width` voxels, the outermost two by the part inside; none beyond the array's `side`."""
    half = min(int(np.ceil((width - 1) / 2)), side)
    inside = np.clip(width / 2 + 0.5 - np.abs(np.arange(-half, half + 1)), 0, 1)
    return inside / width


def affine_of(path: Path, image: "Nifti1Image") -> Float[np.ndarray, "4 4"]:
    """Affine of a NIfTI image, mm: its sform, else its qform; DataError where it has neither, or one of no use."""
    try:
        qform, qcode = image.header.get_qform(coded=True)
        sform, scode = image.header.get_sform(coded=True)
        mm = MM_PER_UNIT[str(image.header.get_xyzt_units()[0])]
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        raise DataError(f"{path}: affine cannot be read ({type_and_message(error)}); expected a whole file") from error
    if not qcode and not scode:
        raise DataError(
            f"{path}: no affine (qform and sform codes are 0), so left and right are not known; if nibabel's "
            "image.affine is right, save it with image.set_sform(image.affine, 1)"
        )
    affine = np.array(sform if scode else qform, float)
    affine[:3] *= mm
    affine = _checked_affine(affine, f"{path}: affine")
    check_voxel_mm(path, voxel_mm(affine))
    return affine


def voxel_sizes(path: Path, image: "Nifti1Image") -> tuple[float, float, float]:
    """Voxel sizes in mm as a header states them, also where it has no affine.

    Raises:
        DataError: an unknown unit, or sizes that are not positive.
    """
    try:
        mm = MM_PER_UNIT[str(image.header.get_xyzt_units()[0])]
        x, y, z = (float(size) * mm for size in image.header.get_zooms()[:3])
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: voxel sizes cannot be read ({type_and_message(error)})") from error
    if not (min(x, y, z) > 0 and max(x, y, z) < np.inf):
        raise DataError(f"{path}: voxel sizes {x:g}, {y:g}, {z:g} mm; expected three positive numbers")
    return x, y, z


def _nifti_array(path: Path, image: "Nifti1Image") -> np.ndarray:
    shape = image.shape[:3] + tuple(side for side in image.shape[3:] if side != 1)
    shape = (*shape, 1) if len(shape) == 2 else shape  # a 2-D image is a volume of one slice
    if len(shape) != 3:
        raise DataError(f"{path}: shape {image.shape}; expected a 3-D volume")
    array = float_values(path, image).reshape(shape)
    if faults := np.count_nonzero(~np.isfinite(array)):
        raise DataError(f"{path}: {faults} NaN or infinite voxels; expected finite values")
    return array


def _nifti_series(path: Path, image: "Nifti1Image") -> np.ndarray:
    shape = image.shape[:3] + tuple(side for side in image.shape[3:] if side != 1)
    if len(shape) != 4:
        raise DataError(f"{path}: shape {image.shape}; expected a 4-D series, frames last")
    return float_values(path, image).reshape(shape)


def _checked_affine(affine: np.ndarray, name: str) -> np.ndarray:
    affine = np.asarray(affine, float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise DataError(f"{name}: shape {affine.shape} or not finite; expected a finite 4 × 4 matrix")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (lengths > 0).all():
        raise DataError(f"{name}: singular, voxel sizes {lengths.tolist()} mm; expected three positive ones")
    cosines = np.abs((affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths) - np.eye(3)).max()
    if cosines > SHEAR_TOLERANCE:
        raise DataError(f"{name}: sheared (cosine of two axes {cosines:.3g}); resample it to orthogonal axes first")
    return affine
