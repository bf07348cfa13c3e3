"""A U-Net for segmentation in any number of spatial dimensions: features, then a head that names classes.

    model = unet(classes=4)
    params = model.init(key, x)                  x (batch, *space, channel), sides multiples of 2 ** (levels − 1)
    logits = model.apply(params, x)              (batch, *space, class)

Norm, activation, pooling and up-sampling are functions that a caller can replace. No batch statistics: the output for
an image depends on that image alone, so gradients of a summed loss with respect to the input are those of each example.

Source: Ronneberger et al., MICCAI 2015; instance-wise normalisation and deep supervision as in nnU-Net, Isensee et al.,
Nature Methods 18, 2021.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from medjax.models.model import Model, from_flax
from medjax.models.score_unet import pool, upsample

Function = Callable[[Array], Array]


def group_norm(groups: int = 8) -> Callable[[], nn.Module]:
    """A maker of GroupNorm layers; with as many groups as channels it is InstanceNorm."""
    return functools.partial(nn.GroupNorm, groups)


NORM = group_norm()


class UNetFeatures(nn.Module):
    """What a U-Net knows of each place: decoder features of every level, finest first."""

    widths: Sequence[int] = (16, 32, 64, 96)
    norm: Callable[[], nn.Module] = NORM
    act: Function = nn.leaky_relu
    pool: Function = pool
    up: Function = upsample

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space channel"]) -> list[Array]:
        """Features of `widths[k]` channels at 1 / 2^k of the resolution, k = 0, 1, …"""
        skips: list[Array] = []
        for depth, width in enumerate(self.widths):
            x = self._block(x if depth == 0 else self.pool(x), width, f"down_{depth}")
            skips.append(x)
        levels = [x]
        for depth, width in reversed(list(enumerate(self.widths[:-1]))):
            wide = nn.Conv(width, (1,) * (x.ndim - 2), name=f"narrow_{depth}")(x)
            x = self._block(jax.numpy.concatenate([self.up(wide), skips[depth]], axis=-1), width, f"up_{depth}")
            levels.append(x)
        return levels[::-1]

    def _block(self, x: Array, width: int, name: str) -> Array:
        for number in range(2):
            x = nn.Conv(width, (3,) * (x.ndim - 2), use_bias=False, name=f"{name}_conv_{number}")(x)
            x = self.act(self.norm().copy(name=f"{name}_norm_{number}")(x))
        return x


class UNet(nn.Module):
    """Features and a head: logits of the finest level, or with `deep` of all levels but the coarsest, finest first."""

    classes: int
    features: nn.Module
    deep: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space channel"]) -> Array | tuple[Array, ...]:
        """Logits `(batch, *space, class)`."""
        levels = self.features(x)
        heads = levels[: max(len(levels) - 1, 1)] if self.deep else levels[:1]
        logits = [
            nn.Conv(self.classes, (1,) * (x.ndim - 2), name=f"head_{depth}")(level) for depth, level in enumerate(heads)
        ]
        return tuple(logits) if self.deep else logits[0]


def unet(
    classes: int,
    widths: tuple[int, ...] = (16, 32, 64, 96),
    norm: Callable[[], nn.Module] = NORM,
    act: Function = nn.leaky_relu,
    pool: Function = pool,
    up: Function = upsample,
    deep: bool = False,
) -> Model:
    """The Model: init(key, x) → params; apply(params, x) → logits, of several levels if `deep`."""
    return from_flax(UNet(classes, UNetFeatures(widths, norm, act, pool, up), deep))
