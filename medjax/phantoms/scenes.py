"""Confusable shapes on textured scenes, with a spurious correlation of class and scene: data to study label flips.

    group = 2 · class + scene            in training a fraction ρ of each class lies in its own scene, class mod 2
    image = texture(scene) outside the shape, flat and a little brighter inside: the boundary is plain, the class is not

An object's class shows in its outline alone; its scene shows everywhere around it. A network that takes the easier cue
draws the right region and gives it the wrong name. Shapes are drawn; digits, where wanted, come with scikit-learn.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax.errors import DataError

SCENES = 2
FINE, COARSE = 4.0, 6.0  # wavelengths of the two textures, in pixels
Silhouettes = Callable[[PRNGKeyArray, Int[Array, " image"], int], Float[Array, "image side side"]]


class Scenes(NamedTuple):
    """Images of shapes on scenes, their label maps (0 background, 1 + class), and their groups."""

    image: Float[Array | np.ndarray, "image side side channel"]
    label: Int[Array | np.ndarray, "image side side"]
    group: Int[Array | np.ndarray, " image"]  # 2 · class + scene


class Splits(NamedTuple):
    """Training images of one correlation; validation and test images balanced over groups."""

    train: Scenes
    validation: Scenes
    test: Scenes


def groups(count: int, correlation: float, classes: int = 2) -> Int[np.ndarray, " image"]:
    """Group numbers of `count` images: a fraction `correlation` of each class in scene class mod 2, or in the other.

    0.5 is balanced. Counts are exact, as in the published manifests, not drawn: round(count / classes · ρ) in a common
    group, and at least one image in every group.

    Raises:
        DataError: fewer than two images a class, or a correlation outside 0 … 1.
    """
    each = count // classes
    if each < SCENES or not 0 <= correlation <= 1:
        raise DataError(f"{count} images of {classes} classes, correlation {correlation}; expected ≥ 2 a class, 0 … 1")
    common = min(max(round(each * correlation), 1), each - 1)
    one = [[SCENES * k + k % SCENES] * common + [SCENES * k + 1 - k % SCENES] * (each - common) for k in range(classes)]
    return np.concatenate(one).astype(np.int32)


def lobes(
    key: PRNGKeyArray,
    class_index: Int[Array, " image"],
    side: int,
    min_amplitude: float = 0.2,
    max_amplitude: float = 0.6,
) -> Float[Array, "image side side"]:
    """Silhouettes of classes 0, 1, …, with k = 3, 4, … lobes: r(θ) = R (1 + a cos(k θ + φ)) around a random centre.

    1 inside, 0 outside, a pixel of transition. R is 0.25 to 0.33 of the side; the amplitude a of a shape is uniform.

    Args:
        key: random key.
        class_index: class of each image, from 0.
        side: pixels along each side.
        min_amplitude: lower end of the amplitudes a; the smaller, the more similar the classes are.
        max_amplitude: upper end of the amplitudes a.
    """

    def one(key: PRNGKeyArray, class_index: Array) -> Array:
        center, radius, turn, depth = jax.random.split(key, 4)
        middle = side * jax.random.uniform(center, (2,), minval=0.4, maxval=0.6)
        x, y = (jnp.arange(side) - m for m in middle)
        x, y = jnp.broadcast_arrays(x[:, None], y[None])
        wave = jnp.cos((class_index + 3) * jnp.arctan2(y, x) + jax.random.uniform(turn, maxval=2 * jnp.pi))
        deep = 1 + jax.random.uniform(depth, minval=min_amplitude, maxval=max_amplitude) * wave
        edge = side * jax.random.uniform(radius, minval=0.25, maxval=0.33) * deep
        return jnp.clip(edge - jnp.hypot(x, y) + 0.5, 0.0, 1.0)

    return jax.vmap(one)(jax.random.split(key, len(class_index)), class_index)


def digits(names: tuple[int, ...] = (3, 5), held_out: bool = False) -> Silhouettes:
    """Silhouettes of handwritten digits: class k is the digit names[k]; the last quarter of each is `held_out`.

    The 8² images of scikit-learn (of medjax's extra `data`), enlarged to 0.6 of the side, lie anywhere near the middle.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    written = [pixels[target == name].reshape(-1, 8, 8) / 16.0 for name in names]
    few = min(map(len, written)) * 3 // 4
    kept = jnp.asarray(np.stack([one[few : few + few // 3] if held_out else one[:few] for one in written]), jnp.float32)

    def silhouettes(key: PRNGKeyArray, class_index: Int[Array, " image"], side: int) -> Float[Array, "image side side"]:
        size = round(0.6 * side)

        def one(key: PRNGKeyArray, class_index: Array) -> Array:
            which, where = jax.random.split(key)
            gray = kept[class_index, jax.random.randint(which, (), 0, kept.shape[1])]
            large = jnp.clip(3 * jax.image.resize(gray, (size, size), "linear") - 1, 0.0, 1.0)
            corner = jax.random.randint(where, (2,), (side - size) // 4, side - size - (side - size) // 4 + 1)
            return jax.lax.dynamic_update_slice(jnp.zeros((side, side)), large, (corner[0], corner[1]))

        return jax.vmap(one)(jax.random.split(key, len(class_index)), class_index)

    return silhouettes


def textures(key: PRNGKeyArray, scene: Int[Array, " image"], side: int) -> Float[Array, "image side side"]:
    """Isotropic noise textures, mean 0, variance about 1, of one wavelength: `FINE` in scene 0, `COARSE` in scene 1."""
    frequency = jnp.fft.fftfreq(side)
    radius = jnp.hypot(frequency[:, None], frequency[None])

    def one(key: PRNGKeyArray, scene: Array) -> Array:
        center = 1 / jnp.where(scene == 0, FINE, COARSE)
        band = jnp.exp(-0.5 * ((radius - center) / (0.2 * center)) ** 2).at[0, 0].set(0.0)
        band = band / jnp.sqrt(jnp.mean(band**2))
        return jnp.fft.ifft2(jnp.fft.fft2(jax.random.normal(key, (side, side))) * band).real

    return jax.vmap(one)(jax.random.split(key, len(scene)), scene)


def draw(
    key: PRNGKeyArray,
    group: Int[Array, " image"],
    side: int,
    silhouettes: Silhouettes = lobes,
    contrast: float | Scalar = 1.5,
    noise: float | Scalar = 0.1,
) -> Scenes:
    """Draw an image for each of `group`: a shape on a texture, with white noise.

    Args:
        key: random key.
        group: 2 · class + scene of each image.
        side: pixels a side.
        silhouettes: (key, class, side) → masks of the shapes.
        contrast: brightness of the shape above the texture's mean.
        noise: standard deviation of the white noise.
    """
    shape, texture, grain = jax.random.split(key, 3)
    inside = silhouettes(shape, group // SCENES, side)
    behind = 0.5 * textures(texture, group % SCENES, side)
    image = jnp.where(inside > 0, inside * contrast + (1 - inside) * behind, behind)
    image = image + noise * jax.random.normal(grain, image.shape)
    label = jnp.where(inside > 0.5, 1 + (group // SCENES)[:, None, None], 0)
    return Scenes(image[..., None], label.astype(jnp.int32), group)


def draw_splits(
    key: PRNGKeyArray,
    correlation: float,
    run: int = 0,
    *,
    train: int,
    validation: int,
    test: int,
    side: int,
    kind: str = "lobes",
    amplitudes: tuple[float, float] = (0.2, 0.6),
    contrast: float = 1.5,
    noise: float = 0.1,
) -> Splits:
    """Draw training, validation and test scenes in NumPy; the last two are the same for every `run`.

    Args:
        key: random key.
        correlation: ρ of class and scene in training.
        run: number of the training set, from 0.
        train: number of training images.
        validation: number of validation images.
        test: number of test images.
        side: pixels along each side.
        kind: kind of shapes: lobes; or digits, of which the test set has held-out ones.
        amplitudes: minimum and maximum amplitude of lobes.
        contrast: brightness of the shapes above the texture's mean.
        noise: standard deviation of the white noise.

    Raises:
        DataError: an unknown kind of shapes, or as `groups`.
    """
    if kind not in ("lobes", "digits"):
        raise DataError(f"shapes '{kind}'; expected lobes or digits")

    def scenes(number: int, group: np.ndarray, held_out: bool) -> Scenes:
        outlines = functools.partial(lobes, min_amplitude=amplitudes[0], max_amplitude=amplitudes[1])
        shapes = outlines if kind == "lobes" else digits(held_out=held_out)
        images = draw(jax.random.fold_in(key, number), jnp.asarray(group), side, shapes, contrast, noise)
        return jax.tree.map(np.asarray, images)

    return Splits(
        scenes(100 + run, groups(train, correlation), False),
        scenes(1, groups(validation, 0.5), False),
        scenes(2, groups(test, 0.5), True),
    )
