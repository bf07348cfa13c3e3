"""How the PET experiments reconstruct: each method as a function of one case and its knobs, batched over cases.

    run(b, key, case, **knobs) → Made(image, projections)

Knobs are traced, one value a case, so a sweep is one compilation. `GRIDS` holds what each method is tuned over.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments._pet import Bench, Cases, acquisition, measures
from medjax.diffusion import conditioning, planes, sampler, schedule
from medjax.diffusion.prior import Prior, score
from medjax.diffusion.score_matching import intensity_scale
from medjax.pet import em, stochastic
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.penalty import Neighbours, neighbours, relative_difference_gradient
from medjax.pet.psf import blur, gaussian_psf
from medjax.running.progress import track

EARLY = 8  # updates of MLEM that give samplers their intensity scale and start


class Made(NamedTuple):
    """An image, and what it cost."""

    image: Array
    projections: Array  # forward and back-projections of the whole data


class Method(NamedTuple):
    """A reconstruction: `run(key, cases, knobs)` for many cases, and the values each knob is tuned over."""

    name: str
    run: Callable[[Array, Cases, Mapping[str, Array]], Made]
    grid: dict[str, tuple[float, ...]]
    networks: int = 0  # network evaluations a case


class Sampling(NamedTuple):
    """How samplers run."""

    prior: Prior
    steps: int
    last: float  # time at which sampling ends
    eta: float


def batched(b: Bench, one: Callable[..., Made], size: int) -> Callable[..., Made]:
    """`one(key, case, **knobs)` over cases, `size` at a time in one program."""

    @jax.jit
    def chunk(keys: Array, cases: Cases, knobs: dict[str, Array]) -> Made:
        return jax.vmap(lambda key, case, own: one(b, key, case, **own))(keys, cases, knobs)

    def run(key: Array, cases: Cases, knobs: Mapping[str, Array]) -> Made:
        count = len(cases)
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count))
        parts = []
        for first in range(0, count, size):
            index = np.minimum(np.arange(first, first + size), count - 1)  # the last chunk is filled up
            own = {name: jnp.asarray(np.asarray(values, np.float32)[index]) for name, values in knobs.items()}
            made = chunk(keys[index], Cases(*(jnp.asarray(a[index]) for a in cases)), own)
            parts.append(jax.tree.map(lambda a: np.asarray(a)[: count - first], made))
        return Made(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    return run


# ── conventional ──


def _filtered(b: Bench, image: Array, filter_mm: Array) -> Array:
    return blur(gaussian_psf(b.grid, filter_mm), image)


def _passes(stacked: Acquisition, passes: Array, penalty: Neighbours | None, weight: Any) -> Array:
    updates = (passes * stacked.counts.shape[0]).astype(int)
    step = partial(em.step, stacked, penalty=penalty, weight=weight)
    return jax.lax.fori_loop(0, updates, lambda _, state: step(state)[0], em.init(stacked)).image


def osem(b: Bench, key: Array, case: Cases, passes: Array, filter_mm: Array, subsets: int = 14) -> Made:
    """Ordered-subset EM, then a Gaussian."""
    stacked = ordered_subsets(acquisition(b, case), subsets)
    return Made(_filtered(b, _passes(stacked, passes, None, 0.0), filter_mm), 2 * passes)


def map_em(
    b: Bench, key: Array, case: Cases, passes: Array, beta: Array, filter_mm: Array, guided: bool = False
) -> Made:
    """De Pierro's MAP-EM with a quadratic penalty, all neighbours or those that the MR finds alike."""
    stacked = ordered_subsets(acquisition(b, case), 7)
    pairs = neighbours(b.grid.shape, b.grid.voxel_mm)
    pairs = replace(pairs, weights=jnp.asarray(case.alike)) if guided else pairs
    weight = em.penalty_weight(stacked, beta)
    return Made(_filtered(b, _passes(stacked, passes, pairs, weight), filter_mm), 2 * passes)


def bsrem(b: Bench, key: Array, case: Cases, beta: Array, filter_mm: Array, passes: int = 20) -> Made:
    """BSREM with the relative difference; β in units of the mean sensitivity."""
    stacked = ordered_subsets(acquisition(b, case), 14)
    pairs = neighbours(b.grid.shape, b.grid.voxel_mm)
    weight = beta * jnp.mean(jnp.asarray(case.sensitivity))
    start = em.run(stacked, 1)[0].image
    state, _ = stochastic.run(stacked, passes, partial(relative_difference_gradient, pairs), weight, image=start)
    return Made(_filtered(b, state.image, filter_mm), 2.0 * (passes + 1) + 0 * beta)


# ── samplers ──


class _Start(NamedTuple):
    acquisition: Acquisition
    estimator: sampler.Estimator
    image: Array  # an early MLEM image
    scale: Array


def _start(b: Bench, case: Cases, s: Sampling) -> _Start:
    whole = acquisition(b, case)
    image = jax.lax.fori_loop(0, EARLY, lambda _, x: whole.ascend(x), em.init(whole).image)
    one = planes.across(partial(score, s.prior), 2)
    return _Start(whole, sampler.unconditional(s.prior.sde, one), image, intensity_scale(image))


def _sampled(b: Bench, key: Array, s: Sampling, start: _Start, estimator: sampler.Estimator, move: Any) -> Made:
    times = sampler.time_grid(s.steps, 1.0, s.last)
    first = start.image / start.scale
    state, info = sampler.run(key, estimator, s.prior.sde, times, b.grid.shape, move, image=first)
    return Made(jnp.maximum(start.scale * state.denoised, 0), jnp.sum(info.projections) + 2.0 * EARLY)


def naive(b: Bench, key: Array, case: Cases, weight: Array, s: Sampling) -> Made:
    """Singh et al.'s PET-Naive. The pull is divided by the mean sensitivity, so that its weight is free of counts."""
    start = _start(b, case, s)
    pull = weight / (jnp.mean(start.acquisition.sensitivity) * start.scale)
    guided = conditioning.naive(start.estimator, s.prior.sde, start.acquisition, pull, start.scale)
    return _sampled(b, key, s, start, guided, sampler.euler_maruyama)


def dps(b: Bench, key: Array, case: Cases, weight: Array, s: Sampling) -> Made:
    """PET-DPS by scan: for accelerators. `dps_looped` is for CPU."""
    start = _start(b, case, s)
    guided = conditioning.dps(start.estimator, start.acquisition, weight, start.scale)
    return _sampled(b, key, s, start, guided, sampler.ddim(1.0))


def dds(b: Bench, key: Array, case: Cases, anchor: Array, s: Sampling, updates: int = 4) -> Made:
    """PET-DDS. The anchor is in units of mean sensitivity / intensity scale."""
    start = _start(b, case, s)
    pull = anchor * jnp.mean(start.acquisition.sensitivity) / start.scale
    guided = conditioning.dds(
        start.estimator, conditioning.whole(start.acquisition), pull, start.scale, updates=updates
    )
    return _sampled(b, key, s, start, guided, sampler.ddim(s.eta))


def dds_delta(b: Bench, key: Array, case: Cases, delta: Array, s: Sampling, updates: int = 5) -> Made:
    """PET-DDS-δ, λ_DDS = 1. δ is in units of 1 / (mean sensitivity · intensity scale)."""
    start = _start(b, case, s)
    size = delta / (jnp.mean(start.acquisition.sensitivity) * start.scale)
    guided = conditioning.dds_delta(
        start.estimator, conditioning.whole(start.acquisition), size, 1.0, start.scale, updates=updates
    )
    return _sampled(b, key, s, start, guided, sampler.ddim(s.eta))


def likelihood_schedule(
    b: Bench, key: Array, case: Cases, iterations: Array, s: Sampling, longest: int = 160, most: int = 60
) -> Made:
    """Likelihood-scheduled sampling; the knob is the number of MLEM iterations whose likelihood it ends with."""
    start = _start(b, case, s)
    first = em.init(start.acquisition).image
    goal = schedule.targets(start.acquisition, first, iterations, s.steps, longest, EARLY)
    guided = schedule.likelihood_schedule(start.estimator, start.acquisition, goal.deviance, start.scale, most)
    made = _sampled(b, key, s, start, guided, sampler.ddim(s.eta))
    return made._replace(projections=made.projections + 2 * iterations)  # only as many are needed


def looped_dps(b: Bench, s: Sampling, size: int) -> Callable[..., Made]:
    """`dps` with its steps called from Python: on CPU the network's gradient is many times faster outside a scan."""
    times = sampler.time_grid(s.steps, 1.0, s.last)

    @jax.jit
    @jax.vmap
    def begin(key: Array, case: Cases) -> tuple[sampler.State, Array, Array]:
        start = _start(b, case, s)
        state = sampler.init(key, s.prior.sde, b.grid.shape, times[0], start.image / start.scale)
        return state, start.image, start.scale

    @jax.jit
    @jax.vmap
    def step(key: Array, state: sampler.State, case: Cases, scale: Array, weight: Array) -> sampler.State:
        one = planes.across(partial(score, s.prior), 2)
        plain = sampler.unconditional(s.prior.sde, one)
        guided = conditioning.dps(plain, acquisition(b, case), weight, scale)
        return sampler.step(key, state, guided, s.prior.sde, times, sampler.ddim(1.0))[0]

    def run(key: Array, cases: Cases, knobs: Mapping[str, Array]) -> Made:
        images = []
        for first in range(0, len(cases), size):
            index = np.minimum(np.arange(first, first + size), len(cases) - 1)
            keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.asarray(index))
            case = Cases(*(jnp.asarray(a[index]) for a in cases))
            weight = jnp.asarray(np.asarray(knobs["weight"], np.float32)[index])
            state, _, scale = begin(keys, case)
            for _ in range(s.steps):
                state = step(keys, state, case, scale, weight)
            made = jnp.maximum(state.denoised * scale[:, None, None, None], 0)
            images.append(np.asarray(made)[: len(cases) - first])
        cost = np.full(len(cases), 2.0 * (s.steps + EARLY))
        return Made(np.concatenate(images), cost)

    return run


# ── tuning ──


class Tuned(NamedTuple):
    """What tuning found, and what it cost."""

    knobs: dict[float, dict[str, float]]  # by count level
    shared: dict[str, float]  # one setting for all levels
    errors: np.ndarray  # (setting, level) mean NRMSE
    settings: list[dict[str, float]]
    projections: float  # a validation case and setting, on average
    cases: int  # reconstructions made


def tune(method: Method, cases: Cases, key: Array) -> Tuned:
    """NRMSE of every setting on validation cases; the best for each level, and the best for all together."""
    settings = [dict(zip(method.grid, values, strict=True)) for values in product(*method.grid.values())]
    levels = np.unique(cases.level)
    errors, cost = np.zeros((len(settings), len(levels))), []
    for row, knobs in enumerate(track(settings, f"tuning {method.name}")):
        made = method.run(key, cases, {name: np.full(len(cases), value) for name, value in knobs.items()})
        each = np.array([measures(image, cases.where(i))["nrmse"] for i, image in enumerate(made.image)])
        errors[row] = [each[cases.level == level].mean() for level in levels]
        cost.append(made.projections.mean())
    errors = np.where(np.isfinite(errors), errors, np.inf)
    best = {float(level): settings[int(errors[:, k].argmin())] for k, level in enumerate(levels)}
    relative = (errors / errors.min(axis=0)).mean(axis=1)
    return Tuned(
        best, settings[int(relative.argmin())], errors, settings, float(np.mean(cost)), len(settings) * len(cases)
    )


def knobs_for(cases: Cases, tuned: Mapping[float, Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Each case's knobs, by its level."""
    names = next(iter(tuned.values()))
    return {name: np.array([tuned[float(level)][name] for level in cases.level]) for name in names}
