"""Forward diffusions dx = f(t) x dt + g(t) dw, from images at t = 0 to noise at t = 1.

    marginal    x(t) | x(0) ~ N(γ x(0), ν² I)        VP: γ² + ν² = 1;  VE: γ = 1, ν grows geometrically
    reverse     dx = (f x − g² s) dt + g dw,         s = ∇ log p(x, t), the score
    Tweedie     E[x(0) | x(t)] = (x + ν² s) / γ

Another noise schedule is one function (t, parameters) → log γ, ν²: the marginal determines the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from medjax.one_program import one_program

Time = Scalar | float
BISECTION_STEPS = 50  # halvings of an interval of times: float32 resolves no more


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sde:
    """A diffusion SDE: `schedule` maps (t, parameters) to log γ and ν²; `parameters` of it are traced."""

    parameters: tuple[Time, ...]  # noise-schedule parameters
    schedule: Callable = field(metadata={"static": True})

    @one_program
    def log_mean_coefficient(self, t: Time) -> Scalar:
        """Log mean coefficient log γ at time t."""
        return self.schedule(jnp.asarray(t), self.parameters)[0]

    @one_program
    def marginal(self, t: Time) -> tuple[Scalar, Scalar]:
        """Marginal at time t: mean coefficient γ and standard deviation ν."""
        log_mean_coefficient, variance = self.schedule(jnp.asarray(t), self.parameters)
        return jnp.exp(log_mean_coefficient), jnp.sqrt(variance)

    @one_program
    def sigma(self, t: Time) -> Scalar:
        """Noise level σ = ν / γ at time t, of x / γ."""
        gamma, nu = self.marginal(t)
        return nu / gamma


def vp(beta_min: float | Scalar = 0.1, beta_max: float | Scalar = 10.0) -> Sde:
    """Variance-preserving SDE: γ = exp(−¼ t² (β_max − β_min) − ½ t β_min), ν² = 1 − γ².

    Source: Song et al., ICLR 2021, equation 33; the defaults are those of Singh et al., MELBA 2024:001.
    """
    return Sde((beta_min, beta_max), _variance_preserving)


def ve(sigma_min: float | Scalar = 0.01, sigma_max: float | Scalar = 40.0) -> Sde:
    """Variance-exploding SDE: γ = 1, ν = σ_min (σ_max / σ_min)ᵗ.

    Source: Song et al., ICLR 2021, equation 31; the defaults are those of Singh et al., MELBA 2024:001.
    """
    return Sde((sigma_min, sigma_max), _variance_exploding)


def _variance_preserving(t: Scalar, betas: tuple[Time, Time]) -> tuple[Scalar, Scalar]:
    low, high = betas
    log_mean_coefficient = -(t**2) * (high - low) / 4 - t * low / 2
    return log_mean_coefficient, -jnp.expm1(2 * log_mean_coefficient)


def _variance_exploding(t: Scalar, sigmas: tuple[Time, Time]) -> tuple[Scalar, Scalar]:
    low, high = map(jnp.asarray, sigmas)
    return jnp.zeros_like(t), jnp.exp(2 * (jnp.log(low) + t * jnp.log(high / low)))


@one_program
def coefficients(sde: Sde, t: Time) -> tuple[Scalar, Scalar]:
    """Coefficients of the SDE: drift f = d log γ / dt and diffusion g, g² = d ν² / dt − 2 f ν²."""
    t = jnp.asarray(t, float)
    (_, variance), (drift, growth) = jax.jvp(lambda t: sde.schedule(t, sde.parameters), (t,), (jnp.ones_like(t),))
    return drift, jnp.sqrt(jnp.maximum(growth - 2 * drift * variance, 0))


def sample_prior(sde: Sde, key: PRNGKeyArray, shape: tuple[int, ...], t: Time = 1.0) -> Float[Array, "..."]:
    """Sample of the SDE's prior N(0, ν² I), where reverse diffusion starts.

    At β_max = 10 the exact marginal still holds 8 % of the image: see `sampler.perturb`.
    """
    return sde.marginal(t)[1] * jax.random.normal(key, shape)


@one_program
def tweedie(sde: Sde, x: Float[Array, "*shape"], score: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
    """Tweedie's formula: the posterior mean E[x(0) | x(t)] = (x + ν² s) / γ.

    Source: Efron, Journal of the American Statistical Association 106, 2011.
    """
    gamma, nu = sde.marginal(t)
    return (x + nu**2 * score) / gamma


@one_program
def score_from_x0(sde: Sde, x: Float[Array, "*shape"], x0: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
    """Score s = (γ E[x(0) | x] − x) / ν² from the denoised image, by Tweedie's formula."""
    gamma, nu = sde.marginal(t)
    return (gamma * x0 - x) / nu**2


@one_program
def noise_from_x0(sde: Sde, x: Float[Array, "*shape"], x0: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
    """Noise n = (x − γ x0) / ν from the denoised image, so that x = γ x0 + ν n."""
    gamma, nu = sde.marginal(t)
    return (x - gamma * x0) / nu


@one_program
def time_of_sigma(sde: Sde, sigma: Time, t_max: Time = 1.0, t_min: Time = 1e-5) -> Scalar:
    """Time in [t_min, t_max] at which ν / γ is `sigma`, by bisection; the nearer end if there is none."""
    target = jnp.log(jnp.asarray(sigma, float))

    def halve(_: Any, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = ends
        middle = (low + high) / 2
        below = jnp.log(sde.sigma(middle)) < target
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ends = (
        jnp.broadcast_to(jnp.asarray(t_min, float), target.shape),
        jnp.broadcast_to(jnp.asarray(t_max, float), target.shape),
    )
    low, high = jax.lax.fori_loop(0, BISECTION_STEPS, halve, ends)
    return (low + high) / 2
