"""nnU-Net's plain convolutional U-Net for volumes, with kernels and strides of each stage as planned.

    model = plain_unet(3, (32, 64, 128), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
                                   strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
    params = model.init(key, x)                  x (batch, x, y, z, channel), sides multiples of the strides' products
    logits, coarser, … = model.apply(params, x)      (batch, x, y, z, class), one for every level of the decoder

With `deep=False`, without deep supervision, apply gives the finest logits alone, from the same parameters. Norm and
activation are arguments. No batch statistics: an example does not depend on the others.

Source: Isensee et al., Nature Methods 18, 2021; PlainConvUNet of the authors' dynamic-network-architectures.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import ConfigError, DataError
from medjax.models.layers import FORMS, Conv3D, Function, Triple, instance_norm, spatial_dropout
from medjax.models.model import Model, from_flax

NORM = instance_norm()


class PlainUNetFeatures(nn.Module):
    """Encoder and decoder of a plain U-Net: decoder features of every level, finest first."""

    widths: tuple[int, ...]  # channels of each stage, finest first
    kernels: tuple[Triple, ...]  # kernel size of each stage
    strides: tuple[Triple, ...]  # stride into each stage
    norm: Callable[[], nn.Module] = NORM
    act: Function = nn.leaky_relu
    form: str = "auto"
    convolutions: int = 2  # number of convolutions in each stage
    dropout: float = 0.0  # probability that a whole channel is dropped, after each block

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z channel"]) -> list[Array]:
        """Decoder features of `widths[k]` channels for all stages k but the bottleneck, unless it is the only one.

        Raises:
            DataError: a side that is not a multiple of the product of the strides along it.
        """
        _check_sides(x.shape[1:4], self.strides)
        skips: list[Array] = []
        for stage, strides in enumerate(self.strides):
            x = self._block(x, stage, strides, f"down_{stage}")
            skips.append(x)
        levels: list[Array] = []
        for stage in reversed(range(len(self.widths) - 1)):
            strides = self.strides[stage + 1]
            wide = Conv3D(self.widths[stage], strides, transposed=True, name=f"widen_{stage}")(x)
            x = self._block(jnp.concatenate([wide, skips[stage]], axis=-1), stage, (1, 1, 1), f"up_{stage}")
            levels.append(x)
        return levels[::-1] or [x]

    def _block(self, x: Array, stage: int, strides: Triple, name: str) -> Array:
        for number in range(self.convolutions):
            step = strides if number == 0 else (1, 1, 1)
            conv = Conv3D(self.widths[stage], self.kernels[stage], step, self.form, name=f"{name}_conv_{number}")
            x = self.act(self.norm().copy(name=f"{name}_norm_{number}")(conv(x)))
        return spatial_dropout(self, x, self.dropout)


class PlainUNet(nn.Module):
    """Plain U-Net: features and a 1×1×1 head for each level; logits of all (deep supervision) or of the finest alone.

    Parameters of the `decoder` have its name, which `plain_unet` makes "features".
    """

    classes: int
    decoder: nn.Module
    deep: bool = True
    preserve_adopted_names: ClassVar[bool] = True  # the decoder's own name, not its field's

    def features(self, x: Float[Array, "batch x y z channel"]) -> list[Array]:
        """Decoder features of all levels, finest first: the input of the head."""
        return self.decoder(x)

    @nn.compact
    def head(self, levels: list[Array]) -> Array | tuple[Array, ...]:
        """Logits `(batch, x, y, z, class)`, a tuple of all levels if `deep`."""
        logits = [
            Conv3D(self.classes, (1, 1, 1), name=f"head_{depth}")(level)
            for depth, level in enumerate(levels if self.deep else levels[:1])
        ]
        return tuple(logits) if self.deep else logits[0]

    def __call__(self, x: Float[Array, "batch x y z channel"]) -> Array | tuple[Array, ...]:
        """Logits `(batch, x, y, z, class)`, a tuple of all levels if `deep`."""
        return self.head(self.features(x))


def plain_unet(
    classes: int,
    widths: Sequence[int],
    kernels: Sequence[Triple],
    strides: Sequence[Triple],
    norm: Callable[[], nn.Module] = NORM,
    act: Function = nn.leaky_relu,
    deep: bool = True,
    form: str = "auto",
    convolutions: int = 2,
    dropout: float = 0.0,
) -> Model:
    """nnU-Net's plain U-Net as a Model: init(key, x) → params; apply(params, x) → logits, a tuple if `deep`.

    Parameters are the same for both values of `deep`, initialized as nnU-Net's.

    Args:
        widths: channels of each stage, finest first.
        kernels: kernel sizes of each stage's convolutions.
        strides: strides of each stage's first convolution.
        norm: factory of the normalisation layers.
        act: activation.
        deep: logits of all decoder levels (deep supervision).
        form: form of the convolutions, see `conv3d`.
        convolutions: number of convolutions in each stage of the encoder and of the decoder.
        dropout: probability of spatial dropout after each block, with `apply(params, x, key=key)`.

    Raises:
        ConfigError: stages of unequal number, strides of the first stage, even kernels, an unknown form.
    """
    widths, kernels, strides = tuple(widths), _triples(kernels), _triples(strides)
    _check_plan(widths, kernels, strides)
    if form not in FORMS:
        raise ConfigError(f"form: {form!r}; expected one of {', '.join(FORMS)}")
    decoder = PlainUNetFeatures(widths, kernels, strides, norm, act, form, convolutions, dropout, name="features")
    return replace(from_flax(PlainUNet(classes, decoder, deep)), init=from_flax(PlainUNet(classes, decoder)).init)


def _triples(values: Sequence[Triple]) -> tuple[Triple, ...]:
    """Tuples, which are hashable, of any sequences."""
    return tuple((a, b, c) for a, b, c in values)


def _check_plan(widths: tuple[int, ...], kernels: tuple[Triple, ...], strides: tuple[Triple, ...]) -> None:
    stages = {"widths": len(widths), "kernels": len(kernels), "strides": len(strides)}
    if len(set(stages.values())) != 1 or not widths:
        raise ConfigError(f"stages: {stages}; expected as many of each, and at least one")
    if strides[0] != (1, 1, 1):
        raise ConfigError(f"strides: the first stage has {strides[0]}; expected (1, 1, 1)")
    if any(side % 2 == 0 for kernel in kernels for side in kernel):
        raise ConfigError(f"kernels: {kernels}; expected odd sides")


def _check_sides(sides: tuple[int, ...], strides: Sequence[Triple]) -> None:
    factors = tuple(functools.reduce(lambda a, b: a * b, along) for along in zip(*strides, strict=True))
    if any(side % factor for side, factor in zip(sides, factors, strict=True)):
        raise DataError(f"x: sides {tuple(sides)}; expected multiples of {factors}, the products of the strides")
