"""Split Gibbs sampling: draws of the posterior by turns of a data step and a denoising step, in several chains.

    chain = split_gibbs(problem, settings)                init(key, image) → State; step(State) → State, Info
    draws = chains(key, problem, settings)                images (chain, draw, *space)

An auxiliary image z is coupled to the image x with variance ρ². Step n, at ρ_n:

    z ~ p(z | x, y) ∝ p(y | z) N(z; x, ρ²)          data step: perturb and solve (`data_step.draw`)
    x' ~ p(x | z)   ∝ p(x) N(z; x, ρ²)              denoising posterior: reverse diffusion from σ = ρ
    x = x' + (H + 1/v)⁻¹ H (z − x'),  1/v = 1/ρ² + 1/d²,  H = Aᵀ W A        correction

Without the correction the draws are of a posterior whose likelihood is smoothed by ρ: where data are worth more than
1/ρ² they count too little, and each ρ is a compromise between that and slow mixing. With it, and a Gaussian prior of
variance d², the draws are of the posterior itself at every ρ: its mean and variance are stationary, and consecutive
draws have the correlation 1 / (1 + ρ² (h + 1/d²)), h an eigenvalue of H. Where data tell little it does nothing.

ρ falls geometrically from 1.2 in `rounds` steps (annealing), then stays for as many draws as are wanted. Its last value
is a multiple of the default ρ² = 0.1 d / √h̄: a tenth of the geometric mean of the variances that prior and data have in
a voxel, d² and 1/h̄, h̄ the mean of H's diagonal. Units are those of the network, whose images have a mean emission of 1.

Sources: Vono, Dobigeon & Chainais, IEEE Transactions on Signal Processing 67(6), 2019 (split Gibbs); Coeurdoux,
Dobigeon & Chainais, IEEE Transactions on Image Processing, 2024; Xu & Chi, NeurIPS 2024; Wu et al., NeurIPS 2024 (a
diffusion model draws x; annealing). The correction and the rule for ρ are ours.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, Scalar

from medjax import iterate
from medjax.diffusion import data_step, denoising_posterior
from medjax.diffusion.data_step import NormalEquations
from medjax.diffusion.dds_cg import SIGMA_DATA, denoised_variance
from medjax.diffusion.reconstruct import InverseProblem
from medjax.errors import ConfigError
from medjax.iterate import static_partial

RHO2_FACTOR = 0.1  # of the default ρ²: see above
RHO_MAX = 1.2  # first ρ, relative to the mean emission: hardly any of the early image survives that much noise

Number = float | Scalar


class SplitGibbsSettings(NamedTuple):
    """Settings of split Gibbs sampling. Hashable."""

    chains: int = 16  # number of chains
    draws: int = 1  # draws kept of each chain, consecutive
    rounds: int = 6  # steps of annealing; the last one gives the first draw
    reverse_steps: int = denoising_posterior.STEPS  # evaluations of the network in a denoising step
    iterations: int = 4  # iterations of conjugate gradients in a data step
    correction_iterations: int = 2  # the same in a correction; 0: no correction
    nonnegative: bool = True  # whether draws are clipped at 0, where they leave their chain


DEFAULTS = SplitGibbsSettings()


class State(NamedTuple):
    """State of a chain, in units of the network."""

    image: Float[Array, "*space"]  # x
    auxiliary: Float[Array, "*space"]  # z, may be negative
    key: Key[Array, "..."]  # step n draws with fold_in(key, n)
    step: Int[Array, "..."]  # steps made


class Info(NamedTuple):
    """Coupling, convergence and cost of a step."""

    rho: Scalar  # ρ of the step
    residual: Scalar  # of the data step's normal equations, relative to that where it began
    projector_calls: Scalar  # forward and back-projections of the whole data


class Draws(NamedTuple):
    """Draws of the posterior by several chains, and their cost."""

    images: Float[Array, "chain draw *space"]  # in units of the data
    means: Float[Array, "chain draw *space"]  # E[x | z] of each draw: their average estimates the posterior mean
    projector_calls: Scalar  # forward and back-projections of the whole data, of all chains
    info: Info  # of each (chain, step)


def default_rho(equations: NormalEquations, sigma_data: Number = SIGMA_DATA) -> Scalar:
    """Default of ρ, from the data: ρ² = 0.1 d / √h̄; at most d.

    h̄ is the mean of h over the frequencies of `rfftn`, each counted once; over the whole spectrum it would be the mean
    of the diagonal of Aᵀ W A, which ρ takes the fourth root of.
    """
    curvature = jnp.mean(equations.response) / equations.inverse_kappa2
    floor = RHO2_FACTOR**2 / sigma_data**2  # without data, ρ = d
    return jnp.sqrt(RHO2_FACTOR * sigma_data / jnp.sqrt(jnp.maximum(curvature, floor)))


def annealing_schedule(last: Number, settings: SplitGibbsSettings) -> Float[Array, " step"]:
    """ρ of each step: geometric from 1.2 down to `last` in `rounds` steps, then as it is.

    Raises:
        ConfigError: no round, chain or draw.
    """
    if min(settings.chains, settings.draws, settings.rounds) < 1:
        raise ConfigError(
            f"split Gibbs: {settings.chains} chains, {settings.draws} draws, {settings.rounds} rounds; expected 1 or "
            "more of each"
        )
    last = jnp.asarray(last)
    fraction = jnp.linspace(0, 1, settings.rounds) if settings.rounds > 1 else jnp.ones(1)
    annealed = jnp.maximum(RHO_MAX, last) ** (1 - fraction) * last**fraction
    return jnp.concatenate([annealed, jnp.broadcast_to(last, settings.draws - 1)])


def split_gibbs(
    denoiser: Any,
    equations: NormalEquations,
    rhos: Float[Array, " step"],
    settings: SplitGibbsSettings,
    sigma_data: Number = SIGMA_DATA,
) -> iterate.Algorithm:
    """One chain as an Algorithm: init(key, image) → State; step(State) → State, Info. All in units of the network.

    Args:
        denoiser: the prior.
        equations: normal equations of the data: `data_step.normal_equations`.
        rhos: ρ of each step; later ones keep the last.
        settings: static.
        sigma_data: standard deviation d of the prior's images.
    """
    return iterate.Algorithm(
        Partial(_init), Partial(static_partial(_step, settings), denoiser, equations, rhos, sigma_data)
    )


def _init(key: PRNGKeyArray, image: Float[Array, "*space"]) -> State:
    return State(image, image, key, jnp.zeros((), jnp.int32))


def _step(
    settings: SplitGibbsSettings,
    denoiser: Any,
    equations: NormalEquations,
    rhos: Float[Array, " step"],
    sigma_data: Any,
    state: State,
) -> tuple[State, Info]:
    own = jax.random.fold_in(state.key, state.step)
    rho = rhos[jnp.minimum(state.step, len(rhos) - 1)]
    z, solved = data_step.draw(jax.random.fold_in(own, 0), equations, state.image, rho**2, settings.iterations)
    evaluations = settings.reverse_steps
    x = denoising_posterior.denoising_posterior(
        jax.random.fold_in(own, 1), denoiser, z, rho, evaluations, index=state.step * evaluations
    )
    x, calls = _correct(settings, equations, x, z, rho, sigma_data)
    return State(x, z, state.key, state.step + 1), Info(rho, solved.residual, solved.projector_calls + calls)


def _correct(
    settings: SplitGibbsSettings, equations: NormalEquations, x: Array, z: Array, rho: Any, sigma_data: Any
) -> tuple[Array, Scalar]:
    """The corrected image, and its projector calls."""
    if not settings.correction_iterations:
        return x, jnp.zeros((), x.dtype)
    variance = denoised_variance(rho, 1.0, sigma_data)
    x, info = data_step.pull(equations, x, z, variance, settings.correction_iterations)
    return x, info.projector_calls


def conditional_mean(
    denoiser: Any,
    equations: NormalEquations,
    state: State,
    rho: Number,
    settings: SplitGibbsSettings,
    sigma_data: Number = SIGMA_DATA,
) -> tuple[Float[Array, "*space"], Scalar]:
    """Mean E[x | z] of what the denoising step and its correction draw from the state's z; its projector calls.

    Of one evaluation of the network. Averaged over draws it estimates the posterior mean with less Monte-Carlo error
    than the draws themselves.

    Source: Gelfand & Smith, Journal of the American Statistical Association 85, 1990 (Rao–Blackwellised estimates).
    """
    unused = state.key  # one step is the posterior mean, and draws nothing
    x = denoising_posterior.denoising_posterior(unused, denoiser, state.auxiliary, rho, steps=1, index=state.step)
    return _correct(settings, equations, x, state.auxiliary, rho, sigma_data)


def chains(
    key: PRNGKeyArray,
    problem: InverseProblem,
    settings: SplitGibbsSettings = DEFAULTS,
    rho: Number = 1.0,
    sigma_data: Number = SIGMA_DATA,
) -> Draws:
    """Draws of the posterior by several chains, all from the early image. One program: jit it, vmap it over scans.

    Network evaluations: chains × ((rounds + draws − 1) × reverse_steps + draws). NaN where data show no activity (scale
    0).

    Args:
        key: random key; chain k's is fold_in(key, k).
        problem: inverse problem of a likelihood with a Gaussian approximation, from `reconstruct.inverse_problem`.
        settings: static.
        rho: the hyper-parameter, ρ of the draws relative to `default_rho`.
        sigma_data: standard deviation d of the prior's images.

    Raises:
        ConfigError: the likelihood has no Gaussian approximation; settings below 1.
    """
    equations = data_step.normal_equations(problem.likelihood, problem.early_image, problem.scale)
    rhos = annealing_schedule(rho * default_rho(equations, sigma_data), settings)
    algorithm = split_gibbs(problem.denoiser, equations, rhos, settings, sigma_data)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(settings.chains))
    burn_in = settings.rounds - 1

    def keep(state: State, _: Any) -> tuple[State, tuple[Array, Array, Info]]:
        state, info = algorithm.step(state)
        mean, calls = conditional_mean(problem.denoiser, equations, state, rhos[-1], settings, sigma_data)
        return state, (state.image, mean, info._replace(projector_calls=info.projector_calls + calls))

    def one(key: Array) -> tuple[Array, Array, Info]:
        state = algorithm.init(key, problem.early_image / problem.scale)
        state, early = iterate.scan(algorithm, state, burn_in)
        _, (images, means, late) = jax.lax.scan(keep, state, None, length=settings.draws)
        return images, means, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)

    images, means, info = jax.vmap(one)(keys)
    calls = jnp.sum(info.projector_calls) + equations.projector_calls + problem.projector_calls
    images, means = (problem.scale * each for each in (images, means))
    if settings.nonnegative:
        images, means = jnp.maximum(images, 0), jnp.maximum(means, 0)
    return Draws(images, means, calls, info)
