"""BSREM: preconditioned subset gradient ascent with a decreasing step size.

    x ← max(x + α_e (x + δ) / s · (n ∇L_k(x) − weight ∇R(x)), 0),   α_e = 1 / (1 + relaxation · epoch)

For penalties that the EM step has no closed form for, such as the relative difference.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Scalar

from medjax.iterate import Algorithm
from medjax.penalty import Penalty, require
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, divide, require_subsets, select_subset


class State(NamedTuple):
    """State of BSREM: image and number of updates."""

    image: Float[Array, "x y plane"]
    step: Int[Array, ""]


class Info(NamedTuple):
    """Deviance and relative change of a BSREM update."""

    deviance: Scalar  # deviance of the image that entered the step, on the step's subset
    change: Scalar  # ‖new − old‖ / ‖old‖


def bsrem(
    stacked: Acquisition,
    penalty: Penalty,
    weight: float | Scalar,
    relaxation: float | Scalar = 0.1,
    floor: float | Scalar = 1e-6,
) -> Algorithm:
    """Block-sequential regularised EM (BSREM), one subset a step.

    `init(image=None) → State`, `step(State) → State, Info`.
    Start from one or two OSEM iterations, or from a uniform image.

    Args:
        stacked: ordered subsets of the data, from `ordered_subsets`.
        penalty: penalty with a gradient.
        weight: weight of the penalty.
        relaxation: relaxation of the step size, α = 1 / (1 + relaxation · epoch).
        floor: δ / mean(x), by which a voxel can leave zero.

    Raises:
        ConfigError: the penalty has no gradient.
        DataError: the acquisition has no subsets: expected the result of `ordered_subsets`.

    Source: De Pierro & Yamagishi, IEEE Transactions on Medical Imaging 20(4), 2001; Ahn & Fessler, 22(5), 2003.
    """
    require(penalty, "BSREM", "gradient")
    require_subsets(stacked)
    return Algorithm(Partial(_init, stacked), Partial(_step, stacked, penalty, weight, relaxation, floor))


def _init(stacked: Acquisition, image: Float[Array, "x y plane"] | None = None) -> State:
    return State(em.init(stacked).image if image is None else image, jnp.zeros((), jnp.int32))


def _step(
    stacked: Acquisition,
    penalty: Penalty,
    weight: float | Scalar,
    relaxation: float | Scalar,
    floor: float | Scalar,
    state: State,
) -> tuple[State, Info]:
    number = stacked.counts.shape[0]
    part = select_subset(stacked, em.subset_order(number)[state.step % number])
    image = state.image
    expected = part.expected(image)
    ascent = part.adjoint(divide(part.counts, expected)) - part.sensitivity
    sensitivity = stacked.sensitivity.sum(axis=0)
    direction = number * ascent - weight * penalty.gradient(image)
    size = 1 / (1 + relaxation * (state.step // number))
    seen = sensitivity > 0
    new = jnp.maximum(image + size * divide(image + floor * image.mean(), sensitivity) * direction, 0) * seen
    change = jnp.linalg.norm(new - image) / jnp.maximum(jnp.linalg.norm(image), jnp.finfo(image.dtype).tiny)
    return State(new, state.step + 1), Info(part.deviance(expected), change)
