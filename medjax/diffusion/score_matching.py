"""Denoising score matching: the loss that trains a denoiser, its weights, and the intensity scale of images.

loss = E  w(t) ‖ν s(x(t), t) + z‖² = E  w(t) (γ / ν)² ‖D(x(t), t) − x(0)‖²,     x(t) = γ x(0) + ν z
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from medjax.diffusion.denoiser import marginals
from medjax.diffusion.sde import Sde, time_of_sigma
from medjax.errors import DataError
from medjax.one_program import one_program

T_MIN = 1e-3  # smallest time of training; below it ν is smaller than the noise of an image


def denoising_loss(
    key: PRNGKeyArray,
    denoiser: Any,
    images: Float[Array, "batch *space channel"],
    weight: Callable[[Float[Array, " batch"]], Float[Array, " batch"]] = jnp.ones_like,
    times: Callable[[Float[Array, " batch"]], Float[Array, " batch"]] | None = None,
) -> Scalar:
    """Denoising score matching loss: mean over images and voxels of w(t) (ν s + z)².

    The time of each image is `times` of numbers that are uniform on [0, 1] and stratified over the batch.

    Args:
        key: random key of times and noise.
        denoiser: denoiser to train.
        images: x(0).
        weight: w(t), 1 by default; `edm_weight`, say.
        times: quantile function of the times, `log_uniform_times`, say; None: uniform on [T_MIN, 1].

    Source: Vincent, Neural Computation 23(7), 2011; with w = 1 the loss of Singh et al., MELBA 2024:001.
    """
    key_t, key_z = jax.random.split(key)
    batch = len(images)
    fraction = (jnp.arange(batch) + jax.random.uniform(key_t, (batch,))) / batch
    t = T_MIN + (1 - T_MIN) * fraction if times is None else times(fraction)
    gamma, nu = marginals(denoiser.sde, images, t)
    noise = jax.random.normal(key_z, images.shape, images.dtype)
    residual = gamma / nu * (denoiser(gamma * images + nu * noise, t) - images)
    return jnp.mean(weight(t) * jnp.mean(residual**2, axis=tuple(range(1, images.ndim))))


def log_uniform_times(
    sde: Sde, sigmas: tuple[float, float] = (0.03, 4.0)
) -> Callable[[Float[Array, " batch"]], Float[Array, " batch"]]:
    """Quantile function of times whose noise level σ = ν / γ is log-uniform between two `sigmas`."""
    low, high = np.log(sigmas)
    return lambda fraction: jax.vmap(partial(time_of_sigma, sde))(jnp.exp(low + (high - low) * fraction))


def denoising_errors(
    key: PRNGKeyArray,
    denoiser: Any,
    images: Float[Array, "batch *space"],
    sigma_data: float | Scalar,
    sigmas: Float[Array, " level"],
) -> Float[Array, " level"]:
    """Mean squared error of a denoiser at each noise level σ, over σ² d² / (σ² + d²), d = `sigma_data`.

    That is what the best denoiser of white Gaussian images of the same second moment leaves: 1 is no knowledge of
    images. Noise differs from image to image and is the same at all levels.
    """
    noise = jax.random.normal(key, images.shape, images.dtype)

    def at_level(sigma: Scalar) -> Scalar:
        t = time_of_sigma(denoiser.sde, sigma)
        gamma = denoiser.sde.marginal(t)[0]
        x0 = denoiser(gamma * (images + sigma * noise), jnp.full(len(images), t))
        return jnp.mean((x0 - images) ** 2) * (1 / sigma**2 + 1 / sigma_data**2)

    return jax.lax.map(at_level, sigmas)


def edm_weight(sde: Sde, sigma_data: float | Scalar) -> Callable[[Float[Array, " batch"]], Float[Array, " batch"]]:
    """EDM's loss weight w = (σ² + d²) / d²: the loss of a preconditioned network is uniform over noise levels.

    Source: Karras et al., NeurIPS 2022.
    """

    def weight(t: Float[Array, " batch"]) -> Float[Array, " batch"]:
        sigma = jax.vmap(sde.sigma)(t)
        return (sigma**2 + sigma_data**2) / sigma_data**2

    return weight


@one_program
def intensity_scale(image: Float[Array, "..."]) -> Scalar:
    """Intensity scale: mean of the emission voxels, those above 1 % of the maximum; 0 for none.

    Networks see images divided by it.

    Source: Singh et al., MELBA 2024:001.
    """
    inside = image > 0.01 * jnp.max(image)
    return jnp.sum(image, where=inside) / jnp.maximum(jnp.sum(inside), 1)


def normalize_intensity(image: Float[Array, "..."]) -> Float[Array, "..."]:
    """Normalise the image to a mean emission of 1.

    Raises:
        DataError: no voxel is above 0.
    """
    scale = float(intensity_scale(image))
    if not scale > 0:
        raise DataError("image: no voxel is above 0; expected an emission image")
    return image / scale


@one_program
def drop_condition(
    key: PRNGKeyArray, condition: Float[Array, "batch *space other"], fraction: float | Scalar = 0.1
) -> Float[Array, "batch *space other"]:
    """Drop the condition, to zero, for a random `fraction` of the batch: training for classifier-free guidance."""
    kept = jax.random.bernoulli(key, 1 - fraction, condition.shape[:1])
    return condition * kept.reshape(-1, *(1,) * (condition.ndim - 1))
