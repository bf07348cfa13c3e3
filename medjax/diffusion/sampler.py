"""Samplers: reverse diffusion as an Algorithm, from noise to an image, by any driver of `iterate`.

    algorithm = sampler(guided_denoiser, sde, times, ddim(1.0))
    state, info = iterate.scan(algorithm, algorithm.init(key, shape), len(times) - 1)
    image = state.x0

A *guided denoiser* estimates image and noise of a sample: (x, t, index) → Estimate, Info; see `guidance`. A *solver*
goes from one time to the next and may call it more than once:

    solver(guided_denoiser, sde, key, x, t, t_next, index)  → sample, Estimate, Info

`euler_maruyama` of the reverse SDE, `ddim(eta)`, and `heun` of the probability-flow ODE. Step n draws with
fold_in(state.key, n). On a CPU run guidance that differentiates a network (DPS) by `iterate.loop`: it is 4 to 9 times
faster there than by `scan`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree, Scalar

from medjax.diffusion.denoiser import as_pytree
from medjax.diffusion.guidance import Estimate, GuidedDenoiser
from medjax.diffusion.sde import Sde, coefficients, sample_prior, score_from_x0, time_of_sigma
from medjax.errors import ConfigError
from medjax.iterate import Algorithm

Solver = Callable[[GuidedDenoiser, Sde, PRNGKeyArray, Array, Scalar, Scalar, Array], tuple[Array, Estimate, Any]]
Corrector = Callable[[PRNGKeyArray, Array, Scalar, Int[Array, ""]], Array]


class State(NamedTuple):
    """State of a sampler: the sample x(t), the latest denoised image, key and step."""

    sample: Float[Array, "*space"]  # x(t), t = times[step]
    x0: Float[Array, "*space"]  # denoised image of the latest step; after the last one, the result
    key: Key[Array, "..."]  # step n draws with fold_in(key, n)
    step: Int[Array, "..."]  # steps made


def uniform_times(steps: int, t_max: float = 1.0, t_min: float = 1e-3) -> Float[Array, " point"]:
    """Evenly spaced times: `steps` + 1 from `t_max` down to `t_min`.

    Raises:
        ConfigError: fewer than one step, or times out of order.
    """
    _check_times(steps, t_max, t_min)
    return _evenly_spaced(steps, t_max, t_min)


@partial(jax.jit, static_argnames=("steps", "t_max", "t_min"), inline=True)
def _evenly_spaced(steps: int, t_max: float, t_min: float) -> Array:
    return jnp.linspace(t_max, t_min, steps + 1)


def karras_times(
    sde: Sde, steps: int, rho: float | Scalar = 7.0, t_max: float = 1.0, t_min: float = 1e-3
) -> Float[Array, " point"]:
    """Times of Karras et al.: `steps` + 1 whose σ = ν / γ are (σ_1^(1/ρ) + i / steps (σ_0^(1/ρ) − σ_1^(1/ρ)))^ρ.

    σ_1 is that of `t_max`, σ_0 that of `t_min`.

    Args:
        sde: the diffusion.
        steps: number of steps of the sampler.
        rho: ρ: most steps lie where there is little noise; 1 spaces σ evenly.
        t_max: first time, ≤ 1.
        t_min: last time, > 0.

    Raises:
        ConfigError: fewer than one step, or times out of order.

    Source: Karras et al., NeurIPS 2022, equation 5.
    """
    _check_times(steps, t_max, t_min)
    return _karras_times(sde, steps, rho, t_max, t_min)


@partial(jax.jit, static_argnames="steps", inline=True)
def _karras_times(sde: Sde, steps: int, rho: Any, t_max: Any, t_min: Any) -> Array:
    high, low = (sde.sigma(t) ** (1 / rho) for t in (t_max, t_min))
    sigmas = (high + jnp.linspace(0, 1, steps + 1) * (low - high)) ** rho
    times = jax.vmap(lambda sigma: time_of_sigma(sde, sigma, t_max, t_min))(sigmas)
    return times.at[0].set(t_max).at[-1].set(t_min)


def geometric_times(
    sde: Sde, steps: int, sigma_max: float | Scalar = 0.8, sigma_min: float | Scalar = 0.1
) -> Float[Array, " point"]:
    """Times at which σ = ν / γ falls by one factor a step: `steps` + 1 from `sigma_max` to `sigma_min`, both traced.

    Levels beyond the diffusion's own end at its first or last time.

    Raises:
        ConfigError: fewer than one step, or levels, where they are numbers, out of order.
    """
    known = isinstance(sigma_max, float | int) and isinstance(sigma_min, float | int)
    if steps < 1 or (known and not sigma_max > sigma_min > 0):
        raise ConfigError(f"times: {steps} steps from σ {sigma_max} to {sigma_min}; expected σ_max > σ_min > 0")
    return _geometric_times(sde, steps, sigma_max, sigma_min)


@partial(jax.jit, static_argnames="steps", inline=True)
def _geometric_times(sde: Sde, steps: int, sigma_max: Any, sigma_min: Any) -> Array:
    sigmas = sigma_max * (sigma_min / sigma_max) ** jnp.linspace(0, 1, steps + 1)
    return jax.vmap(lambda sigma: time_of_sigma(sde, sigma))(sigmas)


def _check_times(steps: int, t_max: float, t_min: float) -> None:
    if steps < 1 or not 1 >= t_max > t_min > 0:
        raise ConfigError(f"times: {steps} steps from {t_max:g} to {t_min:g}; expected 1 ≥ t_max > t_min > 0")


def sampler(
    guided_denoiser: GuidedDenoiser,
    sde: Sde,
    times: Float[Array, " point"],
    solver: Solver | None = None,
    corrector: Corrector | None = None,
) -> Algorithm:
    """Sampler of reverse diffusion as an Algorithm, one solver step from times[step] to times[step + 1] each.

    init(key, shape, image=0) → State; step(State) → State, Info. There are len(times) − 1 steps: one more leaves the
    State as it is, its count of steps too, and gives an Info of NaN, which `iterate.loop` refuses.

    Args:
        guided_denoiser: guided denoiser, from `guidance`.
        sde: the diffusion of the denoiser.
        times: decreasing, as `uniform_times`, `karras_times` and `geometric_times` give them.
        solver: `euler_maruyama` by default.
        corrector: such as `langevin.langevin`, for a predictor–corrector sampler; None: none.
    """
    solver = as_pytree(euler_maruyama if solver is None else solver)
    corrector = None if corrector is None else as_pytree(corrector)
    return Algorithm(
        Partial(_init, sde, times), Partial(_step, as_pytree(guided_denoiser), sde, times, solver, corrector)
    )


def _init(
    sde: Sde,
    times: Float[Array, " point"],
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    image: Float[Array, "*space"] | float = 0.0,
) -> State:
    return State(
        perturb(sde, jax.random.fold_in(key, 0), shape, times[0], image),
        jnp.zeros(shape),
        jax.random.fold_in(key, 1),
        jnp.zeros((), jnp.int32),
    )


def perturb(
    sde: Sde,
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    t: float | Scalar = 1.0,
    image: Float[Array, "*space"] | float = 0.0,
) -> Float[Array, "*space"]:
    """Perturb an image to time t of the forward diffusion: γ · image + ν · noise.

    At β_max = 10 the marginal at t = 1 still holds 8 % of the image. Over the thousands of voxels of a head that is
    several standard deviations: samples that start without it stay too dark. A crude `image`, such as an early iterate
    of MLEM, is enough.

    Args:
        sde: the diffusion.
        key: random key of the noise.
        shape: shape of the image.
        t: time in [0, 1].
        image: image at t = 0.
    """
    return sde.marginal(t)[0] * image + sample_prior(sde, key, shape, t)


def _step(
    guided_denoiser: GuidedDenoiser,
    sde: Sde,
    times: Float[Array, " point"],
    solver: Solver,
    corrector: Corrector | None,
    state: State,
) -> tuple[State, PyTree]:
    t, t_next = times[state.step], times[state.step + 1]
    own = jax.random.fold_in(state.key, state.step)
    sample, estimate, info = solver(guided_denoiser, sde, own, state.sample, t, t_next, state.step)
    if corrector is not None:
        sample = corrector(jax.random.fold_in(own, 1), sample, t_next, state.step)
    past = state.step >= len(times) - 1  # `times` has no more; indexing would give the last again
    made = jnp.where(past, state.sample, sample), jnp.where(past, state.x0, estimate.x0)
    return State(*made, state.key, jnp.where(past, state.step, state.step + 1)), _unknown(past, info)


def _unknown(past: Array, info: PyTree) -> PyTree:
    """`info`, its floating-point numbers NaN where the step was none."""
    return jax.tree.map(
        lambda x: jnp.where(past, jnp.nan, x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, info
    )


# ── solvers ──


def euler_maruyama(
    guided_denoiser: GuidedDenoiser,
    sde: Sde,
    key: PRNGKeyArray,
    x: Float[Array, "*space"],
    t: Scalar,
    t_next: Scalar,
    index: Int[Array, ""],
) -> tuple[Array, Estimate, Any]:
    """Euler–Maruyama step of the reverse SDE, x − Δ (f x − g² s) + g √Δ z, Δ = t − t_next, s of the denoised image.

    Args:
        guided_denoiser: guided denoiser, from `guidance`.
        sde: the diffusion.
        key: random key of z.
        x: sample at time t.
        t: time of the sample.
        t_next: time to go to, < t.
        index: number of the step.

    Source: Song et al., ICLR 2021, equation 6, discretised.
    """
    estimate, info = guided_denoiser(x, t, index)
    drift, diffusion = coefficients(sde, t)
    score = score_from_x0(sde, x, estimate.x0, t)
    z = jax.random.normal(key, x.shape, x.dtype)
    sample = x - (t - t_next) * (drift * x - diffusion**2 * score) + diffusion * jnp.sqrt(t - t_next) * z
    return sample + estimate.shift, estimate, info


def ddim(eta: float | Scalar = 0.0) -> Solver:
    """DDIM step, γ' · x0 + √(ν'² − σ²) · noise + σ z, with σ = η ν' / ν √(ν² − (γ / γ')² ν'²).

    η = 0 is deterministic, η = 1 ancestral sampling.

    Source: Song, Meng & Ermon, ICLR 2021, equation 12, in a form that holds for any marginal.
    """
    return Partial(_ddim, eta)


def _ddim(
    eta: float | Scalar,
    guided_denoiser: GuidedDenoiser,
    sde: Sde,
    key: PRNGKeyArray,
    x: Array,
    t: Scalar,
    t_next: Scalar,
    index: Array,
) -> tuple[Array, Estimate, Any]:
    estimate, info = guided_denoiser(x, t, index)
    (gamma, nu), (gamma_, nu_) = sde.marginal(t), sde.marginal(t_next)
    deviation = eta * nu_ / nu * jnp.sqrt(jnp.maximum(nu**2 - (gamma / gamma_ * nu_) ** 2, 0))
    deviation = jnp.minimum(deviation, nu_)
    kept = jnp.sqrt(jnp.maximum(nu_**2 - deviation**2, 0))
    z = jax.random.normal(key, x.shape, x.dtype)
    sample = gamma_ * estimate.x0 + kept * estimate.noise + deviation * z
    return sample + estimate.shift, estimate, info


def heun(
    guided_denoiser: GuidedDenoiser,
    sde: Sde,
    key: PRNGKeyArray,
    x: Float[Array, "*space"],
    t: Scalar,
    t_next: Scalar,
    index: Int[Array, ""],
) -> tuple[Array, Estimate, Any]:
    """Heun step of the probability-flow ODE d(x / γ) / dσ = noise, σ = ν / γ: second order, two evaluations a step.

    Deterministic. The Euler step is DDIM's with η = 0, x = γ' (x0 + σ' n); then x + γ' (σ' − σ) (n' − n) / 2, n' the
    noise there. Shifts of the two evaluations are averaged, their projector calls added; x0 and the rest of Info are
    the second's. Arguments are those of `euler_maruyama`.

    Source: Karras et al., NeurIPS 2022, algorithm 1.
    """
    (gamma_, nu_), sigma, sigma_ = sde.marginal(t_next), sde.sigma(t), sde.sigma(t_next)
    first, first_info = guided_denoiser(x, t, index)
    predicted = gamma_ * first.x0 + nu_ * first.noise
    second, info = guided_denoiser(predicted, t_next, index)
    sample = predicted + gamma_ * (sigma_ - sigma) * (second.noise - first.noise) / 2
    if hasattr(info, "projector_calls"):
        info = info._replace(projector_calls=first_info.projector_calls + info.projector_calls)
    return sample + (first.shift + second.shift) / 2, second, info
