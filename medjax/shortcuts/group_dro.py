"""Group distributionally robust training: the group with the greatest loss counts most, and none is ever forgotten.

    min over θ  max over q  Σ_g q_g · (mean loss of group g)         q on the simplex
    q_g ← q_g exp(η · loss_g) / Σ        for groups in the batch; an absent one keeps its q_g, before the division

The state is ln q, so that no weight can reach zero: q_g = 0 would stay zero for good, and a batch of such groups alone
would give 0/0. (The published code of label flips zeroes absent groups, and so does both.) Weights change in training
steps only. Where groups are rare, draw batches evenly too, `from_arrays(…, groups=group)`: else the weights of groups
that are seldom seen fall behind.

Source: Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, algorithm 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Scalar

from medjax.training import old_state as training
from medjax.training.old_state import Info, TrainState, descended

Losses = Callable[[PyTree, PyTree, PRNGKeyArray], tuple[Array, Array]]


class GroupLosses(NamedTuple):
    """Mean loss of each group in a batch."""

    mean: Float[Array, " group"]  # 0 where the group is absent
    present: Bool[Array, " group"]


def init_weights(groups: int) -> Float[Array, " {groups}"]:
    """ln q of equal weights."""
    return jnp.full(groups, -jnp.log(float(groups)))


def group_losses(loss: Float[Array, " image"], group: Int[Array, " image"], groups: int) -> GroupLosses:
    """Mean over each group's images in the batch."""
    count = jax.ops.segment_sum(jnp.ones_like(loss), group, groups)
    return GroupLosses(jax.ops.segment_sum(loss, group, groups) / jnp.maximum(count, 1.0), count > 0)


def ascend(log_weights: Float[Array, " group"], losses: GroupLosses, rate: float | Scalar) -> Float[Array, " group"]:
    """ln q_g + η · loss_g for groups that are present, ln q_g for the others; not normalised."""
    return jnp.where(losses.present, log_weights + rate * losses.mean, log_weights)


def init(params: PyTree, optimiser: optax.GradientTransformation, groups: int) -> TrainState:
    """The state before the first step; the adversary's ln q lies beside the optimiser's own state."""
    plain = training.init(params, optimiser)
    return plain._replace(optimiser=(plain.optimiser, init_weights(groups)))


def make_train_step(
    losses: Losses, optimiser: optax.GradientTransformation, rate: float | Scalar = 0.01, decay: float = 0.999
) -> Callable[[PRNGKeyArray, TrainState, PyTree], tuple[TrainState, Info]]:
    """step(key, state, batch), for the same loops as `training.state`: ascend in q, then descend in the parameters.

    `losses(params, batch, key)` gives a loss and a group of each image. `rate` is η; 0.01 is the published setting.
    """

    def step(key: PRNGKeyArray, state: TrainState, batch: PyTree) -> tuple[TrainState, Info]:
        inner, log_weights = state.optimiser
        now = jax.random.fold_in(key, state.step)

        def objective(params: PyTree) -> tuple[Scalar, Array]:
            loss, group = losses(params, batch, now)
            means = group_losses(loss, group, len(log_weights))
            raised = jax.lax.stop_gradient(jax.nn.log_softmax(ascend(log_weights, means, rate)))
            return jnp.sum(jnp.exp(raised) * means.mean), raised

        (value, raised), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        new = descended(state._replace(optimiser=inner), gradient, optimiser, decay)
        return new._replace(optimiser=(new.optimiser, raised)), Info(value, optax.tree.norm(gradient))

    return step
