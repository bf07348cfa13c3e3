"""nnU-Net's data augmentation of volumes, on the device: spatial transforms, then intensity transforms.

    settings = augmentation_for_plan(plan.patch, plan.flat_axis, plan.mirror)
    images, labels = jax.vmap(partial(augment_nnunet, settings=settings))(keys, images, labels)

Rotation, scaling and mirroring are one affine map, so that an image is interpolated once: linearly, as in
batchgeneratorsv2 (before it nnU-Net used cubic splines); class numbers are taken at the nearest voxel and soft labels
interpolated too, where nnU-Net takes the class of the largest. Images come larger than the patch (`source_patch`), so
that what rotates in is seldom empty; beyond them lies 0, the mean of z-scores, and background. Each transform has a
probability, drawn for each example and, where nnU-Net does so, for each channel. Axes are (x, y, z, channel).

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
PER_CHANNEL = 0.5  # probability of blur and low resolution in each channel of an image that has them
INTENSITY_TRANSFORMS = 7
MIN_ZOOM = 0.85  # largest reduction that a source patch has room for
MAX_ELONGATION = 1.5  # ratio of the sides of a slice above which it is rotated little


class NnunetAugmentation(NamedTuple):
    """Probability and range of each transform. Static: `patch`, `mirror` and `flat_axis` decide what is compiled."""

    rotation: float = 0.2  # probability
    max_angle: float = np.pi / 6  # radians, about each axis; or about `flat_axis` alone
    scaling: float = 0.2  # probability
    scales: Range = (0.7, 1.4)  # zoom factors: above 1 the field of view is larger
    noise: float = 0.1  # probability
    max_noise: float = 0.1  # largest standard deviation; nnU-Net calls it variance
    blur: float = 0.2  # probability
    sigmas: Range = (0.5, 1.0)  # standard deviations of the blur, voxels
    brightness: float = 0.15  # probability
    contrast: float = 0.15  # probability
    factors: Range = (0.75, 1.25)  # range of the factors of brightness and contrast
    low_resolution: float = 0.25  # probability
    resolutions: Range = (0.5, 1.0)  # fraction of the voxels along each axis
    inverted_gamma: float = 0.1  # probability
    gamma: float = 0.3  # probability
    gammas: Range = (0.7, 1.5)  # exponents
    mirror: tuple[int, ...] = (0, 1, 2)  # axes, each mirrored with probability 0.5
    flat_axis: int | None = None  # low-resolution axis: transforms are 2-D, in the planes perpendicular to it
    patch: Shape | None = None  # shape of the central crop; None: no crop


NO_AUGMENTATION = NnunetAugmentation(
    rotation=0.0, scaling=0.0, noise=0.0, blur=0.0, brightness=0.0, contrast=0.0, low_resolution=0.0,
    inverted_gamma=0.0, gamma=0.0, mirror=(),
)  # fmt: skip


def augmentation_for_plan(
    patch: Shape, flat_axis: int | None, mirror: tuple[int, ...] = (0, 1, 2)
) -> NnunetAugmentation:
    """nnU-Net's augmentation for a patch; an anisotropic one, with a `flat_axis`, is rotated in-plane by up to π.

    One slice, the patch of a 2-D network, is rotated by up to π / 12 if it is over 1.5 times longer than wide. Along
    the axes `mirror` it is mirrored half of the time: never along one whose sides the labels name.
    """
    angle = np.pi / 6
    if flat_axis is not None:
        across, along = sorted(side for axis, side in enumerate(patch) if axis != flat_axis)
        angle = np.pi / 12 if patch[flat_axis] == 1 and along > MAX_ELONGATION * across else np.pi
    return NnunetAugmentation(max_angle=angle, flat_axis=flat_axis, patch=patch, mirror=mirror)


def source_patch(settings: NnunetAugmentation, patch: Shape) -> Shape:
    """Shape of the patch before augmentation, so that a rotation about one axis and a zoom by 0.85 stay inside.

    It is the patch itself if neither is on.
    """
    sides = np.array(patch, float)
    if settings.rotation:
        angle = min(settings.max_angle, np.pi / 2)
        for axis in range(3) if settings.flat_axis is None else [settings.flat_axis]:
            rotated = np.abs(np.asarray(_rotation(jnp.asarray(angle, jnp.float32), axis)))
            sides = np.maximum(sides, np.matmul(rotated, np.array(patch)))
    if settings.scaling or settings.rotation:
        sides = sides / MIN_ZOOM
    if settings.flat_axis is not None:
        sides[settings.flat_axis] = patch[settings.flat_axis]
    x, y, z = (int(side + 1e-4) for side in sides)
    return x, y, z


def augment_nnunet(
    key: PRNGKeyArray,
    image: Float[Array, "x y z channel"],
    labels: Int[Array, "x y z"] | Float[Array, "x y z class"],
    settings: NnunetAugmentation,
) -> tuple[Float[Array, "u v w channel"], Array]:
    """Randomly augmented image and labels of one example; labels are class numbers or soft."""
    spatial, intensity, noise = jax.random.split(key, 3)
    coordinates = _coordinates(spatial, image.shape[:-1], settings)
    warped = warp_labels(labels, coordinates, "constant")
    uniform = jax.random.uniform(intensity, (INTENSITY_TRANSFORMS, 1 + image.shape[-1], 4))
    return _change_intensities(uniform, noise, interpolate(image, coordinates, "constant"), settings), warped


def gaussian_blur(image: Channel, sigmas: Float[Array, "3"], max_sigma: float = 1.0) -> Channel:
    """Gaussian blur of `sigmas` voxels along each axis, truncated at 3 `max_sigma`; mirrored at the faces."""
    radius = int(np.ceil(3 * max_sigma))
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
    """Simulated low resolution: nearest-neighbour to round(side · resolution) voxels along `axes`, linear back."""
    for axis in axes:
        side = image.shape[axis]
        coarse = jnp.maximum(jnp.round(side * resolution), 1)
        position = jnp.clip((jnp.arange(side) + 0.5) * coarse / side - 0.5, 0, coarse - 1)
        before = jnp.floor(position)
        fraction = (position - before).reshape([-1 if k == axis else 1 for k in range(3)])
        low, high = (
            jnp.take(image, jnp.floor((one + 0.5) * side / coarse).astype(int), axis=axis, mode="clip")
            for one in (before, jnp.minimum(before + 1, coarse - 1))
        )
        image = low + fraction * (high - low)
    return image


def adjust_contrast(image: Channel, factor: Scalar) -> Channel:
    """Contrast adjustment mean + factor · (x − mean), clipped to the image's range."""
    return jnp.clip(image.mean() + factor * (image - image.mean()), image.min(), image.max())


def gamma_correction(image: Channel, exponent: Scalar, sign: float = 1.0) -> Channel:
    """Gamma correction range · ((x − min) / range)^exponent of sign · x; mean and standard deviation stay."""
    signed = sign * image
    low, span = signed.min(), signed.max() - signed.min()
    fraction = jnp.clip((signed - low) / jnp.maximum(span, 1e-7), 1e-7, 1.0)
    powered = span * fraction**exponent + low
    scaled = (powered - powered.mean()) * signed.std() / jnp.maximum(powered.std(), 1e-7)
    return sign * (scaled + signed.mean())


def _coordinates(key: Array, space: tuple[int, ...], s: NnunetAugmentation) -> list[Array]:
    """Coordinates in the original of each voxel of the augmented image."""
    rotate, rescale, position, *rest = jax.random.uniform(key, (9,))  # one draw compiles faster than five
    patch = space if s.patch is None else s.patch
    rotation = jnp.eye(3)
    for axis in range(3) if s.flat_axis is None else [s.flat_axis]:
        angle = s.max_angle * (2 * rest[axis] - 1)
        rotation = _product(rotation, _rotation(jnp.where(rotate < s.rotation, angle, 0.0), axis))
    scale = jnp.where(rescale < s.scaling, _between(position, s.scales), 1.0)
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
    """Matrix product in full precision on any device: a coordinate must not be off by a part of a voxel."""
    return jnp.matmul(one, other, precision=jax.lax.Precision.HIGHEST)


def _rotation(angle: Array, axis: int) -> Array:
    first, second = (k for k in range(3) if k != axis)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return (
        jnp.eye(3).at[first, first].set(cos).at[second, second].set(cos)
        .at[first, second].set(-sin).at[second, first].set(sin)
    )  # fmt: skip


def _change_intensities(uniform: Array, noise: Array, image: Array, s: NnunetAugmentation) -> Array:
    """Noise, blur, brightness, contrast, low resolution, gamma of the inverted image, gamma: nnU-Net's order.

    `uniform` (transform, 1 + channel, 4) decides on each, for the example and each channel, and has 3 numbers for how.
    """
    values = jnp.moveaxis(image, -1, 0)
    across = tuple(axis for axis in range(3) if axis != s.flat_axis)
    width = max(s.sigmas)

    def add_noise(x: Array, u: Array) -> Array:
        return x + s.max_noise * u[:, 0, None, None, None] * jax.random.normal(noise, x.shape)

    def blur(x: Array, u: Array) -> Array:
        return jax.vmap(partial(gaussian_blur, max_sigma=width))(x, _between(u[:, :3], s.sigmas))

    def scale_brightness(x: Array, u: Array) -> Array:
        return x * _about_one(u, s.factors)[:, None, None, None]

    def scale_contrast(x: Array, u: Array) -> Array:
        return jax.vmap(adjust_contrast)(x, _about_one(u, s.factors))

    def reduce_resolution(x: Array, u: Array) -> Array:
        return jax.vmap(partial(simulate_low_resolution, axes=across))(x, _between(u[:, 0], s.resolutions))

    def apply_gamma(sign: float, x: Array, u: Array) -> Array:
        return jax.vmap(partial(gamma_correction, sign=sign))(x, _about_one(u, s.gammas))

    transforms = (
        (s.noise, 1.0, add_noise),
        (s.blur, PER_CHANNEL, blur),
        (s.brightness, 1.0, scale_brightness),
        (s.contrast, 1.0, scale_contrast),
        (s.low_resolution, PER_CHANNEL, reduce_resolution),
        (s.inverted_gamma, 1.0, partial(apply_gamma, -1.0)),
        (s.gamma, 1.0, partial(apply_gamma, 1.0)),
    )
    for u, (probability, channels, change) in zip(uniform, transforms, strict=True):
        if probability:
            chosen = (u[0, 0] < probability) & (u[1:, 0] < channels)
            values = jnp.where(chosen[:, None, None, None], change(values, u[1:, 1:]), values)
    return jnp.moveaxis(values, 0, -1)


def _between(fraction: Array, ends: Range) -> Array:
    return ends[0] + fraction * (ends[1] - ends[0])


def _about_one(u: Array, ends: Range) -> Array:
    """Factor below 1 half of the time and above it the other half, uniform in each."""
    return 1 + u[:, 1] * (jnp.where(u[:, 0] < 0.5, ends[0], ends[1]) - 1)
