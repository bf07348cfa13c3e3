"""Transforms of test-time augmentation: maps of images that can be undone on the logits, or that keep volumes.

    transform = compose(flips((0, 1)), rotation_and_shift(10.0, 2.0), gamma(0.2), noise(0.05))
    seen = transform.forward(key, images)            images (image, *space, channel)
    logits = transform.inverse(key, logits_of_seen)

A key draws one map, which all images undergo: ED and ES of a heart stay paired, and what happens to an image does not
depend on the images beside it. Axes are axes of space, counted from 0: `plane=(0, 1)` is the plane of (image, x, y,
channel) and the short-axis plane of (image, x, y, z, channel).

    flips, quarter_turns                  aligned: permutations of the voxels, undone exactly on the logits
    gamma, brightness, contrast, noise    aligned: no voxel moves, the logits stay as they are
    rotation_and_shift                    not aligned: not undone, since it keeps areas and volumes

A transform that is not aligned serves biomarkers that do not ask where a voxel lies: volumes, ejection fraction, mass.
Scaling changes volumes and is not offered; `check_transform` refuses a transform of your own that does so, or one that
claims to be aligned and is not.

Source: Wang et al., Neurocomputing 338, 2019 (test-time augmentation).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, PRNGKeyArray

from medjax.errors import ConfigError, DataError
from medjax.iterate import static_partial

AnyArray = Array | np.ndarray
Axes = tuple[int, ...]
CHECKED_KEYS = 8  # maps that `check_transform` draws


class Transform(NamedTuple):
    """A random map of images, and what brings the logits of mapped images back; both are hashable functions.

    `aligned`: the logits brought back lie on the grid of the images; if not, only their volumes are the images'.
    """

    forward: Callable[..., AnyArray]  # (key, images) → images
    inverse: Callable[..., AnyArray]  # (key, logits) → logits
    aligned: bool = True


def _unchanged(key: PRNGKeyArray, logits: AnyArray) -> AnyArray:
    return logits


IDENTITY = Transform(_unchanged, _unchanged)


def flips(axes: Axes = (0, 1)) -> Transform:
    """Mirroring of each of these axes with probability 1/2; undone exactly.

    Raises:
        ConfigError: no axis, or one twice. DataError, when images come: they do not have the axis.
    """
    if not axes or len(set(axes)) < len(axes):
        raise ConfigError(f"axes of flips: {axes}; expected one or more, each once")
    both = static_partial(_flip, tuple(axes))
    return Transform(both, both)


def quarter_turns(plane: Axes = (0, 1)) -> Transform:
    """Rotation by 0°, 90°, 180° or 270° in a plane, each with probability 1/4; undone exactly.

    Raises:
        ConfigError: not two different axes. DataError, when images come: the plane's sides are unequal.
    """
    _check_plane("quarter_turns", plane)
    return Transform(static_partial(_turn, tuple(plane), 1), static_partial(_turn, tuple(plane), -1))


def rotation_and_shift(degrees: float | int = 10.0, voxels: float | int = 2.0, plane: Axes = (0, 1)) -> Transform:
    """Rotation about the center of a plane, and shift along its axes, uniform within ± these limits; not undone.

    Linear interpolation, edge values repeated outside. In units of voxels it keeps areas, whatever the voxel size; of
    a structure that leaves the field of view it does not.

    Raises:
        ConfigError: limits below 0 or not finite, or not two different axes.
    """
    _check_plane("rotation_and_shift", plane)
    _check_strength("degrees, voxels", degrees, voxels)
    forward = static_partial(_rotate_and_shift, float(degrees), float(voxels), tuple(plane))
    return Transform(forward, _unchanged, aligned=False)


def gamma(strength: float | int = 0.3) -> Transform:
    """Gamma: y = a + (b − a) ((x − a) / (b − a))^γ, a and b the extremes of an image; log γ uniform within ± strength.

    Raises:
        ConfigError: a strength below 0 or not finite.
    """
    _check_strength("strength of gamma", strength)
    return Transform(static_partial(_gamma, float(strength)), _unchanged)


def contrast(strength: float | int = 0.2) -> Transform:
    """Contrast: y = m + c (x − m), m the mean of an image; log c uniform within ± strength.

    Raises:
        ConfigError: a strength below 0 or not finite.
    """
    _check_strength("strength of contrast", strength)
    return Transform(static_partial(_contrast, float(strength)), _unchanged)


def brightness(strength: float | int = 0.2) -> Transform:
    """Brightness: y = x + b s, s the standard deviation of an image; b uniform within ± strength.

    Raises:
        ConfigError: a strength below 0 or not finite.
    """
    _check_strength("strength of brightness", strength)
    return Transform(static_partial(_brightness, float(strength)), _unchanged)


def noise(strength: float | int = 0.1) -> Transform:
    """Gaussian noise: y = x + strength s ε, s the standard deviation of an image; one field ε for all images.

    Raises:
        ConfigError: a strength below 0 or not finite.
    """
    _check_strength("strength of noise", strength)
    return Transform(static_partial(_noise, float(strength)), _unchanged)


def compose(*transforms: Transform) -> Transform:
    """Composition: the transforms one after the other, undone in reverse order; aligned if all of them are."""
    aligned = all(one.aligned for one in transforms)
    return Transform(static_partial(_forward, tuple(transforms)), static_partial(_inverse, tuple(transforms)), aligned)


def check_transform(transform: Transform, shape: tuple[int, ...]) -> None:
    """Check that a transform brings voxels back if `aligned`, and keeps volumes, for images of shape (*space, channel).

    Eight random maps of an ellipsoid off the center. Allowed is 2 % of its volume V, and 2 V^(−3/4) for the grid.

    Raises:
        DataError: it does not, or it does not take such images.
    """
    volume, back, lost = (np.asarray(each, float) for each in _responses(transform, shape))
    if volume in (0, np.prod(shape[:-1])):
        return  # too few voxels to see a map by
    allowed = 0.02 + 2 * float(volume) ** -0.75
    change = float(np.sqrt(np.mean((back / volume - 1) ** 2)))
    if not change <= allowed:
        raise DataError(
            f"transform: changes the volume of an ellipsoid by {100 * change:.0f} %; expected a map that keeps volumes,"
            " as scaling does not, or an inverse"
        )
    if transform.aligned and not lost.mean() / volume <= allowed:
        raise DataError(
            f"transform: leaves {100 * lost.mean() / volume:.0f} % of an ellipsoid's voxels elsewhere; expected an"
            " inverse that brings them back, or aligned=False"
        )


@partial(jax.jit, static_argnums=(0, 1))
def _responses(transform: Transform, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Voxels of an ellipsoid, those that it has under each map, and those of either that the other has not."""
    solid = _ellipsoid(shape[:-1])
    images = jnp.broadcast_to(solid[None, ..., None], (1, *shape)).astype(float)

    def response(key: PRNGKeyArray) -> tuple[Array, Array]:
        image = transform.inverse(key, transform.forward(key, images))[0, ..., 0]
        inside = image >= (image.min() + image.max()) / 2  # all of an image that the ellipsoid fills
        return jnp.sum(inside), jnp.sum(inside ^ solid)

    return jnp.sum(solid), *jax.vmap(response)(jax.random.split(jax.random.key(0), CHECKED_KEYS))


def _ellipsoid(space: tuple[int, ...]) -> Bool[Array, "*space"]:
    distance = jnp.zeros(space)
    for axis, side in enumerate(space):
        center, half = (0.44, 0.55, 0.5)[axis % 3] * (side - 1), (0.2, 0.28, 0.35)[axis % 3] * side
        along = ((jnp.arange(side) - center) / half) ** 2
        distance = distance + jnp.expand_dims(along, [one for one in range(len(space)) if one != axis])
    return distance < 1


def _flip(axes: Axes, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    _check_axes("flips", axes, images)
    chosen = jax.random.bernoulli(key, 0.5, (len(axes),))
    for number, axis in enumerate(axes):
        images = jnp.where(chosen[number], jnp.flip(images, axis + 1), images)
    return images


def _turn(plane: Axes, direction: int, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    _check_axes("quarter_turns", plane, images)
    first, second = (images.shape[axis + 1] for axis in plane)
    if first != second:
        raise DataError(f"quarter_turns: {first} × {second} voxels in the plane of axes {plane}; expected equal sides")
    axes = (plane[0] + 1, plane[1] + 1)
    turns = (direction * jax.random.randint(key, (), 0, 4)) % 4
    images = jnp.where(turns % 2 == 1, jnp.rot90(images, 1, axes), images)
    return jnp.where(turns >= 2, jnp.flip(images, axes), images)


def _rotate_and_shift(degrees: float, voxels: float, plane: Axes, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    _check_axes("rotation_and_shift", plane, images)
    angle_key, shift_key = jax.random.split(key)
    angle = jnp.deg2rad(degrees) * jax.random.uniform(angle_key, minval=-1.0)
    shift = voxels * jax.random.uniform(shift_key, (2,), minval=-1.0)
    axes = tuple(axis + 1 for axis in plane)
    planes = jnp.moveaxis(images, axes, (-2, -1))
    sides = planes.shape[-2:]
    middle = [(side - 1) / 2 for side in sides]
    u, v = jnp.meshgrid(*(jnp.arange(side) - center for side, center in zip(sides, middle, strict=True)), indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source = [cos * u - sin * v + middle[0] + shift[0], sin * u + cos * v + middle[1] + shift[1]]
    interpolate = partial(map_coordinates, coordinates=source, order=1, mode="nearest")
    return jnp.moveaxis(jax.vmap(interpolate)(planes.reshape(-1, *sides)).reshape(planes.shape), (-2, -1), axes)


def _gamma(strength: float, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    space = _space(images)
    low, high = (jnp.expand_dims(bound(images, space), space) for bound in (jnp.min, jnp.max))
    width = jnp.where(high > low, high - low, 1)
    return low + width * ((images - low) / width) ** jnp.exp(_uniform(strength, key))


def _contrast(strength: float, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    mean = jnp.mean(images, _space(images), keepdims=True)
    return mean + jnp.exp(_uniform(strength, key)) * (images - mean)


def _brightness(strength: float, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    return images + _uniform(strength, key) * jnp.std(images, _space(images), keepdims=True)


def _noise(strength: float, key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    one = images[:1]
    field = jax.random.normal(key, (one.size,)).reshape(one.shape)  # drawn flat, which compiles sooner
    return images + strength * field * jnp.std(images, _space(images), keepdims=True)


def _forward(transforms: tuple[Transform, ...], key: PRNGKeyArray, images: AnyArray) -> AnyArray:
    for number, one in enumerate(transforms):
        images = one.forward(jax.random.fold_in(key, number), images)
    return images


def _inverse(transforms: tuple[Transform, ...], key: PRNGKeyArray, logits: AnyArray) -> AnyArray:
    for number, one in reversed(list(enumerate(transforms))):
        logits = one.inverse(jax.random.fold_in(key, number), logits)
    return logits


def _space(images: AnyArray) -> Axes:
    return tuple(range(1, images.ndim - 1))


def _uniform(limit: float, key: PRNGKeyArray) -> Array:
    return limit * jax.random.uniform(key, minval=-1.0)


def _check_axes(name: str, axes: Axes, images: AnyArray) -> None:
    number = images.ndim - 2
    if not all(0 <= axis < number for axis in axes):
        raise DataError(f"{name}: axes {axes}; images of shape {images.shape} have {number} axes of space, from 0")


def _check_plane(name: str, plane: Axes) -> None:
    if len(plane) != 2 or plane[0] == plane[1]:
        raise ConfigError(f"plane of {name}: {plane}; expected two different axes")


def _check_strength(name: str, *values: float | int) -> None:
    if not all(np.isfinite(value) and value >= 0 for value in values):
        raise ConfigError(f"{name}: {', '.join(f'{value:g}' for value in values)}; expected 0 or more")
