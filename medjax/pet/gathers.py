"""Reads and loops that a CPU runs fast: rows by gathers whose indices are in range, and steps prepared ahead."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from medjax.pet.system import AnyArray


def pipeline(
    stages: tuple[Callable[..., Any], ...], accumulate: Callable[[Any, Any], Any], total: Any, steps: int
) -> Any:
    """total ← accumulate(total, prepared(step)) for every step, each stage of the preparation made one step ahead.

    The first stage takes the number of a step, each later one also what the stage before it made of that step. What the
    stages make is carried from step to step: XLA:CPU would otherwise compute it anew wherever it is used.
    """
    last = len(stages) - 1

    def prepared(step: Array, stage: int) -> Any:
        return stages[stage](step, *((prepared(step, stage - 1),) if stage else ()))

    def body(carry: tuple[Any, list[Any]], step: Array) -> tuple[tuple[Any, list[Any]], None]:
        total, ready = carry
        following = [
            stage(jnp.minimum(step + 1 + last - k, steps - 1), *ready[k - 1 : k] if k else ())
            for k, stage in enumerate(stages)
        ]
        return (accumulate(total, ready[last]), following), None

    start = [prepared(jnp.minimum(jnp.int32(last - k), steps - 1), k) for k in range(len(stages))]
    return lax.scan(body, (total, start), jnp.arange(steps, dtype=jnp.int32))[0][0]


def varying(array: Array, *data: Array) -> Array:
    """`array`, marked as differing between the devices of a `shard_map` where the data does; elsewhere, itself."""
    axes = frozenset().union(*(jax.typeof(a).mat.varying for a in data)) - jax.typeof(array).mat.varying
    return lax.pcast(array, tuple(sorted(axes)), to="varying") if axes else array


def take(rows: Array, index: Int[Array, "..."]) -> Array:
    """rows[index] for indices known to be in range."""
    return rows.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def take_or_zero(rows: Array, index: Int[AnyArray, "..."]) -> Array:
    """rows[index], and zeros where the index is one past the last row."""
    return rows.at[index].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def take_slices(table: Array, index: Int[Array, "..."]) -> Array:
    """table[index] as one gather of whole contiguous rows."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(index.ndim,), collapsed_slice_dims=(0,), start_index_map=(0,))
    return lax.gather(
        table, index[..., None], numbers, (1, table.shape[1]), mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )


def add_up(terms: list[Array]) -> Array:
    """Sum of arrays of one shape."""
    return sum(terms[1:], terms[0])
