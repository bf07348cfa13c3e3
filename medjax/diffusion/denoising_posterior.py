"""Draws of the denoising posterior p(x0 | z), z = x0 + σ n: from noise at a known level to an image.

    x0 = denoising_posterior(key, denoiser, z, sigma)

Ancestral sampling in few steps loses variance: each step takes x0 for known. The second-order multistep solver of the
reverse SDE extrapolates x0 from the last two denoised images, and with six evaluations has the variance that DDIM with
η = 1 needs more than thirty for. Between y at σ and y' at σ' = e⁻ʰ σ, r the ratio of h to the h before:

    y' = e⁻²ʰ y + (1 − e⁻²ʰ) (D + (D − D_before) r / 2) + σ' √(1 − e⁻²ʰ) n

Sources: Lu et al., DPM-Solver++, 2022 (SDE-DPM-Solver++(2M)); the levels are ours.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.guidance import estimate
from medjax.diffusion.sde import time_of_sigma
from medjax.errors import ConfigError

STEPS = 6  # evaluations of the denoiser
SPAN = 12.0  # ratio of the first noise level to the last, where the denoised image is the draw
POWER = 1.2  # of the levels' logarithm: the first step, which has nothing to extrapolate from, is the shortest


def noise_levels(sigma: float | Scalar, steps: int = STEPS, span: float = SPAN) -> Float[Array, " step"]:
    """Noise levels σ span^(−(i / (steps − 1))^1.2) of the evaluations: geometric, the first ones closer.

    Raises:
        ConfigError: fewer than one step, or a span below 1.
    """
    if steps < 1 or span < 1:
        raise ConfigError(f"noise levels: {steps} steps over a ratio of {span:g}; expected 1 or more of each")
    fraction = jnp.arange(steps) / max(steps - 1, 1)
    return jnp.asarray(sigma) * span ** -(fraction**POWER)


def denoising_posterior(
    key: PRNGKeyArray,
    denoiser: Any,
    z: Float[Array, "*space"],
    sigma: float | Scalar,
    steps: int = STEPS,
    span: float = SPAN,
    index: int | Int[Array, ""] = 0,
) -> Float[Array, "*space"]:
    """A draw of p(x0 | z) for z = x0 + σ n, of one image, by `steps` evaluations of the denoiser.

    The variance of what is finer than σ / span is lost. One step gives the posterior mean.

    Args:
        key: random key.
        denoiser: the prior.
        z: image with white noise.
        sigma: standard deviation σ of that noise.
        steps: number of evaluations; static.
        span: ratio of σ to the last noise level.
        index: number of evaluations before, for denoisers that alternate planes.

    Raises:
        ConfigError: see `noise_levels`; the denoiser is not one.
    """
    prior = as_denoiser(denoiser)
    levels = noise_levels(sigma, steps, span)
    times = jax.vmap(lambda level: time_of_sigma(prior.sde, level))(levels)
    after = jnp.append(levels[1:], levels[-1])  # the last level has no step
    h = jnp.log(levels / after)
    ratio = jnp.append(0.0, h[1:] / h[:-1])

    def denoise(y: Array, i: Any) -> Array:
        return estimate(prior, prior.sde.marginal(times[i])[0] * y, times[i], jnp.asarray(index + i)).x0

    def body(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        y, before = carry
        x0 = denoise(y, i)
        kept = jnp.exp(-2 * h[i])
        toward = x0 + ratio[i] / 2 * (x0 - before)
        noise = jax.random.normal(jax.random.fold_in(key, i), y.shape, y.dtype)
        return kept * y + (1 - kept) * toward + after[i] * jnp.sqrt(1 - kept) * noise, x0

    y, _ = jax.lax.fori_loop(0, steps - 1, body, (z, z))
    return denoise(y, steps - 1)
