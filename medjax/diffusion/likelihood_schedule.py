"""Likelihood-scheduled sampling: every reverse step has the likelihood of an MLEM iterate as its target.

    targets(likelihood, image, iterations, steps)            → Targets      one deviance a reverse step
    likelihood_schedule(denoiser, likelihood, targets)       → a guided denoiser, for `sampler`

MLEM's iterates have deviances D(0) ≥ D(1) ≥ …; step k of N is to reach D at iterate M k / (N − 1), interpolated. The
one hyper-parameter is M, the number of MLEM iterations. A step whose denoised image fits better than its target is left
unchanged; else full-data EM updates follow until the target is passed, and a line search along the last update ends on
the target. Expected counts are affine in the image, so the line search needs no projection.

The published method (PET-LiSch, Webber et al., IEEE TMI 44(11), 2025, arXiv 2412.04339) is known to us by its abstract
and descriptions; the target in deviance, the search for it and the rules at the limits are ours.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Scalar

from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.guidance import Estimate, GuidedDenoiser, estimate
from medjax.likelihood import Likelihood, proximal, require, update
from medjax.one_program import one_program

FLOOR = 1e-3  # fraction of the intensity scale: a voxel at 0 could never rise again by EM
MAX_NEWTON_STEPS = 12  # Newton steps of the line search; it converges from one side, in 4 or 5 as a rule
TOLERANCE = 1e-5  # fraction of the target at which the line search stops; float32 resolves little more


class Targets(NamedTuple):
    """Target deviance of each reverse step, and the MLEM iterates that it was taken from."""

    deviance: Float[Array, " step"]  # target of each step, never rising
    mlem_deviance: Float[Array, " iterate"]  # deviance of MLEM's iterates 0 … max_iterations
    early_image: Float[Array, "*space"]  # MLEM iterate `early_iteration`: for the intensity scale


class Info(NamedTuple):
    """Deviance, target and cost of a step of likelihood-scheduled sampling."""

    deviance: Scalar  # deviance of the denoised image after the step's updates
    target: Scalar  # target deviance of the step
    updates: Int[Array, ""]  # EM updates made
    projector_calls: Scalar  # forward and back-projections of the whole data, overshooting updates included
    reached_target: Bool[
        Array, ""
    ]  # whether updates reached the target; False where none was needed or the limit came first


def targets(
    likelihood: Likelihood,
    image: Float[Array, "*space"],
    iterations: float | Scalar,
    steps: int,
    max_iterations: int = 100,
    early_iteration: int = 8,
) -> Targets:
    """Target deviances of `steps` reverse steps, from MLEM's iterates, to end at that of iterate `iterations`.

    As many updates of MLEM are made as that needs, `early_iteration` at least; beyond them the deviance stays flat.

    Args:
        likelihood: likelihood of all data; not an ordered subset, for deviances must not rise.
        image: first image of MLEM.
        iterations: MLEM's iterate whose deviance is the last target, ≤ max_iterations.
        steps: number of steps of the sampler.
        max_iterations: static.
        early_iteration: iterate whose image is kept, for the intensity scale.
    """
    needed = jnp.maximum(jnp.ceil(jnp.asarray(iterations)).astype(int), early_iteration) + 1

    def body(number: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        image, kept, path = carry
        expected = likelihood.expected(image)
        kept = jnp.where(number == early_iteration, image, kept)
        return update(likelihood, image, expected), kept, path.at[number].set(likelihood.deviance(expected))

    unset = jnp.full(max_iterations + 1, jnp.inf, image.dtype)
    _, kept, path = jax.lax.fori_loop(0, jnp.minimum(needed, max_iterations + 1), body, (image, image, unset))
    path = jax.lax.cummin(path)  # rounding of a path that no longer moves
    return Targets(interpolate(path, iterations * jnp.linspace(0, 1, steps)), path, kept)


@one_program
def interpolate(mlem_deviance: Float[Array, " iterate"], iterates: Float[Array, " step"]) -> Float[Array, " step"]:
    """Deviance at fractional iterates, interpolated linearly between those of MLEM's iterates 0, 1, …"""
    return jnp.interp(iterates, jnp.arange(len(mlem_deviance), dtype=mlem_deviance.dtype), mlem_deviance)


@one_program
def discrepancy_principle(mlem_deviance: Float[Array, " iterate"], deviance: float | Scalar) -> Scalar:
    """Morozov's discrepancy principle: the fractional iterate at which MLEM's deviance falls to `deviance`.

    The last iterate where it never does. With the deviance that the truth is expected to have
    (`medjax.pet.acquisition.expected_deviance`) this is where MLEM begins to fit noise: it grows with the counts by
    itself, and a multiple of it is a hyper-parameter that needs no tuning to them.

    Source: Morozov, Soviet Mathematics Doklady 7, 1966.
    """
    path = mlem_deviance
    passed = jnp.sum(jnp.cumprod(path > deviance))  # the first that is low enough
    last = len(path) - 1
    before, after = path[jnp.clip(passed - 1, 0, last)], path[jnp.clip(passed, 0, last)]
    part = jnp.where(before > after, (before - deviance) / jnp.where(before > after, before - after, 1), 1.0)
    return jnp.clip(jnp.where(passed > last, last, passed - 1 + part), 0, last).astype(path.dtype)


def likelihood_schedule(
    denoiser: Any,
    likelihood: Likelihood,
    target_deviance: Float[Array, " step"],
    scale: float | Scalar = 1.0,
    max_updates: int = 100,
    floor: float | None = FLOOR,
    proximal_weight: float | Scalar | None = None,
) -> GuidedDenoiser:
    """Likelihood-scheduled guidance: EM updates of the denoised image until its deviance reaches the step's target.

    Where `max_updates` come first, the image stays short of its target (`reached_target` is False) and the next step
    continues from there.

    Args:
        denoiser: the prior.
        likelihood: likelihood of all data.
        target_deviance: target deviance of each step: see `targets`.
        scale: intensity scale, in units of the likelihood's image.
        max_updates: EM updates in a step at most.
        floor: smallest value of a voxel before an update, as a fraction of scale; None: no floor, for likelihoods
            that are not of counts.
        proximal_weight: weight of De Pierro's proximal updates, which pull towards the denoised image; the target may
            then be out of reach. None: plain EM updates.
    """
    require(likelihood, "a likelihood schedule")
    arguments = (target_deviance, scale, max_updates, floor, proximal_weight)
    return Partial(_guided, as_denoiser(denoiser), likelihood, *arguments)


def _guided(
    denoiser: Any,
    likelihood: Likelihood,
    target_deviance: Float[Array, " step"],
    scale: Any,
    max_updates: Any,
    floor: Any,
    proximal_weight: Any,
    x: Array,
    t: Scalar,
    index: Int[Array, ""],
) -> tuple[Estimate, Info]:
    prior = estimate(denoiser, x, t, index)
    target = target_deviance[index]
    z0 = scale * prior.x0
    z0 = z0 if floor is None else jnp.maximum(z0, floor * scale)
    q0 = likelihood.expected(z0)

    def above(carry: tuple[Array, ...]) -> Array:
        *_, deviance, updates = carry
        return (deviance > target) & (updates < max_updates)

    def body(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        z, q, _, _, _, updates = carry
        new = _update(likelihood, z, z0, q, proximal_weight)
        expected = likelihood.expected(new)
        return new, expected, z, q, likelihood.deviance(expected), updates + 1

    start = (z0, q0, z0, q0, likelihood.deviance(q0), jnp.zeros((), jnp.int32))
    z, q, z_, q_, deviance, updates = jax.lax.while_loop(above, body, start)
    reached = (updates > 0) & (deviance <= target)
    fraction = jnp.where(reached, search_target(likelihood, q_, q, target), 1.0)
    image = z_ + fraction * (z - z_)
    info = Info(likelihood.deviance(q_ + fraction * (q - q_)), target, updates, 1.0 + 2.0 * updates, reached)
    return prior._replace(x0=image / scale), info


def _update(likelihood: Likelihood, z: Array, z0: Array, expected: Array, proximal_weight: Any) -> Array:
    if proximal_weight is None:
        return update(likelihood, z, expected)
    return proximal(likelihood, z, z0, proximal_weight, expected)


def search_target(likelihood: Likelihood, before: Array, after: Array, target: Scalar) -> Scalar:
    """The α in [0, 1] at which before + α (after − before) has the target's deviance.

    Newton's method from α = 0: the deviance is convex and above the target there, so it comes from that side and never
    passes the target.
    """
    direction = after - before

    def misfit(alpha: Scalar) -> Scalar:
        return likelihood.deviance(before + alpha * direction) - target

    def far(carry: tuple[Array, Array, Array]) -> Array:
        _, value, number = carry
        return (jnp.abs(value) > TOLERANCE * target) & (number < MAX_NEWTON_STEPS)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        alpha, _, number = carry
        value, slope = jax.jvp(misfit, (alpha,), (jnp.ones_like(alpha),))
        alpha = jnp.clip(alpha - jnp.where(slope < 0, value / slope, 0.0), 0.0, 1.0)
        return alpha, jnp.where(slope < 0, value, 0.0), number + 1

    start = (jnp.zeros((), before.dtype), jnp.asarray(jnp.inf, before.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(far, body, start)[0]
