"""A small residual CNN: x + what a few convolutions make of it. The regulariser of unrolled reconstructions."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float, PyTree


class ResidualCNN(nn.Module):
    """`depth` convolutions of `width` channels with `act` between them; 0 change at the start of training."""

    width: int = 16
    depth: int = 4
    act: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space c"]) -> Float[Array, "batch *space c"]:
        """x plus the network's output, of the same shape."""
        kernel = (3,) * (x.ndim - 2)
        h = x
        for number in range(self.depth - 1):
            h = self.act(nn.Conv(self.width, kernel, name=f"conv_{number}")(h))
        return x + nn.Conv(x.shape[-1], kernel, name="head", kernel_init=nn.initializers.zeros)(h)


@functools.lru_cache
def residual_network(width: int = 16, depth: int = 4) -> tuple[Callable[..., PyTree], Callable[..., Array]]:
    """(initialise, apply) of a `ResidualCNN`: initialise(key, x) → params; apply(params, x) → output."""
    module = ResidualCNN(width, depth)

    def initialise(key: Array, x: Array) -> PyTree:
        return jax.jit(module.init)(key, x)["params"]

    def apply(params: PyTree, x: Array) -> Array:
        output = module.apply({"params": params}, x)
        assert isinstance(output, jax.Array)  # for the type checker: no mutable collections
        return output

    return initialise, apply
