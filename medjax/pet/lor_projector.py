"""Projection along any lines of response, given by their end points: list mode, and scanners that are no cylinders.

    project(system, image)       (x, y, z) → (line,)     Σ over rows of length · bilinear interpolation · time of flight
    backproject(system, values)  (line,) → (x, y, z)     the transpose

Joseph's method, line by line: the same numbers as `projector3d` gives for the same line. Lines are worked off in
blocks that stay in cache; the transpose adds them to the voxels around each crossing.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf
from jaxtyping import Array, Bool, Float, Int

from medjax.errors import DataError
from medjax.pet.gathers import add_up, take, varying
from medjax.pet.grid import Grid
from medjax.pet.linear_pair import linear_pair
from medjax.pet.system import AnyArray

_BLOCK = 65536  # most lines that are worked off at once
_TABLES = 2  # tables that lines are added to side by side


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LorGroup:
    """Lines that run mostly along one axis, in blocks: they cross row r, from the middle, at position + slope · r."""

    position: Float[AnyArray, "*stack block line 2"]  # (across, axial) index of voxels on the middle row
    slope: Float[AnyArray, "*stack block line 2"]
    rows: Float[AnyArray, "*stack block line 2"]  # first and last row between the ends of a line
    tof: (
        Float[AnyArray, "*stack block line 3"] | None
    )  # bin's lower and upper edge on the middle row, change a row; in √2 σ
    index: Int[AnyArray, "*stack block line"]  # number of the line; one past the last: padding
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


def project(system: LorSystem, image: Float[Array, "x y z"]) -> Float[Array, " line"]:
    """Forward projection: line integrals of `image` along the lines, in image units × mm.

    Raises:
        DataError: the image is not of the system's shape.
    """
    if image.shape != system.shape:
        raise DataError(f"image: shape {image.shape}; the system has (x, y, z) = {system.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _project_p.bind(varying(image[..., None], *leaves), *leaves, system=treedef)[..., 0]


def backproject(system: LorSystem, values: Float[Array, " line"]) -> Float[Array, "x y z"]:
    """Back-projection, the transpose of `project`.

    Raises:
        DataError: the values are not one a line.
    """
    if values.shape != system.sinogram_shape:
        raise DataError(f"values: shape {values.shape}; the system has {system.sinogram_shape[0]} lines")
    leaves, treedef = jax.tree.flatten(system)
    return _backproject_p.bind(varying(values[..., None], *leaves), *leaves, system=treedef)[..., 0]


def _project(image: Array, *leaves: Array, system: Any) -> Array:
    geometry: LorSystem = jax.tree.unflatten(system, leaves)
    lanes = image.shape[-1]
    sums = []
    for lines in geometry.groups:
        table = _planes(image, lines.along_x)
        sums.append(lax.map(partial(_sum_rows, table), _operands(lines, image.dtype)).reshape(-1, lanes))
    out = jnp.concatenate(sums)[geometry.row_index]
    return out * jnp.asarray(geometry.length_mm, image.dtype)[:, None]


def _backproject(values: Array, *leaves: Array, system: Any) -> Array:
    geometry: LorSystem = jax.tree.unflatten(system, leaves)
    weighted = values * jnp.asarray(geometry.length_mm, values.dtype)[:, None]
    parts = []
    for lines in geometry.groups:
        own = weighted.at[lines.index].get(mode="fill", fill_value=0)
        nx, ny, nz = geometry.shape
        rows, width = (nx, ny) if lines.along_x else (ny, nx)
        tables = jnp.zeros((_TABLES, rows, width + 2, nz + 2, values.shape[-1]), values.dtype)
        tables, _ = lax.scan(_scatter_rows, varying(tables, values), (_operands(lines, values.dtype), own))
        inner = tables.sum(axis=0)[:, 1:-1, 1:-1]
        parts.append(inner if lines.along_x else jnp.swapaxes(inner, 0, 1))
    return add_up(parts)


def _planes(image: Array, along_x: bool) -> Array:
    """Image as planes (row, across, z, lane) with one voxel of zeros around, which lines beside the image read."""
    rows = image if along_x else jnp.swapaxes(image, 0, 1)
    return jnp.pad(rows, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _operands(lines: LorGroup, dtype: Any) -> tuple[Array, ...]:
    """Position and slope across and along z, first and last row, and time-of-flight edges, each a contiguous array."""
    tables = [a for a in (lines.position, lines.slope, lines.rows, lines.tof) if a is not None]
    return tuple(jnp.asarray(a[..., k], dtype) for a in tables for k in range(a.shape[-1]))


def _crossing(lines: tuple[Array, ...], row: Array, shape: tuple[int, int]) -> tuple[list[Array], list[Array], Array]:
    """Voxel (across, z) below each line's crossing of a row, how far beyond it lies, and the line's weight there."""
    below: list[Array] = []
    beyond: list[Array] = []
    for position, slope, size in zip(lines[:2], lines[2:4], shape, strict=True):
        crossing = jnp.clip(position + slope * row + 1, 0, size - 1)  # with padding, whose voxels are 0
        low = jnp.minimum(jnp.floor(crossing), size - 2)
        below.append(low.astype(jnp.int32))
        beyond.append(crossing - low)
    weight = jnp.where((row >= lines[4]) & (row <= lines[5]), 1.0, 0.0).astype(row.dtype)
    if len(lines) > 6:
        low, high, change = lines[6:]
        weight = weight * (erf(high - change * row) - erf(low - change * row)) / 2
    return below, beyond, weight


def _sum_rows(table: Array, lines: tuple[Array, ...]) -> Array:
    """Sums over rows for a block of lines, `(line, lane)`: one loop over the lines a row, which keeps no index."""
    nrows, width, planes, lanes = table.shape
    flat = table.reshape(nrows, width * planes, *([lanes] if lanes > 1 else []))

    def add_row(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        plane, r = row
        below, beyond, weight = _crossing(lines, r, (width, planes))
        across, axial = (b[:, None] if lanes > 1 else b for b in beyond)
        near = [take(plane, below[0] * planes + below[1] + k) for k in (0, 1, planes, planes + 1)]
        low, high = ((1 - axial) * one + axial * other for one, other in (near[:2], near[2:]))
        value = (1 - across) * low + across * high
        return total + (weight[:, None] if lanes > 1 else weight) * value, None

    start = varying(jnp.zeros((lines[0].shape[0], *flat.shape[2:]), table.dtype), table)
    return lax.scan(add_row, start, (flat, _row_numbers(nrows, table.dtype)))[0].reshape(-1, lanes)


def _scatter_rows(tables: Array, block: tuple[tuple[Array, ...], Array]) -> tuple[Array, None]:
    """The tables with a block of lines added to them, some lines to each, so that they may run at once."""
    lines, values = block
    number, nrows, width, planes, lanes = tables.shape
    flat = tables.reshape(number, nrows, width * planes, *([lanes] if lanes > 1 else []))
    values = values if lanes > 1 else values[:, 0]

    def add_row(_: None, row: tuple[Array, Array]) -> tuple[None, Array]:
        own, r = row
        below, beyond, weight = _crossing(lines, r, (width, planes))
        first, (across, axial) = below[0] * planes + below[1], beyond
        terms = [weight * one * other for one in (1 - across, across) for other in (1 - axial, axial)]
        made = []
        for k in range(number):
            some, plane = slice(k, None, number), own[k]
            for offset, term in zip((0, 1, planes, planes + 1), terms, strict=True):
                update = (term[some, None] if lanes > 1 else term[some]) * values[some]
                at = plane.at[first[some] + offset]
                plane = at.add(update, mode="promise_in_bounds", wrap_negative_indices=False)
            made.append(plane)
        return None, jnp.stack(made)

    rows = (jnp.swapaxes(flat, 0, 1), _row_numbers(nrows, tables.dtype))
    return jnp.swapaxes(lax.scan(add_row, None, rows)[1], 0, 1).reshape(tables.shape), None


def _row_numbers(rows: int, dtype: Any) -> Array:
    return jnp.arange(rows, dtype=dtype) - (rows - 1) / 2


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
    chosen = along[..., 0] >= along[..., 1] if along_x is None else np.asarray(along_x, bool)
    row_index, start = np.zeros(chosen.shape, np.int32), 0
    groups: list[LorGroup] = []
    for walked_along_x in (True, False):
        most = int((chosen == walked_along_x).sum(axis=1).max())
        if not most:
            continue
        size = -(-most // -(-most // _BLOCK))
        members = np.full((len(ends), -(-most // size) * size), ends.shape[1])  # one past the last: padding
        for k, own in enumerate(chosen == walked_along_x):
            numbers = np.flatnonzero(own)
            members[k, : len(numbers)] = numbers[_order(ends[k, numbers])]
            row_index[k, members[k, : len(numbers)]] = start + np.arange(len(numbers))
        position, slope, rows, tof = _crossings(ends, members, grid, walked_along_x, tof_mm, tof_sd_mm)
        blocks = (len(ends), members.shape[1] // size, size)
        position, slope, rows = (a.reshape(*blocks, 2) for a in (position, slope, rows))
        tof = None if tof is None else tof.reshape(*blocks, 3)
        groups.append(LorGroup(position, slope, rows, tof, members.reshape(blocks).astype(np.int32), walked_along_x))
        start += members.shape[1]
    length = np.linalg.norm(ends[..., 1, :] - ends[..., 0, :], axis=-1)
    steps = np.where(chosen, along[..., 0], along[..., 1])
    return jax.device_put(LorSystem(tuple(groups), length / steps, row_index, grid.shape))


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
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
    if tof_mm is None:
        return position, rise * rate[..., None], rows, None
    edges = np.take_along_axis(tof_mm, known[..., None], axis=1)
    length = np.linalg.norm(second - first, axis=-1)
    offset = ((start - 0.5) * length)[..., None]
    sd = np.broadcast_to(np.asarray(tof_sd_mm, float), ends.shape[:2])
    sd = np.take_along_axis(sd, known, axis=1)[..., None]
    tof = np.concatenate([edges - offset, (rate * length)[..., None]], -1) / (np.sqrt(2) * sd)
    return position, rise * rate[..., None], rows, tof


_project_p, _backproject_p = linear_pair("pet_project_lines", (_project, _backproject))
