"""Projection and back-projection in 3-D: line integrals in mm through a volume for all planes, and the exact transpose.

    project(system, image)        (x, y, z) → (view, bin, plane)     Σ over rows of length · bilinear interpolation
    backproject(system, sinogram) (view, bin, plane) → (x, y, z)     the transpose, as gathers

Joseph's method in two passes a row: interpolation across the slice, once for all planes, makes an axial line of each
line of response; each segment then reads that line at its own shift, as contiguous planes. The transpose runs the same
passes backwards: all segments add up to axial lines, which the voxels gather. One linear primitive and its transpose,
as in `projector`: differentiable in both modes, and a batch of images is carried side by side.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.pet.axial import (
    axial_shift,
    axial_sums,
    bin_probabilities,
    line_planes,
    padded_size,
    plane_numbers,
    plane_offset,
    split_planes,
    window_starts,
    windows,
)
from medjax.pet.gathers import add_up, pipeline, take, take_or_zero, take_slices, varying
from medjax.pet.linear_pair import linear_pair
from medjax.pet.projector import lors_near, table_cell, within_ring
from medjax.pet.system import Fan
from medjax.pet.system3d import AxialFan, Bundle, System3D

_ROWS_A_STEP = 4  # image rows fused in one step of the projection
_VIEWS_A_BLOCK = 4  # views that are projected at once, where that divides them
_ROWS_A_BLOCK = 16  # image rows that are back-projected at once
_VALUES_A_BLOCK = 2**21  # of a sinogram's values, padding included, those that are prepared at once (8 MiB)
_FEWEST_VIEWS = 3  # views prepared at once even where they have more, since each time takes a pass over the image


def project(system: System3D, image: Float[Array, "x y z"]) -> Float[Array, "view bin plane *tof"]:
    """Forward projection: line integrals of `image` along the lines of response of `system`, in image units × mm.

    With time of flight, each bin has the integral of the image times the bin's probability.

    Raises:
        DataError: the image is not of the system's shape (its reads are not bounds-checked).
    """
    if image.shape != system.shape:
        raise DataError(f"image: shape {image.shape}; the system has (x, y, z) = {system.shape}")
    leaves, treedef = jax.tree.flatten(system)
    sinogram = _project_p.bind(varying(image[..., None], *leaves), *leaves, system=treedef)[..., 0]
    return sinogram[..., 0] if system.tof is None else sinogram


def backproject(system: System3D, sinogram: Float[Array, "view bin plane *tof"]) -> Float[Array, "x y z"]:
    """Back-projection, the transpose of `project`: each voxel sums sinogram × length (mm) over its lines of response.

    Raises:
        DataError: the sinogram is not of the system's shape.
    """
    if sinogram.shape != system.sinogram_shape:
        raise DataError(f"sinogram: shape {sinogram.shape}; the system has {system.sinogram_shape}")
    leaves, treedef = jax.tree.flatten(system)
    bins = sinogram if system.tof is not None else sinogram[..., None]
    return _backproject_p.bind(varying(bins[..., None], *leaves), *leaves, system=treedef)[..., 0]


def _project(image: Array, *leaves: Array, system: Any) -> Array:
    """(x, y, z, lane) → (view, bin, plane, tof, lane)."""
    geometry: System3D = jax.tree.unflatten(system, leaves)
    transaxial = geometry.transaxial
    image = within_ring(transaxial, image)
    rows = []
    for fan, axial in zip(transaxial.fans, geometry.axial, strict=True):
        planes = _fan_project(geometry, fan, axial, image)  # (view, ray, plane, tof, symmetric view, lane)
        views, rays, _, _, symmetric, _ = planes.shape
        swapped = jnp.asarray(axial.swapped)[:, -rays:, None, None, :, None]
        planes = jnp.where(swapped, planes[:, :, geometry.mirrored, ::-1], planes)
        planes = jnp.moveaxis(planes, 4, 2)
        rows.append(planes.reshape(views * rays * symmetric, *planes.shape[3:]))
    sinogram = take_or_zero(rows[0] if len(rows) == 1 else jnp.concatenate(rows), transaxial.row_index)
    return sinogram * _length_mm(geometry, image.dtype)[..., None, None]


def _backproject(sinogram: Array, *leaves: Array, system: Any) -> Array:
    """(view, bin, plane, tof, lane) → (x, y, z, lane)."""
    geometry: System3D = jax.tree.unflatten(system, leaves)
    parts = [
        _fan_backproject(geometry, fan, axial, sinogram)
        for fan, axial in zip(geometry.transaxial.fans, geometry.axial, strict=True)
    ]
    return within_ring(geometry.transaxial, add_up(parts))


def _length_mm(system: System3D, dtype: Any) -> Array:
    """Length in mm that each line of response spends in one row of the image: longer the more it rises."""
    chord, rise = jnp.asarray(system.chord_mm, dtype), jnp.asarray(system.rise_mm, dtype)
    tilt = jnp.sqrt(1 + (rise[None, None] / chord[..., None]) ** 2)
    return tilt * jnp.asarray(system.transaxial.length_mm, dtype)[..., None]


def _fan_project(system: System3D, fan: Fan, axial: AxialFan, image: Array) -> Array:
    """Each symmetric view's sum over rows: `(view, ray, plane, tof, symmetric view, lane)`."""
    dtype = image.dtype
    images = jnp.stack([lax.optimization_barrier(jnp.rot90(image, -turn)) for turn in fan.quarter_turns], axis=3)
    nrows, width = images.shape[:2]
    lanes = images.shape[3] * images.shape[4]
    steps = -(-nrows // _ROWS_A_STEP)
    images = jnp.pad(images, ((0, steps * _ROWS_A_STEP - nrows), (0, 0), system.padding, (0, 0), (0, 0)))
    table = split_planes(system, images.reshape(steps * _ROWS_A_STEP, width, -1, lanes))
    table = table.reshape(steps * _ROWS_A_STEP * width, -1)
    views, rays = fan.position.shape
    together = next(n for n in (_VIEWS_A_BLOCK, 3, 2, 1) if views % n == 0)
    lines = (
        *(jnp.asarray(a, dtype) for a in (fan.position, fan.slope)),
        *(jnp.asarray(a, dtype)[:, -rays:] for a in (axial.middle, axial.slope, axial.chord_mm)),
    )
    project_block = partial(_project_views, system, table, (nrows, width, lanes))
    out = lax.map(project_block, tuple(a.reshape(-1, together, rays) for a in lines))
    # each out: (block, tof, view, ray, segment, plane · lane)
    by_bundle = [jnp.moveaxis(a, 1, -1).reshape(views, rays, -1, lanes, a.shape[1]) for a in out]
    joined = jnp.concatenate(by_bundle, axis=2)[:, :, system.plane_index]
    return jnp.moveaxis(joined, -1, -2).reshape(*joined.shape[:3], -1, *images.shape[3:])


def _project_views(
    system: System3D, table: Array, sizes: tuple[int, int, int], lines: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Sums over rows for some views: `(tof, view, ray, segment, plane · lane)` of each bundle of segments."""
    position, slope, middle, rise, chord = lines
    nrows, width, lanes = sizes
    steps, length = table.shape[0] // (_ROWS_A_STEP * width), table.shape[1]
    row_start = width * jnp.arange(_ROWS_A_STEP)[:, None, None]
    line_start = length * jnp.arange(position.size).reshape(position.shape)[..., None]
    dtype = table.dtype

    def find(step: Array) -> Any:
        row = (step * _ROWS_A_STEP + jnp.arange(_ROWS_A_STEP)).astype(dtype)[:, None, None] - (nrows - 1) / 2
        crossing = position[None] + slope[None] * row
        below = jnp.clip(jnp.floor(crossing), 0, width - 2)  # both neighbours exist; outside, both weights are 0
        f = middle[None] + rise[None] * row
        reads = []
        for bundle in system.bundles:
            start, beyond = axial_shift(bundle, f)
            starts = tuple(line_start[None] + lanes * plane_offset(system, start + k) for k in range(2))
            reads.append((starts, beyond, bin_probabilities(system, bundle, f, chord[None])))
        return below.astype(jnp.int32) + row_start + step * (_ROWS_A_STEP * width), crossing - below, reads

    def interpolate(row: tuple[Array, Array]) -> Array:
        below, beyond = row
        first, second = (jnp.maximum(0, 1 - jnp.abs(beyond - k))[..., None] for k in range(2))
        return first * take(table, below) + second * take(table, below + 1)

    def read(bundle: Bundle, line: Array, start: Any, beyond: Array) -> Array:
        low, high = (windows(line.reshape(-1), one, bundle.planes.shape[1] * lanes) for one in start)
        return (1 - beyond)[..., None] * low + beyond[..., None] * high

    def accumulate(totals: Any, found: Any) -> Any:
        below, beyond, reads = found
        line = lax.map(interpolate, (below, beyond))  # a loop writes it down; fused, it would be computed for each read
        new = []
        for total, bundle, (starts, parts, weights) in zip(totals, system.bundles, reads, strict=True):
            if weights is None:
                rows = [read(bundle, line[r], [s[r] for s in starts], parts[r]) for r in range(_ROWS_A_STEP)]
                new.append(total + add_up(rows)[None])
                continue
            values = lax.map(lambda row, bundle=bundle: read(bundle, *row), (line, starts, parts))
            terms = [jnp.moveaxis(weights[r], -1, 0)[..., None] * values[r][None] for r in range(_ROWS_A_STEP)]
            new.append(total + add_up(terms))
        return tuple(new)

    bins = 1 if system.tof is None else system.tof.edges_mm.shape[0] - 1
    totals = tuple(
        varying(jnp.zeros((bins, *position.shape, len(b.planes), b.planes.shape[1] * lanes), dtype), table)
        for b in system.bundles
    )
    return pipeline((find,), accumulate, totals, steps)


def _fan_backproject(system: System3D, fan: Fan, axial: AxialFan, sinogram: Array) -> Array:
    """Back-projection of the fan's lines of response; with four symmetric views, half of the rows: see `projector`."""
    symmetric = len(fan.quarter_turns) == 4
    shape = system.transaxial.shape
    nrows, width = shape if fan.quarter_turns[0] % 2 == 0 else shape[::-1]
    row = jnp.arange(nrows // 2 if symmetric else 0, nrows) - (nrows - 1) / 2
    out = _gather_lines(system, fan, axial, sinogram, row, width)
    out = out.reshape(-1, width, system.image_planes, len(fan.quarter_turns), sinogram.shape[-1])
    if not symmetric:
        return jnp.rot90(out[:, :, :, 0], fan.quarter_turns[0])
    half = nrows // 2
    whole = [jnp.concatenate([jnp.rot90(out[:, :, :, k + 2], 2)[:half], out[:, :, :, k]]) for k in range(2)]
    return whole[0] + jnp.rot90(whole[1])


def _gather_lines(system: System3D, fan: Fan, axial: AxialFan, sinogram: Array, row: Array, width: int) -> Array:
    """Voxels `(row, y, z, lane)` from `(view, bin, plane, tof, lane)`, some views and some rows at a time."""
    dtype = sinogram.dtype
    views, bins, turns = fan.lor_index.shape
    lanes = turns * sinogram.shape[-1]
    length = -(-system.image_planes // system.parts)
    rows, blocks = _ROWS_A_BLOCK, -(-len(row) // _ROWS_A_BLOCK)
    filled = jnp.pad(row.astype(dtype), (0, blocks * rows - len(row))).reshape(blocks, rows)
    numbers = plane_numbers(system, length)
    together = _views_a_block(system, views, bins * lanes * sinogram.shape[-2], length)
    arrays = (fan.table, fan.mean_slope, axial.middle, axial.slope, axial.chord_mm)
    split = [jnp.asarray(a, dtype) for a in arrays] + [jnp.asarray(fan.lor_index), jnp.asarray(axial.swapped)]

    def add_views(totals: tuple[Array, ...], own: list[Array]) -> tuple[tuple[Array, ...], None]:
        *geometry, lor_index, swapped = own
        padded = line_planes(system, sinogram, numbers, (lor_index, swapped, geometry[-1]))
        add = partial(_gather_views, system, (width, length, fan.table_start), geometry, padded)
        return lax.map(lambda block: add(*block), (filled, totals)), None

    zeros = varying(jnp.zeros((blocks, rows, width, length * lanes), dtype), sinogram)
    blocked = [a.reshape(-1, together, *a.shape[1:]) for a in split]
    out, _ = lax.scan(add_views, (zeros,) * system.parts, blocked)
    joined = jnp.stack([part.reshape(-1, width, length, lanes) for part in out], axis=3)
    return joined.reshape(-1, width, system.parts * length, lanes)[: len(row), :, : system.image_planes]


def _views_a_block(system: System3D, views: int, size: int, length: int) -> int:
    """Views whose planes are prepared at once: as many as divide them and stay small beside an image."""
    planes = sum(padded_size(system, bundle, length) for bundle in system.bundles)
    most = max(_VALUES_A_BLOCK // (size * planes), _FEWEST_VIEWS)
    return max(n for n in range(1, views + 1) if views % n == 0 and n <= most)


def _gather_views(
    system: System3D,
    sizes: tuple[int, int, float],
    geometry: list[Array],
    padded: list[Array],
    x: Array,
    totals: tuple[Array, ...],
) -> tuple[Array, ...]:
    """Some rows of voxels, `(row, y, z · lane)` of each part, with the lines of some views added."""
    (width, length, table_start), (table, mean_slope, middle, rise, chord) = sizes, geometry
    views, bins = middle.shape
    lanes = totals[0].shape[-1] // length
    x, y = x[:, None], jnp.arange(width, dtype=x.dtype)[None]
    line = bins * jnp.arange(len(x))[:, None]
    strides = [planes[0].size for planes in padded]

    def find(view: Array) -> Any:
        cell = table_cell(y - mean_slope[view] * x, table_start)
        f = middle[view][None] + rise[view][None] * x
        first, weights = lors_near(take_slices(table[view], cell), y - mean_slope[view] * x, x)
        reads = []
        for bundle, stride in zip(system.bundles, strides, strict=True):
            starts, values = window_starts(system, bundle, *axial_shift(bundle, f), length)
            starts = [view * stride + lanes * one for one in starts]
            reads.append((starts, values, bin_probabilities(system, bundle, f, chord[view][None])))
        return first + line, weights, reads

    def add_segments(reads: Any, number: Array | int = 0) -> list[Array]:
        """Axial lines of one row, `(bin, plane · lane)`, of each part, from one time-of-flight bin."""
        lines = []
        for planes, (starts, values, weights) in zip(padded, reads, strict=True):
            if weights is not None:
                chance = lax.dynamic_index_in_dim(weights, number, axis=2, keepdims=False)
                starts, values = [one + number * planes[0, 0].size for one in starts], [chance * one for one in values]
            lines.append(axial_sums(system, planes.reshape(-1), starts, values, length * lanes))
        return [add_up(list(part)) for part in zip(*lines, strict=True)]

    def add_bins(reads: Any) -> list[Array]:
        if system.tof is None:
            return add_segments(reads)
        add = lambda k, lines: [a + b for a, b in zip(lines, add_segments(reads, k), strict=True)]  # noqa: E731
        zeros = varying(jnp.zeros((bins, length * lanes), x.dtype), padded[0])
        return lax.fori_loop(0, padded[0].shape[1], add, [zeros] * system.parts)

    def accumulate(totals: tuple[Array, ...], found: Any) -> tuple[Array, ...]:
        first, weights, reads = found
        lines = lax.map(add_bins, reads)  # a loop writes them down, see `_project_views`
        new = []
        for total, part in zip(totals, lines, strict=True):
            flat = part.reshape(-1, part.shape[-1])
            terms = [weight[..., None] * take(flat, first + k) for k, weight in enumerate(weights)]
            new.append(total + add_up(terms))
        return tuple(new)

    return pipeline((find,), accumulate, totals, views)


_project_p, _backproject_p = linear_pair("pet_project_3d", (_project, _backproject))
