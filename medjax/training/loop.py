"""The loop around a training step: a jitted step called from Python, which on CPU is far faster than a scan of it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from medjax.errors import DataError
from medjax.training.old_state import Info, TrainState

Step = Callable[[PRNGKeyArray, TrainState, PyTree], tuple[TrainState, Info]]
Values = dict[str, float | int]


class Best(NamedTuple):
    """The state with the least validation loss so far; its `state.step` says when that was."""

    state: TrainState
    loss: float


def training(
    key: PRNGKeyArray,
    step: Step,
    state: TrainState,
    batches: Callable[[int], PyTree],
    steps: Iterable[int],
    every: int = 100,
) -> Iterator[tuple[TrainState, Values]]:
    """Run `steps` (from state.step on) with `batches(n)` the n-th batch: the state and mean loss of each `every` steps.

    It also yields after the last step. The next step reuses the memory of a state that was yielded: copy what you keep.

    Raises:
        DataError: the loss or a gradient is not finite; the last state that was yielded is the last good one.
    """
    compiled = jax.jit(step, donate_argnums=1)
    state = jax.tree.map(jnp.array, state)  # a copy: the step reuses the memory of what it is given
    losses: list[Any] = []
    for number in steps:
        state, info = compiled(key, state, batches(number))
        losses.append((info.loss, info.gradient_norm))
        if (number + 1) % every == 0:
            yield state, _mean(losses, number + 1)
            losses.clear()
    if losses:
        yield state, _mean(losses, int(state.step))


def fit(
    key: PRNGKeyArray,
    step: Step,
    state: TrainState,
    batches: Callable[[int], PyTree],
    steps: Iterable[int],
    report: Callable[[TrainState, Values], Any],
    every: int = 100,
) -> TrainState:
    """The state after `training`; `report`, where a caller writes metrics and checkpoints, gets all that it yields.

    Raises:
        DataError: the loss or a gradient is not finite; the last state that was reported is the last good one.
    """
    last = state
    for last, values in training(key, step, state, batches, steps, every):
        report(last, values)
    return last


def fit_best(
    key: PRNGKeyArray,
    step: Step,
    state: TrainState,
    batches: Callable[[int], PyTree],
    steps: Iterable[int],
    validate: Callable[[TrainState], Any],
    report: Callable[[TrainState, Best, Values], Any],
    every: int = 100,
    patience: int = 10,
    best: Best | None = None,
) -> Best:
    """`fit` with early stopping: `validate` after each `every` steps, stop after `patience` that were not the best yet.

    `best` is what was reported with `state`, when a run is resumed: a checkpoint holds both.

    Raises:
        DataError: the loss, or what `validate` gives, is not finite.
    """
    best = Best(jax.tree.map(jnp.array, state), np.inf) if best is None else best
    if int(state.step) - int(best.state.step) >= patience * every:  # resumed after it had stopped
        return best
    for now, values in training(key, step, state, batches, steps, every):
        loss = _finite(float(validate(now)), "validation loss", int(now.step))
        if loss < best.loss:
            best = Best(jax.tree.map(jnp.array, now), loss)
        report(now, best, values | {"validation": loss})
        if int(now.step) - int(best.state.step) >= patience * every:
            break
    return best


def _mean(losses: list[Any], number: int) -> Values:
    loss, gradient = (float(value) for value in np.mean(jax.device_get(losses), axis=0))
    values: Values = {"step": number, "loss": _finite(loss, "loss", number)}
    _finite(gradient, "gradient", number)  # a finite loss may leave parameters that are not
    return values


def _finite(loss: float, name: str, number: int) -> float:
    if not np.isfinite(loss):
        raise DataError(f"training: the {name} is not finite by step {number}; try a smaller learning rate")
    return loss
