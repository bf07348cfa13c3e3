"""Spurious cues planted into images of two or three dimensions: a mark at one point, or a change of the whole image.

    attribute = draw_attribute(rng, labels, 0.05)               5 % of each class against the correlation
    mark = partial(add_mark, center=(5, 5), radius=2.0)
    images = plant(images, attribute, (partial(mark, height=-0.3), partial(mark, height=0.3)))

The attribute of an image is which of two cues it has: a dark or a bright mark, a wave along one or the other diagonal;
None is no cue. In a training set where attribute and class are tied the cue is a shortcut; in one where they are not
(fraction 0.5) it tells nothing about the class.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError

Images = Float[np.ndarray, "image *space channel"]
Cue = Callable[[np.ndarray], np.ndarray]  # images → images with the cue


def draw_attribute(
    rng: np.random.Generator, labels: Int[np.ndarray, " image"], fraction: float
) -> Int[np.ndarray, " image"]:
    """Attribute of each image: its class, 0 or 1, or the other one in a `fraction` of each class, drawn at random.

    Counts are exact: round(fraction · n) of the n images of a class are anti-correlated. 0.5 is balanced, 0 a complete
    tie.

    Raises:
        DataError: labels other than 0 and 1, or a fraction outside 0 … 1.
    """
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"labels {np.unique(labels).tolist()}; expected 0 and 1")
    if not 0 <= fraction <= 1:
        raise DataError(f"fraction {fraction:g} of anti-correlated images; expected 0 … 1")
    attribute = np.array(labels, np.int32)
    for label in (0, 1):
        own = rng.permutation(np.flatnonzero(labels == label))
        attribute[own[: round(fraction * len(own))]] = 1 - label
    return attribute


def plant(images: Images, attribute: Int[np.ndarray, "_"], cues: tuple[Cue | None, Cue | None]) -> Images:
    """Images with the cue of their attribute, `cues[0]` or `cues[1]`; None leaves them unchanged.

    Raises:
        DataError: an attribute other than 0 and 1, or not one an image.
    """
    if len(attribute) != len(images) or not np.isin(attribute, (0, 1)).all():
        values = np.unique(attribute).tolist()
        raise DataError(f"{len(attribute)} attributes {values} for {len(images)} images; expected 0 or 1 for each")
    planted = np.array(images, np.float32)
    for value, cue in enumerate(cues):
        if cue is not None and (attribute == value).any():
            planted[attribute == value] = cue(planted[attribute == value])
    return planted


def add_mark(images: Images, center: Sequence[float], radius: float, height: float) -> Images:
    """Localised cue: a disc or ball, brighter by `height` (darker if negative) than what it lies on.

    Args:
        images: images.
        center: its centre in voxels, one number for each axis of space.
        radius: its radius in voxels; the edge is one voxel wide.
        height: its brightness.

    Raises:
        DataError: a centre outside the image, or of another number of axes.
    """
    space = images.shape[1:-1]
    if len(center) != len(space) or not all(0 <= c <= n - 1 for c, n in zip(center, space, strict=True)):
        raise DataError(f"center {tuple(center)} of the mark; expected a voxel of an image of {space}")
    axes = np.meshgrid(*(np.arange(n) - c for n, c in zip(space, center, strict=True)), indexing="ij")
    distance = np.sqrt(sum(x**2 for x in axes))
    return images + np.float32(height) * np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)[..., None]


def add_wave(
    images: Images, rng: np.random.Generator, direction: Sequence[float], wavelength: float, amplitude: float
) -> Images:
    """Diffuse cue: a plane wave over the whole image, at a random phase in each image.

    Args:
        images: images.
        rng: random generator of the phases.
        direction: of the wave, such as (1, 1), a diagonal; of any length above 0.
        wavelength: in voxels.
        amplitude: of the wave.

    Raises:
        DataError: a direction of another number of axes, or of length 0.
    """
    space = images.shape[1:-1]
    if len(direction) != len(space) or not np.any(direction):
        raise DataError(f"direction {tuple(direction)} of the wave; expected one in an image of {space}")
    axes = np.meshgrid(*map(np.arange, space), indexing="ij")
    unit = np.asarray(direction) / np.linalg.norm(direction)
    along = np.tensordot(unit, np.stack(axes), 1)
    phase = rng.uniform(0, 2 * np.pi, len(images)).reshape(-1, *[1] * len(space))
    wave = amplitude * np.sin(2 * np.pi * along[None] / wavelength + phase)
    return images + wave.astype(np.float32)[..., None]


def change_contrast(images: Images, factor: float) -> Images:
    """Diffuse cue: each image's differences from its mean, times `factor`."""
    mean = images.mean(axis=tuple(range(1, images.ndim)), keepdims=True)
    return mean + np.float32(factor) * (images - mean)


def blur(images: Images, sigma: float) -> Images:
    """Diffuse cue: each channel blurred by a Gaussian of standard deviation `sigma`, in voxels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, (0, *[sigma] * (images.ndim - 2), 0), mode="nearest").astype(np.float32)
