"""How the PET experiments reconstruct: each method as a function of one case and its knobs, batched over cases.

    run(b, key, case, **knobs) → Made(image, projections)

Knobs are traced, one value a case, so a sweep is one compilation. `GRIDS` holds what each method is tuned over.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from experiments._pet import AnyArray, Bench, Cases, acquisition
from medjax import iterate
from medjax.diffusion import guidance, planes, sampler
from medjax.diffusion import likelihood_schedule as schedule
from medjax.diffusion.score_matching import intensity_scale
from medjax.iterate import Algorithm
from medjax.penalty import Patch, Quadratic, RelativeDifference, neighbours
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, expected_deviance, ordered_subsets
from medjax.pet.bsrem import bsrem as bsrem_algorithm
from medjax.pet.psf import blur, gaussian_psf

LONGEST, FITTED = 160, 80  # iterates of MLEM: at most for targets, and to look for the noise's level in
EARLY = 8  # updates of MLEM that give samplers their intensity scale and start


class Made(NamedTuple):
    """An image, and what it cost."""

    image: AnyArray
    projections: AnyArray  # forward and back-projections of the whole data


class Method(NamedTuple):
    """A reconstruction: `run(key, cases, knobs)` for many cases, and the values each knob is tuned over."""

    name: str
    run: Callable[[Array, Cases, Mapping[str, Any]], Made]
    grid: dict[str, tuple[float, ...]]  # the first is the knob whose sensitivity is reported: in factors of 2


class Sampling(NamedTuple):
    """The prior, as denoisers of slices (batch, a, b) of mean emission 1, and how samplers run."""

    denoisers: tuple[Any, Any, Any]  # the k-th of slices perpendicular to axis k of a volume
    multiple: int  # sides of slices must be multiples of this
    steps: int
    first: float  # times at which sampling starts, from an early MLEM image with noise, and ends
    last: float
    eta: float


def batched(b: Bench, one: Callable[..., Made], size: int) -> Callable[..., Made]:
    """`one(key, case, **knobs)` over cases, `size` at a time in one program."""

    @jax.jit
    def chunk(keys: Array, cases: Cases, knobs: dict[str, Array]) -> Made:
        return jax.vmap(lambda key, case, own: one(b, key, case, **own))(keys, cases, knobs)

    def run(key: Array, cases: Cases, knobs: Mapping[str, Array]) -> Made:
        count = cases.number
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count))
        parts = []
        for first in range(0, count, size):
            index = np.minimum(np.arange(first, first + size), count - 1)  # the last chunk is filled up
            own = {name: jnp.asarray(np.asarray(values, np.float32)[index]) for name, values in knobs.items()}
            made = chunk(keys[index], ready(cases, index), own)
            parts.append([np.asarray(array)[: count - first] for array in made])
        return Made(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    return run


def ready(cases: Cases, index: np.ndarray) -> Cases:
    """Chosen cases on the device."""
    return Cases(*(jnp.asarray(array[index]) for array in cases))


# ── conventional ──


def _filtered(b: Bench, image: Array, filter_mm: Array) -> Array:
    return blur(gaussian_psf(b.grid, filter_mm), image)


def _reconstruct(algorithm: Algorithm, stacked: Acquisition, iterations: Array) -> Array:
    return iterate.repeat(algorithm, em.init(stacked), em.updates(stacked, 1) * iterations.astype(int)).image


def osem(b: Bench, key: Array, case: Cases, passes: Array, filter_mm: Array, subsets: int = 14) -> Made:
    """Ordered-subset EM, then a Gaussian."""
    stacked = ordered_subsets(acquisition(b, case), subsets)
    return Made(_filtered(b, _reconstruct(em.osem(stacked), stacked, passes), filter_mm), 2 * passes)


def map_em(
    b: Bench, key: Array, case: Cases, passes: Array, beta: Array, filter_mm: Array, guided: bool = False
) -> Made:
    """De Pierro's MAP-EM with a quadratic penalty, all neighbours or those that the MR finds alike."""
    stacked = ordered_subsets(acquisition(b, case), 7)
    pairs = neighbours(b.grid.shape, b.grid.voxel_mm)
    pairs = replace(pairs, weights=jnp.asarray(case.alike)) if guided else pairs
    algorithm = em.map_em(stacked, Quadratic(pairs), em.penalty_weight(stacked, beta))
    return Made(_filtered(b, _reconstruct(algorithm, stacked, passes), filter_mm), 2 * passes)


def patch_map_em(b: Bench, key: Array, case: Cases, beta: Array, delta: Array, passes: int = 10) -> Made:
    """MAP-EM with the patch-based penalty of Wang & Qi; δ in units of the mean activity."""
    stacked = ordered_subsets(acquisition(b, case), 7)
    weight = em.penalty_weight(stacked, beta)
    threshold = delta * jnp.sqrt(beta / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny))
    penalty = Patch(neighbours(b.grid.shape, b.grid.voxel_mm), threshold)
    start = iterate.repeat(em.osem(stacked), em.init(stacked), 7)
    state = iterate.repeat(em.map_em(stacked, penalty, weight), start, em.updates(stacked, passes))
    return Made(state.image, 2.0 * (passes + 1) + 0 * beta)


def bsrem(b: Bench, key: Array, case: Cases, beta: Array, filter_mm: Array, passes: int = 20) -> Made:
    """BSREM with the relative difference; β in units of the mean sensitivity."""
    stacked = ordered_subsets(acquisition(b, case), 14)
    penalty = RelativeDifference(neighbours(b.grid.shape, b.grid.voxel_mm))
    algorithm = bsrem_algorithm(stacked, penalty, beta * jnp.mean(jnp.asarray(case.sensitivity)))
    start = iterate.repeat(em.osem(stacked), em.init(stacked), em.updates(stacked, 1))
    state = iterate.repeat(algorithm, algorithm.init(start.image), em.updates(stacked, passes))
    return Made(_filtered(b, state.image, filter_mm), 2.0 * (passes + 1) + 0 * beta)


# ── samplers ──


class _Start(NamedTuple):
    acquisition: Acquisition
    denoiser: Any  # of the volume
    image: Array  # an early MLEM image
    scale: Array


def _start(b: Bench, case: Cases, s: Sampling) -> _Start:
    whole = acquisition(b, case)
    image = jax.lax.fori_loop(0, EARLY, lambda _, x: whole.update(x), em.init(whole).image)
    return _Start(whole, planes.slice_wise(s.denoisers[2], 2), image, intensity_scale(image))


def sampler_of(s: Sampling, denoiser: Any, guided: Any, solver: Any) -> iterate.Algorithm:
    """The sampler of these settings."""
    return sampler.sampler(guided, denoiser.sde, sampler.uniform_times(s.steps, s.first, s.last), solver)


def _run(b: Bench, key: Array, s: Sampling, start: _Start, guided: Any, solver: Any) -> tuple[sampler.State, Any]:
    algorithm = sampler_of(s, start.denoiser, guided, solver)
    return iterate.scan(algorithm, algorithm.init(key, b.grid.shape, start.image / start.scale), s.steps)


def _sampled(b: Bench, key: Array, s: Sampling, start: _Start, guided: Any, solver: Any) -> Made:
    state, info = _run(b, key, s, start, guided, solver)
    return Made(jnp.maximum(start.scale * state.x0, 0), jnp.sum(info.projector_calls) + 2.0 * EARLY)


def naive(b: Bench, key: Array, case: Cases, weight: Array, s: Sampling) -> Made:
    """Singh et al.'s PET-Naive. The pull is divided by the mean sensitivity, so that its weight is free of counts."""
    start = _start(b, case, s)
    pull = weight / (jnp.mean(start.acquisition.sensitivity) * start.scale)
    guided = guidance.naive(start.denoiser, start.acquisition, pull, start.scale)
    return _sampled(b, key, s, start, guided, sampler.euler_maruyama)


def dps(b: Bench, key: Array, case: Cases, weight: Array, s: Sampling) -> Made:
    """PET-DPS by scan: for accelerators. `looped_dps` is for CPU."""
    start = _start(b, case, s)
    guided = guidance.dps(start.denoiser, start.acquisition, weight, start.scale)
    return _sampled(b, key, s, start, guided, sampler.ddim(1.0))


def dds(b: Bench, key: Array, case: Cases, anchor: Array, updates: Array, s: Sampling) -> Made:
    """PET-DDS. The anchor is in units of mean sensitivity / intensity scale."""
    start = _start(b, case, s)
    pull = anchor * jnp.mean(start.acquisition.sensitivity) / start.scale
    guided = guidance.dds(start.denoiser, start.acquisition, pull, start.scale, updates=updates.astype(int))
    return _sampled(b, key, s, start, guided, sampler.ddim(s.eta))


def dds_delta(b: Bench, key: Array, case: Cases, delta: Array, s: Sampling, updates: int = 5) -> Made:
    """PET-DDS-δ, λ_DDS = 1. δ is in units of 1 / (mean sensitivity · intensity scale)."""
    start = _start(b, case, s)
    size = delta / (jnp.mean(start.acquisition.sensitivity) * start.scale)
    guided = guidance.dds_delta(start.denoiser, start.acquisition, size, 1.0, start.scale, updates=updates)
    return _sampled(b, key, s, start, guided, sampler.ddim(s.eta))


def _scheduled(start: _Start, iterations: Array, s: Sampling, most: int) -> Any:
    first = em.init(start.acquisition).image
    targets = schedule.targets(start.acquisition, first, iterations, s.steps, LONGEST, EARLY)
    return schedule.likelihood_schedule(start.denoiser, start.acquisition, targets.deviance, start.scale, most)


def likelihood_schedule(b: Bench, key: Array, case: Cases, iterations: Array, s: Sampling, most: int = 30) -> Made:
    """Likelihood-scheduled sampling, which ends with the likelihood that MLEM has after so many iterations."""
    start = _start(b, case, s)
    made = _sampled(b, key, s, start, _scheduled(start, iterations, s, most), sampler.ddim(s.eta))
    return made._replace(projections=made.projections + 2 * iterations)  # only as many are needed


def likelihood_schedule_fit(b: Bench, key: Array, case: Cases, multiple: Array, s: Sampling) -> Made:
    """The same, in units of the iterate at which MLEM fits as well as the truth is expected to (Morozov)."""
    whole = acquisition(b, case)
    path = schedule.targets(whole, em.init(whole).image, jnp.asarray(FITTED), 2, FITTED, EARLY).path
    deviance = expected_deviance(whole.expected(jnp.asarray(_start(b, case, s).image)))
    fit = schedule.discrepancy_principle(path, deviance)
    iterations = jnp.clip(multiple * fit, 1, LONGEST)
    made = likelihood_schedule(b, key, case, iterations, s)
    return made._replace(projections=made.projections + 2 * jnp.maximum(fit - iterations, 0))


def schedule_steps(b: Bench, key: Array, case: Cases, iterations: Array, s: Sampling) -> schedule.Info:
    """What each step of a likelihood-scheduled sampling aimed at and reached."""
    start = _start(b, case, s)
    return _run(b, key, s, start, _scheduled(start, iterations, s, 30), sampler.ddim(s.eta))[1]


def looped_dps(b: Bench, s: Sampling, size: int) -> Callable[..., Made]:
    """`dps` with its steps called from Python: on CPU the network's gradient is many times faster outside a scan."""
    first_time = sampler.uniform_times(s.steps, s.first, s.last)[0]
    each = sampler.State._make((0, 0, 0, None))  # one number of steps for all cases

    @jax.jit
    @partial(jax.vmap, out_axes=(each, 0))
    def begin(key: Array, case: Cases) -> tuple[sampler.State, Array]:
        start = _start(b, case, s)
        first = start.image / start.scale
        sample = sampler.noisy_start(start.denoiser.sde, key, b.grid.shape, first_time, first)
        return sampler.State(sample, jnp.zeros(b.grid.shape), key, jnp.zeros((), jnp.int32)), start.scale

    @partial(jax.vmap, in_axes=(0, 0, 0, each), out_axes=(each, 0))
    def step(case: Cases, scale: Array, weight: Array, state: sampler.State) -> tuple[sampler.State, Any]:
        denoiser = planes.slice_wise(s.denoisers[2], 2)
        guided = guidance.dps(denoiser, acquisition(b, case), weight, scale)
        return sampler_of(s, denoiser, guided, sampler.ddim(1.0)).step(state)

    def run(key: Array, cases: Cases, knobs: Mapping[str, Array]) -> Made:
        images = []
        for first in range(0, cases.number, size):
            index = np.minimum(np.arange(first, first + size), cases.number - 1)
            keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.asarray(index))
            case = ready(cases, index)
            weight = jnp.asarray(np.asarray(knobs["weight"], np.float32)[index])
            state, scale = begin(keys, case)
            algorithm = iterate.Algorithm(begin, Partial(step, case, scale, weight))
            states = iterate.loop(algorithm, state, s.steps, every=s.steps, check=_any_value)
            made = jnp.maximum(iterate.last(states, state).x0 * scale[:, None, None, None], 0)
            images.append(np.asarray(made)[: cases.number - first])
        cost = np.full(cases.number, 2.0 * (s.steps + EARLY))
        return Made(np.concatenate(images), cost)

    return run


def _any_value(state: Any, info: Any, step: int) -> None:
    """Tuning judges images that are not finite."""


# ── all of them ──


def methods(b: Bench, s: Sampling, size: int) -> dict[str, Method]:
    """Every method that is not learned, by name; `size` cases at once."""
    guided = partial(map_em, guided=True)
    passes, filters = (1.0, 2.0, 4.0, 8.0), (0.0, 3.0, 5.0, 7.0)
    beta = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    conventional: dict[str, tuple[Callable[..., Made], dict[str, tuple[float, ...]]]] = {
        "osem": (osem, {"passes": passes, "filter_mm": filters}),
        "map_em": (map_em, {"beta": beta, "passes": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
        "mr_map_em": (guided, {"beta": (*beta[2:], 64.0, 128.0), "passes": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
        "patch_map_em": (patch_map_em, {"beta": (*beta[2:], 64.0, 128.0), "delta": (0.03, 0.1, 0.3)}),
        "bsrem": (bsrem, {"beta": (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128), "filter_mm": (0.0, 4.0)}),
    }
    sampled: dict[str, tuple[Callable[..., Made], dict[str, tuple[float, ...]]]] = {
        "naive": (naive, {"weight": (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)}),
        "dds": (dds, {"anchor": (0.0156, 0.0312, 0.0625, 0.125, 0.25), "updates": (1.0, 2.0, 4.0)}),
        "dds_delta": (dds_delta, {"delta": (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)}),
        "likelihood_schedule": (likelihood_schedule, {"iterations": (5.0, 10.0, 20.0, 40.0, 80.0)}),
        "likelihood_schedule_fit": (likelihood_schedule_fit, {"multiple": (0.25, 0.5, 1.0, 2.0)}),
    }
    out = {name: Method(name, batched(b, run, size), grid) for name, (run, grid) in conventional.items()}
    out |= {name: Method(name, batched(b, partial(run, s=s), size), grid) for name, (run, grid) in sampled.items()}
    weights = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
    return out | {"dps": Method("dps", looped_dps(b, s, size), {"weight": weights})}


def averaged(method: Method, samples: int) -> Method:
    """The mean of several samples instead of one."""

    def run(key: Array, cases: Cases, knobs: Mapping[str, Any]) -> Made:
        repeated = Cases(*(np.repeat(array, samples, axis=0) for array in cases))
        made = method.run(key, repeated, {name: np.repeat(values, samples) for name, values in knobs.items()})
        shape = (cases.number, samples)
        images = made.image.reshape(*shape, *made.image.shape[1:]).mean(axis=1)
        return Made(images, made.projections.reshape(shape).sum(axis=1))

    return Method(f"{method.name}_mean", run, method.grid)
