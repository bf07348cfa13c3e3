"""Many evaluations with the memory of a few: sums and values over samples 0 … number − 1, `chunk` of them at a time.

Samples are functions of their number, and never stored together. Results do not depend on `chunk`, but for rounding.
What a chunk costs is memory. On a CPU, gradients of convolutions run some three times slower in a loop than out of it:
where all samples fit in memory, `chunk` ≥ `number` makes no loop.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from medjax.errors import DataError

Sample = Callable[[Array], PyTree]  # number of a sample → its value


def sum_over(sample: Sample, number: int, chunk: int, zero: PyTree) -> PyTree:
    """Σ sample(n) over n = 0 … number − 1, by `lax.scan` over vmapped chunks; `zero` has the shape of a value.

    Raises:
        DataError: `number` or `chunk` is below 1.
    """
    chunk = _checked_chunk(number, chunk)

    def step(total: PyTree, first: Array) -> tuple[PyTree, None]:
        index = first + jnp.arange(chunk)
        values = jax.vmap(sample)(jnp.minimum(index, number - 1))  # the last chunk repeats the last sample
        return jax.tree.map(partial(_add_counted, index < number), total, values), None

    firsts = jnp.arange(0, number, chunk)
    return jax.lax.scan(step, zero, firsts)[0] if len(firsts) > 1 else step(zero, firsts[0])[0]


def values_over(sample: Sample, number: int, chunk: int) -> PyTree:
    """Values sample(n) of n = 0 … number − 1, along the first axis: for samples that give a few numbers each.

    Raises:
        DataError: `number` or `chunk` is below 1.
    """
    chunk = _checked_chunk(number, chunk)
    count = -(-number // chunk)
    index = jnp.minimum(jnp.arange(count * chunk), number - 1).reshape(count, chunk)
    parts = jax.lax.map(jax.vmap(sample), index)
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[:number], parts)


def _add_counted(counted: Array, total: Array, values: Array) -> Array:
    own = counted.reshape(-1, *[1] * (values.ndim - 1))
    return total + jnp.sum(jnp.where(own, values, 0), axis=0)


def _checked_chunk(number: int, chunk: int) -> int:
    if number < 1:
        raise DataError(f"number of samples: {number}; expected 1 or more")
    if chunk < 1:
        raise DataError(f"chunk: {chunk}; expected 1 or more evaluations at a time")
    return min(chunk, number)
