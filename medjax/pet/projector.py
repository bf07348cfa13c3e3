"""Projection and back-projection: line integrals in mm of a slice stack, and their exact transpose.

    project(system, image)        (x, y, slice) → (view, bin, slice)     Σ over rows of length · linear interpolation
    backproject(system, sinogram) (view, bin, slice) → (x, y, slice)     the transpose, as a gather: no scatter anywhere

Both are one linear primitive and its transpose, so either can be differentiated any number of times in either
direction (the derivative of one is the other), and a vmapped axis is folded into the slice axis. Nothing is jitted
here, no matrix is stored, and `shard_map` over the leading axis of `system.subsets` splits the views over devices.

What makes it fast on a CPU: slices and symmetric views are contiguous, so one index fetches a row of them; the
transpose gathers by the LOR look-up table; the loop carries the next step's indices and weights, since XLA:CPU would
otherwise recompute them for every slice; reads are made safe by weights of 0, not by bounds checks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from medjax.errors import DataError
from medjax.pet.gathers import add_up, pipeline, take, take_or_zero, take_slices, varying
from medjax.pet.linear_pair import linear_pair
from medjax.pet.lor_table import CELL_WIDTH
from medjax.pet.system import Fan, System

_ROWS_A_STEP = 4  # image rows fused in one step of the projection
_SLICES_A_PASS = 64  # slices that are projected at once, to stay in cache


def project(system: System, image: Float[Array, "x y slice"]) -> Float[Array, "view bin slice"]:
    """Forward projection: line integrals of `image` along the lines of response of `system`, in image units × mm.

    Raises:
        DataError: the image is not of the system's shape (its reads are not bounds-checked).
    """
    if image.shape[:2] != system.shape:
        raise DataError(f"image: shape {image.shape}; the system has (x, y) = {system.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _project_p.bind(varying(image, *leaves), *leaves, system=treedef)


def backproject(system: System, sinogram: Float[Array, "view bin slice"]) -> Float[Array, "x y slice"]:
    """Back-projection, the transpose of `project`: each voxel sums sinogram × length (mm) over its lines of response.

    Raises:
        DataError: the sinogram is not of the system's shape.
    """
    if sinogram.shape[:2] != system.row_index.shape:
        raise DataError(f"sinogram: shape {sinogram.shape}; the system has (view, bin) = {system.row_index.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _backproject_p.bind(varying(sinogram, *leaves), *leaves, system=treedef)


def _project(image: Array, *leaves: Array, system: Any) -> Array:
    geometry: System = jax.tree.unflatten(system, leaves)
    return _in_passes(partial(_project_slices, geometry), image)


def _backproject(sinogram: Array, *leaves: Array, system: Any) -> Array:
    geometry: System = jax.tree.unflatten(system, leaves)
    return _in_passes(partial(_backproject_slices, geometry), sinogram)


def _in_passes(apply: Callable[[Array], Array], stack: Array) -> Array:
    """`apply` over the last axis, at most `_SLICES_A_PASS` at a time so that a pass stays in cache."""
    slices = stack.shape[-1]
    passes = -(-slices // _SLICES_A_PASS)
    if passes == 1:
        return apply(stack)
    width = -(-slices // passes)
    padded = jnp.pad(stack, ((0, 0), (0, 0), (0, passes * width - slices)))
    split = jnp.moveaxis(padded.reshape(*stack.shape[:2], passes, width), 2, 0)
    joined = jnp.moveaxis(lax.map(apply, split), 0, 2)
    return joined.reshape(*joined.shape[:2], -1)[..., :slices]


def _project_slices(system: System, image: Array) -> Array:
    image, slices = within_ring(system, image), image.shape[-1]
    rows = [_fan_project(fan, image).reshape(-1, slices) for fan in system.fans]
    sinogram = take_or_zero(rows[0] if len(rows) == 1 else jnp.concatenate(rows), system.row_index)
    return sinogram * system.length_mm.astype(image.dtype)[..., None]


def _backproject_slices(system: System, sinogram: Array) -> Array:
    parts = [
        _fan_backproject(fan, sinogram * system.length_mm.astype(sinogram.dtype)[..., None], system.shape)
        for fan in system.fans
    ]
    return within_ring(system, add_up(parts))


def within_ring(system: System, image: Array) -> Array:
    """The image, with zeros in voxels (x, y) that do not lie inside the ring."""
    if system.inside is None:
        return image
    return jnp.where(system.inside.reshape(system.shape + (1,) * (image.ndim - 2)), image, 0)


def _fan_project(fan: Fan, image: Array) -> Array:
    """Each symmetric view's sum over rows: `(view, ray, symmetric view, slice)`."""
    dtype = image.dtype
    position, slope = jnp.asarray(fan.position, dtype), jnp.asarray(fan.slope, dtype)
    images = jnp.stack([jnp.rot90(image, -turn) for turn in fan.quarter_turns], axis=2)
    nrows, width = images.shape[:2]
    steps = -(-nrows // _ROWS_A_STEP)
    if nrows % _ROWS_A_STEP:
        images = jnp.pad(images, ((0, steps * _ROWS_A_STEP - nrows), (0, 0), (0, 0), (0, 0)))
    table = images.reshape(steps, _ROWS_A_STEP * width, -1)
    row_start = width * jnp.arange(_ROWS_A_STEP)[:, None, None]

    def prepare(step: Array) -> tuple[Array, Array, Array]:
        row = (step * _ROWS_A_STEP + jnp.arange(_ROWS_A_STEP)).astype(dtype)[:, None, None] - (nrows - 1) / 2
        crossing = position[None] + slope[None] * row
        below = jnp.clip(jnp.floor(crossing), 0, width - 2)  # both neighbours exist; outside, both weights are 0
        return table[step], below.astype(jnp.int32) + row_start, crossing - below

    def accumulate(total: Array, prepared: tuple[Array, Array, Array]) -> Array:
        rows, below, beyond = prepared
        for r in range(_ROWS_A_STEP):
            first, second = (jnp.maximum(0, 1 - jnp.abs(beyond[r] - k))[..., None] for k in range(2))
            total = total + (first * take(rows, below[r]) + second * take(rows, below[r] + 1))
        return total

    total = jnp.zeros((*position.shape, table.shape[-1]), dtype)
    return pipeline((prepare,), accumulate, varying(total, image), steps)


def _fan_backproject(fan: Fan, sinogram: Array, shape: tuple[int, int]) -> Array:
    """Back-projection of the fan's lines of response.

    With four symmetric views only half of the image rows are computed: views two quarter turns apart hold each other's
    other half.
    """
    symmetric = len(fan.quarter_turns) == 4
    rows, width = shape if fan.quarter_turns[0] % 2 == 0 else shape[::-1]
    row = jnp.arange(rows // 2 if symmetric else 0, rows) - (rows - 1) / 2
    selected = take_or_zero(sinogram.reshape(-1, sinogram.shape[-1]), fan.lor_index)
    views, bins, symmetric_views, slices = selected.shape
    out = _gather_lines(fan, selected.reshape(views, bins, -1), row, width).reshape(-1, width, symmetric_views, slices)
    if not symmetric:
        return jnp.rot90(out[:, :, 0], fan.quarter_turns[0])
    whole = [jnp.concatenate([jnp.rot90(out[:, :, k + 2], 2)[: rows // 2], out[:, :, k]]) for k in range(2)]
    return whole[0] + jnp.rot90(whole[1])


def _gather_lines(fan: Fan, selected: Array, row: Array, width: int) -> Array:
    """Σ over views and lines of the table of max(0, 1 − |crossing − y|) · line: `(row, y, symmetric view · slice)`."""
    dtype = selected.dtype
    views, bins = selected.shape[:2]
    cells, entries = fan.table.shape[1:]
    taps = (entries - 1) // 2
    together = next(n for n in (2, 3, 1) if views % n == 0)
    steps = views // together
    lines = selected.reshape(steps, together * bins, -1)
    table = fan.table.astype(dtype).reshape(steps, together * cells, entries)
    mean_slope = fan.mean_slope.astype(dtype).reshape(steps, together, 1, 1)
    view = jnp.arange(together)[:, None, None]
    x, y = row.astype(dtype)[None, :, None], jnp.arange(width, dtype=dtype)[None, None]

    def find_cell(step: Array) -> Array:
        return table_cell(y - mean_slope[step] * x, fan.table_start) + view * cells

    def prepare(step: Array, cell: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        first, weights = lors_near(take_slices(table[step], cell), y - mean_slope[step] * x, x)
        return lines[step], first + view * bins, weights

    def accumulate(total: Array, prepared: tuple[Array, Array, tuple[Array, ...]]) -> Array:
        rows, first, weights = prepared
        for v in range(together):
            terms = [weights[k][v][..., None] * take(rows, first[v] + k) for k in range(taps)]
            total = total + add_up(terms)
        return total

    total = jnp.zeros((row.shape[0], width, selected.shape[2]), dtype)
    return pipeline((find_cell, prepare), accumulate, varying(total, selected), steps)


def table_cell(u: Array, start: float) -> Int[Array, "..."]:
    """Cell of the LOR look-up table that holds the number u = y − mean_slope · row of a point of the image."""
    return jnp.floor((u - 1 - start) / CELL_WIDTH).astype(jnp.int32)


def lors_near(entry: Float[Array, "... entry"], u: Array, row: Array) -> tuple[Array, tuple[Array, ...]]:
    """First of the lines that an entry of the table lists, and the weight max(0, 1 − |crossing − y|) of each."""
    taps = (entry.shape[-1] - 1) // 2
    distance = [entry[..., 1 + k] + entry[..., 1 + taps + k] * row - u for k in range(taps)]
    return entry[..., 0].astype(jnp.int32), tuple(jnp.maximum(0, 1 - jnp.abs(d)) for d in distance)


_project_p, _backproject_p = linear_pair("pet_project", (_project, _backproject))
