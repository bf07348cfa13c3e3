"""Samplers of the PET experiments: each guidance with a prior, from an early MLEM image with noise."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from experiments._pet import Scans, Setup, acquisition
from experiments._pet_batched import Reconstruction, to_device
from medjax import iterate
from medjax.diffusion import guidance, planes, sampler
from medjax.diffusion import likelihood_schedule as schedule
from medjax.diffusion.score_matching import intensity_scale
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, expected_deviance

LONGEST, FITTED = 160, 80  # iterates of MLEM: at most for targets, and to look for the noise's level in
EARLY = 8  # updates of MLEM that give samplers their intensity scale and start


class Sampling(NamedTuple):
    """The prior, as denoisers of slices (batch, a, b) of mean emission 1, and how samplers run."""

    denoisers: tuple[Any, Any, Any]  # the k-th of slices perpendicular to axis k of a volume
    multiple: int  # sides of slices must be multiples of this
    steps: int
    first: float  # times at which sampling starts, from an early MLEM image with noise, and ends
    last: float
    eta: float


class _Start(NamedTuple):
    acquisition: Acquisition
    denoiser: Any  # of the volume
    image: Array  # an early MLEM image
    scale: Array


def _start(b: Setup, case: Scans, s: Sampling) -> _Start:
    whole = acquisition(b, case)
    image = jax.lax.fori_loop(0, EARLY, lambda _, x: whole.update(x), em.init(whole).image)
    return _Start(whole, planes.slice_wise(s.denoisers[2], 2), image, intensity_scale(image))


def sampler_of(s: Sampling, denoiser: Any, guided: Any, solver: Any) -> iterate.Algorithm:
    """The sampler of these settings."""
    return sampler.sampler(guided, denoiser.sde, sampler.uniform_times(s.steps, s.first, s.last), solver)


def _run(b: Setup, key: Array, s: Sampling, start: _Start, guided: Any, solver: Any) -> tuple[sampler.State, Any]:
    algorithm = sampler_of(s, start.denoiser, guided, solver)
    return iterate.scan(algorithm, algorithm.init(key, b.grid.shape, start.image / start.scale), s.steps)


def _sampled(b: Setup, key: Array, s: Sampling, start: _Start, guided: Any, solver: Any) -> Reconstruction:
    state, info = _run(b, key, s, start, guided, solver)
    return Reconstruction(jnp.maximum(start.scale * state.x0, 0), jnp.sum(info.projector_calls) + 2.0 * EARLY)


def naive(b: Setup, key: Array, case: Scans, weight: Array, s: Sampling) -> Reconstruction:
    """Singh et al.'s PET-Naive. The pull is divided by the mean sensitivity, so that its weight is free of counts."""
    start = _start(b, case, s)
    pull = weight / (jnp.mean(start.acquisition.sensitivity) * start.scale)
    guided = guidance.naive(start.denoiser, start.acquisition, pull, start.scale)
    return _sampled(b, key, s, start, guided, sampler.euler_maruyama)


def dps(b: Setup, key: Array, case: Scans, weight: Array, s: Sampling) -> Reconstruction:
    """PET-DPS by scan: for accelerators. `looped_dps` is for CPU."""
    start = _start(b, case, s)
    guided = guidance.dps(start.denoiser, start.acquisition, weight, start.scale)
    return _sampled(b, key, s, start, guided, sampler.ddim(1.0))


def dds(b: Setup, key: Array, case: Scans, anchor: Array, updates: Array, s: Sampling) -> Reconstruction:
    """PET-DDS. The anchor is in units of mean sensitivity / intensity scale."""
    start = _start(b, case, s)
    pull = anchor * jnp.mean(start.acquisition.sensitivity) / start.scale
    guided = guidance.dds(start.denoiser, start.acquisition, pull, start.scale, updates=updates.astype(int))
    return _sampled(b, key, s, start, guided, sampler.ddim(s.eta))


def dds_delta(b: Setup, key: Array, case: Scans, delta: Array, s: Sampling, updates: int = 5) -> Reconstruction:
    """PET-DDS-δ, λ_DDS = 1. δ is in units of 1 / (mean sensitivity · intensity scale)."""
    start = _start(b, case, s)
    size = delta / (jnp.mean(start.acquisition.sensitivity) * start.scale)
    guided = guidance.dds_delta(start.denoiser, start.acquisition, size, 1.0, start.scale, updates=updates)
    return _sampled(b, key, s, start, guided, sampler.ddim(s.eta))


def _scheduled(start: _Start, iterations: Array, s: Sampling, most: int) -> Any:
    first = em.init(start.acquisition).image
    targets = schedule.targets(start.acquisition, first, iterations, s.steps, LONGEST, EARLY)
    return schedule.likelihood_schedule(start.denoiser, start.acquisition, targets.deviance, start.scale, most)


def likelihood_schedule(
    b: Setup, key: Array, case: Scans, iterations: Array, s: Sampling, most: int = 30
) -> Reconstruction:
    """Likelihood-scheduled sampling, which ends with the likelihood that MLEM has after so many iterations."""
    start = _start(b, case, s)
    made = _sampled(b, key, s, start, _scheduled(start, iterations, s, most), sampler.ddim(s.eta))
    return made._replace(projections=made.projections + 2 * iterations)  # only as many are needed


def likelihood_schedule_fit(b: Setup, key: Array, case: Scans, multiple: Array, s: Sampling) -> Reconstruction:
    """The same, in units of the iterate at which MLEM fits as well as the truth is expected to (Morozov)."""
    whole = acquisition(b, case)
    path = schedule.targets(whole, em.init(whole).image, jnp.asarray(FITTED), 2, FITTED, EARLY).path
    deviance = expected_deviance(whole.expected(jnp.asarray(_start(b, case, s).image)))
    fit = schedule.discrepancy_principle(path, deviance)
    iterations = jnp.clip(multiple * fit, 1, LONGEST)
    made = likelihood_schedule(b, key, case, iterations, s)
    return made._replace(projections=made.projections + 2 * jnp.maximum(fit - iterations, 0))


def schedule_steps(b: Setup, key: Array, case: Scans, iterations: Array, s: Sampling) -> schedule.Info:
    """What each step of a likelihood-scheduled sampling aimed at and reached."""
    start = _start(b, case, s)
    return _run(b, key, s, start, _scheduled(start, iterations, s, 30), sampler.ddim(s.eta))[1]


def looped_dps(b: Setup, s: Sampling, size: int) -> Callable[..., Reconstruction]:
    """`dps` with its steps called from Python: on CPU the network's gradient is many times faster outside a scan."""
    first_time = sampler.uniform_times(s.steps, s.first, s.last)[0]
    each = sampler.State._make((0, 0, 0, None))  # one number of steps for all cases

    @jax.jit
    @partial(jax.vmap, out_axes=(each, 0))
    def begin(key: Array, case: Scans) -> tuple[sampler.State, Array]:
        start = _start(b, case, s)
        first = start.image / start.scale
        # By hand, not by `sampler.init`, which splits the key first: `key` itself draws the start here and every step
        # there, as when the numbers in RESULTS.md were made.
        sample = sampler.noisy_start(start.denoiser.sde, key, b.grid.shape, first_time, first)
        return sampler.State(sample, jnp.zeros(b.grid.shape), key, jnp.zeros((), jnp.int32)), start.scale

    @partial(jax.vmap, in_axes=(0, 0, 0, each), out_axes=(each, 0))
    def step(case: Scans, scale: Array, weight: Array, state: sampler.State) -> tuple[sampler.State, Any]:
        denoiser = planes.slice_wise(s.denoisers[2], 2)
        guided = guidance.dps(denoiser, acquisition(b, case), weight, scale)
        return sampler_of(s, denoiser, guided, sampler.ddim(1.0)).step(state)

    def run(key: Array, cases: Scans, knobs: Mapping[str, Array]) -> Reconstruction:
        images = []
        for first in range(0, cases.number, size):
            index = np.minimum(np.arange(first, first + size), cases.number - 1)
            keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.asarray(index))
            case = to_device(cases, index)
            weight = jnp.asarray(np.asarray(knobs["weight"], np.float32)[index])
            state, scale = begin(keys, case)
            algorithm = iterate.Algorithm(begin, Partial(step, case, scale, weight))
            states = iterate.loop(algorithm, state, s.steps, every=s.steps, check=_any_value)
            made = jnp.maximum(iterate.last(states, state).x0 * scale[:, None, None, None], 0)
            images.append(np.asarray(made)[: cases.number - first])
        cost = np.full(cases.number, 2.0 * (s.steps + EARLY))
        return Reconstruction(np.concatenate(images), cost)

    return run


def _any_value(state: Any, info: Any, step: int) -> None:
    """Tuning judges images that are not finite."""
