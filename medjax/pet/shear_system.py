"""System of the shear projector, a fast model for few slices: lines of response in families of parallel ones.

Lines of one direction cross a row of the image at the same distance from each other, so a family reads a row as a
whole, shifted by `slope · row` and interpolated linearly between two columns: one contiguous read a row. What it adds
up lies on the columns of the middle row; a line of response reads it by linear interpolation where it crosses that row.
Joseph's method interpolates once, this model twice: it is a matrix of its own, with its own exact transpose. Of
ellipses on 128² voxels its sinogram differs by 0.2 % from Joseph's, and is a quarter farther from the closed form.
"""

from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import ConfigError, DataError
from medjax.pet.grid import Grid
from medjax.pet.lor_geometry import Lors, along_x, from_end_points, in_voxels, inside_ring, length_mm
from medjax.pet.system import AnyArray

_SAME = 1e-6  # columns a row by which the slopes of parallel lines may differ
_FEWEST = 4  # lines of a family, on average


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ShearFan:
    """Families of lines of response that run mostly along one axis of the image."""

    shift: Float[AnyArray, "*stack family row"]  # columns by which a family is shifted in a row
    lor_index: Int[AnyArray, "*stack family column tap"]  # line that reads a column; one past the last: none
    weight: Float[AnyArray, "*stack family column tap"]
    margin: int = field(metadata={"static": True})  # columns beyond both sides of the image
    along_x: bool = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ShearSystem:
    """System model of a slice by shears: image `(x, y, slice)` ↔ sinogram `(view, bin, slice)`."""

    fans: tuple[ShearFan, ...]
    column: Int[AnyArray, "*stack view bin"]  # of the fans' joined columns, below a line; past the last: it misses all
    beyond: Float[AnyArray, "*stack view bin"]  # distance from that column
    length_mm: Float[AnyArray, "*stack view bin"]  # length of a line of response in an image row
    inside: Bool[AnyArray, "*stack x y"] | None  # voxels inside the ring; None: all of them
    shape: tuple[int, int] = field(metadata={"static": True})


def build_shear_system(end_points: Float[np.ndarray, "view bin 2 2"], grid: Grid) -> ShearSystem:
    """Shear model of these lines of response on the slices of `grid`.

    Args:
        end_points: (x, y) in mm of both ends, as for `system.build_system`.
        grid: image grid.

    Raises:
        DataError: a line ends inside the image or before it, or few lines are parallel.
    """
    all_lors = from_end_points(end_points, grid)
    chosen = along_x(all_lors, grid)
    (nx, ny, _), (vx, vy, _) = grid.shape, grid.voxel_mm
    column, beyond = np.full(chosen.size, -1), np.zeros(chosen.size)
    fans: list[ShearFan] = []
    start = 0
    for walked_along_x in (True, False):
        members = np.flatnonzero(chosen == walked_along_x)
        if not members.size:
            continue
        flat = Lors(*(a.ravel()[members] for a in (all_lors.cos, all_lors.sin, all_lors.offset)))
        own = flat if walked_along_x else Lors(flat.sin, flat.cos, flat.offset)
        sizes = ((nx, ny), (vx, vy)) if walked_along_x else ((ny, nx), (vy, vx))
        fan, below, fraction = _fan(own, members, chosen.size, sizes, walked_along_x)
        fans.append(fan)
        column[members], beyond[members] = np.where(below < 0, -1, start + below), fraction
        start += fan.lor_index.shape[0] * fan.lor_index.shape[1]
    column = np.where(column < 0, start, column).astype(np.int32).reshape(chosen.shape)
    length, beyond = length_mm(all_lors, chosen, grid), beyond.reshape(chosen.shape)
    inside = inside_ring(end_points, grid)
    return jax.device_put(ShearSystem(tuple(fans), column, beyond, length, inside, (nx, ny)))


def one_subset(system: ShearSystem, number: int) -> tuple[ShearSystem, Int[np.ndarray, "subset view"]]:
    """The system with a leading axis of one subset, and its views.

    Raises:
        ConfigError: more subsets than one.
    """
    if number != 1:
        raise ConfigError(f"{number} subsets of the shear model; expected 1, or Joseph's model (`system.build_system`)")
    return jax.tree.map(lambda a: a[None], system), np.arange(system.column.shape[0])[None]


def _fan(
    own: Lors, members: np.ndarray, missing: int, sizes: tuple[tuple[int, int], tuple[float, float]], walked: bool
) -> tuple[ShearFan, np.ndarray, np.ndarray]:
    """Families of these lines, the column below each line among those of all families (−1: none), and its distance."""
    (rows, width), _ = sizes
    position, slope = in_voxels(own, *sizes)
    order = np.argsort(slope)
    new = np.diff(slope[order], prepend=-np.inf) > _SAME
    family = np.empty(len(order), int)
    family[order] = np.cumsum(new) - 1
    slopes = slope[order][new]
    if len(slopes) * _FEWEST > len(order):
        raise DataError(
            f"end points: {len(order)} lines of response of {len(slopes)} directions; the shear model expects "
            f"{_FEWEST} or more parallel ones of each"
        )
    middle = np.arange(rows) - (rows - 1) / 2
    margin = int(np.ceil(np.abs(slopes).max() * middle[-1])) + 2
    columns = width + 2 * margin
    at = position + margin
    below = np.floor(at).astype(int)
    there = (below >= 0) & (below < columns - 1)
    below, fraction = np.where(there, family * columns + below, -1), at - np.floor(at)
    taps = _taps(below[there], fraction[there], members[there], missing, len(slopes) * columns)
    lor_index, weight = (a.reshape(len(slopes), columns, -1) for a in taps)
    return ShearFan(slopes[:, None] * middle, lor_index, weight, margin, walked), below, fraction


def _taps(
    below: np.ndarray, fraction: np.ndarray, number: np.ndarray, missing: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lines that read each column, `(column, tap)`, and their weights: the transpose of the interpolation."""
    column = np.concatenate([below, below + 1])
    weight, number = np.concatenate([1 - fraction, fraction]), np.concatenate([number, number])
    order = np.argsort(column, kind="stable")
    column, weight, number = column[order], weight[order], number[order]
    tap = np.arange(len(column)) - np.searchsorted(column, column)
    shape = (columns, int(tap.max(initial=0)) + 1)
    lor_index, weights = np.full(shape, missing, np.int32), np.zeros(shape)
    lor_index[column, tap], weights[column, tap] = number, weight
    return lor_index, weights
