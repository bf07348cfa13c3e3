"""Guidance: sampling conditioned on data. Each method combines a denoiser and a likelihood, for `sampler`.

    prior_only    the prior alone, without data
    naive         s + w (1 − t) ∇ log p(data | x(t))                         edits the score
    dps           x ← x − w / D · ∂ D / ∂ x(t), D the deviance of the denoised image; differentiates the network
    dds           a few preconditioned ascent steps on log-likelihood − ½ λ ‖z − z₀‖² from the denoised image z₀
    dds_delta     the same by damped plain gradient steps, |x| inside the likelihood, a penalty along z
    (solved data step: `dds_cg.py`; likelihood schedule: `likelihood_schedule.py`)

A guided denoiser is (x, t, index) → Estimate(x0, noise, shift), Info, of one image x at the scalar time t in the
sampler's step number `index`. It is a pytree, so it can be an argument of jit and be vmapped over what it holds.

Images of the network are in units of `scale`; a likelihood sees scale · image. All take any `Likelihood`; none samples
the posterior exactly, even for Gaussians: RESULTS.md has their errors.
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
    """Denoised image and noise of a sample, x = γ · x0 + ν · noise unless guidance has changed one of them."""

    x0: Float[Array, "*space"]  # denoised image
    noise: Float[Array, "*space"]  # predicted noise
    shift: Float[Array, "*space"] | float | Scalar = 0.0  # image added after the solver's step


class Info(NamedTuple):
    """Cost of a guided step."""

    projector_calls: Scalar  # forward and back-projections of the whole data


# (x, t, step of the sampler) → the estimate with data, Info
GuidedDenoiser = Callable[[Float[Array, "*space"], Scalar, Int[Array, ""]], tuple[Estimate, Any]]
# number of an update → likelihood of the data that it uses: a `SubsetCycle`, say
SubsetLikelihood = Callable[[Int[Array, ""]], Likelihood]


def estimate(denoiser: Any, x: Float[Array, "*space"], t: Scalar, index: Int[Array, ""]) -> Estimate:
    """Denoised image x0 of the prior alone, and the noise that is left.

    A denoiser with a method `at_step` is called by that, with the step's number: see `planes.alternate`.
    """
    at_step = getattr(denoiser, "at_step", None)
    x0 = denoise(denoiser, x, t) if at_step is None else at_step(index, x[None], jnp.asarray(t, x.dtype)[None])[0]
    return Estimate(x0, noise_from_x0(denoiser.sde, x, x0, t))


def prior_only(denoiser: Any) -> GuidedDenoiser:
    """Sampling from the prior alone, without data."""
    return Partial(_unguided, as_denoiser(denoiser))


def _unguided(denoiser: Any, x: Array, t: Scalar, index: Array) -> tuple[Estimate, Info]:
    return estimate(denoiser, x, t, index), Info(0.0 * t)


def naive(denoiser: Any, likelihood: Likelihood, weight: float | Scalar, scale: float | Scalar = 1.0) -> GuidedDenoiser:
    """PET-Naive guidance: the score plus weight · (1 − t) · ∇ log p(data | scale · max(x, 0)), of the noisy
    sample itself.

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
    nonnegative: bool = True,
) -> GuidedDenoiser:
    """Diffusion posterior sampling (DPS): x ← x − weight / D · ∂ D(scale · x0) / ∂ x(t), D the deviance.

    The update follows the solver's step. The derivative goes through the network: on CPU run the sampler by
    `iterate.loop`.

    Args:
        weight: step size, without unit.
        scale: intensity scale, in units of the likelihood's image.
        nonnegative: whether the likelihood gets max(x0, 0).

    Source: Chung et al., ICLR 2023; for PET Singh et al., MELBA 2024:001.
    """
    require_likelihood(likelihood, "DPS")
    return Partial(static_partial(_dps, nonnegative), as_denoiser(denoiser), likelihood, weight, scale)


def _dps(
    nonnegative: bool,
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
        seen = jnp.maximum(prior.x0, 0) if nonnegative else prior.x0
        return likelihood.deviance(likelihood.expected(scale * seen)), prior

    (deviance, prior), slope = jax.value_and_grad(misfit, has_aux=True)(x)
    shift = -weight * slope / jnp.maximum(deviance, jnp.finfo(x.dtype).tiny)
    return prior._replace(shift=shift), Info(2.0 + 0 * t)


def dds(
    denoiser: Any,
    likelihood: Likelihood | SubsetLikelihood,
    proximal_weight: float | Scalar,
    scale: float | Scalar = 1.0,
    updates: int | Int[Array, ""] = 4,
    penalty: Any = None,
    penalty_weight: float | Scalar = 0.0,
    nonnegative: bool = True,
) -> GuidedDenoiser:
    """Decomposed diffusion sampling (DDS): z ← max(z + P(z) (∇L_j(z) − (λ (z − z₀) + β ∇R(z)) / subsets), 0).

    From z₀ = scale · x0; P preconditions, x / sensitivity in PET.

    Args:
        likelihood: all data in every update, or one subset an update: `cycle_subsets`, whose order continues from step
            to step. Another function of the update's number is taken to give all data each time.
        proximal_weight: λ of the proximal term ½ λ ‖z − z₀‖².
        scale: intensity scale, in units of the likelihood's image.
        updates: number of updates in each step of the sampler.
        penalty, penalty_weight: R, of the likelihood's image, and β.
        nonnegative: whether z is kept at 0 or above.

    Raises:
        ConfigError: the likelihood is not one, or not a pytree; the penalty has no gradient.

    Source: Chung, Lee & Ye, ICLR 2024; for PET Singh et al., MELBA 2024:001.
    """
    subset, subsets = _subsets_of(likelihood, "DDS")
    if penalty is not None:
        require_penalty(penalty, "DDS", "gradient")
    arguments = (proximal_weight, scale, updates, subsets, penalty, penalty_weight)
    return Partial(static_partial(_dds, nonnegative), as_denoiser(denoiser), subset, *arguments)


def _dds(
    nonnegative: bool,
    denoiser: Any,
    subset: SubsetLikelihood,
    proximal_weight: Any,
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
    z0 = scale * (jnp.maximum(prior.x0, 0) if nonnegative else prior.x0)

    def update(number: Any, z: Array) -> Array:
        likelihood = subset(index * updates + number)
        pull = proximal_weight * (z - z0) + (0 if penalty is None else penalty_weight * penalty.gradient(z))
        z = z + precondition(likelihood, z, likelihood.gradient(z) - pull / subsets)
        return jnp.maximum(z, 0) if nonnegative else z

    z = jax.lax.fori_loop(0, updates, update, z0)
    return prior._replace(x0=z / scale), Info(jnp.asarray(2.0 * updates / subsets, x.dtype))


def dds_delta(
    denoiser: Any,
    likelihood: Likelihood | SubsetLikelihood,
    delta: float | Scalar,
    proximal_weight: float | Scalar = 1.0,
    scale: float | Scalar = 1.0,
    updates: int | Int[Array, ""] = 5,
    penalty: Any = None,
    penalty_weight: float | Scalar = 0.0,
) -> GuidedDenoiser:
    """DDS-δ: x ← x + δ ∇(L_j(scale · |x|) − (β R(x) + λ ‖x − x₀‖²) / subsets), from the denoised image x₀.

    Everything is in units of the network's image, as published: δ is not free of units, and R is the penalty of that
    image: the relative difference between axial neighbours in the paper. The image may be negative: clip it, or take
    |image|. Other arguments and errors are those of `dds`.

    Args:
        delta: step size δ.
        proximal_weight: λ of λ ‖x − x₀‖².

    Source: PET-DDS-δ of Webber et al., IEEE MIC 2024 (arXiv 2412.04319).
    """
    subset, subsets = _subsets_of(likelihood, "DDS-δ")
    if penalty is not None:
        require_penalty(penalty, "DDS-δ", "gradient")
    arguments = (delta, proximal_weight, scale, updates, subsets, penalty, penalty_weight)
    return Partial(_dds_delta, as_denoiser(denoiser), subset, *arguments)


def _dds_delta(
    denoiser: Any,
    subset: SubsetLikelihood,
    delta: Any,
    proximal_weight: Any,
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
        pull = 2 * proximal_weight * (x - x0) + (0 if penalty is None else penalty_weight * penalty.gradient(x))
        return scale * (x + delta * (ascent - pull / subsets))

    z = jax.lax.fori_loop(0, updates, update, z0)
    return prior._replace(x0=z / scale), Info(jnp.asarray(2.0 * updates / subsets, x.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SubsetCycle:
    """Ordered subsets of the data, used cyclically: update n uses subset `order[n mod subsets]`."""

    stacked: PyTree  # data of all subsets along a leading axis
    order: Int[Array, " subset"]  # order in which the subsets are used
    select: Callable[[PyTree, Any], Likelihood] = field(metadata={"static": True})

    @property
    def subsets(self) -> int:
        """Number of subsets: an update uses 1 / subsets of the data."""
        return self.order.shape[-1]

    def __call__(self, number: Any) -> Likelihood:
        """Likelihood of the subset that update `number` uses."""
        return self.select(self.stacked, self.order[number % self.subsets])


def full_data(likelihood: Likelihood) -> SubsetLikelihood:
    """The likelihood of all data, in every update."""
    return Partial(_full_data, likelihood)


def cycle_subsets(
    select: Callable[[PyTree, Any], Likelihood], stacked: PyTree, order: Int[Array, " subset"]
) -> SubsetCycle:
    """Ordered subsets in cyclic order: update n uses select(stacked, order[n mod subsets])."""
    return SubsetCycle(stacked, order, select)


def _full_data(likelihood: Likelihood, number: Any) -> Likelihood:
    return likelihood


def _subsets_of(likelihood: Any, use: str) -> tuple[SubsetLikelihood, int]:
    """The data of each update, and into how many parts they are divided.

    A likelihood that can also be called is a likelihood.
    """
    if isinstance(likelihood, Likelihood) or not callable(likelihood):
        require_likelihood(likelihood, use)
        return full_data(likelihood), 1
    return as_pytree(likelihood), getattr(likelihood, "subsets", 1)
