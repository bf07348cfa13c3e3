"""Confusable shapes on textured scenes, where class and scene can be made to go together: the toy of label flips.

    group = 2 · class + scene            in training a share ρ of each class lies in its own scene, scene = class mod 2
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
    """Images, their labels (0 background, 1 + class), and their groups."""

    image: Float[Array | np.ndarray, "image side side channel"]
    label: Int[Array | np.ndarray, "image side side"]
    group: Int[Array | np.ndarray, " image"]  # 2 · class + scene


class Splits(NamedTuple):
    """A study's data: training images of one correlation; validation and test with equally many a group."""

    train: Scenes
    validation: Scenes
    test: Scenes


def groups(count: int, correlation: float, classes: int = 2) -> Int[np.ndarray, " image"]:
    """Groups of `count` images: a share `correlation` of each class in scene class mod 2, the rest in the other.

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
    key: PRNGKeyArray, kind: Int[Array, " image"], side: int, least: float = 0.2, greatest: float = 0.6
) -> Float[Array, "image side side"]:
    """Silhouettes of classes 0, 1, …, with k = 3, 4, … lobes: r(θ) = R (1 + a cos(k θ + φ)) around a random centre.

    1 inside, 0 outside, a pixel of transition. R is 0.25 to 0.33 of the side. Each shape has its own a, uniform from
    `least` to `greatest`: the smaller, the more alike the classes are, so some shapes are hard to name.
    """

    def one(key: PRNGKeyArray, kind: Array) -> Array:
        centre, radius, turn, depth = jax.random.split(key, 4)
        middle = side * jax.random.uniform(centre, (2,), minval=0.4, maxval=0.6)
        x, y = (jnp.arange(side) - m for m in middle)
        x, y = jnp.broadcast_arrays(x[:, None], y[None])
        wave = jnp.cos((kind + 3) * jnp.arctan2(y, x) + jax.random.uniform(turn, maxval=2 * jnp.pi))
        deep = 1 + jax.random.uniform(depth, minval=least, maxval=greatest) * wave
        edge = side * jax.random.uniform(radius, minval=0.25, maxval=0.33) * deep
        return jnp.clip(edge - jnp.hypot(x, y) + 0.5, 0.0, 1.0)

    return jax.vmap(one)(jax.random.split(key, len(kind)), kind)


def digits(names: tuple[int, ...] = (3, 5), held_out: bool = False) -> Silhouettes:
    """Silhouettes of handwritten digits instead: class k is the digit names[k]; the last quarter of each is `held_out`.

    The 8² images of scikit-learn (of medjax's extra `data`), enlarged to 0.6 of the side, lie anywhere near the middle.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    written = [pixels[target == name].reshape(-1, 8, 8) / 16.0 for name in names]
    few = min(map(len, written)) * 3 // 4
    kept = jnp.asarray(np.stack([one[few : few + few // 3] if held_out else one[:few] for one in written]), jnp.float32)

    def silhouettes(key: PRNGKeyArray, kind: Int[Array, " image"], side: int) -> Float[Array, "image side side"]:
        size = round(0.6 * side)

        def one(key: PRNGKeyArray, kind: Array) -> Array:
            which, place = jax.random.split(key)
            grey = kept[kind, jax.random.randint(which, (), 0, kept.shape[1])]
            large = jnp.clip(3 * jax.image.resize(grey, (size, size), "linear") - 1, 0.0, 1.0)
            corner = jax.random.randint(place, (2,), (side - size) // 4, side - size - (side - size) // 4 + 1)
            return jax.lax.dynamic_update_slice(jnp.zeros((side, side)), large, (corner[0], corner[1]))

        return jax.vmap(one)(jax.random.split(key, len(kind)), kind)

    return silhouettes


def textures(key: PRNGKeyArray, scene: Int[Array, " image"], side: int) -> Float[Array, "image side side"]:
    """Isotropic noise, mean 0, variance about 1, around one wavelength: `FINE` in scene 0, `COARSE` in scene 1."""
    frequency = jnp.fft.fftfreq(side)
    radius = jnp.hypot(frequency[:, None], frequency[None])

    def one(key: PRNGKeyArray, scene: Array) -> Array:
        centre = 1 / jnp.where(scene == 0, FINE, COARSE)
        band = jnp.exp(-0.5 * ((radius - centre) / (0.2 * centre)) ** 2).at[0, 0].set(0.0)
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
    """An image of each of `group`: texture, a shape `contrast` brighter than its mean in its place, white noise."""
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
    """Scenes for a study, in NumPy: `train` images of this correlation for each `run`, and the same others for all.

    `kind` is lobes, with `amplitudes` from the least to the greatest, or digits, of which the test has held-out ones.

    Raises:
        DataError: another kind, or as `groups`.
    """
    if kind not in ("lobes", "digits"):
        raise DataError(f"shapes '{kind}'; expected lobes or digits")

    def drawn(number: int, group: np.ndarray, held_out: bool) -> Scenes:
        outlines = functools.partial(lobes, least=amplitudes[0], greatest=amplitudes[1])
        shapes = outlines if kind == "lobes" else digits(held_out=held_out)
        made = draw(jax.random.fold_in(key, number), jnp.asarray(group), side, shapes, contrast, noise)
        return jax.tree.map(np.asarray, made)

    return Splits(
        drawn(100 + run, groups(train, correlation), False),
        drawn(1, groups(validation, 0.5), False),
        drawn(2, groups(test, 0.5), True),
    )
