"""Expectation maximisation: MLEM, OSEM and De Pierro's MAP-EM as one step.

    init(acquisition)                            → State
    step(stacked, state, penalty, weight)        → State, Info      one subset
    run(stacked, iterations, penalty, weight)    → State, Info      all of them, by scan

`stacked` comes from `ordered_subsets(acquisition, n)`: n = 1 is MLEM, more is OSEM. A quadratic penalty (plain or
Bowsher, see `penalty.neighbours`) and its weight make it MAP-EM. Each subset uses its own sensitivity and 1 / n of the
penalty.
"""

from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from medjax.penalty import Neighbours, quadratic_surrogate
from medjax.pet.acquisition import Acquisition, de_pierro, divide, em_image, select


class State(NamedTuple):
    """What the next step needs."""

    image: Float[Array, "x y plane"]
    updates: Int[Array, ""]  # steps made so far; the next one uses subset `order[updates mod n]`


class Info(NamedTuple):
    """What a reader wants to see."""

    deviance: Scalar  # of the image that entered the step, on the step's subset; costs no extra projection


def init(acquisition: Acquisition) -> State:
    """A uniform image where the scanner sees it, 0 elsewhere, with Σ sensitivity · x = max(Σ y − Σ b, 1).

    Takes an acquisition whole or stacked.
    """
    sensitivity = acquisition.sensitivity if acquisition.sensitivity.ndim == 3 else acquisition.sensitivity.sum(axis=0)
    trues = jnp.maximum(acquisition.counts.sum() - acquisition.additive.sum(), 1.0)
    level = trues / jnp.maximum(sensitivity.sum(), jnp.finfo(sensitivity.dtype).tiny)
    return State(jnp.where(sensitivity > 0, level, 0.0).astype(sensitivity.dtype), jnp.zeros((), jnp.int32))


def subset_order(number: int) -> Int[Array, " subset"]:
    """An order in which neighbours lie far apart: multiples of the coprime stride nearest to number / golden ratio."""
    stride = min((k for k in range(1, number + 1) if gcd(k, number) == 1), key=lambda k: abs(k - number * 0.618))
    return jnp.asarray(np.arange(number) * stride % number, jnp.int32)


def step(
    stacked: Acquisition, state: State, penalty: Neighbours | None = None, weight: float | Scalar = 0.0
) -> tuple[State, Info]:
    """One EM update from one subset; with a penalty, one step of MAP-EM on log-likelihood − weight · ½ Σ w (xⱼ − xₖ)².

    With one subset the objective never falls, x stays non-negative, and without penalty and background every step
    conserves Σ sensitivity · x = Σ counts.

    Source: Shepp & Vardi 1982; Hudson & Larkin, IEEE Transactions on Medical Imaging 13(4), 1994; De Pierro 1995.
    """
    number = stacked.counts.shape[0]
    part = select(stacked, subset_order(number)[state.updates % number])
    expected = part.expected(state.image)
    image = em_image(part, state.image, expected)
    if penalty is not None:
        anchor, curvature = quadratic_surrogate(penalty, state.image)
        image = de_pierro(image, part.sensitivity, anchor, weight / number * curvature)
    return State(image, state.updates + 1), Info(part.deviance(expected))


def run(
    stacked: Acquisition,
    iterations: int,
    penalty: Neighbours | None = None,
    weight: float | Scalar = 0.0,
    state: State | None = None,
) -> tuple[State, Info]:
    """`iterations` passes through all subsets, from `state` or from a uniform image; Info has one row an update."""

    def body(state: State, _: None) -> tuple[State, Info]:
        return step(stacked, state, penalty, weight)

    return jax.lax.scan(body, init(stacked) if state is None else state, length=iterations * stacked.counts.shape[0])


def penalty_weight(stacked: Acquisition, beta: float | Scalar, state: State | None = None, updates: int = 8) -> Scalar:
    """β / x̄²: makes the penalty ½ β Σ w ((xⱼ − xₖ) / x̄)², in which β says that neighbours differ by x̄ / √β.

    x̄ = Σ x² / Σ x is the mean that activity sees, air left out, after a few `updates` without penalty, when an image
    shows its level but little noise. So β needs no tuning to units. An image that stays 0 gives weight 0.
    """

    def body(state: State, _: None) -> tuple[State, None]:
        return step(stacked, state)[0], None

    image = jax.lax.scan(body, init(stacked) if state is None else state, length=updates)[0].image
    return beta * divide(jnp.sum(image), jnp.sum(image**2)) ** 2
