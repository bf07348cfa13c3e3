"""Early stopping: the state with the least validation loss, and an end when it has long been the best.

    states = iterate.loop(algorithm, state, steps, inputs=batches, every=100, check=require_finite_loss, donate=True)
    for state, infos, best in early_stopping(states, first(state), validate, patience=1000):
        save(folder, int(state.step), {"state": state, "best": best})

A checkpoint holds both. A run that is resumed gives the best one it had and its number of steps, and stops where the
run that was not interrupted does.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from medjax.errors import DataError
from medjax.training.state import TrainState


class Best(NamedTuple):
    """The state with the least validation loss so far; its `state.step` says when that was."""

    state: TrainState
    loss: float


def first(state: TrainState) -> Best:
    """Of a state before it was validated: any other is better."""
    return Best(state, float("inf"))


def early_stopping(
    states: Iterable[tuple[TrainState, PyTree]],
    best: Best,
    validate: Callable[[TrainState], float],
    patience: int,
    step: int = 0,
) -> Iterator[tuple[TrainState, PyTree, Best]]:
    """Pass on what `iterate.loop` yields, with the best state up to there; end `patience` steps after the best.

    `step` is the number of steps made before `states` begin: a run that had stopped already makes none.

    Raises:
        DataError: what `validate` gives is not finite.
    """
    if step - int(best.state.step) >= patience:
        return
    for state, infos in states:
        loss = float(validate(state))
        if not np.isfinite(loss):
            raise DataError(
                f"training: the validation loss is not finite by step {int(state.step)}; try a smaller learning rate"
            )
        if loss < best.loss:
            best = Best(jax.tree.map(jnp.array, state), loss)  # a copy: the next step may reuse the state's memory
        yield state, infos, best
        if int(state.step) - int(best.state.step) >= patience:
            return
