"""GroupDRO, group distributionally robust optimisation: groups weighted by exponentiated-gradient ascent on their loss.

    min over θ  max over q  Σ_g q_g · (mean loss of group g)         q on the simplex
    q_g ← q_g exp(η · loss_g) / Σ        for groups in the batch; an absent one keeps its q_g, before the division

    algorithm = trainer(losses, optax.adam(1e-3), groups=4)         an Algorithm, as that of `training.state`
    state = algorithm.init(params, key)

The weights are kept as ln q, so that no weight can reach zero: q_g = 0 would stay zero for good, and a batch of such
groups alone would give 0/0. (The published code of label flips zeroes absent groups, with both effects.) Weights change
in training steps only. Where groups are rare, use balanced batches too, `from_arrays(…, groups=group)`: else the
weights of rare groups fall behind.

Source: Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, algorithm 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Scalar

from medjax.iterate import Algorithm
from medjax.training import state as training
from medjax.training.state import Info, TrainState, apply_gradients

Losses = Callable[[PyTree, PyTree, PRNGKeyArray], tuple[Array, Array]]


class GroupLosses(NamedTuple):
    """Mean loss of each group in a batch, and whether it has an image there."""

    mean: Float[Array, " group"]  # 0 where the group is absent
    present: Bool[Array, " group"]


def init_weights(groups: int) -> Float[Array, " {groups}"]:
    """Initial log weights ln q: equal ones."""
    return jnp.full(groups, -np.log(groups), jnp.result_type(float))  # not weakly typed, or a second step compiles anew


def group_losses(loss: Float[Array, " image"], group: Int[Array, " image"], groups: int) -> GroupLosses:
    """Mean loss over each group's images in the batch."""
    count = jax.ops.segment_sum(jnp.ones_like(loss), group, groups)
    return GroupLosses(jax.ops.segment_sum(loss, group, groups) / jnp.maximum(count, 1.0), count > 0)


def exponentiated_gradient_step(
    log_weights: Float[Array, " group"], losses: GroupLosses, step_size: float | Scalar
) -> Float[Array, " group"]:
    """Log weights ln q after q_g ← q_g exp(η · loss_g) / Σ, η = `step_size`; absent groups are only divided by Σ."""
    return jax.nn.log_softmax(jnp.where(losses.present, log_weights + step_size * losses.mean, log_weights))


def trainer(
    losses: Losses,
    optimizer: optax.GradientTransformation,
    groups: int,
    step_size: float | Scalar = 0.01,
    ema_decay: float = 0.999,
) -> Algorithm:
    """GroupDRO training: init(params, key) → TrainState; step(state, batch) → TrainState, Info: first q, then params.

    `opt_state` is (the optimizer's own, ln q). Info's loss is Σ_g q_g · loss_g.

    Args:
        losses: (params, batch, key) → loss and group of each image.
        groups: their number.
        step_size: η of the group weights; 0.01 is the published setting.
        ema_decay: decay of the parameters' moving average.
    """

    def init(params: PyTree, key: PRNGKeyArray) -> TrainState:
        plain = training.init(params, optimizer, key)
        return plain._replace(opt_state=(plain.opt_state, init_weights(groups)))

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Info]:
        own, log_weights = state.opt_state
        now = jax.random.fold_in(state.key, state.step)

        def objective(params: PyTree) -> tuple[Scalar, Array]:
            loss, group = losses(params, batch, now)
            means = group_losses(loss, group, groups)
            updated = jax.lax.stop_gradient(exponentiated_gradient_step(log_weights, means, step_size))
            return jnp.sum(jnp.exp(updated) * means.mean), updated

        (value, updated), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        new = apply_gradients(state._replace(opt_state=own), gradient, optimizer, ema_decay)
        return new._replace(opt_state=(new.opt_state, updated)), Info(value, optax.tree.norm(gradient))

    return Algorithm(init, step)
