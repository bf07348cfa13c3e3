"""The loop around a training step: a jitted step called from Python, which on CPU is far faster than a scan of it."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from medjax.errors import DataError
from medjax.training.state import Info, TrainState


def fit(
    key: PRNGKeyArray,
    step: Callable[[PRNGKeyArray, TrainState, PyTree], tuple[TrainState, Info]],
    state: TrainState,
    batches: Callable[[int], PyTree],
    steps: Iterable[int],
    report: Callable[[TrainState, dict[str, float | int]], Any],
    every: int = 100,
) -> TrainState:
    """Run `steps` (from state.step on), with `batches(n)` the n-th batch; `report` gets the mean loss of each `every`.

    `report` is where a caller writes metrics and checkpoints; it is also called after the last step.

    Raises:
        DataError: the loss is not finite; the last state that was reported is the last good one.
    """
    compiled = jax.jit(step, donate_argnums=1)
    state = jax.tree.map(jnp.array, state)  # a copy: the step reuses the memory of what it is given
    losses: list[Any] = []
    for number in steps:
        state, info = compiled(key, state, batches(number))
        losses.append(info.loss)
        if (number + 1) % every == 0:
            state = _reported(state, losses, number, report)
    return _reported(state, losses, int(state.step) - 1, report) if losses else state


def _reported(
    state: TrainState, losses: list[Any], number: int, report: Callable[[TrainState, dict[str, float | int]], Any]
) -> TrainState:
    mean = float(np.mean(jax.device_get(losses)))
    losses.clear()
    if not np.isfinite(mean):
        raise DataError(f"training: the loss is not finite by step {number + 1}; try a smaller learning rate")
    report(state, {"step": number + 1, "loss": mean})
    return state
