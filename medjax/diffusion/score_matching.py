"""Learning a score: the denoising loss, how images are scaled, and the form of network that learns well.

    loss = E  w(t) ‖ν s(x(t), t) + z‖²,     x(t) = γ x(0) + ν z

A function `score(x, t)` takes a batch and one time an image. `preconditioned` makes one from any network.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from medjax.diffusion.sde import Sde
from medjax.errors import DataError

Score = Callable[[Float[Array, "batch *space channel"], Float[Array, " batch"]], Float[Array, "batch *space channel"]]
EARLIEST = 1e-3  # the first time that is trained; before it ν is below what an image's noise is


def preconditioned(
    network: Callable[..., Float[Array, "batch *space channel"]], sde: Sde, spread: float | Scalar
) -> Score:
    """The score of a network whose input and target have variance 1 at every noise level.

    With y = x / γ, σ = ν / γ and images of standard deviation `spread` = d:

        E[x(0) | x] = d² / (σ² + d²) · y + σ d / √(σ² + d²) · network(y / √(σ² + d²), log(σ) / 4)

    Source: Karras et al., NeurIPS 2022, table 1.
    """

    def score(x: Float[Array, "batch *space channel"], t: Float[Array, " batch"]) -> Float[Array, "..."]:
        gamma, nu = (value.reshape(-1, *(1,) * (x.ndim - 1)) for value in jax.vmap(sde.marginal)(t))
        y, sigma = x / gamma, nu / gamma
        total = sigma**2 + spread**2
        output = network(y / jnp.sqrt(total), jnp.log(sigma.reshape(-1)) / 4)
        denoised = spread**2 / total * y + sigma * spread / jnp.sqrt(total) * output
        return (gamma * denoised - x) / nu**2

    return score


def denoising_loss(
    key: PRNGKeyArray,
    sde: Sde,
    score: Score,
    images: Float[Array, "batch *space channel"],
    weight: Callable[[Float[Array, " batch"]], Float[Array, " batch"]] = jnp.ones_like,
) -> Scalar:
    """Mean over images and voxels of w(t) (ν s + z)², with t uniform and spread evenly over the batch.

    Source: Vincent, Neural Computation 23(7), 2011; with w = 1 the loss of Singh et al., MELBA 2024:001.
    """
    key_t, key_z = jax.random.split(key)
    batch = len(images)
    part = (jnp.arange(batch) + jax.random.uniform(key_t, (batch,))) / batch
    t = EARLIEST + (1 - EARLIEST) * part
    gamma, nu = (value.reshape(-1, *(1,) * (images.ndim - 1)) for value in jax.vmap(sde.marginal)(t))
    noise = jax.random.normal(key_z, images.shape, images.dtype)
    residual = nu * score(gamma * images + nu * noise, t) + noise
    return jnp.mean(weight(t) * jnp.mean(residual**2, axis=tuple(range(1, images.ndim))))


def even_weight(sde: Sde, spread: float | Scalar) -> Callable[[Float[Array, " batch"]], Float[Array, " batch"]]:
    """w = (σ² + d²) / d²: a preconditioned network's error counts alike at every noise level.

    Source: Karras et al., NeurIPS 2022.
    """

    def weight(t: Float[Array, " batch"]) -> Float[Array, " batch"]:
        gamma, nu = jax.vmap(sde.marginal)(t)
        return ((nu / gamma) ** 2 + spread**2) / spread**2

    return weight


def intensity_scale(image: Float[Array, "..."]) -> Scalar:
    """Mean of the emission voxels, those above 1 % of the maximum: networks see images divided by it. 0 for none.

    Source: Singh et al., MELBA 2024:001.
    """
    inside = image > 0.01 * jnp.max(image)
    return jnp.sum(image, where=inside) / jnp.maximum(jnp.sum(inside), 1)


def scaled(image: Float[Array, "..."]) -> Float[Array, "..."]:
    """The image with a mean emission of 1.

    Raises:
        DataError: no voxel is above 0.
    """
    scale = float(intensity_scale(image))
    if not scale > 0:
        raise DataError("image: no voxel is above 0; expected an emission image")
    return image / scale


def dropped(key: PRNGKeyArray, condition: Float[Array, "batch *space other"], share: float = 0.1) -> Array:
    """The condition, zero for a random `share` of the batch: so one network learns the score with and without it."""
    kept = jax.random.bernoulli(key, 1 - share, condition.shape[:1])
    return condition * kept.reshape(-1, *(1,) * (condition.ndim - 1))


def classifier_free(
    score: Callable[[Array, Array, Array], Array], condition: Float[Array, "..."], weight: float | Scalar
) -> Callable[[Array, Array], Array]:
    """(1 + w) s(x, t, condition) − w s(x, t, 0), of a network trained with `dropped` conditions: an MR image, say.

    Source: Ho & Salimans, 2022; for PET Singh et al., MELBA 2024:001, who drop 10 % and take w = 0.25 to 1.
    """

    def guided(x: Array, t: Array) -> Array:
        return (1 + weight) * score(x, t, condition) - weight * score(x, t, jnp.zeros_like(condition))

    return guided
