"""Samplers of the PET experiments: each guidance with a prior, from an early MLEM image with noise.

method(key, scan, **knobs, s=sampled) → Reconstruction
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from experiments.pet.scans import Reconstruction, Scan, Scans, Setup, case_keys, scan_of
from medjax import iterate
from medjax.diffusion import likelihood_schedule as schedule
from medjax.diffusion import reconstruct, sampler
from medjax.diffusion.prior import volumes
from medjax.diffusion.reconstruct import Sampling
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, expected_deviance
from medjax.running.chunks import in_chunks

LONGEST, FITTED = 160, 80  # iterates of MLEM: at most for targets, and to look for the noise's level in
MOST = 30  # EM updates of a step of the likelihood schedule


class Sampled(NamedTuple):
    """The prior, as denoisers of slices (batch, a, b) of mean emission 1, and how samplers run."""

    denoisers: tuple[Any, Any, Any]  # the k-th of slices perpendicular to axis k of a volume
    multiple: int  # sides of slices must be multiples of this
    sampling: Sampling


def methods(s: Sampled) -> dict[str, Callable[..., Reconstruction]]:
    """method(key, scan, **knobs) by name, of those that may run by scan."""
    eta = s.sampling.eta
    guided: dict[str, Callable[..., reconstruct.Method]] = {
        "naive": reconstruct.naive,
        "dds": lambda begin, anchor, updates: reconstruct.dds(begin, anchor, updates.astype(int), eta),
        "dds_delta": lambda begin, delta: reconstruct.dds_delta(begin, delta, eta=eta),
        "likelihood_schedule": partial(_scheduled, s),
    }
    return {name: partial(_sample, s, method) for name, method in guided.items()}


def _sample(
    s: Sampled, method: Callable[..., reconstruct.Method], key: Array, scan: Scan, **knobs: Array
) -> Reconstruction:
    begin = _start(scan.acquisition, s)
    made = reconstruct.sample(key, begin, method(begin, **knobs), s.sampling)
    return Reconstruction(made.image, made.projector_calls)


def _scheduled(s: Sampled, begin: reconstruct.Start, iterations: Array | float) -> reconstruct.Method:
    return reconstruct.likelihood_schedule(begin, iterations, s.sampling.steps, s.sampling.eta, LONGEST, MOST)


def noise_iterations(key: Array, scan: Scan, s: Sampled) -> Array:
    """The iterate at which MLEM fits as well as the truth is expected to: Morozov's discrepancy principle."""
    begin = _start(scan.acquisition, s)
    deviance = expected_deviance(scan.acquisition.expected(begin.image))
    return reconstruct.discrepancy_iterations(begin, deviance, FITTED)


def schedule_steps(key: Array, scan: Scan, iterations: Array, s: Sampled) -> schedule.Info:
    """What each step of a likelihood-scheduled sampling aimed at and reached."""
    begin = _start(scan.acquisition, s)
    return reconstruct.sample(key, begin, _scheduled(s, begin, iterations), s.sampling).info


def sample_volume(key: Array, acquisition: Acquisition, s: Sampled, mode: str, iterations: float) -> Reconstruction:
    """A volume by likelihood-scheduled sampling, with the prior in one or in three orientations: see `prior.MODES`."""
    begin = _start(acquisition, s, mode)
    made = reconstruct.sample(key, begin, _scheduled(s, begin, iterations), s.sampling)
    both = 2.0 * min(iterations, reconstruct.EARLY)  # MLEM's first iterates need be made only once
    return Reconstruction(made.image, made.projector_calls - both)


def _start(acquisition: Acquisition, s: Sampled, mode: str = "transverse") -> reconstruct.Start:
    denoiser = volumes(s.denoisers, mode, s.multiple)
    return reconstruct.start(acquisition, denoiser, em.init(acquisition).image, acquisition.sensitivity)


def looped_dps(setup: Setup, s: Sampled, size: int) -> Callable[..., Reconstruction]:
    """PET-DPS over many cases, `size` at a time, its steps called from Python.

    On a CPU the network's gradient is many times faster so than inside a scan.
    """
    each = sampler.State._make((0, 0, 0, None))  # one number of steps for all cases
    steps = s.sampling.steps

    @jax.jit
    @partial(jax.vmap, out_axes=(each, 0))
    def begin(key: Array, case: Scans) -> tuple[sampler.State, Array]:
        start = _start(scan_of(setup, case).acquisition, s)
        # By hand, not by `sampler.init`, which splits the key first: `key` itself draws the start here and every step
        # there, as when the numbers in RESULTS.md were made.
        first = start.image / start.scale
        sample = sampler.noisy_start(start.denoiser.sde, key, first.shape, s.sampling.first, first)
        return sampler.State(sample, jnp.zeros_like(first), key, jnp.zeros((), jnp.int32)), start.scale

    @partial(jax.vmap, in_axes=(0, 0, 0, each), out_axes=(each, 0))
    def step(case: Scans, scale: Array, weight: Array, state: sampler.State) -> tuple[sampler.State, Any]:
        acquisition, denoiser = scan_of(setup, case).acquisition, volumes(s.denoisers, "transverse", s.multiple)
        start = reconstruct.Start(acquisition, denoiser, None, None, scale)
        return reconstruct.algorithm(start, reconstruct.dps(start, weight), s.sampling).step(state)

    def chunk(keys: Array, cases: Scans, weights: np.ndarray) -> Array:
        state, scale = begin(keys, cases)
        algorithm = iterate.Algorithm(begin, Partial(step, cases, scale, weights))
        states = iterate.loop(algorithm, state, steps, every=steps, check=lambda *_: None)  # tuning judges NaN
        return jnp.maximum(iterate.last(states, state).x0 * scale[:, None, None, None], 0)

    def run(key: Array, cases: Scans, knobs: Mapping[str, Any]) -> Reconstruction:
        images = in_chunks(chunk, size)(case_keys(key, cases), cases, np.asarray(knobs["weight"], np.float32))
        return Reconstruction(images, np.full(cases.number, 2.0 * (steps + reconstruct.EARLY)))

    return run
