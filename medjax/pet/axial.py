"""Axial reads of the 3-D projector: where a segment reads an axial line of the image, and a line reads the segments.

An axial line holds the planes of the image, with padding, at one place of a slice; lanes (symmetric views, a batch) lie
next to each other in each plane, so that a window of planes is one contiguous read.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from medjax.pet.gathers import add_up
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


def padded_planes(system: System3D, bundle: Bundle, sinogram: Array, length: int) -> Array:
    """Planes of a bundle, `(view, bin, segment, tof, plane · lane)`, with zeros on both sides for any window."""
    planes = jnp.moveaxis(sinogram[:, :, :, bundle.planes], 2, 3)
    padded = jnp.pad(planes, (*[(0, 0)] * 4, _window_padding(system, bundle, length), (0, 0)))
    return padded.reshape(*padded.shape[:4], -1)


def _window_padding(system: System3D, bundle: Bundle, length: int) -> tuple[int, int]:
    """Planes to add before and after those of a bundle."""
    low, high = bundle.reach
    return (high + 1) // system.parts + 1, max(length - low // system.parts - bundle.planes.shape[-1] + 1, 0)


def window_starts(system: System3D, bundle: Bundle, start: Array, beyond: Array, length: int) -> tuple[Array, Array]:
    """Where the windows of an axial line start in a bundle's padded planes, and the weights of their reads.

    With time of flight each row has padded planes of its own.
    """
    segments, planes = bundle.planes.shape
    rows, bins = start.shape[:2]
    before, after = _window_padding(system, bundle, length)
    number = jnp.arange(rows * bins * segments).reshape(rows, bins, segments)
    origin = (before + planes + after) * (number[:1] if system.tof is None else number) + before
    if system.parts == 1:
        return jnp.stack([origin - start, origin - start - 1]), jnp.stack([1 - beyond, beyond])
    tap = [(part - start) & 1 for part in range(2)]
    starts = [origin + ((part - start - tap[part]) >> 1) for part in range(2)]
    return jnp.stack(starts), jnp.stack([jnp.where(one == 1, beyond, 1 - beyond) for one in tap])


def axial_lines(system: System3D, read: Array, starts: Array, values: Array, size: int, lanes: int) -> Array:
    """Sum over a bundle's segments of their windows: `(row, bin, part · plane · lane)`."""
    terms = [
        [values[tap, ..., s, None] * windows(read, lanes * starts[tap, ..., s], size) for s in range(starts.shape[-1])]
        for tap in range(2)
    ]
    sums = [add_up(tap) for tap in terms]
    return sums[0] + sums[1] if system.parts == 1 else jnp.concatenate(sums, axis=-1)


def windows(line: Array, start: Array, size: int) -> Array:
    """line[start : start + size] for each start, as one gather of contiguous reads."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(start.ndim,), collapsed_slice_dims=(), start_index_map=(0,))
    return lax.gather(line, start[..., None], numbers, (size,), mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
