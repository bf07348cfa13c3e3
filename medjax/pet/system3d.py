"""System of the 3-D projector: a ring's lines of response, and the axial shift that all planes of a segment share.

All planes of a segment see the same line of response in a slice; along it the axial position, in image planes half a
ring spacing apart, is

    z = position + 2 D f,    f = f₀ + f₁ · row,   −½ ≤ f ≤ ½ from the first crystal to the second,

D the mean ring difference of the segment. So the planes of a segment are one contiguous read of the image, shifted by
2 D f. Where a segment has a plane at every second position only (span 1), even and odd planes of the image are kept
apart, so that its reads are contiguous too.

A symmetric view may see its line of response from the other end: its planes are then those of the opposite segment.

Source: Joseph, IEEE Transactions on Medical Imaging 1(3), 1982, with bilinear interpolation across rows.
"""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import DataError
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram
from medjax.pet.system import AnyArray, Fan, System, build_system, possible_subsets, subsets
from medjax.pet.tof import Tof, TofKernel, tof_kernel

_WASTE = 0.15  # of the planes of a bundle, those that may be padding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AxialFan:
    """Position f = middle + slope · row along the lines of response of a fan, and which of them are swapped."""

    middle: Float[AnyArray, "*stack view bin"]
    slope: Float[AnyArray, "*stack view bin"]
    chord_mm: Float[AnyArray, "*stack view bin"]  # distance of the crystals in the transaxial plane
    swapped: Bool[AnyArray, "*stack view bin symmetric_view"]  # the row grows from the second crystal to the first


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bundle:
    """Segments of about as many planes, which are read together; shorter ones are padded."""

    ring_difference: Float[AnyArray, "*stack segment"]
    rise_mm: Float[AnyArray, "*stack segment"]  # distance of the rings along the axis
    start: Int[AnyArray, "*stack segment"]  # image plane, with padding, of the first plane where f = 0
    planes: Int[AnyArray, "*stack segment plane"]  # of the sinogram; one past the last: padding
    reach: tuple[int, int] = field(metadata={"static": True})  # smallest and largest image plane where a read starts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class System3D:
    """System model in 3-D: image `(x, y, z)` ↔ sinogram `(view, bin, plane)`.

    `padding` counts planes beyond both ends of the image; `parts` is 2 where its even and odd planes are kept apart.
    """

    transaxial: System
    axial: tuple[AxialFan, ...]
    bundles: tuple[Bundle, ...]
    chord_mm: Float[AnyArray, "*stack view bin"]  # distance of a bin's crystals in the transaxial plane
    rise_mm: Float[AnyArray, "*stack plane"]  # distance of a plane's rings along the axis
    mirrored: Int[AnyArray, "*stack plane"]  # the plane of the same rings, swapped
    plane_index: Int[AnyArray, "*stack plane"]  # where the bundles' joined planes hold it
    tof: TofKernel | None
    image_planes: int = field(metadata={"static": True})
    padding: tuple[int, int] = field(metadata={"static": True})
    parts: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (x, y, z) of the image."""
        return (*self.transaxial.shape, self.image_planes)

    @property
    def sinogram_shape(self) -> tuple[int, ...]:
        """Shape (view, bin, plane) of the sinogram, or (view, bin, plane, tof)."""
        shape = (*self.transaxial.row_index.shape[-2:], self.rise_mm.shape[-1])
        return shape if self.tof is None else (*shape, self.tof.edges_mm.shape[-1] - 1)


def build_system3d(
    end_points: Float[np.ndarray, "view bin 2 2"],
    michelogram: Michelogram,
    ring_spacing_mm: float,
    grid: Grid,
    tof: Tof | None = None,
) -> System3D:
    """System model of these lines of response between all rings of the Michelogram, on the image `grid`.

    Args:
        end_points: (x, y) in mm of the first and the second crystal of a ring's lines of response.
        michelogram: planes of the sinogram; the rings lie around the middle of the grid.
        ring_spacing_mm: distance between neighbouring rings.
        grid: image grid; its slices must be half a ring spacing apart.
        tof: time-of-flight bins; None: none.

    Raises:
        ConfigError: a segment has no opposite one.
        DataError: slices of another distance, or a line of response that ends inside the image.
    """
    if abs(2 * grid.voxel_mm[2] / ring_spacing_mm - 1) > 1e-4:
        raise DataError(
            f"grid: slices of {grid.voxel_mm[2]:g} mm; expected half the ring spacing, {ring_spacing_mm / 2:g} mm"
        )
    transaxial = build_system(end_points, grid)
    axial = tuple(_axial(fan, end_points, grid) for fan in transaxial.fans)
    parts = 2 if any(segment.step == 2 for segment in michelogram.segments) else 1
    bundles, plane_index, padding = _bundles(michelogram, ring_spacing_mm, grid.shape[2], parts)
    rises = [
        np.full(n, ring_spacing_mm * segment.ring_difference)
        for n, segment in zip(michelogram.planes_per_segment, michelogram.segments, strict=True)
    ]
    system = System3D(
        transaxial,
        axial,
        bundles,
        np.linalg.norm(np.diff(end_points, axis=-2)[..., 0, :], axis=-1),
        np.concatenate(rises),
        michelogram.mirrored,
        plane_index,
        tof_kernel(tof),
        grid.shape[2],
        padding,
        parts,
    )
    return jax.device_put(system)


def without_tof(system: System3D) -> System3D:
    """The same lines of response without time of flight: of attenuation."""
    return replace(system, tof=None)


def subsets3d(system: System3D, number: int) -> tuple[System3D, Int[np.ndarray, "subset view"]]:
    """Subsets of the views as one system with a leading axis, and the views of each: see `system.subsets`.

    Raises:
        ConfigError: the number of subsets does not divide the views of a fan.
    """
    transaxial, views = subsets(system.transaxial, number)
    axial = jax.tree.map(
        lambda a: np.stack([np.asarray(a)[k::number] for k in range(number)]), system.axial
    )  # as the fans of `subsets`
    repeated = {
        name: jax.tree.map(lambda a: np.broadcast_to(a, (number, *a.shape)), getattr(system, name))
        for name in ("bundles", "rise_mm", "mirrored", "plane_index", "tof")
    }
    stacked = replace(
        system, transaxial=transaxial, axial=axial, chord_mm=np.asarray(system.chord_mm)[views], **repeated
    )
    return jax.device_put(stacked), views


def possible_subsets3d(system: System3D) -> list[int]:
    """Numbers of subsets that divide the views of every fan evenly."""
    return possible_subsets(system.transaxial)


def _axial(fan: Fan, end_points: np.ndarray, grid: Grid) -> AxialFan:
    """Where the crystals lie along the rows that a fan's lines of response cross, for each of its symmetric views."""
    numbers = np.asarray(fan.lor_index)
    missing = numbers >= np.prod(end_points.shape[:2])
    ends = end_points.reshape(-1, 2, 2)[np.where(missing, 0, numbers)]  # (view, bin, symmetric view, end, axis)
    along = np.empty(ends.shape[:-1])
    for k, turn in enumerate(fan.quarter_turns):  # the fan's own x after as many quarter turns back
        axis, sign = ((0, 1), (1, 1), (0, -1), (1, -1))[turn]
        along[:, :, k] = sign * ends[:, :, k, :, axis]
    voxel = grid.voxel_mm[fan.quarter_turns[0] % 2]
    low, high = np.sort(along, axis=-1)[..., 0], np.sort(along, axis=-1)[..., 1]
    middle = np.where(missing, np.nan, -(low + high) / 2 / (high - low))
    slope = np.where(missing, np.nan, voxel / (high - low))
    known = ~missing.all(axis=-1)
    first = np.argmin(missing, axis=-1)[..., None]
    chord = np.linalg.norm(ends[..., 1, :] - ends[..., 0, :], axis=-1)
    chosen = [np.where(known, np.take_along_axis(a, first, axis=-1)[..., 0], 0.0) for a in (middle, slope, chord)]
    for a, one in zip((middle, slope), chosen, strict=False):
        if np.nanmax(np.abs(a - one[..., None]), initial=0) > 1e-4:
            raise DataError("end points: those of symmetric views are not turned by a quarter; choose an oblong grid")
    return AxialFan(*chosen, swapped=(along[..., 0] > along[..., 1]) & ~missing)


def _bundles(
    michelogram: Michelogram, ring_spacing_mm: float, image_planes: int, parts: int
) -> tuple[tuple[Bundle, ...], Int[np.ndarray, " plane"], tuple[int, int]]:
    """Segments grouped by their number of planes, where their joined planes hold those of the sinogram, and padding.

    A segment with a plane at every position counts as two, of even and of odd positions, where `parts` is 2.
    """
    rows: list[tuple[float, int, np.ndarray]] = []  # ring difference, first position, planes
    start = 0
    for segment, positions in zip(michelogram.segments, michelogram.positions, strict=True):
        planes = start + np.arange(len(positions))
        stride = parts // segment.step
        rows += [(segment.ring_difference, positions[k], planes[k::stride]) for k in range(min(stride, len(planes)))]
        start += len(positions)
    rows.sort(key=lambda row: -len(row[2]))
    groups: list[list[tuple[float, int, np.ndarray]]] = []
    for row in rows:
        if not groups or len(row[2]) < (1 - _WASTE) * len(groups[-1][0][2]):
            groups.append([])
        groups[-1].append(row)
    offset = (image_planes - 1) / 2 - (michelogram.rings - 1)
    if offset != round(offset):
        raise DataError(f"grid: {image_planes} slices; expected an odd number, as {michelogram.rings} rings have")
    low, high = 0, image_planes
    made: list[tuple[list[float], np.ndarray, np.ndarray]] = []
    for group in groups:
        length = len(group[0][2])
        table, starts = np.full((len(group), length), start), np.zeros(len(group), int)
        for k, (difference, position, planes) in enumerate(group):
            before = (length - len(planes)) // 2  # padding on both sides, so that reads stay within the scanner
            table[k, before : before + len(planes)] = planes
            starts[k] = position - parts * before + int(offset)
            low = min(low, starts[k] - int(np.ceil(abs(difference))) - 2)
            high = max(high, starts[k] + parts * length + int(np.ceil(abs(difference))) + 2)
        made.append(([difference for difference, _, _ in group], starts, table))
    low -= low % 2  # even planes stay even
    padding = (int(-low), int(high - image_planes + (high - low) % parts))
    flat = np.concatenate([table.ravel() for _, _, table in made])
    plane_index = np.zeros(start + 1, np.int32)
    plane_index[flat] = np.arange(len(flat))
    bundles: list[Bundle] = []
    for differences, starts, table in made:
        first, rises = starts + padding[0], np.array(differences) * ring_spacing_mm
        reach = _reach(differences, first)
        bundles.append(Bundle(np.array(differences), rises, first.astype(np.int32), table.astype(np.int32), reach))
    return tuple(bundles), plane_index[:-1], padding


def _reach(differences: list[float], starts: np.ndarray) -> tuple[int, int]:
    """Smallest and largest image plane where a segment of these mean ring differences starts, |f| ≤ ½."""
    shift = np.ceil(np.abs(differences)).astype(int)
    return int((starts - shift).min()), int((starts + shift).max()) + 1
