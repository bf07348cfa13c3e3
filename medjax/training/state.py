"""Training as an Algorithm: the training state and its update, for any loss(params, batch, key).

    algorithm = trainer(loss, optax.adam(1e-3))
    state = algorithm.init(model.init(key, images), key)
    for state, infos in iterate.loop(algorithm, state, steps, inputs=batches, check=require_finite_loss, donate=True): …

A sweep builds loss and optimizer from traced settings: see `population`. `early_stopping` keeps the best state.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree, Scalar

from medjax.errors import DataError
from medjax.iterate import Algorithm

Loss = Callable[[PyTree, PyTree, PRNGKeyArray], Scalar]


class TrainState(NamedTuple):
    """Training state: parameters, their exponential moving average, optimizer state, number of steps, random key."""

    params: PyTree
    ema_params: PyTree  # exponential moving average of the parameters
    opt_state: PyTree  # optimizer state
    step: Int[Array, ""]
    key: Key[Array, ""]


class Info(NamedTuple):
    """Loss and gradient norm of a training step."""

    loss: Scalar | Float[np.ndarray, "..."]
    gradient_norm: Scalar | Float[np.ndarray, "..."]


def trainer(loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float | Scalar = 0.999) -> Algorithm:
    """Training algorithm: init(params, key) → TrainState; step(state, batch) → TrainState, Info, one optimizer update.

    The loss is loss(params, batch, key). Step n draws with fold_in(key, n), so that a resumed run is the same run. What
    is compiled is kept for this `loss` and `optimizer`: make them once, or inside an `iterate.static_partial` of a
    module-level function.
    """

    def start(params: PyTree, key: PRNGKeyArray) -> TrainState:
        return init(params, optimizer, key)

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Info]:
        now = jax.random.fold_in(state.key, state.step)
        value, gradient = jax.value_and_grad(loss)(state.params, batch, now)
        return apply_gradients(state, gradient, optimizer, ema_decay), Info(value, optax.tree.norm(gradient))

    return Algorithm(start, step)


def init(params: PyTree, optimizer: optax.GradientTransformation, key: PRNGKeyArray) -> TrainState:
    """Training state before the first step."""
    return TrainState(params, params, optimizer.init(params), jnp.zeros((), jnp.int32), key)


def apply_gradients(
    state: TrainState, gradient: PyTree, optimizer: optax.GradientTransformation, ema_decay: float | Scalar = 0.999
) -> TrainState:
    """Training state after one optimizer update with this gradient.

    The moving average decays with min(`ema_decay`, (1 + n) / (10 + n)) at step n: a warm-up.
    """
    updates, inner = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    keep = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.ema_params, params)
    return TrainState(params, average, inner, state.step + 1, state.key)


def require_finite_loss(state: PyTree, infos: Info, step: int) -> None:
    """Check that losses and gradients are finite: the `check` of training for `iterate.loop`.

    Raises:
        DataError: one is not; the state that was yielded before is the last good one.
    """
    for name, values in (("loss", infos.loss), ("gradient", infos.gradient_norm)):
        if not np.isfinite(values).all():  # a finite loss may leave parameters that are not
            raise DataError(f"training: the {name} is not finite by step {step}; try a smaller learning rate")


def mean_loss(infos: Info, step: int) -> dict[str, float | int]:
    """Number of steps made, and the mean loss of those since the last report."""
    return {"step": step, "loss": float(np.mean(infos.loss))}
