"""Early stopping by validation loss with patience, and the best state so far.

    states = iterate.loop(algorithm, state, steps, inputs=batches, every=100, check=require_finite_loss, donate=True)
    for state, infos, best in early_stopping(states, initial_best(state), validate, patience=1000):
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


class BestState(NamedTuple):
    """Training state of the lowest validation loss so far, and that loss."""

    state: TrainState
    loss: float


def initial_best(state: TrainState) -> BestState:
    """Initial best state, of infinite loss."""
    return BestState(state, float("inf"))


def early_stopping(
    states: Iterable[tuple[TrainState, PyTree]],
    best: BestState,
    validate: Callable[[TrainState], float],
    patience: int,
    step: int = 0,
) -> Iterator[tuple[TrainState, PyTree, BestState]]:
    """States and Infos of `iterate.loop`, with the best state so far, until `patience` steps after the best.

    Args:
        states: pairs of training state and Infos, as `iterate.loop` yields them.
        best: best state so far, or `initial_best`.
        validate: function state → validation loss.
        patience: number of steps without a lower validation loss after which training stops.
        step: number of steps made before `states` begin; a run that had stopped already makes none.

    Raises:
        DataError: the validation loss is not finite.
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
            best = BestState(jax.tree.map(jnp.array, state), loss)  # a copy: the next step may reuse the state's memory
        yield state, infos, best
        if int(state.step) - int(best.state.step) >= patience:
            return
