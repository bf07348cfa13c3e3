"""Sampling conditioned on data: each method makes of a denoiser and a likelihood a guided one, for `sampler`.

    unguided      what the prior alone says
    naive         s + w (1 − t) ∇ log p(data | x(t))                         edits the score
    dps           x ← x − w / D · ∂ D / ∂ x(t), D the deviance of the denoised image; differentiates the network
    dds           a few preconditioned ascents of log-likelihood − ½ λ ‖z − z₀‖² from the denoised image z₀
    dds_delta     the same by damped plain gradient steps, |x| inside the likelihood, a penalty along z
    (likelihood schedule: `likelihood_schedule.py`)

A guided denoiser is (x, t, index) → Estimate(x0, noise, shift), Info, of one image x at the scalar time t in the
sampler's step number `index`. It is a pytree, so it can be an argument of jit and be vmapped over what it holds.

Images of the network are in units of `scale`; a likelihood sees scale · image. All take any `Likelihood`; none samples
the posterior exactly, even for Gaussians: RESULTS.md says by how much they miss it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.diffusion.denoiser import as_denoiser, as_pytree, denoise
from medjax.diffusion.sde import noise_from_x0, score_from_x0, tweedie
from medjax.iterate import static_partial
from medjax.likelihood import Likelihood, precondition
from medjax.likelihood import require as require_likelihood
from medjax.penalty import Penalty
from medjax.penalty import require as require_penalty


class Estimate(NamedTuple):
    """What is in a noisy sample x = γ · x0 + ν · noise, where data have not bent the two apart."""

    x0: Float[Array, "*space"]
    noise: Float[Array, "*space"]
    shift: Float[Array, "*space"] | float | Scalar = 0.0  # added after the solver's step


class Info(NamedTuple):
    """What a reader wants to see of a guided step."""

    projector_calls: Scalar  # forward and back-projections of the whole data


Guided = Callable[[Float[Array, "*space"], Scalar, Int[Array, ""]], tuple[Estimate, Any]]
Subset = Callable[[Int[Array, ""]], Likelihood]  # update number → the data it uses; `Ordered`, say


def estimate(denoiser: Any, x: Float[Array, "*space"], t: Scalar, index: Int[Array, ""]) -> Estimate:
    """The prior's estimate: x0, and the noise that is left.

    A denoiser with a method `at_step` gives the one that is to be asked at that step: see `planes.alternate`.
    """
    at_step = getattr(denoiser, "at_step", None)
    x0 = denoise(denoiser, x, t) if at_step is None else at_step(index, x[None], jnp.asarray(t, x.dtype)[None])[0]
    return Estimate(x0, noise_from_x0(denoiser.sde, x, x0, t))


def unguided(denoiser: Any) -> Guided:
    """The prior alone."""
    return Partial(_unguided, as_denoiser(denoiser))


def _unguided(denoiser: Any, x: Array, t: Scalar, index: Array) -> tuple[Estimate, Info]:
    return estimate(denoiser, x, t, index), Info(0.0 * t)


def naive(denoiser: Any, likelihood: Likelihood, weight: float | Scalar, scale: float | Scalar = 1.0) -> Guided:
    """The score plus weight · (1 − t) · ∇ log p(data | scale · max(x, 0)): the noisy sample itself is held to the data.

    Source: PET-Naive of Singh et al., MELBA 2024:001, whose i / N is 1 − t.
    """
    require_likelihood(likelihood, "naive guidance")
    return Partial(_naive, as_denoiser(denoiser), likelihood, weight, scale)


def _naive(
    denoiser: Any, likelihood: Likelihood, weight: Any, scale: Any, x: Array, t: Scalar, index: Array
) -> tuple[Estimate, Info]:
    sde = denoiser.sde
    prior = estimate(denoiser, x, t, index)
    image = scale * jnp.maximum(x, 0)
    pull = scale * likelihood.gradient(image) * (x > 0)
    score = score_from_x0(sde, x, prior.x0, t) + weight * (1 - t) * pull
    return Estimate(tweedie(sde, x, score, t), -sde.marginal(t)[1] * score), Info(2.0 + 0 * t)


def dps(
    denoiser: Any,
    likelihood: Likelihood,
    weight: float | Scalar,
    scale: float | Scalar = 1.0,
    positive: bool = True,
) -> Guided:
    """After the solver's step, x ← x − weight / D · ∂ D(scale · x0) / ∂ x(t), D the deviance.

    The derivative goes through the network: on CPU run the sampler by `iterate.loop`. `positive` clips what the
    likelihood sees.

    Source: Chung et al., ICLR 2023; for PET Singh et al., MELBA 2024:001.
    """
    require_likelihood(likelihood, "DPS")
    return Partial(static_partial(_dps, positive), as_denoiser(denoiser), likelihood, weight, scale)


def _dps(
    positive: bool,
    denoiser: Any,
    likelihood: Likelihood,
    weight: Any,
    scale: Any,
    x: Array,
    t: Scalar,
    index: Array,
) -> tuple[Estimate, Info]:
    def misfit(x: Array) -> tuple[Scalar, Estimate]:
        prior = estimate(denoiser, x, t, index)
        seen = jnp.maximum(prior.x0, 0) if positive else prior.x0
        return likelihood.deviance(likelihood.expected(scale * seen)), prior

    (deviance, prior), slope = jax.value_and_grad(misfit, has_aux=True)(x)
    shift = -weight * slope / jnp.maximum(deviance, jnp.finfo(x.dtype).tiny)
    return prior._replace(shift=shift), Info(2.0 + 0 * t)


def dds(
    denoiser: Any,
    likelihood: Likelihood | Subset,
    anchor: float | Scalar,
    scale: float | Scalar = 1.0,
    updates: int | Int[Array, ""] = 4,
    penalty: Any = None,
    penalty_weight: float | Scalar = 0.0,
    positive: bool = True,
) -> Guided:
    """z ← max(z + P(z) (∇L_j(z) − (λ (z − z₀) + β ∇R(z)) / subsets), 0), `updates` times from z₀ = scale · x0.

    P preconditions (x / sensitivity in PET), λ = anchor, R the penalty of the likelihood's image and β its weight. A
    likelihood is all data in every update; `ordered` gives update n one of so many subsets, in an order that goes on
    from step to step. Another function of the update's number is taken to give all data each time.

    Raises:
        ConfigError: the likelihood is none, or no pytree; the penalty has no gradient.

    Source: Chung, Lee & Ye, ICLR 2024; for PET Singh et al., MELBA 2024:001.
    """
    subset, subsets = _subset(likelihood, "DDS")
    if penalty is not None:
        require_penalty(penalty, "DDS", "gradient")
    arguments = (anchor, scale, updates, subsets, penalty, penalty_weight)
    return Partial(static_partial(_dds, positive), as_denoiser(denoiser), subset, *arguments)


def _dds(
    positive: bool,
    denoiser: Any,
    subset: Subset,
    anchor: Any,
    scale: Any,
    updates: Any,
    subsets: Any,
    penalty: Penalty | None,
    penalty_weight: Any,
    x: Array,
    t: Scalar,
    index: Array,
) -> tuple[Estimate, Info]:
    prior = estimate(denoiser, x, t, index)
    z0 = scale * (jnp.maximum(prior.x0, 0) if positive else prior.x0)

    def update(number: Any, z: Array) -> Array:
        likelihood = subset(index * updates + number)
        pull = anchor * (z - z0) + (0 if penalty is None else penalty_weight * penalty.gradient(z))
        z = z + precondition(likelihood, z, likelihood.gradient(z) - pull / subsets)
        return jnp.maximum(z, 0) if positive else z

    z = jax.lax.fori_loop(0, updates, update, z0)
    return prior._replace(x0=z / scale), Info(jnp.asarray(2.0 * updates / subsets, x.dtype))


def dds_delta(
    denoiser: Any,
    likelihood: Likelihood | Subset,
    delta: float | Scalar,
    anchor: float | Scalar = 1.0,
    scale: float | Scalar = 1.0,
    updates: int | Int[Array, ""] = 5,
    penalty: Any = None,
    penalty_weight: float | Scalar = 0.0,
) -> Guided:
    """x ← x + δ ∇(L_j(scale · |x|) − (β R(x) + λ ‖x − x₀‖²) / subsets), `updates` times from the denoised image x₀.

    Everything is in units of the network's image, as published: δ is not free of units, and R is the penalty of that
    image: the relative difference between axial neighbours in the paper. The image may be negative: clip it, or take
    |image|. Subsets and errors are those of `dds`.

    Source: PET-DDS-δ of Webber et al., IEEE MIC 2024 (arXiv 2412.04319).
    """
    subset, subsets = _subset(likelihood, "DDS-δ")
    if penalty is not None:
        require_penalty(penalty, "DDS-δ", "gradient")
    arguments = (delta, anchor, scale, updates, subsets, penalty, penalty_weight)
    return Partial(_dds_delta, as_denoiser(denoiser), subset, *arguments)


def _dds_delta(
    denoiser: Any,
    subset: Subset,
    delta: Any,
    anchor: Any,
    scale: Any,
    updates: Any,
    subsets: Any,
    penalty: Penalty | None,
    penalty_weight: Any,
    x: Array,
    t: Scalar,
    index: Array,
) -> tuple[Estimate, Info]:
    prior = estimate(denoiser, x, t, index)
    z0 = scale * prior.x0

    def update(number: Any, z: Array) -> Array:
        x, x0 = z / scale, z0 / scale
        ascent = scale * jnp.sign(x) * subset(index * updates + number).gradient(jnp.abs(z))
        pull = 2 * anchor * (x - x0) + (0 if penalty is None else penalty_weight * penalty.gradient(x))
        return scale * (x + delta * (ascent - pull / subsets))

    z = jax.lax.fori_loop(0, updates, update, z0)
    return prior._replace(x0=z / scale), Info(jnp.asarray(2.0 * updates / subsets, x.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ordered:
    """Ordered subsets of the data, one after the other: what `ordered` makes."""

    stacked: PyTree
    order: Int[Array, " subset"]
    select: Callable[[PyTree, Any], Likelihood] = field(metadata={"static": True})

    @property
    def subsets(self) -> int:
        """How many there are: an update sees 1 / subsets of the data."""
        return self.order.shape[-1]

    def __call__(self, number: Any) -> Likelihood:
        """The data that update `number` uses."""
        return self.select(self.stacked, self.order[number % self.subsets])


def whole(likelihood: Likelihood) -> Subset:
    """Every update uses all data."""
    return Partial(_whole, likelihood)


def ordered(select: Callable[[PyTree, Any], Likelihood], stacked: PyTree, order: Int[Array, " subset"]) -> Ordered:
    """Update n uses select(stacked, order[n mod subsets]), ordered subsets: see `medjax.pet.acquisition.select`."""
    return Ordered(stacked, order, select)


def _whole(likelihood: Likelihood, number: Any) -> Likelihood:
    return likelihood


def _subset(likelihood: Any, use: str) -> tuple[Subset, int]:
    """The data of each update, and into how many parts they are divided.

    A likelihood that can also be called is a likelihood.
    """
    if isinstance(likelihood, Likelihood) or not callable(likelihood):
        require_likelihood(likelihood, use)
        return whole(likelihood), 1
    return as_pytree(likelihood), getattr(likelihood, "subsets", 1)
