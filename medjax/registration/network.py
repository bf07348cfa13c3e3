"""Registration of a pair of images by a trained network, in one pass, and its refinement by optimisation.

    deformation = predict(model, params, fixed, moving)            displacement and inverse, in voxels
    jax.vmap(partial(predict, model, params))(fixed, moving)       many pairs
    deformation = refine(model, params, fixed, moving)             greedy optimisation from there

The network gives a stationary velocity field v at half the images' resolution. The displacement is exp(v) and its
inverse exp(−v), integrated at that resolution and interpolated.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from medjax.errors import DataError
from medjax.models.model import Network
from medjax.registration.greedy import Deformation, register
from medjax.registration.velocity import exponential

MULTIPLE = 16  # sides of the built-in network's images, a multiple of this
SQUARINGS = 5  # of the exponential: enough for velocities of 16 half voxels


def predict(
    model: Network,
    params: PyTree,
    fixed: Float[Array, "*space"],
    moving: Float[Array, "*other"],
    *,
    multiple: int = MULTIPLE,
) -> Deformation:
    """Deformation from the fixed to the moving image by a network, both on one grid and affinely aligned.

    Images are normalised by `normalize`. Sides that are no multiple of `multiple` are padded by their edges, and the
    fields cropped again. Under `vmap` the network sees one batch of all pairs.

    Args:
        model: apply(params, fixed, moving) → velocity (batch, *half, dim), as of `models.registration_unet`.
        params: its parameters.
        fixed: fixed image.
        moving: moving image.
        multiple: sides that the model takes are multiples of this.

    Raises:
        DataError: the images are not on one grid.
    """
    if fixed.shape != moving.shape:
        raise DataError(f"registration network: images of {fixed.shape} and {moving.shape}; expected one grid")
    ends = [(0, -side % multiple) for side in fixed.shape]
    images = (jnp.pad(normalize(image), ends, mode="edge")[None] for image in (fixed, moving))
    velocity = jnp.moveaxis(model.apply(params, *images)[0], -1, 0)
    inside = (slice(None), *(slice(side) for side in fixed.shape))
    return Deformation(displacement(velocity)[inside], displacement(-velocity)[inside])


def refine(
    model: Network,
    params: PyTree,
    fixed: Float[Array, "*space"],
    moving: Float[Array, "*other"],
    *,
    multiple: int = MULTIPLE,
    **settings: Any,
) -> Deformation:
    """Deformation by `greedy.register`, started from the network's prediction; `settings` are its keywords.

    Raises:
        DataError: the images are not on one grid.
    """
    start = predict(model, params, fixed, moving, multiple=multiple)
    return register(fixed, moving, start=start.displacement, **settings)


def normalize(image: Float[Array, "*space"]) -> Float[Array, "*space"]:
    """Image in units in which its bright part is 1: x − min x over the mean of its voxels above its mean.

    0 for a constant image. There is no sorting, as percentiles need.
    """
    shifted = image - jnp.min(image)
    bright = shifted > jnp.mean(shifted)
    level = jnp.sum(jnp.where(bright, shifted, 0)) / jnp.maximum(jnp.sum(bright), 1)
    return shifted / jnp.where(level > 0, level, 1)


def displacement(velocity: Float[Array, "dim *half"]) -> Float[Array, "dim *space"]:
    """Displacement exp(v) in voxels of a grid of twice the resolution; v in voxels of its own grid.

    Half voxel j lies over the voxels 2 j and 2 j + 1, so voxel i has the coordinate (i − ½) / 2 there.
    """
    field = 2 * exponential(velocity, SQUARINGS)
    for axis in range(1, field.ndim):
        field = _double(field, axis)
    return field


def _double(field: Array, axis: int) -> Array:
    """Linear interpolation at −¼, ¼, ¾, … along an axis; the edge continues."""
    field = jnp.moveaxis(field, axis, -1)
    before = jnp.concatenate([field[..., :1], field[..., :-1]], axis=-1)
    after = jnp.concatenate([field[..., 1:], field[..., -1:]], axis=-1)
    pairs = jnp.stack([0.75 * field + 0.25 * before, 0.75 * field + 0.25 * after], axis=-1)
    return jnp.moveaxis(pairs.reshape(*field.shape[:-1], -1), -1, axis)
