"""What training carries from step to step, and one step of it, for any loss(params, batch, key)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, Scalar

Loss = Callable[[PyTree, PyTree, PRNGKeyArray], Scalar]


class TrainState(NamedTuple):
    """Parameters, their exponential moving average, the optimiser's state, and the number of steps made."""

    params: PyTree
    average: PyTree
    optimiser: PyTree
    step: Int[Array, ""]


class Info(NamedTuple):
    """What a reader wants to see of a step."""

    loss: Scalar
    gradient_norm: Scalar


def init(params: PyTree, optimiser: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(params, params, optimiser.init(params), jnp.zeros((), jnp.int32))


def make_train_step(
    loss: Loss, optimiser: optax.GradientTransformation, decay: float = 0.999
) -> Callable[[PRNGKeyArray, TrainState, PyTree], tuple[TrainState, Info]]:
    """step(key, state, batch): one update. Step n draws with fold_in(key, n), so that a resumed run is the same run."""

    def step(key: PRNGKeyArray, state: TrainState, batch: PyTree) -> tuple[TrainState, Info]:
        value, gradient = jax.value_and_grad(loss)(state.params, batch, jax.random.fold_in(key, state.step))
        return descended(state, gradient, optimiser, decay), Info(value, optax.tree.norm(gradient))

    return step


def descended(
    state: TrainState, gradient: PyTree, optimiser: optax.GradientTransformation, decay: float = 0.999
) -> TrainState:
    """The state one step down the gradient.

    The average forgets with min(`decay`, (1 + n) / (10 + n)): quickly at first, when parameters still move far.
    """
    updates, inner = optimiser.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    keep = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.average, params)
    return TrainState(params, average, inner, state.step + 1)
