"""Random augmentation on the device: affine and elastic deformation of image and label, then gain, gamma and noise.

    images, labels = jax.vmap(partial(augment, settings=mild))(keys, images, labels)

One displacement field holds rotation, scale, shift, mirroring and an elastic part, so an image is interpolated once
(linearly) and its label at the nearest voxel; soft labels are interpolated as images are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Augmentation(NamedTuple):
    """Strength of each part of the augmentation; 0 leaves it out. Static: `mirror` decides what is compiled."""

    rotation: float = 0.15  # standard deviation, radians, in the plane of the first two axes
    scale: float = 0.1  # standard deviation of the log of each axis's factor
    shift: float = 0.04  # standard deviation, fraction of the side
    elastic: float = 0.015  # standard deviation, fraction of the side; varies over a quarter of it
    gain: float = 0.1  # standard deviation of the log of the factor
    gamma: float = 0.15  # standard deviation of the log of the exponent
    noise: float = 0.02  # standard deviation
    mirror: tuple[int, ...] = ()  # axes of space that are mirrored half of the time


def augment(
    key: PRNGKeyArray,
    image: Float[Array, "*space channel"],
    label: Int[Array, "*space"] | Float[Array, "*space class"],
    settings: Augmentation,
) -> tuple[Float[Array, "*space channel"], Array]:
    """Randomly augmented image and label of one example; values in 0 … 1; edge values are repeated outside."""
    warp, gray = jax.random.split(key)
    coordinates = _coordinates(warp, image.shape[:-1], settings)
    return _change_intensities(gray, interpolate(image, coordinates), settings), warp_labels(label, coordinates)


def interpolate(
    image: Float[Array, "*space channel"], coordinates: list[Float[Array, "*new"]], mode: str = "nearest"
) -> Float[Array, "*new channel"]:
    """Linear interpolation of each channel at voxel `coordinates`; outside as SciPy's `mode`, "constant" being 0."""
    channels = [map_coordinates(channel, coordinates, order=1, mode=mode) for channel in jnp.moveaxis(image, -1, 0)]
    return jnp.stack(channels, axis=-1)


def warp_labels(label: Array, coordinates: list[Float[Array, "*new"]], mode: str = "nearest") -> Array:
    """Labels resampled at `coordinates`: class numbers by nearest neighbour, soft labels (floating) linearly."""
    if jnp.issubdtype(label.dtype, jnp.floating):
        return interpolate(label, coordinates, mode)
    return map_coordinates(label, coordinates, order=0, mode=mode)


def _coordinates(key: Array, space: tuple[int, ...], a: Augmentation) -> list[Array]:
    """Coordinates in the original of each voxel of the augmented image."""
    angle_key, scale_key, shift_key, elastic_key, mirror_key = jax.random.split(key, 5)
    axes, middle = len(space), (jnp.array(space) - 1) / 2
    angle = a.rotation * jax.random.normal(angle_key)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.eye(axes).at[:2, :2].set(jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])]))
    chosen = jax.random.bernoulli(mirror_key, 0.5, (axes,)) & jnp.array([axis in a.mirror for axis in range(axes)])
    factor = jnp.exp(a.scale * jax.random.normal(scale_key, (axes,))) * jnp.where(chosen, -1, 1)
    offset = a.shift * jnp.array(space) * jax.random.normal(shift_key, (axes,))
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, space), indexing="ij")).reshape(axes, -1) - middle[:, None]
    # in TF32 or bfloat16 a coordinate would be off by parts of a voxel
    rotated = jnp.matmul(rotation * factor[None], grid, precision=jax.lax.Precision.HIGHEST)
    source = rotated + (middle + offset)[:, None]
    coarse = jax.random.normal(elastic_key, (axes, *(min(5, side) for side in space)))
    field = jax.image.resize(coarse, (axes, *space), "cubic").reshape(axes, -1)
    source = source + a.elastic * jnp.array(space)[:, None] * field
    return [row.reshape(space) for row in source]


def _change_intensities(key: Array, image: Array, a: Augmentation) -> Array:
    gain, gamma, noise = jax.random.split(key, 3)
    powered = jnp.clip(image, 1e-6, None) ** jnp.exp(a.gamma * jax.random.normal(gamma))
    brighter = powered * jnp.exp(a.gain * jax.random.normal(gain))
    return brighter + a.noise * jax.random.normal(noise, image.shape)
