"""Axial reads of the 3-D projector: where a segment reads an axial line of the image, and a line reads the segments.

An axial line holds the planes of the image, with padding, at one place of a slice; lanes (symmetric views, a batch) lie
next to each other in each plane, so that a window of planes is one contiguous read.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from medjax.pet.gathers import add_up, take, take_or_zero
from medjax.pet.system3d import Bundle, System3D
from medjax.pet.tof import tof_weights


def axial_shift(bundle: Bundle, f: Array) -> tuple[Array, Array]:
    """First image plane of each segment's read and its distance to the next, `(…, segment)`, at the position f."""
    difference = _as_last(jnp.asarray(bundle.ring_difference, f.dtype), f.ndim + 1)
    shift = 2 * difference * jnp.clip(f, -0.5, 0.5)[..., None]
    whole = jnp.floor(shift)
    return whole.astype(jnp.int32) + _as_last(jnp.asarray(bundle.start), f.ndim + 1), shift - whole


def bin_probabilities(system: System3D, bundle: Bundle, f: Array, chord: Array) -> Array | None:
    """Probability of each time-of-flight bin, `(…, segment, tof)`, at the position f; None without time of flight."""
    if system.tof is None:
        return None
    length = jnp.hypot(chord[..., None], _as_last(jnp.asarray(bundle.rise_mm, f.dtype), f.ndim + 1))
    return tof_weights(system.tof, f[..., None] * length)


def _as_last(vector: Array, axes: int) -> Array:
    """A vector as the last of so many axes."""
    return vector.reshape((1,) * (axes - 1) + (-1,))


def split_planes(system: System3D, table: Array) -> Array:
    """(…, plane, lane) → (…, part · plane · lane): even planes first where they are kept apart."""
    *space, planes, lanes = table.shape
    split = table.reshape(*space, planes // system.parts, system.parts, lanes)
    return jnp.moveaxis(split, -2, -3).reshape(*space, -1)


def plane_offset(system: System3D, plane: Array) -> Array:
    """Where a plane lies in a line that `split_planes` made."""
    if system.parts == 1:
        return plane
    half = (system.image_planes + sum(system.padding)) // 2
    return (plane & 1) * half + (plane >> 1)


def plane_numbers(system: System3D, length: int) -> list[Array]:
    """Number of each plane of a bundle and of its mirrored one, `(2, segment, plane)`, one past the last: zeros.

    The zeros on both sides are for windows of `length` planes.
    """
    planes = system.mirrored.shape[-1]
    mirrored = jnp.append(jnp.asarray(system.mirrored), planes)
    made = []
    for bundle in system.bundles:
        around = ((0, 0), _window_padding(system, bundle, length))
        number = jnp.pad(jnp.asarray(bundle.planes), around, constant_values=planes)
        made.append(jnp.stack([number, take(mirrored, number)]))
    return made


def line_planes(
    system: System3D, sinogram: Array, numbers: list[Array], lors: tuple[Array, Array, Array]
) -> list[Array]:
    """Planes of each bundle, `(view, tof, bin, segment, plane · lane)`, weighted, with zeros on both sides for windows.

    Args:
        system: system model.
        sinogram: `(view, bin, plane, tof, lane)`.
        numbers: of the planes, from `plane_numbers`.
        lors: number of the line of response and whether it is swapped, `(view, bin, symmetric view)`; chord in mm of
            a bin, `(view, bin)`.
    """
    number, swapped, chord = lors
    *_, planes, tof, lanes = sinogram.shape
    length_mm = take_or_zero(jnp.asarray(system.transaxial.length_mm, sinogram.dtype).reshape(-1), number)
    rows = take_or_zero(sinogram.reshape(-1, planes, tof, lanes), number)  # (view, bin, symmetric view, plane, …)
    rows = rows * length_mm[..., None, None, None]
    if tof > 1:
        rows = jnp.where(swapped[..., None, None, None], rows[..., ::-1, :], rows)
    flat = jnp.pad(rows, (*[(0, 0)] * 3, (0, 1), (0, 0), (0, 0))).reshape(-1, tof, lanes)
    first = (planes + 1) * jnp.arange(number.size).reshape(number.shape)[:, :, None, None]
    made = []
    for bundle, (plane, mirrored) in zip(system.bundles, numbers, strict=True):
        chosen = jnp.where(swapped[:, :, None, None], mirrored[..., None], plane[..., None])
        own = take(flat, first + chosen)
        rise = _as_last(jnp.asarray(bundle.rise_mm, rows.dtype), 3)
        tilt = jnp.sqrt(1 + (rise / jnp.where(chord > 0, chord, 1)[..., None]) ** 2)
        own = own * tilt[..., None, None, None, None]
        own = jnp.moveaxis(own, -2, 1)  # (view, tof, bin, segment, plane, symmetric view, lane)
        made.append(own.reshape(*own.shape[:4], -1))
    return made


def padded_size(system: System3D, bundle: Bundle, length: int) -> int:
    """Number of a bundle's planes, with padding."""
    segments, planes = bundle.planes.shape
    return segments * (planes + sum(_window_padding(system, bundle, length)))


def _window_padding(system: System3D, bundle: Bundle, length: int) -> tuple[int, int]:
    """Planes to add before and after those of a bundle."""
    low, high = (edge - system.padding[0] for edge in bundle.reach)
    before = max((high + 1) // system.parts, 0) + 1
    return before, max(length - low // system.parts - bundle.planes.shape[-1] + 1, 0)


def window_starts(
    system: System3D, bundle: Bundle, start: Array, beyond: Array, length: int
) -> tuple[list[Array], list[Array]]:
    """Where the windows of an axial line start in a view's padded planes, and the weights of both reads.

    The windows hold the image's own planes, without its padding.
    """
    segments, planes = bundle.planes.shape
    start = start - system.padding[0]
    bins = start.shape[1]
    before, after = _window_padding(system, bundle, length)
    origin = (before + planes + after) * jnp.arange(bins * segments).reshape(1, bins, segments) + before
    if system.parts == 1:
        return [origin - start, origin - start - 1], [1 - beyond, beyond]
    tap = [(part - start) & 1 for part in range(2)]
    starts = [origin + ((part - start - tap[part]) >> 1) for part in range(2)]
    return starts, [jnp.where(one == 1, beyond, 1 - beyond) for one in tap]


def axial_sums(
    system: System3D, planes: Array, starts: list[Array], values: list[Array], size: int
) -> tuple[Array, ...]:
    """Sum over a bundle's segments of their windows: `(bin, plane · lane)` of each part."""
    sums = [
        add_up([value[:, s, None] * windows(planes, start[:, s], size) for s in range(start.shape[-1])])
        for start, value in zip(starts, values, strict=True)
    ]
    return (sums[0] + sums[1],) if system.parts == 1 else tuple(sums)


def windows(line: Array, start: Array, size: int) -> Array:
    """line[start : start + size] for each start, as one gather of contiguous reads."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(start.ndim,), collapsed_slice_dims=(), start_index_map=(0,))
    return lax.gather(line, start[..., None], numbers, (size,), mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
