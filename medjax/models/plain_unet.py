"""nnU-Net's plain convolutional U-Net for volumes, with kernels and strides of each stage as a plan gives them.

    model = plain_unet(3, (32, 64, 128), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
                                   strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
    params = model.init(key, x)                  x (batch, x, y, z, channel), sides multiples of the strides' products
    logits, coarser, … = model.apply(params, x)      (batch, x, y, z, class), one for every level of the decoder

Made with `deep=False`, apply gives the finest logits alone, from the same parameters: that one predicts. Norm and
activation are functions that a caller can replace. No batch statistics: an example does not depend on the others.

Source: Isensee et al., Nature Methods 18, 2021; PlainConvUNet of the authors' dynamic-network-architectures.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import ConfigError, DataError
from medjax.models.conv3d import FORMS, Triple, conv3d, conv_transpose3d
from medjax.models.model import Model, from_flax
from medjax.models.unet import Function

NORM = functools.partial(nn.InstanceNorm, epsilon=1e-5)
HE = 2 / (1 + 0.01**2)  # for leaky ReLUs of slope 0.01
CONVOLUTION = nn.initializers.variance_scaling(HE, "fan_in", "normal")
# PyTorch counts what a voxel of a transposed convolution gives, not what it gets, and so the authors' networks start.
TRANSPOSED = nn.initializers.variance_scaling(HE, "fan_in", "normal", in_axis=-1, out_axis=-2)


class Conv3D(nn.Module):
    """A convolution, or with `transposed` one whose stride is its kernel, with a bias; `conv3d` says what `form` is."""

    width: int
    kernel: Triple
    strides: Triple = (1, 1, 1)
    form: str = "auto"
    transposed: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z in"]) -> Float[Array, "batch new_x new_y new_z out"]:
        """`width` channels."""
        start = TRANSPOSED if self.transposed else CONVOLUTION
        kernel = self.param("kernel", start, (*self.kernel, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        y = conv_transpose3d(x, kernel) if self.transposed else conv3d(x, kernel, self.strides, self.form)
        return y + bias.reshape(1, 1, 1, 1, -1)


class PlainUNetFeatures(nn.Module):
    """What the network knows of each place: features of every level of the decoder, finest first."""

    widths: Sequence[int]
    kernels: Sequence[Triple]
    strides: Sequence[Triple]
    norm: Callable[[], nn.Module] = NORM
    act: Function = nn.leaky_relu
    form: str = "auto"
    convolutions: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z channel"]) -> list[Array]:
        """Features of `widths[k]` channels for all stages k but the last, whose own are given if it is the only one.

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
        return x


class PlainUNet(nn.Module):
    """Features and a head of 1×1×1 for each level: logits of all, finest first, or of the finest alone."""

    classes: int
    features: nn.Module
    deep: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z channel"]) -> Array | tuple[Array, ...]:
        """Logits `(batch, x, y, z, class)`."""
        levels = self.features(x)
        logits = [
            Conv3D(self.classes, (1, 1, 1), name=f"head_{depth}")(level)
            for depth, level in enumerate(levels if self.deep else levels[:1])
        ]
        return tuple(logits) if self.deep else logits[0]


def plain_unet(
    classes: int,
    widths: tuple[int, ...],
    kernels: tuple[Triple, ...],
    strides: tuple[Triple, ...],
    norm: Callable[[], nn.Module] = NORM,
    act: Function = nn.leaky_relu,
    deep: bool = True,
    form: str = "auto",
    convolutions: int = 2,
) -> Model:
    """The Model: init(key, x) → params; apply(params, x) → logits, a tuple if `deep`.

    Stage k has `convolutions` convolutions of `widths[k]` channels and size `kernels[k]`, the first with `strides[k]`,
    and on the way up as many again. Parameters are the same for both values of `deep` and start as nnU-Net's do.

    Raises:
        ConfigError: stages of unequal number, strides of the first stage, even kernels, an unknown form.
    """
    _check_plan(widths, kernels, strides)
    if form not in FORMS:
        raise ConfigError(f"form: {form!r}; expected one of {', '.join(FORMS)}")
    features = PlainUNetFeatures(widths, kernels, strides, norm, act, form, convolutions)
    finest = from_flax(PlainUNet(classes, features, deep))
    return replace(finest, init=from_flax(PlainUNet(classes, features)).init)


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
