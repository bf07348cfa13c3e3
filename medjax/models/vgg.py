"""VGG: a plain classifier for images and volumes, 3×3 convolutions without shortcuts, and pooling between stages.

    model = vgg(classes=2, widths=(16, 32, 64), convolutions=(1, 2, 2))
    params = model.init(key, x)                  x (batch, *space, channel), of two or three spatial axes
    logits = model.apply(params, x)              (batch, class)

With three stages an image of 28×28 has a last feature map of 7×7: nothing is pooled after the last stage. The head is a
dense layer of the map's mean, as a ResNet's, in place of the published three dense layers, so that Grad-CAM of the last
map is exact in the head.

Source: Simonyan & Zisserman, ICLR 2015; its widths are (64, 128, 256, 512, 512), with (2, 2, 3, 3, 3) convolutions in
VGG16.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from medjax.errors import ConfigError
from medjax.models.classifier import Classifier
from medjax.models.layers import FanIn, Function, convolution, global_average, group_norm, max_pool, norm_layer
from medjax.models.model import Model, from_flax

NORM = group_norm()
HE_FAN_OUT = FanIn(2.0, truncated=False, out_axis=-2)


class VGGFeatures(nn.Module):
    """Stages of convolutions, each with norm and activation, and pooling between stages."""

    widths: tuple[int, ...]
    convolutions: tuple[int, ...]  # number in each stage
    norm: Callable[[], nn.Module] = NORM
    act: Function = nn.relu
    pool: Function = max_pool
    layerwise: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space channel"]) -> Float[Array, "batch *coarse c"]:
        """Feature map of the last stage."""
        for stage, (width, number) in enumerate(zip(self.widths, self.convolutions, strict=True)):
            x = self.pool(x) if stage else x
            for k in range(number):
                name = f"{stage}_{k}"
                x = convolution(x.ndim - 2, width, 3, kernel_init=HE_FAN_OUT, name=f"conv_{name}")(x)
                x = self.act(norm_layer(self.norm, width, f"norm_{name}")(x))
        return x


def vgg(
    classes: int,
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    convolutions: Sequence[int] = (2, 2, 3, 3, 3),
    norm: Callable[[], nn.Module] = NORM,
    act: Function = nn.relu,
    pool: Function = max_pool,
    average: Function = global_average,
    dropout: float = 0.0,
) -> Model:
    """VGG as a Model: init(key, x) → params; apply(params, x) → logits `(batch, class)`; `features` and `head`.

    Args:
        classes: number of classes.
        widths: channels of each stage.
        convolutions: number of convolutions in each stage.
        norm: factory of the normalisation layers.
        act: activation.
        pool: pooling by two between stages.
        average: pooling of the whole feature map in the head.
        dropout: probability of dropout before the dense layer, with `apply(params, x, key=key)`.

    Raises:
        ConfigError: other numbers of widths and of convolutions, or one below 1.
    """
    widths, convolutions = tuple(widths), tuple(convolutions)
    if len(widths) != len(convolutions) or min((*widths, *convolutions), default=0) < 1:
        raise ConfigError(f"widths {widths}, convolutions {convolutions}; expected one of each a stage, at least 1")
    encoder = VGGFeatures(widths, convolutions, norm, act, pool, name="features")
    return from_flax(Classifier(classes, encoder, average, dropout))
