"""System of any lines of response, given by their end points: list mode, and scanners that are no cylinders.

Lines are in blocks of about one direction, which stay in cache when they are walked row by row through the image.
"""

from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import DataError
from medjax.pet.grid import Grid
from medjax.pet.system import AnyArray

_PARTS, _LINES = 2, 32768  # of a block: parts that are worked off side by side, most lines in each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LorGroup:
    """Lines that run mostly along one axis, in blocks: they cross row r, from the middle, at position + slope · r."""

    position: Float[AnyArray, "*stack block part line 2"]  # (across, axial) index of voxels on the middle row
    slope: Float[AnyArray, "*stack block part line 2"]
    rows: Float[AnyArray, "*stack block part line 2"] | None  # first and last between a line's ends; None: all of them
    tof: (
        Float[AnyArray, "*stack block part line 3"] | None
    )  # bin's lower and upper edge on the middle row, change a row; in √2 σ
    index: Int[AnyArray, "*stack block part line"]  # number of the line; one past the last: padding
    along_x: bool = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LorSystem:
    """System model of single lines: image `(x, y, z)` ↔ one value a line."""

    groups: tuple[LorGroup, ...]
    length_mm: Float[AnyArray, "*stack line"]  # length of a line in a row of the image
    row_index: Int[AnyArray, "*stack line"]  # where a line lies in the joined groups
    shape: tuple[int, int, int] = field(metadata={"static": True})

    @property
    def sinogram_shape(self) -> tuple[int]:
        """Shape (line,) of the values."""
        return (self.length_mm.shape[-1],)


def build_lor_system(
    end_points: Float[np.ndarray, "line 2 3"],
    grid: Grid,
    *,
    along_x: Bool[np.ndarray, " line"] | None = None,
    tof_mm: Float[np.ndarray, "line 2"] | None = None,
    tof_sd_mm: float | Float[np.ndarray, " line"] | None = None,
) -> LorSystem:
    """System model of the lines between these points, on the image `grid`.

    Args:
        end_points: (x, y, z) in mm of the first and the second end, the centre of the grid at the origin.
        grid: image grid.
        along_x: whether a line is walked along x, or along y; None: along the axis on which it crosses more voxels.
        tof_mm: lower and upper edge of each line's time-of-flight bin, in mm from the middle to the second end.
        tof_sd_mm: standard deviation of the time-of-flight kernel, in mm along the line: one, or one a line.

    Raises:
        DataError: an end point is not finite, or both ends of a line have one transaxial position.
    """
    one = [None if a is None else a[None] for a in (along_x, tof_mm)]
    sd = tof_sd_mm[None] if isinstance(tof_sd_mm, np.ndarray) else tof_sd_mm
    stacked = stack_lor_systems(end_points[None], grid, along_x=one[0], tof_mm=one[1], tof_sd_mm=sd)
    return jax.tree.map(lambda a: a[0], stacked)


def stack_lor_systems(
    end_points: Float[np.ndarray, "system line 2 3"],
    grid: Grid,
    *,
    along_x: Bool[np.ndarray, "system line"] | None = None,
    tof_mm: Float[np.ndarray, "system line 2"] | None = None,
    tof_sd_mm: float | Float[np.ndarray, "system line"] | None = None,
) -> LorSystem:
    """Systems of as many lines each, with a leading axis: see `build_lor_system`.

    Raises:
        DataError: as `build_lor_system`.
    """
    ends = np.asarray(end_points, float)
    if not np.all(np.isfinite(ends)):
        raise DataError("end points: hold values that are not finite")
    along = np.abs(ends[..., 1, :] - ends[..., 0, :]) / np.asarray(grid.voxel_mm)
    if np.any(np.hypot(along[..., 0], along[..., 1]) == 0):
        raise DataError("end points: both ends of a line have one transaxial position")
    chosen = runs_along_x(ends, grid) if along_x is None else np.asarray(along_x, bool)
    row_index, start = np.zeros(chosen.shape, np.int32), 0
    groups: list[LorGroup] = []
    for walked_along_x in (True, False):
        most = int((chosen == walked_along_x).sum(axis=1).max())
        if not most:
            continue
        number = -(-most // (_PARTS * _LINES))
        size = -(-most // (_PARTS * number))
        members = np.full((len(ends), number * _PARTS * size), ends.shape[1])  # one past the last: padding
        for k, own in enumerate(chosen == walked_along_x):
            numbers = np.flatnonzero(own)
            members[k, : len(numbers)] = numbers[_order(ends[k, numbers])]
            row_index[k, members[k, : len(numbers)]] = start + np.arange(len(numbers))
        position, slope, rows, tof = _crossings(ends, members, grid, walked_along_x, tof_mm, tof_sd_mm)
        blocks = (len(ends), number, _PARTS, size)
        position, slope = (a.reshape(*blocks, 2) for a in (position, slope))
        rows, tof = (None if a is None else a.reshape(*blocks, -1) for a in (rows, tof))
        groups.append(LorGroup(position, slope, rows, tof, members.reshape(blocks).astype(np.int32), walked_along_x))
        start += members.shape[1]
    length = np.linalg.norm(ends[..., 1, :] - ends[..., 0, :], axis=-1)
    steps = np.where(chosen, along[..., 0], along[..., 1])
    return jax.device_put(LorSystem(tuple(groups), length / steps, row_index, grid.shape))


def runs_along_x(end_points: Float[np.ndarray, "*line 2 3"], grid: Grid) -> Bool[np.ndarray, "*line"]:
    """True for lines that cross as many voxels along x as along y, or more."""
    x, y = (np.abs(end_points[..., 1, k] - end_points[..., 0, k]) / grid.voxel_mm[k] for k in range(2))
    return x >= y


def _order(ends: np.ndarray) -> np.ndarray:
    """Order in which lines of about one direction, and then of one position, follow each other."""
    along = ends[:, 1, :2] - ends[:, 0, :2]
    angle = np.floor(np.arctan2(along[:, 1], along[:, 0]) % np.pi * 24 / np.pi)
    offset = (ends[:, 0, 0] * along[:, 1] - ends[:, 0, 1] * along[:, 0]) / np.hypot(along[:, 0], along[:, 1])
    return np.lexsort((offset, angle))


def _crossings(
    ends: np.ndarray,
    members: np.ndarray,
    grid: Grid,
    along_x: bool,
    tof_mm: np.ndarray | None,
    tof_sd_mm: float | np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Position, slope, rows and time-of-flight edges of `LorGroup` for these members of each system."""
    known = np.minimum(members, ends.shape[1] - 1)
    first, second = (np.take_along_axis(ends[:, :, k], known[..., None], axis=1) for k in range(2))
    axis, across = (0, 1) if along_x else (1, 0)
    per_mm = 1 / np.where(members < ends.shape[1], (second - first)[..., axis], 1)
    start = -first[..., axis] * per_mm  # fraction of the line at the middle row
    rate = grid.voxel_mm[axis] * per_mm
    rise = (second - first)[..., [across, 2]] / np.take(grid.voxel_mm, [across, 2])
    middle = (np.take(grid.shape, [across, 2]) - 1) / 2
    position = first[..., [across, 2]] / np.take(grid.voxel_mm, [across, 2]) + rise * start[..., None] + middle
    rows = np.sort(np.stack([first[..., axis], second[..., axis]], -1), axis=-1) / grid.voxel_mm[axis]
    last_row = (grid.shape[axis] - 1) / 2
    rows = None if np.all(rows[..., 0] <= -last_row) and np.all(rows[..., 1] >= last_row) else rows
    if tof_mm is None:
        return position, rise * rate[..., None], rows, None
    edges = np.take_along_axis(tof_mm, known[..., None], axis=1)
    length = np.linalg.norm(second - first, axis=-1)
    offset = ((start - 0.5) * length)[..., None]
    sd = np.broadcast_to(np.asarray(tof_sd_mm, float), ends.shape[:2])
    sd = np.take_along_axis(sd, known, axis=1)[..., None]
    tof = np.concatenate([edges - offset, (rate * length)[..., None]], -1) / (np.sqrt(2) * sd)
    return position, rise * rate[..., None], rows, tof
