"""A reconstruction by sampling: from an early image of the likelihood with noise, by any guidance, to an image.

    begin = start(likelihood, denoiser, first, sensitivity)     a few updates from `first`, and the intensity scale
    method = dds(begin, anchor=0.06)                            or naive, dps, dds_delta, likelihood_schedule
    image, calls, info = sample(key, begin, method, Sampling(steps=50))

Weights of a guidance are in units free of counts and of activity, so that what is tuned at one level serves others. All
can be jitted, and vmapped over keys, data and weights; `Sampling` is static. DPS differentiates the network: on a CPU
run the steps of `algorithm` by `iterate.loop`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax import iterate
from medjax.diffusion import guidance, sampler
from medjax.diffusion import likelihood_schedule as schedule
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.score_matching import intensity_scale
from medjax.likelihood import Likelihood, update

EARLY = 8  # updates that show the level of an image but little noise
LONGEST = 200  # updates of MLEM that targets are taken from, at most

Weight = float | Scalar


class Sampling(NamedTuple):
    """How samplers run. Hashable."""

    steps: int = 50
    first: float = 0.5  # times at which sampling starts, from an early image with noise, and ends
    last: float = 1e-2
    eta: float = 1.0  # of DDIM, where the method leaves it open


class Start(NamedTuple):
    """What sampling begins with."""

    likelihood: Any
    denoiser: Any  # of images of mean emission 1, (batch, *space)
    first: Any  # the image that updates began with; MLEM's path begins there
    image: Any  # after the early updates
    scale: Any  # its mean emission: networks see images divided by it
    sensitivity: Any = 1.0  # its mean
    projector_calls: Any = 0.0  # that the early updates took


class Method(NamedTuple):
    """A guidance with its solver."""

    guided: guidance.Guided
    solver: sampler.Solver
    projector_calls: Weight = 0.0  # made for it before sampling


class Sample(NamedTuple):
    """A sample, and what it cost."""

    image: Float[Array, "*space"]
    projector_calls: Scalar  # forward and back-projections of the whole data, the early updates too
    info: Any  # of every step


def start(
    likelihood: Likelihood,
    denoiser: Any,
    first: Float[Array, "*space"],
    sensitivity: Float[Array, "..."] | float,
    early: int = EARLY,
) -> Start:
    """`early` updates of the likelihood (EM for counts) from `first`, and the intensity scale of what they give.

    `sensitivity` is −∂ log-likelihood / ∂ x without counts, Aᵀ1 of a Poisson likelihood, or its mean; the scale is 0
    where data show nothing.
    """
    image = jax.lax.fori_loop(0, early, lambda _, x: update(likelihood, x), first)
    scale, level = intensity_scale(image), jnp.mean(jnp.asarray(sensitivity))
    return Start(likelihood, as_denoiser(denoiser), first, image, scale, level, 2.0 * early)


# ── methods ──


def naive(begin: Start, weight: Weight) -> Method:
    """PET-Naive. The pull is divided by mean sensitivity × intensity scale, so that `weight` is free of counts."""
    pull = weight / (begin.sensitivity * begin.scale)
    return Method(guidance.naive(begin.denoiser, begin.likelihood, pull, begin.scale), sampler.euler_maruyama)


def dps(begin: Start, weight: Weight) -> Method:
    """PET-DPS: its gradient is of the logarithm of the deviance, so that `weight` has no unit."""
    return Method(guidance.dps(begin.denoiser, begin.likelihood, weight, begin.scale), sampler.ddim(1.0))


def dds(begin: Start, anchor: Weight, updates: int | Int[Array, ""] = 4, eta: Weight = 1.0) -> Method:
    """PET-DDS. The `anchor` is in units of mean sensitivity / intensity scale."""
    pull = anchor * begin.sensitivity / begin.scale
    guided = guidance.dds(begin.denoiser, begin.likelihood, pull, begin.scale, updates=updates)
    return Method(guided, sampler.ddim(eta))


def dds_delta(begin: Start, delta: Weight, updates: int | Int[Array, ""] = 5, eta: Weight = 1.0) -> Method:
    """PET-DDS-δ, λ_DDS = 1. `delta` is in units of 1 / (mean sensitivity · intensity scale)."""
    size = delta / (begin.sensitivity * begin.scale)
    guided = guidance.dds_delta(begin.denoiser, begin.likelihood, size, 1.0, begin.scale, updates=updates)
    return Method(guided, sampler.ddim(eta))


def likelihood_schedule(
    begin: Start,
    iterations: Weight,
    steps: int,
    eta: Weight = 1.0,
    longest: int = LONGEST,
    most: int = 100,
) -> Method:
    """Likelihood-scheduled sampling of so many `steps`, to end with the likelihood of MLEM's iterate `iterations`.

    See `likelihood_schedule.targets` for `longest` and `likelihood_schedule.likelihood_schedule` for `most`.
    """
    goal = schedule.targets(begin.likelihood, begin.first, iterations, steps, longest, early=0)
    guided = schedule.likelihood_schedule(begin.denoiser, begin.likelihood, goal.deviance, begin.scale, most)
    return Method(guided, sampler.ddim(eta), 2 * iterations)


def discrepancy_iterations(begin: Start, deviance: Weight, longest: int = 80) -> Scalar:
    """The fractional iterate ≤ `longest` of MLEM that fits as well as the truth is expected to: its `deviance`.

    A multiple of it, as the `iterations` of a likelihood schedule, needs no tuning to counts: see
    `likelihood_schedule.discrepancy_principle`, and `medjax.pet.acquisition.expected_deviance` for counts.
    """
    goal = schedule.targets(begin.likelihood, begin.first, jnp.asarray(float(longest)), 2, longest, early=0)
    return schedule.discrepancy_principle(goal.path, deviance)


# ── sampling ──


def algorithm(begin: Start, method: Method, sampling: Sampling) -> iterate.Algorithm:
    """The sampler as an Algorithm: init(key, shape, image) → State; step(State) → State, Info."""
    times = sampler.uniform_times(sampling.steps, sampling.first, sampling.last)
    return sampler.sampler(method.guided, begin.denoiser.sde, times, method.solver)


def sample(key: PRNGKeyArray, begin: Start, method: Method, sampling: Sampling) -> Sample:
    """A sample: all steps by `iterate.scan`."""
    sampled = algorithm(begin, method, sampling)
    state, info = iterate.scan(sampled, sampled.init(key, begin.image.shape, begin.image / begin.scale), sampling.steps)
    calls = jnp.sum(info.projector_calls) + begin.projector_calls + method.projector_calls
    return Sample(image(begin, state), calls, info)


def image(begin: Start, state: sampler.State) -> Float[Array, "*space"]:
    """The image of a sampler's state, in units of the data: max(scale · x0, 0)."""
    return jnp.maximum(begin.scale * state.x0, 0)
