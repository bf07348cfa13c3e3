"""Denoising score matching: the loss that trains a denoiser, its weights, and the intensity scale of images.

loss = E  w(t) ‖ν s(x(t), t) + z‖² = E  w(t) (γ / ν)² ‖D(x(t), t) − x(0)‖²,     x(t) = γ x(0) + ν z
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from medjax.diffusion.denoiser import marginals
from medjax.diffusion.sde import Sde
from medjax.errors import DataError
from medjax.one_program import one_program

T_MIN = 1e-3  # smallest time of training; below it ν is smaller than the noise of an image


def denoising_loss(
    key: PRNGKeyArray,
    denoiser: Any,
    images: Float[Array, "batch *space channel"],
    weight: Callable[[Float[Array, " batch"]], Float[Array, " batch"]] = jnp.ones_like,
    t_min: float | Scalar = T_MIN,
) -> Scalar:
    """Denoising score matching loss: mean over images and voxels of w(t) (ν s + z)².

    t is uniform on [t_min, 1], stratified over the batch.

    Args:
        key: random key of times and noise.
        denoiser: denoiser to train.
        images: x(0).
        weight: w(t), 1 by default; `edm_weight`, say.
        t_min: smallest time.

    Source: Vincent, Neural Computation 23(7), 2011; with w = 1 the loss of Singh et al., MELBA 2024:001.
    """
    key_t, key_z = jax.random.split(key)
    batch = len(images)
    fraction = (jnp.arange(batch) + jax.random.uniform(key_t, (batch,))) / batch
    t = t_min + (1 - t_min) * fraction
    gamma, nu = marginals(denoiser.sde, images, t)
    noise = jax.random.normal(key_z, images.shape, images.dtype)
    residual = gamma / nu * (denoiser(gamma * images + nu * noise, t) - images)
    return jnp.mean(weight(t) * jnp.mean(residual**2, axis=tuple(range(1, images.ndim))))


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
