"""Imported BatchNorm weights: its running statistics are constants, so that it is one scale and bias per channel.

    y = scale · (x − mean) / √(variance + ε) + bias

    weights = freeze_batch_norm(norm, statistics)                        of a `FrozenBatchNorm`: scale' x + bias'
    weights = fold_batch_norm(convolution, norm, statistics)             of a convolution with bias, without a norm
    model = resnet(2, depth=50, norm=frozen_batch_norm())                the network that frozen weights belong to

For weights that were trained elsewhere: nothing in medjax trains with batch statistics.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.iterate import static_partial
from medjax.models.layers import ZEROS

Weights = Mapping[str, Float[Array | np.ndarray, "..."]]


class FrozenBatchNorm(nn.Module):
    """BatchNorm with its statistics folded into its weights: scale · x + bias, per channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space c"]) -> Float[Array, "batch *space c"]:
        """Scaled and shifted x."""
        shape = (1,) * (x.ndim - 1) + (-1,)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", ZEROS, (x.shape[-1],))
        return x * scale.reshape(shape) + bias.reshape(shape)


def frozen_batch_norm() -> Callable[[], nn.Module]:
    """Factory of `FrozenBatchNorm` layers."""
    return static_partial(FrozenBatchNorm)


def freeze_batch_norm(norm: Weights, statistics: Weights, epsilon: float = 1e-5) -> dict[str, Array]:
    """Weights `scale` and `bias` of the FrozenBatchNorm that equals a BatchNorm.

    Args:
        norm: its `scale` and `bias` (PyTorch: weight, bias).
        statistics: its `mean` and `var` (PyTorch: running_mean, running_var).
        epsilon: what it adds to the variance.
    """
    scale = jnp.asarray(norm["scale"]) / jnp.sqrt(statistics["var"] + epsilon)
    return {"scale": scale, "bias": jnp.asarray(norm["bias"] - scale * statistics["mean"])}


def fold_batch_norm(
    convolution: Weights, norm: Weights, statistics: Weights, epsilon: float = 1e-5
) -> dict[str, Array]:
    """Weights `kernel` and `bias` of the convolution (or dense layer) that equals one with a BatchNorm after it.

    Args:
        convolution: its `kernel`, output channels last, and its `bias` if it has one.
        norm, statistics, epsilon: see `freeze_batch_norm`.
    """
    frozen = freeze_batch_norm(norm, statistics, epsilon)
    kernel = jnp.asarray(convolution["kernel"])
    bias = frozen["bias"] + (frozen["scale"] * convolution["bias"] if "bias" in convolution else 0)
    return {"kernel": kernel * frozen["scale"].reshape((1,) * (kernel.ndim - 1) + (-1,)), "bias": bias}
