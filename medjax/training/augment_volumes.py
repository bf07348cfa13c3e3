"""Augmentation of volumes as in nnU-Net, on the device: one warp moves image and labels, then grey values change.

    settings = for_plan(plan.patch, plan.flat_axis)
    images, labels = jax.vmap(partial(augment, settings=settings))(keys, images, labels)

Rotation, scaling and mirroring are one affine map, so that an image is interpolated once: linearly, where nnU-Net uses
cubic splines; class numbers are taken at the nearest voxel and soft labels interpolated too, where nnU-Net takes the
class of the largest. Images come larger than the patch (`source_patch`), so that what turns in is seldom
empty; beyond them lies 0, the mean of z-scores, and background. Each part happens with a probability, drawn anew for
each example and, where nnU-Net does so, for each channel. Axes are (x, y, z, channel).

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 4; the values are those of nnU-Net v2.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax.training.augment import interpolate, warp_labels

Shape = tuple[int, int, int]
Channel = Float[Array, "x y z"]
Range = tuple[float, float]
PER_CHANNEL = 0.5  # fraction of the channels of a blurred or coarsened image that are
PARTS = 7  # that change grey values
LEAST_ZOOM = 0.85  # that a source patch has room for


class Augmentation(NamedTuple):
    """Probabilities, and how far each part goes. Close over it: `patch`, `mirror` and `flat_axis` decide on shapes."""

    rotation: float = 0.2
    most_angle: float = np.pi / 6  # about each axis; or about `flat_axis` alone
    scaling: float = 0.2
    scales: Range = (0.7, 1.4)  # above 1 a larger field is seen
    noise: float = 0.1
    most_noise: float = 0.1  # standard deviation; nnU-Net calls it variance and uses it so
    blur: float = 0.2
    sigmas: Range = (0.5, 1.0)  # voxels
    brightness: float = 0.15
    contrast: float = 0.15
    factors: Range = (0.75, 1.25)  # of brightness and contrast
    coarse: float = 0.25
    resolutions: Range = (0.5, 1.0)  # fraction of the voxels along each axis
    inverted_gamma: float = 0.1
    gamma: float = 0.3
    gammas: Range = (0.7, 1.5)
    mirror: tuple[int, ...] = (0, 1, 2)  # each half of the time
    flat_axis: int | None = None  # neither turned about others, nor scaled, nor coarsened: slices too far apart
    patch: Shape | None = None  # what is cut out about the centre; None is all


OFF = Augmentation(
    rotation=0.0, scaling=0.0, noise=0.0, blur=0.0, brightness=0.0, contrast=0.0, coarse=0.0, inverted_gamma=0.0,
    gamma=0.0, mirror=(),
)  # fmt: skip


def for_plan(patch: Shape, flat_axis: int | None) -> Augmentation:
    """nnU-Net's settings for a patch; a flat one, of 3 times fewer slices, turns in its plane alone, all the way."""
    return Augmentation(most_angle=np.pi if flat_axis is not None else np.pi / 6, flat_axis=flat_axis, patch=patch)


def source_patch(settings: Augmentation, patch: Shape) -> Shape:
    """Voxels to cut from a volume so that a turn about one axis and a zoom by 0.85 stay inside.

    The patch itself if neither is on.
    """
    sides = np.array(patch, float)
    if settings.rotation:
        angle = min(settings.most_angle, np.pi / 2)
        for axis in range(3) if settings.flat_axis is None else [settings.flat_axis]:
            turned = np.abs(np.asarray(_turn(jnp.asarray(angle, jnp.float32), axis)))
            sides = np.maximum(sides, np.matmul(turned, np.array(patch)))
    if settings.scaling or settings.rotation:
        sides = sides / LEAST_ZOOM
    if settings.flat_axis is not None:
        sides[settings.flat_axis] = patch[settings.flat_axis]
    x, y, z = (int(side + 1e-4) for side in sides)
    return x, y, z


def augment(
    key: PRNGKeyArray,
    image: Float[Array, "x y z channel"],
    labels: Int[Array, "x y z"] | Float[Array, "x y z class"],
    settings: Augmentation,
) -> tuple[Float[Array, "u v w channel"], Array]:
    """One example's random variant; its labels are class numbers or soft, as they came."""
    warp, grey, noise = jax.random.split(key, 3)
    coordinates = _coordinates(warp, image.shape[:-1], settings)
    named = warp_labels(labels, coordinates, "constant")
    uniform = jax.random.uniform(grey, (PARTS, 1 + image.shape[-1], 4))
    return _change_intensities(uniform, noise, interpolate(image, coordinates, "constant"), settings), named


def gaussian_blur(image: Channel, sigmas: Float[Array, "3"], most: float = 1.0) -> Channel:
    """Gaussian of so many voxels along each axis, over 3 `most` voxels either way; mirrored beyond the faces."""
    radius = int(np.ceil(3 * most))
    offsets = jnp.arange(-radius, radius + 1)
    for axis in range(3):
        weights = jax.nn.softmax(-0.5 * (offsets / sigmas[axis]) ** 2)
        wide = jnp.pad(image, [(radius, radius) if k == axis else (0, 0) for k in range(3)], mode="reflect")
        side = image.shape[axis]
        image = sum(
            (weights[k] * jax.lax.slice_in_dim(wide, k, k + side, axis=axis) for k in range(2 * radius + 1)),
            jnp.zeros_like(image),
        )
    return image


def simulate_low_resolution(image: Channel, resolution: Scalar, axes: tuple[int, ...] = (0, 1, 2)) -> Channel:
    """Along `axes` the nearest of round(side · resolution) voxels, then linear interpolation back to all of them."""
    for axis in axes:
        side = image.shape[axis]
        kept = jnp.maximum(jnp.round(side * resolution), 1)
        place = jnp.clip((jnp.arange(side) + 0.5) * kept / side - 0.5, 0, kept - 1)
        before = jnp.floor(place)
        fraction = (place - before).reshape([-1 if k == axis else 1 for k in range(3)])
        low, high = (
            jnp.take(image, jnp.floor((one + 0.5) * side / kept).astype(int), axis=axis, mode="clip")
            for one in (before, jnp.minimum(before + 1, kept - 1))
        )
        image = low + fraction * (high - low)
    return image


def adjust_contrast(image: Channel, factor: Scalar) -> Channel:
    """mean + factor · (x − mean), within the range that the image had."""
    return jnp.clip(image.mean() + factor * (image - image.mean()), image.min(), image.max())


def gamma_correction(image: Channel, exponent: Scalar, sign: float = 1.0) -> Channel:
    """range · ((x − min) / range)^exponent of sign · x, brought back to the mean and deviation that it had."""
    signed = sign * image
    low, span = signed.min(), signed.max() - signed.min()
    fraction = jnp.clip((signed - low) / jnp.maximum(span, 1e-7), 1e-7, 1.0)
    powered = span * fraction**exponent + low
    scaled = (powered - powered.mean()) * signed.std() / jnp.maximum(powered.std(), 1e-7)
    return sign * (scaled + signed.mean())


def _coordinates(key: Array, space: tuple[int, ...], s: Augmentation) -> list[Array]:
    """Voxel of the original that each voxel of the variant takes its value from."""
    turned, stretched, place, *rest = jax.random.uniform(key, (9,))  # one draw compiles faster than five
    patch = space if s.patch is None else s.patch
    rotation = jnp.eye(3)
    for axis in range(3) if s.flat_axis is None else [s.flat_axis]:
        angle = s.most_angle * (2 * rest[axis] - 1)
        rotation = _product(rotation, _turn(jnp.where(turned < s.rotation, angle, 0.0), axis))
    scale = jnp.where(stretched < s.scaling, _between(place, s.scales), 1.0)
    scales = jnp.where(jnp.arange(3) == (-1 if s.flat_axis is None else s.flat_axis), 1.0, scale)
    chosen = (jnp.stack(rest[3:]) < 0.5) & jnp.array([axis in s.mirror for axis in range(3)])
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(side) - (side - 1) / 2 for side in patch), indexing="ij"))
    matrix = rotation * (scales * jnp.where(chosen, -1.0, 1.0))[None]
    middle = jnp.array(
        [(side - 1) // 2 - (own - 1) // 2 + (own - 1) / 2 for side, own in zip(space, patch, strict=True)]
    )
    source = _product(matrix, grid.reshape(3, -1)) + middle[:, None]
    return [row.reshape(patch) for row in source]


def _product(one: Array, other: Array) -> Array:
    """In full precision on any device: a coordinate must not be off by a part of a voxel."""
    return jnp.matmul(one, other, precision=jax.lax.Precision.HIGHEST)


def _turn(angle: Array, axis: int) -> Array:
    first, second = (k for k in range(3) if k != axis)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return (
        jnp.eye(3).at[first, first].set(cos).at[second, second].set(cos)
        .at[first, second].set(-sin).at[second, first].set(sin)
    )  # fmt: skip


def _change_intensities(uniform: Array, noise: Array, image: Array, s: Augmentation) -> Array:
    """Noise, blur, brightness, contrast, coarse voxels, gamma of the negative, gamma: nnU-Net's order.

    `uniform` (part, 1 + channel, 4) says for each part whether, for the example and each channel, and how in 3 numbers.
    """
    values = jnp.moveaxis(image, -1, 0)
    across = tuple(axis for axis in range(3) if axis != s.flat_axis)
    width = max(s.sigmas)

    def noisy(x: Array, u: Array) -> Array:
        return x + s.most_noise * u[:, 0, None, None, None] * jax.random.normal(noise, x.shape)

    def soft(x: Array, u: Array) -> Array:
        return jax.vmap(partial(gaussian_blur, most=width))(x, _between(u[:, :3], s.sigmas))

    def brighter(x: Array, u: Array) -> Array:
        return x * _about_one(u, s.factors)[:, None, None, None]

    def contrasty(x: Array, u: Array) -> Array:
        return jax.vmap(adjust_contrast)(x, _about_one(u, s.factors))

    def coarse(x: Array, u: Array) -> Array:
        return jax.vmap(partial(simulate_low_resolution, axes=across))(x, _between(u[:, 0], s.resolutions))

    def curved(sign: float, x: Array, u: Array) -> Array:
        return jax.vmap(partial(gamma_correction, sign=sign))(x, _about_one(u, s.gammas))

    parts = (
        (s.noise, 1.0, noisy),
        (s.blur, PER_CHANNEL, soft),
        (s.brightness, 1.0, brighter),
        (s.contrast, 1.0, contrasty),
        (s.coarse, PER_CHANNEL, coarse),
        (s.inverted_gamma, 1.0, partial(curved, -1.0)),
        (s.gamma, 1.0, partial(curved, 1.0)),
    )
    for u, (probability, channels, change) in zip(uniform, parts, strict=True):
        if probability:
            chosen = (u[0, 0] < probability) & (u[1:, 0] < channels)
            values = jnp.where(chosen[:, None, None, None], change(values, u[1:, 1:]), values)
    return jnp.moveaxis(values, 0, -1)


def _between(fraction: Array, ends: Range) -> Array:
    return ends[0] + fraction * (ends[1] - ends[0])


def _about_one(u: Array, ends: Range) -> Array:
    """Below 1 half of the time and above it the other half, uniformly in each."""
    return 1 + u[:, 1] * (jnp.where(u[:, 0] < 0.5, ends[0], ends[1]) - 1)
