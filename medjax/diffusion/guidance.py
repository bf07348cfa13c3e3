"""Sampling given data: each method turns an estimator of the prior into one that knows a likelihood.

    naive         s + w (1 − t) ∇ log p(data | x(t))                         edits the score
    dps           x ← x − w / D · ∂ D / ∂ x(t), D the deviance of the denoised image; differentiates the network
    dds           a few preconditioned ascents of log-likelihood − ½ λ ‖z − z₀‖² from the denoised image z₀
    dds_delta     the same by damped plain gradient steps, |x| inside the likelihood, a penalty along z
    (likelihood schedule: `schedule.py`)

Images of the network are in units of `scale`; a likelihood sees scale · image. All take any `Likelihood`; none samples
the posterior exactly, even for Gaussians: RESULTS.md says by how much they miss it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, Scalar

from medjax.diffusion.sampler import Estimate, Estimator
from medjax.diffusion.sde import Sde, score_from_denoised, tweedie
from medjax.likelihood import Likelihood, precondition

Part = Callable[[Int[Array, ""]], Likelihood]  # update number → the subset of the data it uses


class Info(NamedTuple):
    """What a reader wants to see of a conditioned step."""

    projections: Scalar  # forward and back-projections of the whole data


def naive(
    estimator: Estimator, sde: Sde, likelihood: Likelihood, weight: float | Scalar, scale: float | Scalar = 1.0
) -> Estimator:
    """The score plus weight · (1 − t) · ∇ log p(data | scale · max(x, 0)): the noisy sample itself is held to the data.

    Source: PET-Naive of Singh et al., MELBA 2024:001, whose i / N is 1 − t.
    """

    def conditioned(x: Array, t: Scalar, index: Int[Array, ""]) -> tuple[Estimate, Info]:
        estimate, _ = estimator(x, t, index)
        image = scale * jnp.maximum(x, 0)
        pull = scale * likelihood.gradient(image) * (x > 0)
        s = score_from_denoised(sde, x, estimate.denoised, t) + weight * (1 - t) * pull
        noise = -sde.marginal(t)[1] * s
        return Estimate(tweedie(sde, x, s, t), noise, estimate.shift), Info(2.0 + 0 * t)

    return conditioned


def dps(
    estimator: Estimator,
    likelihood: Likelihood,
    weight: float | Scalar,
    scale: float | Scalar = 1.0,
    positive: bool = True,
) -> Estimator:
    """After the move, x ← x − weight / D · ∂ D(scale · denoised) / ∂ x(t), D the deviance.

    The derivative goes through the network: on CPU loop the jitted step from Python. `positive` clips what the
    likelihood sees.

    Source: Chung et al., ICLR 2023; for PET Singh et al., MELBA 2024:001.
    """

    def conditioned(x: Array, t: Scalar, index: Int[Array, ""]) -> tuple[Estimate, Info]:
        def misfit(x: Array) -> tuple[Scalar, Estimate]:
            estimate, _ = estimator(x, t, index)
            seen = jnp.maximum(estimate.denoised, 0) if positive else estimate.denoised
            return likelihood.deviance(likelihood.expected(scale * seen)), estimate

        (deviance, estimate), slope = jax.value_and_grad(misfit, has_aux=True)(x)
        shift = estimate.shift - weight * slope / jnp.maximum(deviance, jnp.finfo(x.dtype).tiny)
        return estimate._replace(shift=shift), Info(2.0 + 0 * t)

    return conditioned


def dds(
    estimator: Estimator,
    part: Part,
    anchor: float | Scalar,
    scale: float | Scalar = 1.0,
    updates: int | Int[Array, ""] = 4,
    parts: int = 1,
    penalty: Callable[[Array], Array] | None = None,
    positive: bool = True,
) -> Estimator:
    """z ← max(z + P(z) (∇L_j(z) − λ / parts (z − z₀) − ∇R(z) / parts), 0), `updates` times from z₀ = scale · denoised.

    P preconditions (x / sensitivity in PET), λ = anchor; `part(n)` is the data of update n: the whole, or one of
    `parts` subsets in an order that goes on from step to step. `penalty` is ∇R, weighted, in units of the likelihood's
    image.

    Source: Chung, Lee & Ye, ICLR 2024; for PET Singh et al., MELBA 2024:001.
    """

    def advance(likelihood: Likelihood, z: Array, z0: Array) -> Array:
        pull = anchor * (z - z0) + (0 if penalty is None else penalty(z))
        z = z + precondition(likelihood, z, likelihood.gradient(z) - pull / parts)
        return jnp.maximum(z, 0) if positive else z

    return _inner(estimator, part, advance, scale, updates, parts, positive)


def dds_delta(
    estimator: Estimator,
    part: Part,
    delta: float | Scalar,
    anchor: float | Scalar = 1.0,
    scale: float | Scalar = 1.0,
    updates: int | Int[Array, ""] = 5,
    parts: int = 1,
    penalty: Callable[[Array], Array] | None = None,
) -> Estimator:
    """x ← x + δ ∇(L_j(scale · |x|) − (R(x) + λ ‖x − x₀‖²) / parts), `updates` times from the denoised image x₀.

    Everything is in units of the network's image, as published: δ is not free of units. `penalty` is ∇R, weighted:
    the relative difference between axial neighbours in the paper. The image may be negative: clip it, or take |image|.

    Source: PET-DDS-δ of Webber et al., IEEE MIC 2024 (arXiv 2412.04319).
    """

    def advance(likelihood: Likelihood, z: Array, z0: Array) -> Array:
        x, x0 = z / scale, z0 / scale
        ascent = scale * jnp.sign(x) * likelihood.gradient(jnp.abs(z))
        pull = 2 * anchor * (x - x0) + (0 if penalty is None else penalty(x))
        return scale * (x + delta * (ascent - pull / parts))

    return _inner(estimator, part, advance, scale, updates, parts, positive=False)


def _inner(
    estimator: Estimator,
    part: Part,
    advance: Callable[[Likelihood, Array, Array], Array],
    scale: float | Scalar,
    updates: int | Int[Array, ""],
    parts: int,
    positive: bool,
) -> Estimator:
    """The denoised image, `updates` times advanced on the data; the noise stays as it was."""

    def conditioned(x: Array, t: Scalar, index: Int[Array, ""]) -> tuple[Estimate, Info]:
        estimate, _ = estimator(x, t, index)
        z0 = scale * (jnp.maximum(estimate.denoised, 0) if positive else estimate.denoised)

        def body(number: Any, z: Array) -> Array:
            return advance(part(index * updates + number), z, z0)

        z = jax.lax.fori_loop(0, updates, body, z0)
        calls = jnp.asarray(2.0 * updates / parts, x.dtype)
        return estimate._replace(denoised=z / scale), Info(calls)

    return conditioned


def whole(likelihood: Likelihood) -> Part:
    """Every update uses all data."""
    return lambda number: likelihood


def ordered(select: Callable[[PyTree, Any], Likelihood], stacked: PyTree, order: Int[Array, " part"]) -> Part:
    """Update n uses select(stacked, order[n mod parts]): ordered subsets, as `medjax.pet.acquisition.select` takes."""
    return lambda number: select(stacked, order[number % len(order)])
