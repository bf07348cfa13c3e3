"""Likelihood-scheduled sampling: every reverse step is held to the likelihood that MLEM reaches at a set iteration.

    targets(likelihood, image, iterations, steps, longest)   → Targets      one deviance a reverse step
    likelihood_schedule(denoiser, likelihood, targets)       → a guided denoiser, for `sampler`

MLEM's iterates have deviances D(0) ≥ D(1) ≥ …; step k of N is to reach D at iterate M k / (N − 1), interpolated. The
one hyper-parameter is M: how far MLEM would have been run. A step whose denoised image fits better than its target is
left alone; else full-data EM updates go on from it until the target is passed, and a search along the last update ends
on the target. Expected counts are affine in the image, so the search needs no projection.

The published method (PET-LiSch, Webber et al., IEEE TMI 44(11), 2025, arXiv 2412.04339) is known to us by its abstract
and descriptions; the target in deviance, the search for it and the rules at the limits are ours.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Scalar

from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.guidance import Estimate, Guided, estimate
from medjax.likelihood import Likelihood, proximal, require, update

FLOOR = 1e-3  # of the intensity scale: a voxel at 0 could never rise again by EM
NEWTON_STEPS = 12  # of the search at most; it converges from one side, in 4 or 5 as a rule
CLOSE = 1e-5  # of the target: where the search stops; float32 resolves little more


class Targets(NamedTuple):
    """What the sampler is held to, and where that came from."""

    deviance: Float[Array, " step"]  # never rising
    path: Float[Array, " iterate"]  # of MLEM's iterates 0 … longest
    image: Float[Array, "*space"]  # MLEM's, at iterate `early`: for the intensity scale


class Info(NamedTuple):
    """What a reader wants to see of a step."""

    deviance: Scalar  # of the image it ended with
    target: Scalar
    updates: Int[Array, ""]  # EM updates made
    projector_calls: Scalar  # forward and back-projections of the whole data, the overshooting ones too
    reached_target: Bool[Array, ""]  # by updates; False where none was needed or the limit came first


def targets(
    likelihood: Likelihood,
    image: Float[Array, "*space"],
    iterations: float | Scalar,
    steps: int,
    longest: int = 100,
    early: int = 8,
) -> Targets:
    """Targets of `steps` reverse steps from MLEM's path from `image`, to end at that of iterate `iterations` ≤ longest.

    As many updates of MLEM are made as that asks for, `early` at least; beyond them the path stays flat. An
    ordered-subset likelihood will not do: deviances must not rise.
    """
    needed = jnp.maximum(jnp.ceil(jnp.asarray(iterations)).astype(int), early) + 1

    def body(number: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        image, kept, path = carry
        expected = likelihood.expected(image)
        kept = jnp.where(number == early, image, kept)
        return update(likelihood, image, expected), kept, path.at[number].set(likelihood.deviance(expected))

    unset = jnp.full(longest + 1, jnp.inf, image.dtype)
    _, kept, path = jax.lax.fori_loop(0, jnp.minimum(needed, longest + 1), body, (image, image, unset))
    path = jax.lax.cummin(path)  # rounding of a path that no longer moves
    return Targets(interpolate(path, iterations * jnp.linspace(0, 1, steps)), path, kept)


def interpolate(path: Float[Array, " iterate"], iterates: Float[Array, " step"]) -> Float[Array, " step"]:
    """The path's deviance at fractional iterates."""
    return jnp.interp(iterates, jnp.arange(len(path), dtype=path.dtype), path)


def discrepancy_principle(path: Float[Array, " iterate"], deviance: float | Scalar) -> Scalar:
    """The fractional iterate at which the path falls to `deviance`; the last one where it never does.

    With the deviance that the truth is expected to have (`medjax.pet.acquisition.expected_deviance`) this is where MLEM
    begins to fit noise: it grows with the counts by itself, and a multiple of it is a hyper-parameter that needs no
    tuning to them.

    Source: Morozov, Soviet Mathematics Doklady 7, 1966.
    """
    passed = jnp.sum(jnp.cumprod(path > deviance))  # the first that is low enough
    last = len(path) - 1
    before, after = path[jnp.clip(passed - 1, 0, last)], path[jnp.clip(passed, 0, last)]
    part = jnp.where(before > after, (before - deviance) / jnp.where(before > after, before - after, 1), 1.0)
    return jnp.clip(jnp.where(passed > last, last, passed - 1 + part), 0, last).astype(path.dtype)


def likelihood_schedule(
    denoiser: Any,
    likelihood: Likelihood,
    deviances: Float[Array, " step"],
    scale: float | Scalar = 1.0,
    most: int = 100,
    floor: float | None = FLOOR,
    anchor: float | Scalar | None = None,
) -> Guided:
    """The denoised image, raised to the step's target by as many EM updates as that takes.

    Where the limit of `most` updates comes first the image stays short of its target (`reached_target` says so) and the
    next step goes on from there. `floor` · scale is the least value an update starts from (None: any value, for
    likelihoods that are not of counts). With an `anchor` the updates are De Pierro's proximal ones, which pull towards
    the denoised image with that weight: a named variant, in which the target may lie beyond reach.
    """
    require(likelihood, "a likelihood schedule")
    return Partial(_guided, as_denoiser(denoiser), likelihood, deviances, scale, most, floor, anchor)


def _guided(
    denoiser: Any,
    likelihood: Likelihood,
    deviances: Float[Array, " step"],
    scale: Any,
    most: Any,
    floor: Any,
    anchor: Any,
    x: Array,
    t: Scalar,
    index: Int[Array, ""],
) -> tuple[Estimate, Info]:
    prior = estimate(denoiser, x, t, index)
    target = deviances[index]
    z0 = scale * prior.x0
    z0 = z0 if floor is None else jnp.maximum(z0, floor * scale)
    q0 = likelihood.expected(z0)

    def above(carry: tuple[Array, ...]) -> Array:
        *_, deviance, updates = carry
        return (deviance > target) & (updates < most)

    def body(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        z, q, _, _, _, updates = carry
        new = _update(likelihood, z, z0, q, anchor)
        expected = likelihood.expected(new)
        return new, expected, z, q, likelihood.deviance(expected), updates + 1

    start = (z0, q0, z0, q0, likelihood.deviance(q0), jnp.zeros((), jnp.int32))
    z, q, z_, q_, deviance, updates = jax.lax.while_loop(above, body, start)
    reached = (updates > 0) & (deviance <= target)
    part = jnp.where(reached, _search(likelihood, q_, q, target), 1.0)
    image = z_ + part * (z - z_)
    info = Info(likelihood.deviance(q_ + part * (q - q_)), target, updates, 1.0 + 2.0 * updates, reached)
    return prior._replace(x0=image / scale), info


def _update(likelihood: Likelihood, z: Array, z0: Array, expected: Array, anchor: Any) -> Array:
    if anchor is None:
        return update(likelihood, z, expected)
    return proximal(likelihood, z, z0, anchor, expected)


def _search(likelihood: Likelihood, before: Array, after: Array, target: Scalar) -> Scalar:
    """The α in [0, 1] at which before + α (after − before) has the target's deviance.

    Newton's method from α = 0: the deviance is convex and above the target there, so it comes from that side and never
    passes the target.
    """
    direction = after - before

    def misfit(alpha: Scalar) -> Scalar:
        return likelihood.deviance(before + alpha * direction) - target

    def far(carry: tuple[Array, Array, Array]) -> Array:
        _, value, number = carry
        return (jnp.abs(value) > CLOSE * target) & (number < NEWTON_STEPS)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        alpha, _, number = carry
        value, slope = jax.jvp(misfit, (alpha,), (jnp.ones_like(alpha),))
        alpha = jnp.clip(alpha - jnp.where(slope < 0, value / slope, 0.0), 0.0, 1.0)
        return alpha, jnp.where(slope < 0, value, 0.0), number + 1

    start = (jnp.zeros((), before.dtype), jnp.asarray(jnp.inf, before.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(far, body, start)[0]
