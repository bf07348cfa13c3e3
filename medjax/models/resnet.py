"""Residual networks (ResNets) for classification of images and volumes, of 10, 18, 34 or 50 layers.

    model = resnet(classes=2, depth=10, widths=(8, 16, 32, 64))
    params = model.init(key, x)                  x (batch, *space, channel), of two or three spatial axes
    logits = model.apply(params, x)              (batch, class)
    z = model.features(params, x)                the last feature map; model.head(params, z) are the logits

Norm, activation, residual sum and pooling are arguments. No batch statistics: the logits of an image depend on that
image alone. The architecture is torchvision's, whose numbers of parameters it has: in a bottleneck block the 3×3
convolution is the strided one. Where the stem's stride is 1, as for images of 28×28, its kernel has a side of 3, not 7.

Source: He et al., CVPR 2016; group normalisation as in Wu & He, ECCV 2018; in three dimensions Hara et al., CVPR 2018.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from medjax.errors import ConfigError
from medjax.models.classifier import Classifier
from medjax.models.layers import (
    FanIn,
    Function,
    Sum,
    add,
    convolution,
    global_average,
    group_norm,
    max_pool,
    norm_layer,
)
from medjax.models.model import Model, from_flax

NORM = group_norm()
HE_FAN_OUT = FanIn(2.0, truncated=False, out_axis=-2)  # torchvision's: normal, variance 2 / fan out
BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # of each stage, by depth
BOTTLENECK = 4  # channels of a bottleneck block's output, as a multiple of its 3×3 convolution's


class ResidualBlock(nn.Module):
    """Residual block act(branch(x) + shortcut(x)): two convolutions of side 3, or a bottleneck of sides 1, 3 and 1.

    The shortcut is x, or a strided convolution of side 1 and a norm where shapes differ.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: Callable[[], nn.Module]
    act: Function
    add: Sum
    layerwise: ClassVar[bool] = True  # all it computes is in layers and functions that propagate relevance

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space c"]) -> Float[Array, "batch *coarse d"]:
        """Output of `width` channels, four times as many from a bottleneck."""
        out = self.width * (BOTTLENECK if self.bottleneck else 1)
        sides = (1, 3, 1) if self.bottleneck else (3, 3)
        y = x
        for number, side in enumerate(sides):
            last = number == len(sides) - 1
            stride = self.stride if number == len(sides) - 2 else 1
            y = self._conv_norm(y, out if last else self.width, side, stride, f"{number}")
            y = y if last else self.act(y)
        if self.stride != 1 or x.shape[-1] != out:
            x = self._conv_norm(x, out, 1, self.stride, "shortcut")
        return self.act(self.add(y, x))

    def _conv_norm(self, x: Array, width: int, side: int, stride: int, name: str) -> Array:
        conv = convolution(x.ndim - 2, width, side, stride, kernel_init=HE_FAN_OUT, name=f"conv_{name}")
        return norm_layer(self.norm, width, f"norm_{name}")(conv(x))


class ResNetFeatures(nn.Module):
    """Stem and four stages of residual blocks: the last feature map."""

    depth: int
    widths: tuple[int, ...]  # channels of each stage's convolutions of side 3
    strides: tuple[int, ...]  # of the stem and of each stage
    stem_pool: bool
    norm: Callable[[], nn.Module] = NORM
    act: Function = nn.relu
    add: Sum = add
    pool: Function = max_pool
    layerwise: ClassVar[bool] = True  # all it computes is in layers and functions that propagate relevance

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space channel"]) -> Float[Array, "batch *coarse c"]:
        """Feature map of the last stage."""
        width, side = self.widths[0], 7 if self.strides[0] > 1 else 3
        x = convolution(x.ndim - 2, width, side, self.strides[0], kernel_init=HE_FAN_OUT, name="stem_conv")(x)
        x = self.act(norm_layer(self.norm, width, "stem_norm")(x))
        x = self.pool(x) if self.stem_pool else x
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for number in range(blocks):
                stride = self.strides[stage + 1] if number == 0 else 1
                x = ResidualBlock(
                    self.widths[stage],
                    stride,
                    self.depth >= 50,
                    self.norm,
                    self.act,
                    self.add,
                    name=f"stage_{stage}_block_{number}",
                )(x)
        return x


def resnet(
    classes: int,
    depth: int = 10,
    widths: Sequence[int] = (64, 128, 256, 512),
    strides: Sequence[int] = (2, 1, 2, 2, 2),
    stem_pool: bool = True,
    norm: Callable[[], nn.Module] = NORM,
    act: Function = nn.relu,
    add: Sum = add,
    pool: Function = max_pool,
    average: Function = global_average,
    dropout: float = 0.0,
) -> Model:
    """ResNet as a Model: init(key, x) → params; apply(params, x) → logits `(batch, class)`.

    `features(params, x)` is the last feature map, `head(params, z)` the logits of its mean over the image. Strides
    (1, 1, 2, 2, 1) without the stem's pooling give a map of 7×7 for an image of 28×28.

    Args:
        depth: number of layers, 10, 18 or 34 in basic blocks, 50 in bottleneck blocks.
        widths: channels of the four stages; the output of a bottleneck has four times as many.
        strides: strides of the stem and of the four stages.
        stem_pool: pooling after the stem.
        norm: factory of the normalisation layers; where the groups of a GroupNorm do not divide the channels, the
            largest number of groups that divides both.
        act: activation.
        add: sum of a block's branch and its shortcut.
        pool: pooling by two after the stem.
        average: pooling of the whole feature map in the head.
        dropout: probability of dropout before the dense layer, with `apply(params, x, key=key)`.

    Raises:
        ConfigError: another depth, or not four widths and five strides.
    """
    widths, strides = tuple(widths), tuple(strides)
    if depth not in BLOCKS:
        raise ConfigError(f"depth: {depth}; expected one of {', '.join(map(str, BLOCKS))}")
    if len(widths) != 4 or min(widths) < 1:
        raise ConfigError(f"widths: {widths}; expected four numbers of channels")
    if len(strides) != 5 or min(strides) < 1:
        raise ConfigError(f"strides: {strides}; expected five of at least 1, of the stem and of four stages")
    encoder = ResNetFeatures(depth, widths, strides, stem_pool, norm, act, add, pool, name="features")
    return from_flax(Classifier(classes, encoder, average, dropout))
