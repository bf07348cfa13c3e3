"""Projection along any lines of response, given by their end points: list mode, and scanners that are no cylinders.

    project(system, image)       (x, y, z) → (line,)     Σ over rows of length · bilinear interpolation · time of flight
    backproject(system, values)  (line,) → (x, y, z)     the transpose

Joseph's method, line by line: the same numbers as `projector3d` gives for the same line. Lines are worked off in
blocks that stay in cache; the transpose adds them to the voxels around each crossing.

The numbers of the voxels around the crossings of a row are found while the row before it is worked off: carried from
row to row, they are written down once, by a loop over vectors. XLA:CPU would otherwise compute them anew, one by one,
at each voxel that they lead to.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erf
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.pet.gathers import add_up, take, varying
from medjax.pet.linear_pair import linear_pair
from medjax.pet.lor_system import LorGroup, LorSystem
from medjax.pet.system import AnyArray

_PADDING = (1, 2)  # voxels of zeros before and after the image's, so that one below a crossing and the next one exist


class _Block(NamedTuple):
    """Lines `(part, line)`, each number of theirs a contiguous array: see `LorGroup`."""

    position: tuple[Array, ...]
    slope: tuple[Array, ...]
    rows: tuple[Array, ...] | None
    tof: tuple[Array, ...] | None


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
    """(x, y, z, lane) → (line, lane)."""
    geometry: LorSystem = jax.tree.unflatten(system, leaves)
    lanes = image.shape[-1]
    sums = []
    for lines in geometry.groups:
        rows = image if lines.along_x else jnp.swapaxes(image, 0, 1)
        table = jnp.pad(rows, ((0, 0), _PADDING, _PADDING, (0, 0)))
        sums.append(lax.map(partial(_sum_rows, table), _blocks(lines, image.dtype)).reshape(-1, lanes))
    out = jnp.concatenate(sums)[geometry.row_index]
    return out * jnp.asarray(geometry.length_mm, image.dtype)[:, None]


def _backproject(values: Array, *leaves: Array, system: Any) -> Array:
    """(line, lane) → (x, y, z, lane)."""
    geometry: LorSystem = jax.tree.unflatten(system, leaves)
    weighted = values * jnp.asarray(geometry.length_mm, values.dtype)[:, None]
    sums = []
    for lines in geometry.groups:
        own = weighted.at[lines.index].get(mode="fill", fill_value=0)
        nx, ny, nz = geometry.shape
        rows, width, planes = nx if lines.along_x else ny, (ny if lines.along_x else nx) + sum(_PADDING), nz + 3
        tables = jnp.zeros((lines.index.shape[1], rows, width * planes, values.shape[-1]), values.dtype)
        add = partial(_scatter_rows, (width, planes))
        tables, _ = lax.scan(add, varying(tables, values), (_blocks(lines, values.dtype), own))
        before, after = _PADDING
        inner = tables.sum(axis=0).reshape(rows, width, planes, -1)[:, before:-after, before:-after]
        sums.append(inner if lines.along_x else jnp.swapaxes(inner, 0, 1))
    return add_up(sums)


def _blocks(lines: LorGroup, dtype: Any) -> _Block:
    def apart(a: AnyArray) -> tuple[Array, ...]:
        return tuple(jnp.moveaxis(jnp.asarray(a, dtype), -1, 0))

    rows, tof = (None if a is None else apart(a) for a in (lines.rows, lines.tof))
    return _Block(apart(lines.position), apart(lines.slope), rows, tof)


def _crossing(lines: _Block, row: Array, shape: tuple[int, int]) -> tuple[list[Array], list[Array]]:
    """Voxel (across, z) below each line's crossing of a row, in planes of this padded shape, and how far beyond it."""
    below: list[Array] = []
    beyond: list[Array] = []
    for position, slope, size in zip(lines.position, lines.slope, shape, strict=True):
        crossing = jnp.clip(position + slope * row + _PADDING[0], 0, size - 2)
        below.append(jnp.floor(crossing))
        beyond.append(crossing - below[-1])
    return below, beyond


def _find(lines: _Block, row: Array, shape: tuple[int, int]) -> tuple[Array, Array | None]:
    """Number of the voxel below each crossing in a flat plane, and the line's weight in the row; None: 1."""
    below, _ = _crossing(lines, row, shape)
    number, weight = (below[0] * shape[1] + below[1]).astype(jnp.int32), None
    if lines.tof is not None:
        low, high, change = lines.tof
        weight = (erf(high - change * row) - erf(low - change * row)) / 2
    if lines.rows is not None:
        first, last = lines.rows
        weight = jnp.where((row >= first) & (row <= last), 1.0 if weight is None else weight, 0.0).astype(row.dtype)
    return number, weight


def _sum_rows(table: Array, lines: _Block) -> Array:
    """Sums over rows for a block of lines, `(part, line, lane)`."""
    nrows, width, planes, lanes = table.shape
    flat = table.reshape(nrows, width * planes, *([lanes] if lanes > 1 else []))
    rows = _row_numbers(nrows, table.dtype)
    find = partial(_find, lines, shape=(width, planes))

    def lane(a: Array) -> Array:
        return a[..., None] if lanes > 1 else a

    def add_row(carry: Any, row: tuple[Array, Array]) -> tuple[Any, None]:
        (total, (number, weight)), (plane, r) = carry, row
        across, axial = (lane(one) for one in _crossing(lines, r, (width, planes))[1])
        near = [take(plane, number + k) for k in (0, 1, planes, planes + 1)]
        low, high = (one + axial * (other - one) for one, other in (near[:2], near[2:]))
        value = low + across * (high - low)
        return (total + (value if weight is None else lane(weight) * value), find(r + 1)), None

    start = jnp.zeros((*lines.position[0].shape, *flat.shape[2:]), table.dtype)
    start = jax.tree.map(lambda a: varying(a, table), (start, find(rows[0])))
    total, _ = lax.scan(add_row, start, (flat, rows))[0]
    return total.reshape(*total.shape[:2], lanes)


def _scatter_rows(shape: tuple[int, int], tables: Array, block: tuple[_Block, Array]) -> tuple[Array, None]:
    """Tables `(part, row, across · z, lane)` with a block of lines added, the parts side by side.

    A line adds to two neighbours along z at once, twice: across the slice they lie on both sides of it.
    """
    lines, values = block
    number_of_parts, lanes = tables.shape[0], tables.shape[-1]
    rows = _row_numbers(tables.shape[1], tables.dtype)
    flat, values = (a if lanes > 1 else a[..., 0] for a in (jnp.swapaxes(tables, 0, 1), values))
    find = partial(_find, lines, shape=shape)
    windows = lax.ScatterDimensionNumbers(tuple(range(1, flat.ndim - 1)), (), (0,))

    def lane(a: Array) -> Array:
        return a[..., None] if lanes > 1 else a

    def add_row(found: Any, row: tuple[Array, Array]) -> tuple[Any, Array]:
        (number, weight), (planes, r) = found, row
        _, (across, axial) = _crossing(lines, r, shape)
        value = values if weight is None else lane(weight) * values
        made = []
        for k in range(number_of_parts):
            plane = planes[k]
            pair = lane(jnp.stack([1 - axial[k], axial[k]], axis=1)) * value[k][:, None]
            for offset, share in ((0, 1 - across[k]), (shape[1], across[k])):
                update = lane(share[:, None]) * pair
                plane = lax.scatter_add(
                    plane, (number[k] + offset)[:, None], update, windows,
                    mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
                )  # fmt: skip
            made.append(plane)
        return find(r + 1), jnp.stack(made)

    start = jax.tree.map(lambda a: varying(a, values), find(rows[0]))
    added = lax.scan(add_row, start, (flat, rows))[1]
    return jnp.swapaxes(added, 0, 1).reshape(tables.shape), None


def _row_numbers(rows: int, dtype: Any) -> Array:
    return jnp.arange(rows, dtype=dtype) - (rows - 1) / 2


_project_p, _backproject_p = linear_pair("pet_project_lines", (_project, _backproject))
