"""Likelihood-scheduled sampling whose steps are solved: each goes as near to its target deviance as its variance may.

    targets_cg(equations, early_image, iterations, steps)            → one deviance a step, from MLEM's path
    likelihood_schedule_cg(denoiser, equations, target_deviance)     → a guided denoiser, for `sampler`

A step goes from the denoised image x̂ to argmin ½ ‖y − b − A x‖²_W + ½ ‖x − x̂‖² / v, with the v at which the deviance of
the data is the step's target. One Krylov space (`krylov`) holds the solutions of all v and their expected data, so that
v is found without a projection: a step of m directions costs 2 m + 1 projector calls. v stays between half and twice
what the noise level calls for, which decides more often than the target does (RESULTS.md). The targets too are of a
Krylov space, that of EM linearised around the early image. `likelihood_schedule` is the published method.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Scalar

from medjax.diffusion.data_step import NormalEquations
from medjax.diffusion.dds_cg import SIGMA_DATA, denoised_variance
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.guidance import Estimate, GuidedDenoiser, estimate
from medjax.diffusion.krylov import (
    KrylovSpace,
    coefficients,
    combine,
    em_path,
    expected_of_path,
    krylov_space,
    residual_before_last,
)
from medjax.diffusion.likelihood_schedule import FLOOR, search_target
from medjax.iterate import static_partial

DIMENSION = 2  # of a step's Krylov space
PATH_DIMENSION = 6  # of the path of EM: its first 40 iterates or so
VARIANCE_FACTORS = (0.5, 2.0)  # smallest and largest variance of a step, relative to that of `denoised_variance`
HALVINGS = 4  # of the logarithm of that range; a line search on the expected data then meets the target

Number = float | Scalar


class Info(NamedTuple):
    """Deviance, target, variance and cost of a step."""

    deviance: Scalar  # deviance of the data after the step, before the image is clipped at 0
    target: Scalar  # target deviance of the step
    variance: Scalar  # v of the step
    residual: Scalar  # relative residual before the last direction
    projector_calls: Scalar  # forward and back-projections of the whole data
    reached_target: Bool[Array, ""]  # whether the deviance is at its target or below


def targets_cg(
    equations: NormalEquations,
    early_image: Float[Array, "*space"],
    iterations: Number,
    steps: int,
    dimension: int = PATH_DIMENSION,
) -> tuple[Float[Array, " step"], Scalar]:
    """Target deviance of each of `steps`, and their cost: step k of N that of EM's iterate M min(2 k / N, 1).

    Iterates are counted from the early image, M is `iterations`. The targets end half way down the noise levels: steps
    later only replace the sampler's noise.

    Args:
        equations: normal equations of the early image.
        early_image: in units of the data.
        iterations: EM iterations after the early image, fractional, traced; 0 or less: its own deviance.
        steps: number of steps of the sampler.
        dimension: dimension of the Krylov space of EM, each of two projector calls; static.
    """
    path = em_path(equations, early_image, dimension)
    iterates = jnp.maximum(jnp.asarray(iterations, early_image.dtype), 0) * jnp.minimum(
        2 * jnp.arange(1, steps + 1) / steps, 1
    )
    deviance = jax.vmap(equations.likelihood.deviance)(expected_of_path(path, iterates))
    return jax.lax.cummin(deviance), path.projector_calls


def likelihood_schedule_cg(
    denoiser: Any,
    equations: NormalEquations,
    target_deviance: Float[Array, " step"],
    dimension: int = DIMENSION,
    sigma_data: Number = SIGMA_DATA,
    floor: float | None = FLOOR,
) -> GuidedDenoiser:
    """Likelihood-scheduled guidance with a solved step, to the target deviance of each step.

    The variance of a step stays between half and twice that of the denoised image: less would throw data away, more
    would fit noise. A target beyond is passed, or not reached (`reached_target` is False).

    Args:
        denoiser: the prior.
        equations: normal equations of the data, with the intensity scale: `data_step.normal_equations`.
        target_deviance: target deviance of each step, as `targets_cg` or `likelihood_schedule.targets` give it.
        dimension: dimension of the Krylov space, each of two projector calls; static.
        sigma_data: standard deviation of the prior's images, for the preconditioner.
        floor: smallest value of the denoised image's voxels; the result is then clipped at 0. None: neither.
    """
    arguments = (equations, target_deviance, sigma_data)
    return Partial(static_partial(_guided, dimension, floor), as_denoiser(denoiser), *arguments)


def _guided(
    dimension: int,
    floor: float | None,
    denoiser: Any,
    equations: NormalEquations,
    target_deviance: Float[Array, " step"],
    sigma_data: Any,
    x: Array,
    t: Scalar,
    index: Int[Array, ""],
) -> tuple[Estimate, Info]:
    prior = estimate(denoiser, x, t, index)
    anchor = prior.x0 if floor is None else jnp.maximum(prior.x0, floor)
    expected, target = equations.likelihood.expected(equations.scale * anchor), target_deviance[index]
    variance = denoised_variance(denoiser.sde.sigma(t), 1.0, sigma_data)
    space = krylov_space(equations, anchor, expected, variance, dimension, floor is not None)
    x0, info = _meet(equations.likelihood, space, variance, target)
    return prior._replace(x0=x0 if floor is None else jnp.maximum(x0, 0)), info


def _meet(likelihood: Any, space: KrylovSpace, variance: Scalar, target: Scalar) -> tuple[Array, Info]:
    """The image of a Krylov space whose variance gives the target deviance, or comes nearest to it."""

    def expected_of(log_factor: Scalar) -> tuple[Array, Array]:
        c = coefficients(space, variance * jnp.exp(log_factor))
        return c, combine(space, c)[1]

    def halve(_: Any, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = ends
        middle = (low + high) / 2
        above = likelihood.deviance(expected_of(middle)[1]) > target  # not a number, beyond its domain: too far
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    smallest, largest = jnp.log(jnp.asarray(VARIANCE_FACTORS, space.anchor.dtype))
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (smallest, largest))
    (c_low, q_low), (c_high, q_high) = expected_of(low), expected_of(high)
    reached = likelihood.deviance(q_high) <= target
    fraction = jnp.where(
        reached, search_target(likelihood, q_low, q_high, target), (high == largest).astype(high.dtype)
    )
    image, expected = combine(space, c_low + fraction * (c_high - c_low))
    found = variance * jnp.exp(low + fraction * (high - low))
    info = Info(
        likelihood.deviance(expected),
        target,
        found,
        residual_before_last(space, found),
        space.projector_calls + 1,
        reached,
    )
    return image, info
