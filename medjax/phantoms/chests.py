"""Chest phantoms in two or three dimensions: two lungs in a body, and an opacity in one of them as the sign of class 1.

    data = draw(key, labels, (28, 28))           LabeledImages; (24, 24, 24) gives volumes

Coordinates are relative, −1 … 1 from the first voxel to the last: axis 0 goes down, axis 1 to the right. The opacity
lies anywhere in the lungs, so that a network must look at all of them, and never in the corners.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from medjax.errors import DataError

BODY, LUNG, OUTSIDE = 0.65, 0.3, 0.05  # brightness
LUNG_CENTER, LUNG_RADIUS = 0.42, (0.62, 0.3)  # right of the middle; radii down and to the side


class LabeledImages(NamedTuple):
    """Images and the class of each."""

    images: Float[Array | np.ndarray, "image *space channel"]
    labels: Int[Array | np.ndarray, " image"]


def draw(
    key: PRNGKeyArray,
    labels: Int[Array | np.ndarray, " image"],
    space: tuple[int, ...],
    contrast: float = 0.25,
    noise: float = 0.05,
) -> LabeledImages:
    """Draw a chest for each label, 1 with an opacity and 0 without one; one channel, about 0 … 1.

    Args:
        key: random key.
        labels: class of each image.
        space: number of voxels along each axis.
        contrast: brightness of the opacity above the lung, at its centre.
        noise: standard deviation of the white noise.

    Raises:
        DataError: labels other than 0 and 1, or not two or three axes of 4 voxels or more.
    """
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"labels {np.unique(labels).tolist()}; expected 0 and 1")
    if len(space) not in (2, 3) or min(space) < 4:
        raise DataError(f"space {space}; expected two or three axes of 4 voxels or more")
    images = _draw(jax.random.split(key, len(labels)), jnp.asarray(labels, jnp.float32), tuple(space), contrast, noise)
    return LabeledImages(np.asarray(images)[..., None], np.asarray(labels, np.int32))


def _one(key: Array, label: Array, space: tuple[int, ...], contrast: Array, noise: Array) -> Array:
    """A chest: brightness changes smoothly over two voxels, shapes and positions vary by a few per cent."""
    shape, side, where, size, grain = jax.random.split(key, 5)
    axes = jnp.meshgrid(*(jnp.linspace(-1, 1, n) for n in space), indexing="ij")
    shift = 0.05 * jax.random.normal(shape, (2 + len(space),))
    sharp = min(space) / 4

    def ellipsoid(center: list[Array], radii: list[Array]) -> Array:
        parts = [((x - c) / r) ** 2 for x, c, r in zip(axes, center, radii, strict=True)]
        return jax.nn.sigmoid(2 * sharp * min(space) / 12 * (1 - jnp.sqrt(sum(parts))))

    rest = len(space) - 2
    grow = 1 + shift[0]
    down, across = shift[2], shift[3]
    body = ellipsoid([down, across, *[jnp.zeros(())] * rest], [1.1 * grow, 0.95 * grow, *[0.9 * grow] * rest])
    radii = [LUNG_RADIUS[0] * grow, LUNG_RADIUS[1] * (1 + shift[1]), *[0.6 * grow] * rest]
    centers = [[down, across + sign * LUNG_CENTER, *[jnp.zeros(())] * rest] for sign in (-1, 1)]
    lungs = sum(ellipsoid(center, radii) for center in centers)
    image = OUTSIDE + (BODY - OUTSIDE) * body + (LUNG - BODY) * jnp.clip(lungs, 0, 1)
    sign = jnp.where(jax.random.bernoulli(side), 1.0, -1.0)
    offset = jax.random.uniform(where, (len(space),), minval=-0.5, maxval=0.5)
    middle = [down, across + sign * LUNG_CENTER, *[0.0] * rest]
    sigma = jax.random.uniform(size, minval=0.14, maxval=0.22)
    parts = [((x - c - o * r) / sigma) ** 2 for x, c, o, r in zip(axes, middle, offset, radii, strict=True)]
    image = image + label * contrast * jnp.exp(-0.5 * sum(parts))
    return image + noise * jax.random.normal(grain, (image.size,)).reshape(space)


_draw = jax.jit(jax.vmap(_one, in_axes=(0, 0, None, None, None)), static_argnums=2)
