"""Reverse diffusion: from noise to an image, one step at a time.

    init(key, sde, shape)                                 → State
    step(key, state, estimator, sde, times, move)         → State, Info      one reverse step
    run(key, estimator, sde, times, shape, move)          → State, Info      all of them, by scan

An *estimator* says what is in a noisy sample: (x, t, index) → Estimate(denoised, noise, shift), Info. `unconditional`
makes one of a score by Tweedie's formula; `conditioning` turns any into one that knows data; `planes` joins several. A
*move* goes from time t to the next with what the estimate says: `euler_maruyama` or `ddim`. Step n draws with
fold_in(key, n).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Scalar

from medjax.diffusion.sde import Sde, coefficients, sample_prior, score_from_denoised, tweedie
from medjax.errors import ConfigError


class Estimate(NamedTuple):
    """What is in a noisy sample x = γ · denoised + ν · noise, where data have not bent the two apart."""

    denoised: Float[Array, "*shape"]
    noise: Float[Array, "*shape"]
    shift: Float[Array, "*shape"] | float = 0.0  # added after the move


class State(NamedTuple):
    """What the next step needs, and the image so far."""

    sample: Float[Array, "*shape"]  # x(t), t = times[index]
    denoised: Float[Array, "*shape"]  # of the last step: after the last one, the result
    index: Int[Array, ""]  # steps made


ScoreOf = Callable[[Float[Array, "*shape"], Scalar], Float[Array, "*shape"]]
Estimator = Callable[[Float[Array, "*shape"], Scalar, Int[Array, ""]], tuple[Estimate, PyTree]]
Move = Callable[[Sde, PRNGKeyArray, Array, Estimate, Scalar, Scalar], Array]
Step = Callable[[PRNGKeyArray, State], tuple[State, PyTree]]


def time_grid(steps: int, first: float = 1.0, last: float = 1e-3) -> Float[Array, " point"]:
    """`steps` + 1 times from `first` down to `last`, evenly spaced.

    Raises:
        ConfigError: fewer than one step, or times out of order.
    """
    if steps < 1 or not 1 >= first > last > 0:
        raise ConfigError(f"times: {steps} steps from {first:g} to {last:g}; expected 1 ≥ first > last > 0")
    return jnp.linspace(first, last, steps + 1)


def unconditional(sde: Sde, score: ScoreOf) -> Estimator:
    """What the prior alone says: denoised by Tweedie's formula, noise = −ν s."""

    def estimator(x: Array, t: Scalar, index: Array) -> tuple[Estimate, PyTree]:
        value = score(x, t)
        return Estimate(tweedie(sde, x, value, t), -sde.marginal(t)[1] * value), ()

    return estimator


def euler_maruyama(
    sde: Sde, key: PRNGKeyArray, x: Float[Array, "*shape"], estimate: Estimate, t: Scalar, after: Scalar
) -> Float[Array, "*shape"]:
    """x − Δ (f x − g² s) + g √Δ z, Δ = t − after; s comes from the denoised image.

    Source: Song et al., ICLR 2021, equation 6, discretised.
    """
    drift, diffusion = coefficients(sde, t)
    s = score_from_denoised(sde, x, estimate.denoised, t)
    noise = jax.random.normal(key, x.shape, x.dtype)
    return x - (t - after) * (drift * x - diffusion**2 * s) + diffusion * jnp.sqrt(t - after) * noise


def ddim(eta: float | Scalar = 0.0) -> Move:
    """γ' · denoised + √(ν'² − σ²) · noise + σ z, with σ = η ν' / ν √(ν² − (γ / γ')² ν'²).

    η = 0 is deterministic, η = 1 ancestral sampling.

    Source: Song, Meng & Ermon, ICLR 2021, equation 12, in a form that holds for any marginal.
    """

    def move(sde: Sde, key: PRNGKeyArray, x: Array, estimate: Estimate, t: Scalar, after: Scalar) -> Array:
        (gamma, nu), (gamma_, nu_) = sde.marginal(t), sde.marginal(after)
        spread = eta * nu_ / nu * jnp.sqrt(jnp.maximum(nu**2 - (gamma / gamma_ * nu_) ** 2, 0))
        spread = jnp.minimum(spread, nu_)
        kept = jnp.sqrt(jnp.maximum(nu_**2 - spread**2, 0))
        fresh = jax.random.normal(key, x.shape, x.dtype)
        return gamma_ * estimate.denoised + kept * estimate.noise + spread * fresh

    return move


def init(
    key: PRNGKeyArray,
    sde: Sde,
    shape: tuple[int, ...],
    t: float | Scalar = 1.0,
    image: Float[Array, "*shape"] | float = 0.0,
) -> State:
    """γ · image + noise at time t.

    At β_max = 10 the marginal at t = 1 still holds 8 % of the image. Over the thousands of voxels of a head that is
    several standard deviations: a start without it says that the slice is empty, and samples stay dark. A crude
    `image`, an early iterate of MLEM say, is enough.
    """
    sample = sde.marginal(t)[0] * image + sample_prior(sde, key, shape, t)
    return State(sample, jnp.zeros(shape), jnp.zeros((), jnp.int32))


def step(
    key: PRNGKeyArray,
    state: State,
    estimator: Estimator,
    sde: Sde,
    times: Float[Array, " point"],
    move: Move = euler_maruyama,
    corrector: Callable[[PRNGKeyArray, Array, Scalar, Int[Array, ""]], Array] | None = None,
) -> tuple[State, PyTree]:
    """From times[index] to times[index + 1]; with a `corrector` (see `langevin`) this is predictor–corrector."""
    t, after = times[state.index], times[state.index + 1]
    own = jax.random.fold_in(key, state.index)
    estimate, info = estimator(state.sample, t, state.index)
    sample = move(sde, own, state.sample, estimate, t, after) + estimate.shift
    if corrector is not None:
        sample = corrector(jax.random.fold_in(own, 1), sample, after, state.index)
    return State(sample, estimate.denoised, state.index + 1), info


def langevin(
    estimator: Estimator, sde: Sde, snr: float | Scalar = 0.16, steps: int = 1
) -> Callable[[PRNGKeyArray, Array, Scalar, Int[Array, ""]], Array]:
    """A corrector: `steps` of x + ε s + √(2 ε) z with ε = 2 (snr √n / ‖s‖)², n voxels.

    Source: Song et al., ICLR 2021, algorithm 5, with ‖z‖ replaced by its expectation.
    """

    def correct(key: PRNGKeyArray, x: Array, t: Scalar, index: Int[Array, ""]) -> Array:
        def once(number: Int[Array, ""], x: Array) -> Array:
            estimate, _ = estimator(x, t, index)
            s = score_from_denoised(sde, x, estimate.denoised, t)
            size = 2 * snr**2 * x.size / jnp.maximum(jnp.sum(s**2), jnp.finfo(x.dtype).tiny)
            z = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
            return x + size * s + jnp.sqrt(2 * size) * z

        return jax.lax.fori_loop(0, steps, once, x)

    return correct


def run(
    key: PRNGKeyArray,
    estimator: Estimator,
    sde: Sde,
    times: Float[Array, " point"],
    shape: tuple[int, ...],
    move: Move = euler_maruyama,
    corrector: Callable[[PRNGKeyArray, Array, Scalar, Int[Array, ""]], Array] | None = None,
    image: Float[Array, "*shape"] | float = 0.0,
) -> tuple[State, PyTree]:
    """All steps by scan, from `init`; Info has one row a step. The result is the state's `denoised`.

    An estimator that differentiates a network (DPS) is 4 to 9 times faster on CPU when its jitted `step` is looped from
    Python: see `loop`.
    """
    body = partial(step, estimator=estimator, sde=sde, times=times, move=move, corrector=corrector)

    def scanned(state: State, _: Any) -> tuple[State, PyTree]:
        return body(jax.random.fold_in(key, 1), state)

    return jax.lax.scan(scanned, init(jax.random.fold_in(key, 0), sde, shape, times[0], image), length=len(times) - 1)


def loop(key: PRNGKeyArray, step: Step, state: State, steps: int) -> tuple[State, PyTree]:
    """`steps` calls of a compiled step(key, state) from Python: the same draws as `run` makes with that key."""
    infos = []
    for _ in range(steps):
        state, info = step(jax.random.fold_in(key, 1), state)
        infos.append(info)
    return state, jax.tree.map(lambda *rows: jnp.stack(rows), *infos)
