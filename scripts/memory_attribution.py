"""Memory of attribution methods against their number of steps (samples): XLA's temporary bytes for a map.

A volume of 64³ and a network of two 3³ convolutions (8 channels, the second one of stride 2), global average and dense.
`chunk` evaluations are in memory at a time; "all" is as many as there are steps. Programs are compiled, and not run.

python scripts/memory_attribution.py
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax.shortcuts.attribution.integrated_gradients import integrated_gradients
from medjax.shortcuts.attribution.rise import rise
from medjax.shortcuts.attribution.smoothgrad import smooth_grad, var_grad
from medjax.shortcuts.attribution.target import AnyArray, Attribution

SIDE, WIDTH, STEPS = 64, 8, (10, 50, 200)
CHUNKS: tuple[int | None, ...] = (1, 5, None)  # None: all
METHODS: dict[str, Callable[[Array, Callable, int, int], Attribution]] = {
    "integrated gradients": lambda key, score, n, chunk: integrated_gradients(score, n, chunk=chunk),
    "SmoothGrad": lambda key, score, n, chunk: smooth_grad(key, score, n, chunk=chunk),
    "VarGrad": lambda key, score, n, chunk: var_grad(key, score, n, chunk=chunk),
    "RISE": lambda key, score, n, chunk: rise(key, score, n, chunk=chunk),
}


def logit(weights: tuple[Array, Array, Array], x: Array) -> Array:
    """Logit of one volume (x, y, z, 1)."""
    first, second, dense = weights
    h = x[None]
    for kernel, stride in ((first, 1), (second, 2)):
        order = ("NXYZC", "XYZIO", "NXYZC")
        h = jax.nn.relu(jax.lax.conv_general_dilated(h, kernel, (stride,) * 3, "SAME", dimension_numbers=order))
    return jnp.sum(h.mean((0, 1, 2, 3)) * dense)


def temporary_bytes(method: Callable[[Array, Callable, int, int], Attribution], steps: int, chunk: int) -> int:
    """XLA's temporary bytes of the map of one volume."""

    def attribute(key: Array, weights: tuple[Array, Array, Array], x: Array) -> AnyArray:
        return method(key, lambda image: logit(weights, image), steps, chunk)(x)

    weights = tuple(jnp.zeros(shape) for shape in ((3, 3, 3, 1, WIDTH), (3, 3, 3, WIDTH, WIDTH), (WIDTH,)))
    lowered = jax.jit(attribute).lower(jax.random.key(0), weights, jnp.zeros((SIDE, SIDE, SIDE, 1)))
    return getattr(lowered.compile().memory_analysis(), "temp_size_in_bytes", -1)


def main() -> None:
    """Print a table of MiB, a row for each method and chunk."""
    print(f"| MiB of temporaries, {SIDE}³ | chunk | {' | '.join(f'{n} steps' for n in STEPS)} |\n|---|---|{'---|' * 3}")
    for name, method in METHODS.items():
        for chunk in CHUNKS:
            mib = [temporary_bytes(method, n, chunk or n) / 2**20 for n in STEPS]
            print(f"| {name} | {chunk or 'all'} | {' | '.join(f'{each:.1f}' for each in mib)} |", flush=True)


if __name__ == "__main__":
    main()
