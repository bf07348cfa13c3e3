"""U-Net for segmentation in any number of spatial dimensions: encoder, decoder, and a head of logits.

    model = unet(classes=4)
    params = model.init(key, x)                  x (batch, *space, channel), sides multiples of 2 ** (levels − 1)
    logits = model.apply(params, x)              (batch, *space, class)

Norm, activation, pooling and up-sampling are arguments. No batch statistics: the output for an image depends on that
image alone, so gradients of a summed loss with respect to the input are those of each example.

Source: Ronneberger et al., MICCAI 2015; instance-wise normalisation and deep supervision as in nnU-Net, Isensee et al.,
Nature Methods 18, 2021.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.models.layers import Conv, Function, group_norm, pool, spatial_dropout, upsample
from medjax.models.model import Model, from_flax

NORM = group_norm()


class UNetFeatures(nn.Module):
    """Encoder and decoder of a U-Net: decoder features of every level, finest first."""

    widths: tuple[int, ...] = (16, 32, 64, 96)  # channels of each level, finest first
    norm: Callable[[], nn.Module] = NORM  # factory of normalization layers
    act: Function = nn.leaky_relu  # activation
    pool: Function = pool  # down-sampling by 2
    up: Function = upsample  # up-sampling by 2
    dropout: float = 0.0  # probability that a whole channel is dropped, after each block
    layerwise: ClassVar[bool] = True  # all it computes is in layers and functions that propagate relevance

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space channel"]) -> list[Array]:
        """Decoder features of `widths[k]` channels at 1 / 2^k of the resolution, k = 0, 1, …"""
        skips: list[Array] = []
        for depth, width in enumerate(self.widths):
            x = self._block(x if depth == 0 else self.pool(x), width, f"down_{depth}")
            skips.append(x)
        levels = [x]
        for depth, width in reversed(list(enumerate(self.widths[:-1]))):
            wide = Conv(width, (1,) * (x.ndim - 2), name=f"narrow_{depth}")(x)
            x = self._block(jnp.concatenate([self.up(wide), skips[depth]], axis=-1), width, f"up_{depth}")
            levels.append(x)
        return levels[::-1]

    def _block(self, x: Array, width: int, name: str) -> Array:
        for number in range(2):
            x = Conv(width, (3,) * (x.ndim - 2), use_bias=False, name=f"{name}_conv_{number}")(x)
            x = self.act(self.norm().copy(name=f"{name}_norm_{number}")(x))
        return spatial_dropout(self, x, self.dropout)


class UNet(nn.Module):
    """U-Net: features and a head; logits of the finest level, or with `deep` of all but the coarsest, finest first.

    Parameters of the `decoder` have its name, which `unet` makes "features".
    """

    classes: int
    decoder: nn.Module
    deep: bool = False
    preserve_adopted_names: ClassVar[bool] = True  # the decoder's own name, not its field's
    layerwise: ClassVar[bool] = True  # all it computes is in layers and functions that propagate relevance

    def features(self, x: Float[Array, "batch *space channel"]) -> list[Array]:
        """Decoder features of all levels, finest first: the input of the head."""
        return self.decoder(x)

    @nn.compact
    def head(self, levels: list[Array]) -> Array | tuple[Array, ...]:
        """Logits `(batch, *space, class)`: a 1×1 convolution of each level."""
        chosen = levels[: max(len(levels) - 1, 1)] if self.deep else levels[:1]
        logits = [
            Conv(self.classes, (1,) * (level.ndim - 2), name=f"head_{depth}")(level)
            for depth, level in enumerate(chosen)
        ]
        return tuple(logits) if self.deep else logits[0]

    def __call__(self, x: Float[Array, "batch *space channel"]) -> Array | tuple[Array, ...]:
        """Logits `(batch, *space, class)`, a tuple of levels if `deep`."""
        return self.head(self.features(x))


def unet(
    classes: int,
    widths: Sequence[int] = (16, 32, 64, 96),
    norm: Callable[[], nn.Module] = NORM,
    act: Function = nn.leaky_relu,
    pool: Function = pool,
    up: Function = upsample,
    deep: bool = False,
    dropout: float = 0.0,
) -> Model:
    """U-Net as a Model: init(key, x) → params; apply(params, x) → logits, of several levels if `deep`.

    Its `features(params, x)` is a list of all levels, the input of `head`.

    Args:
        widths: channels of each level, finest first.
        norm: factory of the normalisation layers.
        act: activation.
        pool, up: pooling and up-sampling by two.
        deep: logits of several levels (deep supervision).
        dropout: probability of spatial dropout after each block, with `apply(params, x, key=key)`.
    """
    return from_flax(UNet(classes, UNetFeatures(tuple(widths), norm, act, pool, up, dropout, name="features"), deep))
