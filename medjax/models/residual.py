"""Residual CNN, x + a few convolutions of x: the regulariser of unrolled reconstructions."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from medjax.models.layers import ZEROS, Conv
from medjax.models.model import Model, from_flax


class ResidualCNN(nn.Module):
    """Residual CNN: `depth` convolutions of `width` channels with `act` between; initialized to the identity."""

    width: int = 16
    depth: int = 4
    act: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space c"]) -> Float[Array, "batch *space c"]:
        """x plus the network's output, of the same shape."""
        kernel = (3,) * (x.ndim - 2)
        h = x
        for number in range(self.depth - 1):
            h = self.act(Conv(self.width, kernel, name=f"conv_{number}")(h))
        return x + Conv(x.shape[-1], kernel, name="head", kernel_init=ZEROS)(h)


def residual_cnn(width: int = 16, depth: int = 4) -> Model:
    """Residual CNN as a Model: init(key, x) → params; apply(params, x) → output."""
    return from_flax(ResidualCNN(width, depth))
