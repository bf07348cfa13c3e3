"""Samplers of the PET experiments: each guidance with a prior, from an early MLEM image with noise.

method(key, scan, **hyperparameters) → Reconstruction
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from experiments.pet.scans import Draws, Reconstruction, Scan, Scans, ScanSetup, case_keys, scan_of
from medjax import iterate
from medjax.diffusion import guidance, reconstruct, sampler
from medjax.diffusion import split_gibbs as gibbs
from medjax.diffusion.prior import volume_denoiser
from medjax.diffusion.reconstruct import SamplerSettings
from medjax.diffusion.split_gibbs import SplitGibbsSettings
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, expected_deviance, ordered_subsets, select_subset
from medjax.running.chunks import map_in_chunks

MAX_ITERATIONS = 160  # iterations of MLEM, for the targets of a likelihood schedule
MAX_DISCREPANCY_ITERATIONS = 80  # iterations of MLEM, for the discrepancy principle
LONG_CHAINS = 4  # chains whose convergence is looked at
MAX_UPDATES = 30  # EM updates in one step of the likelihood schedule


class SlicePrior(NamedTuple):
    """A score prior as denoisers of slices (batch, a, b) of mean emission 1, and the settings of its sampler."""

    denoisers: tuple[Any, Any, Any]  # the k-th of slices perpendicular to axis k of a volume
    multiple: int  # sides of slices must be multiples of this
    settings: SamplerSettings
    gibbs: SplitGibbsSettings = gibbs.DEFAULTS  # of split Gibbs, whose numbers of chains and draws follow from samples
    mode: str = "transverse"  # orientations of slices, see `prior.MODES`
    subsets: int = 1  # of the data, one in each update of DDS and DDS-δ


def methods(prior: SlicePrior) -> dict[str, Callable[..., Reconstruction]]:
    """Sampling methods (key, scan, **hyperparameters) → Reconstruction by name, DPS aside: see `looped_dps`."""
    eta = prior.settings.eta
    guided: dict[str, Callable[..., reconstruct.SamplingMethod]] = {
        "naive": reconstruct.naive,
        "dds": lambda problem, proximal_weight, updates: reconstruct.dds(
            _in_subsets(problem, prior.subsets), proximal_weight, updates.astype(int), eta
        ),
        "dds_delta": lambda problem, delta: reconstruct.dds_delta(
            _in_subsets(problem, prior.subsets), delta * prior.subsets, eta=eta
        ),
        "dds_cg": lambda problem, variance: reconstruct.dds_cg(problem, variance),
        "likelihood_schedule": partial(_scheduled, prior),
        "likelihood_schedule_cg": _scheduled_cg,
    }
    return {name: partial(_sample, prior, method) for name, method in guided.items()}


def _in_subsets(problem: reconstruct.InverseProblem, number: int) -> reconstruct.InverseProblem:
    """The problem whose updates use one of so many subsets of the data each, in turn."""
    if number == 1:
        return problem
    stacked = ordered_subsets(problem.likelihood, number)
    return problem._replace(likelihood=guidance.cycle_subsets(select_subset, stacked, em.subset_order(number)))


def split_gibbs(key: Array, scan: Scan, rho: Array, prior: SlicePrior, samples: int) -> Draws:
    """Samples of one scan by split Gibbs, each the end of a chain of its own; the mean is of conditional means."""
    settings = prior.gibbs._replace(chains=samples, draws=1)
    made = gibbs.chains(key, inverse_problem(scan.acquisition, prior), settings, rho)
    one = made.projector_calls - (samples - 1) / samples * jnp.sum(made.info.projector_calls)
    return Draws(made.images[:, 0], made.means.mean(axis=(0, 1)), made.projector_calls, one)


def long_chains(setup: ScanSetup, prior: SlicePrior, draws: int) -> Callable[[Array, Scans], Array]:
    """Function of a key and one case: images (chain, draw, *space) of four chains of so many draws."""
    settings = prior.gibbs._replace(chains=LONG_CHAINS, draws=draws)

    @jax.jit
    def run(key: Array, case: Scans) -> Array:
        return gibbs.chains(key, inverse_problem(scan_of(setup, case).acquisition, prior), settings).images

    return run


def _sample(
    prior: SlicePrior,
    method: Callable[..., reconstruct.SamplingMethod],
    key: Array,
    scan: Scan,
    **hyperparameters: Array,
) -> Reconstruction:
    problem = inverse_problem(scan.acquisition, prior)
    made = reconstruct.sample(key, problem, method(problem, **hyperparameters), prior.settings)
    return Reconstruction(made.image, made.projector_calls)


def _scheduled(
    prior: SlicePrior, problem: reconstruct.InverseProblem, iterations: Array | float
) -> reconstruct.SamplingMethod:
    s = prior.settings
    return reconstruct.likelihood_schedule(problem, iterations, s.steps, s.eta, MAX_ITERATIONS, MAX_UPDATES)


def _scheduled_cg(problem: reconstruct.InverseProblem, multiple: Array | float) -> reconstruct.SamplingMethod:
    """`multiple`: MLEM iterate of the last target, relative to the default for the counts."""
    return reconstruct.likelihood_schedule_cg(problem, reconstruct.mlem_iterations(problem, multiple))


def discrepancy_iterations(key: Array, scan: Scan, prior: SlicePrior) -> Array:
    """Iterate of MLEM that fits as well as the truth is expected to: Morozov's discrepancy principle."""
    problem = inverse_problem(scan.acquisition, prior)
    deviance = expected_deviance(scan.acquisition.expected(problem.early_image))
    return reconstruct.discrepancy_iterations(problem, deviance, MAX_DISCREPANCY_ITERATIONS)


def schedule_steps(name: str, key: Array, scan: Scan, value: Array, prior: SlicePrior) -> Any:
    """Target and reached deviance of each step of a likelihood schedule, published or solved."""
    problem = inverse_problem(scan.acquisition, prior)
    method = _scheduled_cg(problem, value) if name.endswith("_cg") else _scheduled(prior, problem, value)
    return reconstruct.sample(key, problem, method, prior.settings).info


def sample_volume(key: Array, acquisition: Acquisition, prior: SlicePrior, mode: str) -> Reconstruction:
    """A volume by DDS with a solved step, with the prior in one or three orientations (`prior.MODES`)."""
    problem = inverse_problem(acquisition, prior._replace(mode=mode))
    made = reconstruct.sample(key, problem, reconstruct.dds_cg(problem), prior.settings)
    return Reconstruction(made.image, made.projector_calls)


def inverse_problem(acquisition: Acquisition, prior: SlicePrior) -> reconstruct.InverseProblem:
    """The inverse problem of one scan: its likelihood, the prior's denoiser, and an early MLEM image."""
    denoiser = volume_denoiser(prior.denoisers, prior.mode, prior.multiple)
    return reconstruct.inverse_problem(acquisition, denoiser, em.init(acquisition).image, acquisition.sensitivity)


def looped_dps(setup: ScanSetup, prior: SlicePrior, size: int) -> Callable[..., Reconstruction]:
    """PET-DPS of many cases, `size` at a time, its sampler steps called from Python.

    On a CPU the network's gradient is many times faster so than inside a scan.
    """
    each = sampler.State._make((0, 0, 0, None))  # one number of steps for all cases
    steps = prior.settings.steps

    @jax.jit
    @partial(jax.vmap, out_axes=(each, 0))
    def init(key: Array, case: Scans) -> tuple[sampler.State, Array]:
        problem = inverse_problem(scan_of(setup, case).acquisition, prior)
        # By hand, not by `sampler.init`, which splits the key first: `key` itself draws the first noise here and every
        # step there, as when the numbers in RESULTS.md were made.
        first = problem.early_image / problem.scale
        sample = sampler.perturb(problem.denoiser.sde, key, first.shape, prior.settings.t_max, first)
        return sampler.State(sample, jnp.zeros_like(first), key, jnp.zeros((), jnp.int32)), problem.scale

    @partial(jax.vmap, in_axes=(0, 0, 0, each), out_axes=(each, 0))
    def step(case: Scans, scale: Array, weight: Array, state: sampler.State) -> tuple[sampler.State, Any]:
        denoiser = volume_denoiser(prior.denoisers, "transverse", prior.multiple)
        acquisition = scan_of(setup, case).acquisition
        problem = reconstruct.InverseProblem(acquisition, denoiser, None, None, scale)
        return reconstruct.algorithm(problem, reconstruct.dps(problem, weight), prior.settings).step(state)

    def chunk(keys: Array, cases: Scans, weights: np.ndarray) -> Array:
        state, scale = init(keys, cases)
        algorithm = iterate.Algorithm(init, Partial(step, cases, scale, weights))
        states = iterate.loop(algorithm, state, steps, every=steps, check=lambda *_: None)  # tuning ranks NaN last
        return jnp.maximum(iterate.last(states, state).x0 * scale[:, None, None, None], 0)

    def run(key: Array, cases: Scans, hyperparameters: Mapping[str, Any]) -> Reconstruction:
        images = map_in_chunks(chunk, size)(
            case_keys(key, cases), cases, np.asarray(hyperparameters["weight"], np.float32)
        )
        return Reconstruction(images, np.full(cases.number, 2.0 * (steps + reconstruct.EARLY_UPDATES)))

    return run
