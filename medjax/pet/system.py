"""System of a projector: lines of response prepared for Joseph's interpolation, organised for contiguous reads.

A line of response that runs mostly along x crosses the image row at x-index i (counted from the middle row) at y-index
`position + slope · i`, and spends `length` mm in it. Joseph's method reads the row there by linear interpolation. Lines
that run mostly along y are the same thing in the image turned by a quarter. A **fan** holds the lines of one
orientation, grouped in views of nearly parallel lines, and serves one or four **symmetric views**, quarter turns
of the image: a ring of crystals is the same after a quarter turn, so one set of indices and weights serves four lines,
and half of the lines (those on one side of the axis) are enough.

For the transpose a voxel must find the lines that pass within one voxel of it. In a view these depend, up to a small
tilt, on one number u = y − mean_slope · i, so a look-up table over cells of u lists these lines of response: the first
one, and the positions and extra slopes of the next `taps` ones. The system of the mMR at 128 × 128 takes 4 MB where its
sparse matrix takes 61.

Source: Joseph, IEEE Transactions on Medical Imaging 1(3), 1982, for the interpolation.
"""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import KDTree

from medjax.errors import ConfigError
from medjax.pet.grid import Grid
from medjax.pet.lor_geometry import (
    Lors,
    along_x,
    by_direction,
    concatenate,
    from_end_points,
    in_voxels,
    inside_ring,
    length_mm,
    views_along_x,
)
from medjax.pet.lor_table import lor_table

AnyArray = Array | np.ndarray  # made by numpy on the host, then moved to the device


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fan:
    """Lines of response of one orientation, in voxels; symmetric view k is the image after `quarter_turns[k]`."""

    position: Float[AnyArray, "*stack view ray"]  # y-index on the middle row
    slope: Float[AnyArray, "*stack view ray"]  # y-index per row
    table: Float[
        AnyArray, "*stack view cell entry"
    ]  # LOR look-up table: number of the first line; `taps` positions; `taps` slopes beyond the mean
    mean_slope: Float[AnyArray, "*stack view"]  # mean over the rays of a view
    lor_index: Int[AnyArray, "*stack view bin symmetric_view"]  # bin of the flat sinogram; one past the last: none
    quarter_turns: tuple[int, ...] = field(metadata={"static": True})
    table_start: float = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class System:
    """System model: lines of response of a slice, image `(x, y, slice)` ↔ sinogram `(view, bin, slice)`."""

    fans: tuple[Fan, ...]
    length_mm: Float[AnyArray, "*stack view bin"]  # length of a line of response in an image row
    row_index: Int[
        AnyArray, "*stack view bin"
    ]  # in the fans' joined output; one past the last: the line misses the image
    inside: Bool[AnyArray, "*stack x y"] | None  # voxels inside the ring; None: all of them
    shape: tuple[int, int] = field(metadata={"static": True})


def build_system(end_points: Float[np.ndarray, "view bin 2 2"], grid: Grid) -> System:
    """System model of these lines of response on the slices of `grid`.

    Quarter-turn symmetry is detected: where it is absent (an oblong grid, odd
    numbers of views) the same matrix is made of two fans without symmetry, and runs slower.

    Args:
        end_points: (x, y) in mm of both ends. Lines of a view that are far from parallel are right, but slower and
            without ordered subsets: they are grouped anew by direction.

    Raises:
        DataError: a line ends inside the image or before it.
    """
    all_lines = from_end_points(end_points, grid)
    by_view = views_along_x(all_lines, grid)
    inside = inside_ring(end_points, grid)

    def masked(system: System) -> System:
        return system if inside is None else replace(system, inside=jax.device_put(inside))

    if by_view is None:
        return masked(_plain(all_lines, along_x(all_lines, grid), grid))
    system = _symmetric(all_lines, by_view, grid)
    return masked(system if system is not None else _plain(all_lines, by_view[:, None], grid))


def subsets(system: System, number: int) -> tuple[System, Int[np.ndarray, "subset view"]]:
    """Subsets: `number` interleaved ones of the views as one system with a leading axis, and the views of each.

    Subset k of the result is `jax.tree.map(lambda a: a[k], stacked)`, with k traced if need be; the same split serves
    ordered subsets and the shards of a device mesh.

    Raises:
        ConfigError: the number of subsets does not divide the views of a fan.
    """
    if number not in (valid := possible_subsets(system)):
        raise ConfigError(
            f"{number} subsets do not divide the views evenly; possible here: {', '.join(map(str, valid))}"
        )
    bins = system.row_index.shape[1]
    parts: list[tuple[list[Fan], np.ndarray]] = []
    views: list[np.ndarray] = []
    for k in range(number):
        fans = [jax.tree.map(lambda a, k=k: np.asarray(a)[k::number], fan) for fan in system.fans]
        rows = np.unique(np.concatenate([fan.lor_index.ravel() for fan in fans]))
        held = np.unique(rows[rows < system.row_index.size] // bins)
        views.append(held)
        parts.append((fans, held))
    if len({len(held) for held in views}) > 1 or sum(map(len, views)) != system.row_index.shape[0]:
        raise ConfigError(
            f"{number} subsets would share views; choose another number, or views of nearly parallel lines"
        )
    stacked = [_subset(system, fans, held) for fans, held in parts]
    return jax.device_put(jax.tree.map(lambda *a: np.stack([np.asarray(b) for b in a]), *stacked)), np.stack(views)


def possible_subsets(system: System) -> list[int]:
    """Numbers of subsets that divide the views of every fan evenly."""
    counts = [fan.position.shape[0] for fan in system.fans]
    return [n for n in range(1, min(counts) + 1) if all(count % n == 0 for count in counts)]


def _subset(system: System, fans: list[Fan], held: np.ndarray) -> System:
    """The system of the views `held`, whose lines are those of `fans`; both maps between rows are made anew."""
    bins = system.row_index.shape[1]
    rank = np.full(system.row_index.shape[0] + 1, len(held))
    rank[held] = np.arange(len(held))
    renamed = []
    for fan in fans:
        missing = fan.lor_index >= system.row_index.size
        view, bin_ = np.divmod(fan.lor_index, bins)
        renamed.append(
            replace(fan, lor_index=np.where(missing, len(held) * bins, rank[view] * bins + bin_).astype(np.int32))
        )
    rows = _row_index(renamed, (len(held), bins))
    return System(tuple(renamed), np.asarray(system.length_mm)[held], rows, system.inside, system.shape)


def _row_index(fans: list[Fan], sinogram: tuple[int, int]) -> np.ndarray:
    """Where each bin lies among the fans' output rows, from where each fan's bins lie in the sinogram."""
    total = sum(fan.position.size * len(fan.quarter_turns) for fan in fans)
    row_index = np.full(int(np.prod(sinogram)) + 1, total, np.int32)
    start = 0
    for fan in fans:
        views, rays = fan.position.shape
        symmetric_views = len(fan.quarter_turns)
        forward = np.asarray(fan.lor_index)[:, -rays:]  # the forward pass walks the last rays of the table's bins
        row_index[forward.ravel()] = start + np.arange(views * rays * symmetric_views)
        start += views * rays * symmetric_views
    return row_index[:-1].reshape(sinogram)


def _reach_mm(grid: Grid) -> float:
    """Lines farther than this from the axis touch no voxel."""
    (nx, ny, _), (vx, vy, _) = grid.shape, grid.voxel_mm
    return float(np.hypot((nx + 1) / 2 * vx, (ny + 1) / 2 * vy))


def _sorted(selected: Lors) -> Lors:
    """Each view's lines in order of where they cross the middle row."""
    order = np.argsort(selected.offset / selected.sin, axis=1)
    return Lors(*(np.take_along_axis(a, order, axis=1) for a in (selected.cos, selected.sin, selected.offset)))


def _match(wanted: Lors, among: Lors) -> np.ndarray:
    """Index of each wanted line among the others (flattened); their number where there is none."""
    distance, index = KDTree(among.key()).query(wanted.key(), distance_upper_bound=1e-5)
    return np.where(np.isfinite(distance), index, among.offset.size).reshape(wanted.offset.shape)


def _symmetric(all_lines: Lors, along_x: np.ndarray, grid: Grid) -> System | None:
    """One fan of four symmetric views, or None where the lines or the grid lack the symmetry."""
    (nx, ny, _), (vx, vy, _) = grid.shape, grid.voxel_mm
    if nx != ny or vx != vy or 2 * along_x.sum() != len(along_x):
        return None
    half = _upper_half(_sorted(all_lines[along_x]), _reach_mm(grid))
    if half is None:
        return None
    centered = bool(np.all(np.abs(half.offset[:, 0]) < 1e-6))
    mirrored = Lors(half.cos, half.sin, -half.offset)[:, int(centered) :][:, ::-1]
    whole = concatenate([mirrored, half])
    lor_index = np.stack([_match(whole.rotate(k), all_lines) for k in range(4)], axis=-1)
    fan = _fan(half, whole, lor_index, (0, 1, 2, 3), grid.shape[:2], (vx, vy))
    row_index = _row_index([fan], all_lines.offset.shape)
    reached = np.abs(all_lines.offset) < _reach_mm(grid)
    if np.any(row_index[reached] == fan.position.size * 4):
        return None
    length = jax.device_put(length_mm(all_lines, along_x[:, None], grid))
    return System((_on_device(fan),), length, jax.device_put(row_index), None, grid.shape[:2])


def _upper_half(views: Lors, reach: float) -> Lors | None:
    """Each view's lines at or above the axis (those below, mirrored, if more); None if views differ in number."""
    sign = np.sign(views.sin)  # crossing = offset / sin: above the axis where both have one sign
    crossing = views.offset * sign
    above = (crossing > -1e-6) & (crossing < reach)
    below = (crossing < 1e-6) & (crossing > -reach)
    use_below = below.sum() > above.sum()
    chosen = below if use_below else above
    number = chosen.sum(axis=1)
    if number[0] == 0 or np.any(number != number[0]):
        return None
    keep = Lors(*(a[chosen].reshape(len(number), -1) for a in (views.cos, views.sin, views.offset)))
    return Lors(keep.cos, keep.sin, -keep.offset)[:, ::-1] if use_below else keep


def _plain(all_lines: Lors, along_x: np.ndarray, grid: Grid) -> System:
    """Two fans without symmetry: lines along x on the image, lines along y on the image turned by a quarter.

    `along_x` holds for views (one column) or for every line.
    """
    index = np.arange(all_lines.offset.size).reshape(all_lines.offset.shape)
    fans = []
    for turn, members in ((0, along_x), (1, ~along_x)):
        if not members.any():
            continue
        (nx, ny, _), (vx, vy, _) = grid.shape, grid.voxel_mm
        shape, voxel_mm = ((ny, nx), (vy, vx)) if turn else ((nx, ny), (vx, vy))
        if members.shape[1] == 1:
            chosen, numbers = all_lines[members[:, 0]].rotate(-turn), index[members[:, 0]]
        else:
            chosen, numbers = by_direction(all_lines[members].rotate(-turn), index[members], index.size, shape[0])
        order = np.argsort(chosen.offset / chosen.sin, axis=1)
        seen = np.flatnonzero(np.any(np.abs(np.take_along_axis(chosen.offset, order, 1)) < _reach_mm(grid), axis=0))
        order = order[:, seen.min() : seen.max() + 1] if seen.size else order[:, :1]
        take = [np.take_along_axis(a, order, axis=1) for a in (chosen.cos, chosen.sin, chosen.offset, numbers)]
        rays = Lors(*take[:3])
        fans.append(_fan(rays, rays, take[3][..., None], (turn,), shape, voxel_mm))
    length, row_index = length_mm(all_lines, along_x, grid), _row_index(fans, all_lines.offset.shape)
    return System(tuple(map(_on_device, fans)), jax.device_put(length), jax.device_put(row_index), None, grid.shape[:2])


def _fan(
    rays: Lors,
    bins: Lors,
    lor_index: np.ndarray,
    quarter_turns: tuple[int, ...],
    shape: tuple[int, int],
    voxel_mm: tuple[float, float],
) -> Fan:
    """A fan from its forward `rays`, the last ones of `bins`, and all lines `bins` of the look-up table."""
    position, slope = in_voxels(rays, shape, voxel_mm)
    bin_position, bin_slope = in_voxels(bins, shape, voxel_mm)
    table, mean_slope, table_start = lor_table(
        bin_position, bin_slope, shape, 0.0 if len(quarter_turns) == 4 else -(shape[0] - 1) / 2
    )
    return Fan(position, slope, table, mean_slope, lor_index.astype(np.int32), quarter_turns, table_start)


def _on_device(fan: Fan) -> Fan:
    return jax.device_put(fan)
