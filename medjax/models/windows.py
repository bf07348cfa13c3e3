"""Shifted windows of volumes: partition into windows, their attention with relative positions, merging of octants.

    window, shift = fit_window((6, 8, 3), 5, 2)                ((5, 5, 3), (2, 2, 0)): no wider than the volume
    windows = partition(x, window)                             (batch, window, voxel, channel), x's sides multiples
    y = attend(q, k, v, bias, shift_regions(x.shape[1:4], window, shift))
    x = reverse(windows, window, x.shape[1:4])

After a cyclic shift a window holds voxels from opposite ends of the volume. Instead of a mask of voxel pairs, which has
a number of entries squared in the window's voxels, every voxel has the number of the region it comes from.

Source: Liu et al. (Swin Transformer), ICCV 2021; in three dimensions Hatamizadeh et al. (Swin UNETR), BrainLes 2021.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from medjax.models.layers import Triple

MASKED = -100.0  # added to the logit of two voxels of different regions
# Octants (offsets along x, y, z) in the order of their channels after `merge_octants`. The legacy order, that of MONAI
# up to 1.4.0, has (0, 1, 0) and (0, 0, 1) twice and lacks (1, 1, 0) and (0, 1, 1).
ORDERS: dict[str, tuple[Triple, ...]] = {
    "fixed": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
    "legacy": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
}


def fit_window(space: tuple[int, ...], side: int, shift: int) -> tuple[Triple, Triple]:
    """Window and shift along each axis: along an axis no longer than the window, its length and no shift."""
    x, y, z = ((n, 0) if n <= side else (side, shift) for n in space)
    return (x[0], y[0], z[0]), (x[1], y[1], z[1])


def pad_to(x: Float[Array, "batch x y z c"], multiple: Triple) -> Float[Array, "batch new_x new_y new_z c"]:
    """Zero-pad at the end of each axis to a multiple of so many voxels."""
    ends = [(0, -side % step) for side, step in zip(x.shape[1:4], multiple, strict=True)]
    return jnp.pad(x, [(0, 0), *ends, (0, 0)]) if any(end for _, end in ends) else x


def partition(x: Shaped[Any, "batch x y z c"], window: Triple) -> Shaped[Any, "batch window voxel c"]:
    """Windows, and the voxels of each, in C order."""
    counts = [side // step for side, step in zip(x.shape[1:4], window, strict=True)]
    split = [length for pair in zip(counts, window, strict=True) for length in pair]
    blocks = x.reshape(len(x), *split, x.shape[-1]).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return blocks.reshape(len(x), math.prod(counts), math.prod(window), x.shape[-1])


def reverse(
    windows: Shaped[Any, "batch window voxel c"], window: Triple, space: tuple[int, ...]
) -> Shaped[Any, "batch x y z c"]:
    """Volume of these sides whose `partition` this is."""
    counts = [side // step for side, step in zip(space, window, strict=True)]
    blocks = windows.reshape(len(windows), *counts, *window, windows.shape[-1])
    return blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(windows), *space, windows.shape[-1])


def shift_regions(space: tuple[int, ...], window: Triple, shift: Triple) -> Int[np.ndarray, "window voxel"]:
    """Number of the region of each voxel of a volume rolled by −`shift`, whose sides are multiples of the window's.

    Voxels of one window attend to each other if they were neighbours before the roll: along each axis those before the
    last window are one region, and the last window is divided into what was at the end and what was at the start.
    """
    regions = np.zeros(space, np.int8)
    for axis, (side, step, by) in enumerate(zip(space, window, shift, strict=True)):
        places = np.arange(side)
        along = (places >= side - step).astype(np.int8) + (places >= side - by)
        regions = 3 * regions + np.expand_dims(along, [other for other in range(3) if other != axis])
    return partition(regions[None, ..., None], window)[0, ..., 0]


def relative_index(side: int) -> Int[np.ndarray, "voxel voxel"]:
    """Row of the table of relative positions for each pair of voxels of a cubic window, of (2 · side − 1)³ offsets."""
    places = np.indices((side,) * 3).reshape(3, -1)
    offsets = places[:, :, None] - places[:, None, :] + side - 1
    return np.ravel_multi_index(tuple(offsets), (2 * side - 1,) * 3)


def attend(
    q: Float[Array, "batch window voxel head d"],
    k: Float[Array, "batch window voxel head d"],
    v: Float[Array, "batch window voxel head d"],
    bias: Float[Array, "head voxel voxel"],
    regions: Int[np.ndarray, "window voxel"] | None,
) -> Float[Array, "batch window voxel head d"]:
    """Attention within windows, softmax(q · k / √d + bias) · v, the softmax in at least float32.

    Logits of voxels of different `regions` are lower by 100.
    """
    logits = jnp.einsum("bwnhd,bwmhd->bwhnm", q / math.sqrt(q.shape[-1]), k)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) + bias[None, None]
    if regions is not None:
        other = regions[:, :, None] != jnp.asarray(regions)[:, None, :]
        logits = logits + jnp.where(other, MASKED, 0.0).astype(logits.dtype)[None, :, None]
    weights = jax.nn.softmax(logits).astype(v.dtype)
    return jnp.einsum("bwhnm,bwmhd->bwnhd", weights, v)


def merge_octants(x: Float[Array, "batch x y z c"], order: str) -> Float[Array, "batch half_x half_y half_z octants"]:
    """Blocks of 2×2×2 voxels as one voxel of eight times the channels, octants in one of the `ORDERS`.

    Odd sides are zero-padded at their ends.
    """
    x = pad_to(x, (2, 2, 2))
    return jnp.concatenate([x[:, i::2, j::2, k::2] for i, j, k in ORDERS[order]], axis=-1)
