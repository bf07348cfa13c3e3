"""Reconstruction by sampling: from an early MLEM image with noise, by any guidance, to an image.

    problem = inverse_problem(likelihood, denoiser, initial_image, sensitivity)     early updates, intensity scale
    method = dds_cg(problem)                                  or dds, naive, dps, dds_delta, likelihood_schedule
    image, calls, info = sample(key, problem, method, SamplerSettings(steps=50))

Weights of a guidance are in units free of counts and of activity, so that what is tuned at one count level serves
others. All can be jitted, and vmapped over keys, data and weights; `SamplerSettings` is static. DPS differentiates the
network: on a CPU run the steps of `algorithm` by `iterate.loop`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax import defaults, iterate
from medjax.diffusion import data_step, guidance, sampler
from medjax.diffusion import dds_cg as solved
from medjax.diffusion import likelihood_schedule as schedule
from medjax.diffusion import likelihood_schedule_cg as schedule_cg
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.score_matching import intensity_scale
from medjax.likelihood import Likelihood, update

EARLY_UPDATES = 8  # updates of EM, after which an image shows its intensity but little noise
MAX_ITERATIONS = 200  # iterations of MLEM, whose deviances are the targets of a likelihood schedule
SOLVED_STEPS, SIGMA_MAX, SIGMA_MIN = 8, 0.6, 0.15  # of the samplers whose data steps are solved, geometric
ITERATIONS_AT_ONE_COUNT = 9.3  # MLEM iterations of a solved likelihood schedule at one count a voxel

Number = float | Scalar


class SamplerSettings(NamedTuple):
    """Settings of a sampler: steps, times and stochasticity. Hashable."""

    steps: int = defaults.PET_SAMPLING_STEPS
    t_max: float = 0.5  # time at which sampling starts, from an early image with noise
    t_min: float = 1e-2  # time at which it ends
    eta: float = 1.0  # DDIM's stochasticity η, where the method does not set it


class InverseProblem(NamedTuple):
    """Likelihood, prior, early image and intensity scale, from which sampling starts."""

    likelihood: Any
    denoiser: Any  # denoiser of images of mean emission 1, (batch, *space)
    initial_image: Any  # first image of MLEM
    early_image: Any  # image after the early updates
    scale: Any  # intensity scale, the early image's mean emission: networks see images divided by it
    sensitivity: Any = 1.0  # mean of the sensitivity image
    projector_calls: Any = 0.0  # forward and back-projections of the early updates


class SamplingMethod(NamedTuple):
    """Sampling method: a guidance, its solver, and the projector calls before sampling."""

    guided_denoiser: guidance.GuidedDenoiser
    solver: sampler.Solver
    projector_calls: Number = 0.0  # forward and back-projections before sampling
    times: Any = None  # times of its steps, which replace those of the settings


class Sample(NamedTuple):
    """A posterior sample, its cost, and the Info of every step."""

    image: Float[Array, "*space"]
    projector_calls: Scalar  # forward and back-projections of the whole data, early updates included
    info: Any  # Info of every step of the sampler


def inverse_problem(
    likelihood: Likelihood,
    denoiser: Any,
    initial_image: Float[Array, "*space"],
    sensitivity: Float[Array, "..."] | float,
    early_updates: int = EARLY_UPDATES,
) -> InverseProblem:
    """Inverse problem with its early image, after a few updates of the likelihood, and the intensity scale of that.

    Args:
        likelihood: likelihood of the data.
        denoiser: the prior, of images of mean emission 1.
        initial_image: image from which the updates start.
        sensitivity: −∂ log-likelihood / ∂ x without counts, Aᵀ1 of a Poisson likelihood, or its mean.
        early_updates: number of updates (EM for counts); the intensity scale is 0 where data show no activity.
    """
    image = jax.lax.fori_loop(0, early_updates, lambda _, x: update(likelihood, x), initial_image)
    scale, level = intensity_scale(image), jnp.mean(jnp.asarray(sensitivity))
    return InverseProblem(likelihood, as_denoiser(denoiser), initial_image, image, scale, level, 2.0 * early_updates)


# ── methods ──


def naive(problem: InverseProblem, weight: Number) -> SamplingMethod:
    """PET-Naive guidance; `weight` is free of counts: in units of 1 / (mean sensitivity × intensity scale)."""
    pull = weight / (problem.sensitivity * problem.scale)
    return SamplingMethod(
        guidance.naive(problem.denoiser, problem.likelihood, pull, problem.scale), sampler.euler_maruyama
    )


def dps(problem: InverseProblem, weight: Number) -> SamplingMethod:
    """PET-DPS guidance: its gradient is of the logarithm of the deviance, so that `weight` has no unit."""
    return SamplingMethod(guidance.dps(problem.denoiser, problem.likelihood, weight, problem.scale), sampler.ddim(1.0))


def dds(
    problem: InverseProblem, proximal_weight: Number, updates: int | Int[Array, ""] = 4, eta: Number = 1.0
) -> SamplingMethod:
    """PET-DDS guidance. The `proximal_weight` λ is in units of mean sensitivity / intensity scale."""
    pull = proximal_weight * problem.sensitivity / problem.scale
    guided_denoiser = guidance.dds(problem.denoiser, problem.likelihood, pull, problem.scale, updates=updates)
    return SamplingMethod(guided_denoiser, sampler.ddim(eta))


def dds_cg(
    problem: InverseProblem,
    variance_factor: Number = 1.0,
    steps: int = SOLVED_STEPS,
    iterations: int | Int[Array, ""] = 2,
    sigma_max: Number = SIGMA_MAX,
    sigma_min: Number = SIGMA_MIN,
    eta: Number = 1.0,
) -> SamplingMethod:
    """DDS with a data step that is solved, in few steps of geometric noise levels: the fast sampler.

    Args:
        problem: inverse problem, from `inverse_problem`, of a likelihood with a Gaussian approximation.
        variance_factor: k, the hyper-parameter: more variance of the denoised image fits the data closer.
        steps: number of steps of the sampler, which replaces that of the settings.
        iterations: iterations of conjugate gradients in each step.
        sigma_max: noise level of the start, from the early image; relative to the mean emission, as the next.
        sigma_min: last noise level.
        eta: stochasticity η of DDIM.
    """
    equations = data_step.normal_equations(problem.likelihood, problem.early_image, problem.scale)
    guided_denoiser = solved.dds_cg(problem.denoiser, equations, variance_factor, iterations)
    times = sampler.geometric_times(problem.denoiser.sde, steps, sigma_max, sigma_min)
    return SamplingMethod(guided_denoiser, sampler.ddim(eta), equations.projector_calls, times)


def dds_delta(
    problem: InverseProblem, delta: Number, updates: int | Int[Array, ""] = 5, eta: Number = 1.0
) -> SamplingMethod:
    """PET-DDS-δ guidance. The step size `delta` is in units of 1 / (mean sensitivity · intensity scale).

    λ_DDS = 1 of the network's units, as published: it counts for less, the more counts there are.
    """
    size = delta / (problem.sensitivity * problem.scale)
    guided_denoiser = guidance.dds_delta(
        problem.denoiser, problem.likelihood, size, 1.0, problem.scale, updates=updates
    )
    return SamplingMethod(guided_denoiser, sampler.ddim(eta))


def likelihood_schedule(
    problem: InverseProblem,
    iterations: Number,
    steps: int,
    eta: Number = 1.0,
    max_iterations: int = MAX_ITERATIONS,
    max_updates: int = 100,
) -> SamplingMethod:
    """Likelihood-scheduled sampling, to end with the likelihood of MLEM's iterate `iterations`.

    Args:
        problem: inverse problem, from `inverse_problem`.
        iterations: MLEM iterate whose likelihood is the last target, fractional; traced.
        steps: number of steps of the sampler.
        eta: stochasticity η of DDIM; 0 is deterministic.
        max_iterations: number of MLEM iterates from which targets are taken; static.
        max_updates: EM updates in one step at most.
    """
    target = schedule.targets(
        problem.likelihood, problem.initial_image, iterations, steps, max_iterations, early_iteration=0
    )
    guided_denoiser = schedule.likelihood_schedule(
        problem.denoiser, problem.likelihood, target.deviance, problem.scale, max_updates
    )
    return SamplingMethod(guided_denoiser, sampler.ddim(eta), 2 * iterations)


def likelihood_schedule_cg(
    problem: InverseProblem,
    iterations: Number | None = None,
    steps: int = SOLVED_STEPS,
    dimension: int = schedule_cg.DIMENSION,
    sigma_max: Number = SIGMA_MAX,
    sigma_min: Number = SIGMA_MIN,
    eta: Number = 1.0,
) -> SamplingMethod:
    """Likelihood-scheduled sampling with solved steps, to end with the likelihood of MLEM's iterate `iterations`.

    Args:
        problem: inverse problem, from `inverse_problem`, of a likelihood with a Gaussian approximation.
        iterations: MLEM iterate M whose likelihood is the last target, counted from the initial image; fractional,
            traced; at least the number of early updates. None: `mlem_iterations`.
        steps: number of steps of the sampler, which replaces that of the settings.
        dimension: dimension of a step's Krylov space, each of two projector calls; static.
        sigma_max: noise level of the start, from the early image; relative to the mean emission, as the next.
        sigma_min: last noise level.
        eta: stochasticity η of DDIM.
    """
    equations = data_step.normal_equations(problem.likelihood, problem.early_image, problem.scale)
    early = problem.projector_calls / 2
    later = (mlem_iterations(problem) if iterations is None else iterations) - early
    target, calls = schedule_cg.targets_cg(equations, problem.early_image, later, steps)
    guided_denoiser = schedule_cg.likelihood_schedule_cg(problem.denoiser, equations, target, dimension)
    times = sampler.geometric_times(problem.denoiser.sde, steps, sigma_max, sigma_min)
    return SamplingMethod(guided_denoiser, sampler.ddim(eta), equations.projector_calls + calls, times)


def mlem_iterations(problem: InverseProblem, factor: Number = 1.0) -> Scalar:
    """MLEM iterations whose fit a solved likelihood schedule is to reach: factor · 9.3 ∛(counts a voxel).

    Counts of a voxel of mean emission. The rule was found on simulated slices of heads at 2.5 to 50 trues/mm³.
    """
    counts = jnp.asarray(problem.sensitivity * problem.scale)
    return factor * ITERATIONS_AT_ONE_COUNT * jnp.cbrt(counts)


def discrepancy_iterations(problem: InverseProblem, deviance: Number, max_iterations: int = 80) -> Scalar:
    """Iterate of MLEM, fractional, whose deviance is the one expected of the truth: the discrepancy principle.

    A multiple of it, as the `iterations` of a likelihood schedule, needs no tuning to counts: see
    `likelihood_schedule.discrepancy_principle`, and `medjax.pet.acquisition.expected_deviance` for counts.
    """
    last = jnp.asarray(float(max_iterations))
    target = schedule.targets(problem.likelihood, problem.initial_image, last, 2, max_iterations, early_iteration=0)
    return schedule.discrepancy_principle(target.mlem_deviance, deviance)


# ── sampling ──


def algorithm(problem: InverseProblem, method: SamplingMethod, settings: SamplerSettings) -> iterate.Algorithm:
    """Sampler of an inverse problem, as an Algorithm: init(key, shape, image) → State; step(State) → State, Info."""
    return sampler.sampler(method.guided_denoiser, problem.denoiser.sde, times_of(method, settings), method.solver)


def times_of(method: SamplingMethod, settings: SamplerSettings) -> Float[Array, " point"]:
    """Times of a method's steps: its own, else evenly spaced ones by the settings."""
    if method.times is not None:
        return method.times
    return sampler.uniform_times(settings.steps, settings.t_max, settings.t_min)


def sample(
    key: PRNGKeyArray,
    problem: InverseProblem,
    method: SamplingMethod,
    settings: SamplerSettings = SamplerSettings(),  # noqa: B008
) -> Sample:
    """One posterior sample: all steps by `iterate.scan`."""
    chain = algorithm(problem, method, settings)
    state = chain.init(key, problem.early_image.shape, problem.early_image / problem.scale)
    state, info = iterate.scan(chain, state, len(times_of(method, settings)) - 1)
    calls = jnp.sum(info.projector_calls) + problem.projector_calls + method.projector_calls
    return Sample(image(problem, state), calls, info)


def image(problem: InverseProblem, state: sampler.State) -> Float[Array, "*space"]:
    """Image of a sampler's state, in units of the data: max(scale · x0, 0)."""
    return jnp.maximum(problem.scale * state.x0, 0)
