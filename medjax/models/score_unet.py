"""Noise-conditional residual U-Net: the network of score priors and, at one noise level, of post-processing.

    y = unet(x, level, condition)     x (batch, *space, channel) → y of the same space

Blocks: GroupNorm, activation, convolution, scaled and shifted by an embedding of the noise level (FiLM); self-attention
at the coarse levels. Any number of spatial axes; sides must be multiples of `patch` · 2 ** (levels − 1).

With `patch` = 2 the finest level sees blocks of two voxels a side as channels (space to depth): a quarter of the
locations at the same resolution of the result, so that the same time buys wider layers, which processors like better.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.models.layers import ZEROS, Conv, Dense, Function, pool, upsample
from medjax.models.model import Model, from_flax
from medjax.models.score_layers import GroupNorm, depth_to_space, space_to_depth


class ScoreUNet(nn.Module):
    """Noise-conditional U-Net; `widths` (16, 32, 64) are the channels of three levels of resolution, finest first.

    A `condition`, an MR image say, is concatenated to the input channels; zeros where there is none.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96)
    blocks: int = 1  # number of residual blocks in each level of encoder and decoder
    attention: tuple[int, ...] = (3,)  # levels with self-attention, 0 the finest
    heads: int = 4  # number of attention heads
    embedding: int = 64  # features of the noise level's embedding
    channels: int = 1  # number of output channels
    groups: int = 8  # number of groups of the GroupNorm
    act: Function = nn.silu
    patch: int = 1  # voxels along each side of a block that becomes channels

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *space channel"],
        level: Float[Array, " batch"],
        orientation: Float[Array, "batch 3"] | None = None,
        condition: Float[Array, "batch *space other"] | None = None,
    ) -> Float[Array, "batch *space out"]:
        """Network output for noisy images x; `level` is any smooth measure of noise, of order one.

        With an `orientation`, that of the slice (one-hot), a positional encoding is added.
        """
        axes = x.ndim - 2
        embedding = fourier(level, self.embedding)
        embedding = self.act(Dense(2 * self.embedding, name="level_1")(embedding))
        embedding = self.act(Dense(2 * self.embedding, name="level_2")(embedding))
        h = x if condition is None else jnp.concatenate([x, condition], axis=-1)
        h = Conv(self.widths[0], (3,) * axes, name="stem")(space_to_depth(h, self.patch))
        if orientation is not None:
            place = PositionalEncoding(self.widths[0], self.act, self.patch, name="place")
            h = h + place(orientation, h.shape[1:-1])
        skips = []
        for depth, width in enumerate(self.widths):
            h = h if depth == 0 else pool(h)
            for number in range(self.blocks):
                h = self._block(h, embedding, width, f"down_{depth}_{number}", depth in self.attention)
            skips.append(h)
        for depth, width in reversed(list(enumerate(self.widths))):
            if depth < len(self.widths) - 1:
                h = upsample(Conv(width, (1,) * axes, name=f"narrow_{depth}")(h)) + skips[depth]
            for number in range(self.blocks):
                h = self._block(h, embedding, width, f"up_{depth}_{number}", False)
        h = self.act(GroupNorm(self.groups, name="norm")(h))
        h = Conv(self.channels * self.patch**axes, (3,) * axes, name="head", kernel_init=ZEROS)(h)
        return depth_to_space(h, self.patch)

    def _block(self, h: Array, embedding: Array, width: int, name: str, attend: bool) -> Array:
        h = ResBlock(width, self.groups, self.act, name=name)(h, embedding)
        return Attention(self.heads, self.groups, name=f"{name}_attention")(h) if attend else h


class PositionalEncoding(nn.Module):
    """Positional encoding of the voxels of a slice, by their distance from its centre in units of 48 voxels."""

    width: int
    act: Function
    voxels: int = 1  # voxels from one location to the next

    @nn.compact
    def __call__(self, orientation: Float[Array, "batch 3"], space: tuple[int, ...]) -> Float[Array, "batch *space c"]:
        """Features `(batch, *space, width)`, initialized to 0."""
        grids = jnp.meshgrid(*((jnp.arange(side) - (side - 1) / 2) * self.voxels / 48 for side in space), indexing="ij")
        angles = jnp.pi / 2 * jnp.stack([k * grid for grid in grids for k in (1, 2, 4, 8)], axis=-1)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        mixed = Dense(32, name="waves")(waves)[None]
        turned = Dense(64, name="orientation")(orientation).reshape(-1, *(1,) * len(space), 64)
        scale, shift = jnp.split(turned, 2, axis=-1)
        hidden = self.act(mixed * (1 + scale) + shift)
        return Dense(self.width, name="out", kernel_init=ZEROS)(hidden)


class ResBlock(nn.Module):
    """Residual block h + conv(act(norm(conv(act(norm h))) · (1 + scale) + shift)), both from the embedding."""

    width: int
    groups: int
    act: Function

    @nn.compact
    def __call__(self, h: Float[Array, "batch *space c"], embedding: Float[Array, "batch e"]) -> Float[Array, "..."]:
        """Output of the block, `width` channels."""
        axes, kernel = h.ndim - 2, (3,) * (h.ndim - 2)
        r = Conv(self.width, kernel)(self.act(GroupNorm(self.groups)(h)))
        moments = Dense(2 * self.width)(embedding).reshape(len(embedding), *(1,) * axes, 2 * self.width)
        scale, shift = jnp.split(moments, 2, axis=-1)
        r = GroupNorm(self.groups)(r) * (1 + scale) + shift
        r = Conv(self.width, kernel, kernel_init=ZEROS)(self.act(r))
        return r + (h if h.shape[-1] == self.width else Conv(self.width, (1,) * axes)(h))


class Attention(nn.Module):
    """Self-attention block, h + attention over all locations of norm(h)."""

    heads: int
    groups: int

    @nn.compact
    def __call__(self, h: Float[Array, "batch *space c"]) -> Float[Array, "batch *space c"]:
        """Output of the block."""
        flat = GroupNorm(self.groups)(h).reshape(len(h), -1, h.shape[-1])
        split = (len(h), flat.shape[1], 3, self.heads, h.shape[-1] // self.heads)
        q, k, v = jnp.moveaxis(Dense(3 * h.shape[-1])(flat).reshape(split), 2, 0)
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(flat.shape)
        return h + Dense(h.shape[-1], kernel_init=ZEROS)(mixed).reshape(h.shape)


def fourier(level: Float[Array, " batch"], size: int) -> Float[Array, "batch {size}"]:
    """Fourier features of the noise level: cos and sin at `size` / 2 log-spaced frequencies from 1 to 30."""
    frequencies = jnp.exp(jnp.linspace(0.0, jnp.log(30.0), size // 2))
    angles = level[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def score_unet(
    widths: Sequence[int], blocks: int = 1, attention: Sequence[int] = (3,), heads: int = 4, patch: int = 1
) -> Model:
    """Noise-conditional U-Net as a Model: init(key, x, level, …) → params; apply(params, x, level, …) → output."""
    return from_flax(ScoreUNet(tuple(widths), blocks, tuple(attention), heads, patch=patch))
