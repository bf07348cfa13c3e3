"""Layers of the score network that save time: GroupNorm by moments of channels, blocks of voxels as channels.

GroupNorm(8)(x)                              Flax's, parameters and numbers
depth_to_space(space_to_depth(h, 2), 2)      h
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.models.layers import ZEROS


class GroupNorm(nn.Module):
    """Flax's GroupNorm, its parameters and its numbers to rounding, in less time on CPUs.

    Moments are taken per channel, over space alone, then of the few channels of a group: XLA reduces that without a
    second pass over the groups, and one multiplication and one addition an element are left.
    """

    num_groups: int = 8
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space c"]) -> Float[Array, "batch *space c"]:
        """Normalised x, scaled and shifted per channel."""
        width = x.shape[-1]
        broadcast = (*(1,) * (x.ndim - 1), width)
        scale = self.param("scale", nn.initializers.ones, (width,)).reshape(broadcast)
        bias = self.param("bias", ZEROS, (width,)).reshape(broadcast)
        space = tuple(range(1, x.ndim - 1))

        def of_group(moment: Array) -> Array:
            grouped = jnp.mean(moment.reshape(len(x), self.num_groups, -1), axis=-1, keepdims=True)
            return jnp.repeat(grouped, width // self.num_groups, axis=-1).reshape(moment.shape)

        mean, square = (of_group(jnp.mean(each, axis=space, keepdims=True)) for each in (x, x * x))
        gain = scale * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0) + self.epsilon)
        return x * gain + (bias - mean * gain)


def space_to_depth(h: Float[Array, "batch *space c"], block: int) -> Float[Array, "batch *fewer more"]:
    """Blocks of `block` voxels along every axis as channels, c · block ** axes of them."""
    if block == 1:
        return h
    batch, *space, channels = h.shape
    axes = len(space)
    split = h.reshape(batch, *(size for side in space for size in (side // block, block)), channels)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return split.transpose(order).reshape(batch, *(side // block for side in space), channels * block**axes)


def depth_to_space(h: Float[Array, "batch *space c"], block: int) -> Float[Array, "batch *more fewer"]:
    """Inverse of `space_to_depth`."""
    if block == 1:
        return h
    batch, *space, channels = h.shape
    axes = len(space)
    split = h.reshape(batch, *space, *(block,) * axes, channels // block**axes)
    order = (0, *(axis for k in range(axes) for axis in (1 + k, 1 + axes + k)), 2 * axes + 1)
    return split.transpose(order).reshape(batch, *(side * block for side in space), -1)
