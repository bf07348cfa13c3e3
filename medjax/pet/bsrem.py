"""BSREM: preconditioned subset gradient ascent with a shrinking step.

    x ← max(x + α_e (x + δ) / s · (n ∇L_k(x) − weight ∇R(x)), 0),   α_e = 1 / (1 + relaxation · epoch)

For penalties that the EM step has no closed form for, such as the relative difference.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from medjax.pet import em
from medjax.pet.acquisition import Acquisition, divide, select


class State(NamedTuple):
    """What the next step needs."""

    image: Float[Array, "x y plane"]
    updates: Int[Array, ""]


class Info(NamedTuple):
    """What a reader wants to see."""

    deviance: Scalar  # of the image that entered the step, on the step's subset
    change: Scalar  # ‖new − old‖ / ‖old‖


def init(stacked: Acquisition, image: Float[Array, "x y plane"] | None = None) -> State:
    """Start from `image` (one or two OSEM iterations are usual), or from a uniform one."""
    return State(em.init(stacked).image if image is None else image, jnp.zeros((), jnp.int32))


def step(
    stacked: Acquisition,
    state: State,
    penalty_gradient: Callable[[Float[Array, "x y plane"]], Float[Array, "x y plane"]],
    weight: float | Scalar,
    relaxation: float | Scalar = 0.1,
    floor: float | Scalar = 1e-6,
) -> tuple[State, Info]:
    """One subset's update. `floor` · mean(x) is δ: it lets a voxel leave zero.

    Source: De Pierro & Yamagishi, IEEE Transactions on Medical Imaging 20(4), 2001; Ahn & Fessler, 22(5), 2003.
    """
    number = stacked.counts.shape[0]
    part = select(stacked, em.subset_order(number)[state.updates % number])
    image = state.image
    expected = part.expected(image)
    ascent = part.adjoint(divide(part.counts, expected)) - part.sensitivity
    sensitivity = stacked.sensitivity.sum(axis=0)
    direction = number * ascent - weight * penalty_gradient(image)
    size = 1 / (1 + relaxation * (state.updates // number))
    seen = sensitivity > 0
    new = jnp.maximum(image + size * divide(image + floor * image.mean(), sensitivity) * direction, 0) * seen
    change = jnp.linalg.norm(new - image) / jnp.maximum(jnp.linalg.norm(image), jnp.finfo(image.dtype).tiny)
    return State(new, state.updates + 1), Info(part.deviance(expected), change)


def run(
    stacked: Acquisition,
    iterations: int,
    penalty_gradient: Callable[[Float[Array, "x y plane"]], Float[Array, "x y plane"]],
    weight: float | Scalar,
    relaxation: float | Scalar = 0.1,
    image: Float[Array, "x y plane"] | None = None,
) -> tuple[State, Info]:
    """`iterations` passes through all subsets; Info has one row an update."""

    def body(state: State, _: None) -> tuple[State, Info]:
        return step(stacked, state, penalty_gradient, weight, relaxation)

    return jax.lax.scan(body, init(stacked, image), length=iterations * stacked.counts.shape[0])
