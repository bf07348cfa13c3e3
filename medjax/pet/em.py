"""Expectation maximization: MLEM, OSEM and De Pierro's MAP-EM as Algorithms.

    state, info = iterate.scan(mlem(acquisition), init(acquisition), n=30)
    state, info = iterate.scan(osem(stacked), init(stacked), updates(stacked, iterations=3))
    state = iterate.repeat(map_em(stacked, penalty, weight), state, n)                          n may be traced

`stacked` comes from `ordered_subsets(acquisition, n)`; a step uses one subset, an iteration all of them. A penalty with
a `surrogate` and its weight make it MAP-EM. Each subset uses its own sensitivity and 1 / n of the penalty.
"""

from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Scalar

from medjax import iterate
from medjax.errors import DataError
from medjax.iterate import Algorithm
from medjax.penalty import Penalty, require
from medjax.pet.acquisition import Acquisition, de_pierro_update, divide, em_update, require_subsets, select_subset


class State(NamedTuple):
    """State of EM: image and number of updates."""

    image: Float[Array, "x y z"]
    step: Int[Array, ""]  # updates made so far; the next one uses subset `order[step mod n]`


class Info(NamedTuple):
    """Deviance and objective of an EM update, of the image that entered the step; they cost no extra projection."""

    deviance: Scalar  # on the step's subset
    objective: Scalar  # −deviance − weight R / number of subsets: with one subset the objective, else summed over all


def mlem(acquisition: Acquisition) -> Algorithm:
    """Maximum-likelihood EM (MLEM) of all data: the Poisson likelihood never falls.

    Raises:
        DataError: the acquisition is in subsets.

    Source: Shepp & Vardi, IEEE Transactions on Medical Imaging 1(2), 1982.
    """
    stacked = acquisition if acquisition.sensitivity.ndim == 4 else jax.tree.map(lambda a: a[None], acquisition)
    if len(stacked.counts) > 1:
        raise DataError(f"MLEM: {len(stacked.counts)} subsets; expected an acquisition without subsets, or `osem`")
    return osem(stacked)


def osem(stacked: Acquisition) -> Algorithm:
    """Ordered-subset EM (OSEM): `init() → State`, `step(State) → State, Info`, one subset a step.

    Raises:
        DataError: the acquisition has no subsets: expected the result of `ordered_subsets`.

    Source: Hudson & Larkin, IEEE Transactions on Medical Imaging 13(4), 1994.
    """
    require_subsets(stacked)
    return Algorithm(Partial(init, stacked), Partial(_step, stacked, None, 0.0))


def map_em(stacked: Acquisition, penalty: Penalty, weight: float | Scalar) -> Algorithm:
    """Maximum-a-posteriori EM (MAP-EM) by De Pierro's surrogate: maximises log-likelihood − weight · R(x).

    With one subset the objective never falls and x stays non-negative.

    Raises:
        ConfigError: the penalty has no surrogate or no value.
        DataError: the acquisition has no subsets.

    Source: De Pierro, IEEE Transactions on Medical Imaging 14(1), 1995.
    """
    require(penalty, "MAP-EM", "surrogate", "value")
    require_subsets(stacked)
    return Algorithm(Partial(init, stacked), Partial(_step, stacked, penalty, weight))


def init(acquisition: Acquisition) -> State:
    """Uniform first image where the sensitivity is above 0, 0 elsewhere, with Σ sensitivity · x = max(Σ y − Σ b, 1).

    Takes an acquisition with or without subsets.
    """
    sensitivity = acquisition.sensitivity if acquisition.sensitivity.ndim == 3 else acquisition.sensitivity.sum(axis=0)
    trues = jnp.maximum(acquisition.counts.sum() - acquisition.additive.sum(), 1.0)
    level = trues / jnp.maximum(sensitivity.sum(), jnp.finfo(sensitivity.dtype).tiny)
    return State(jnp.where(sensitivity > 0, level, 0.0).astype(sensitivity.dtype), jnp.zeros((), jnp.int32))


def updates(stacked: Acquisition, iterations: int) -> int:
    """Number of updates in `iterations`, each of all subsets."""
    return iterations * stacked.counts.shape[0]


def subset_order(number: int) -> Int[Array, " subset"]:
    """Order of subsets, far-apart views first: multiples of the coprime stride nearest to number / golden ratio."""
    stride = min((k for k in range(1, number + 1) if gcd(k, number) == 1), key=lambda k: abs(k - number * 0.618))
    return jax.device_put((np.arange(number) * stride % number).astype(np.int32))


def penalty_weight(stacked: Acquisition, beta: float | Scalar, state: State | None = None, updates: int = 8) -> Scalar:
    """Penalty weight β / x̄²: of the penalty ½ β Σ w ((xⱼ − xₖ) / x̄)², where neighbours differ by about x̄ / √β.

    x̄ = Σ x² / Σ x is the activity-weighted mean, without air, after `updates` of OSEM, when an image shows its level
    but little noise. So β needs no tuning to units. An image that stays 0 gives weight 0.
    """
    image = iterate.scan(osem(stacked), init(stacked) if state is None else state, updates)[0].image
    return beta * divide(jnp.sum(image), jnp.sum(image**2)) ** 2


def _step(stacked: Acquisition, penalty: Penalty | None, weight: float | Scalar, state: State) -> tuple[State, Info]:
    """x ← argmax of the EM surrogate of one subset − weight · the penalty's surrogate; one update, in closed form."""
    number = stacked.counts.shape[0]
    part = select_subset(stacked, subset_order(number)[state.step % number])
    expected = part.expected(state.image)
    image, deviance = em_update(part, state.image, expected), part.deviance(expected)
    objective = -deviance
    if penalty is not None:
        anchor, curvature = penalty.surrogate(state.image)  # pyrefly: ignore[missing-attribute] (`require` saw it)
        image = de_pierro_update(image, part.sensitivity, anchor, weight / number * curvature)
        objective = objective - weight / number * penalty.value(state.image)
    return State(image, state.step + 1), Info(deviance, objective)
