"""Images of `shortcut_audit`: chest X-rays or phantoms with a planted cue, training sets and one hold-out set."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import FrozenConfigDict

from medjax.datasets import medmnist
from medjax.errors import DataError
from medjax.phantoms import chests
from medjax.phantoms.chests import LabeledImages
from medjax.phantoms.cues import Cue, add_mark, add_wave, draw_attribute, plant
from medjax.shortcuts.regions import Regions, grid_regions, slic_regions

CUES = {"localized": "localised cue", "diffuse": "diffuse cue", "attribute": "attribute of the data set"}
Images = Float[np.ndarray, "image *space channel"]


class CueImages(NamedTuple):
    """Images as networks take them, with their class, and their attribute: which cue they have."""

    image: Images
    label: Int[np.ndarray, " image"]
    attribute: Int[np.ndarray, " image"]

    @property
    def group(self) -> Int[np.ndarray, " image"]:
        """Group 2 · class + attribute of each image."""
        return 2 * self.label + self.attribute


class Source(NamedTuple):
    """Where the images of a study come from."""

    holdout: Callable[[str], CueImages]  # cue → hold-out set of all networks, balanced over groups
    training: Callable[[str, int, float], CueImages]  # cue, seed, fraction of anti-correlated images → training set
    plain: Images  # images without a planted cue, for superpixels
    name: str  # for the report


def planted_images(config: FrozenConfigDict) -> Source:
    """Images with planted cues: of MedMNIST's file `config.images`, or phantoms where there is none.

    The hold-out images are the same for every cue, and so are the training images of a seed for every cue and tie.

    Raises:
        DataError: the file cannot be read, its labels are not 0 and 1, or there are too few images of a class.
    """
    train, test, name = _pool(config)
    chosen = _choose(test, config.holdout, np.random.default_rng((config.seed, 0)), "holdout")
    _choose(train, config.train, np.random.default_rng(0), "train")  # complains now
    mean, sd = float(np.mean(train.images)), float(np.std(train.images))

    def with_cue(images: LabeledImages, cue: str, rng: np.random.Generator, fraction: float) -> CueImages:
        attribute = draw_attribute(rng, np.asarray(images.labels), fraction)
        cues = _cues(config, cue, rng, np.ndim(images.images) - 2)
        image = (plant(np.asarray(images.images), attribute, cues) - mean) / sd
        return CueImages(image.astype(np.float32), np.asarray(images.labels), attribute)

    def holdout(cue: str) -> CueImages:
        return with_cue(chosen, cue, np.random.default_rng((config.seed, 1)), 0.5)

    def training(cue: str, seed: int, fraction: float) -> CueImages:
        rng = np.random.default_rng((config.seed, 2, seed))
        return with_cue(_choose(train, config.train, rng, "train"), cue, rng, fraction)

    return Source(holdout, training, np.asarray(test.images), name)


def cue_center(config: FrozenConfigDict, space: tuple[int, ...]) -> tuple[float, ...]:
    """Centre of the localised cue, in voxels; (n − 1) / 2 is the middle of n."""
    return tuple(where * n - 0.5 for where, n in zip(config.mark.center, space, strict=False))


def make_regions(config: FrozenConfigDict, images: Float[np.ndarray, "image *space channel"]) -> dict[str, Regions]:
    """Partitions by name: `grid_7` has 7 cells along each axis, `slic_49` about 49 superpixels of the images' edges."""
    partitions = dict[str, Regions]()
    for name in config.regions:
        kind, number = name.split("_")
        space, gray = images.shape[1:-1], images.mean(-1)
        grid = kind == "grid"
        partitions[name] = (
            grid_regions(space, [int(number)] * len(space))
            if grid
            else slic_regions(gray, int(number), config.compactness)
        )
    return partitions


def _choose(images: LabeledImages, number: int, rng: np.random.Generator, key: str) -> LabeledImages:
    """`number` random images, half of each class."""
    half = number // 2
    chosen = []
    for label in (0, 1):
        own = np.flatnonzero(np.asarray(images.labels) == label)
        if len(own) < half:
            raise DataError(f"images: {len(own)} of class {label}; expected {half} or more, half of --config.{key}")
        chosen.append(rng.permutation(own)[:half])
    index = np.concatenate(chosen)
    return LabeledImages(np.asarray(images.images)[index], np.asarray(images.labels)[index])


def _pool(config: FrozenConfigDict) -> tuple[LabeledImages, LabeledImages, str]:
    """Images to draw training sets and the hold-out set from, and what they are."""
    if config.images:
        splits = medmnist.read(Path(config.images))
        if classes := set(np.unique(np.concatenate([one.labels for one in splits])).tolist()) - {0, 1}:
            raise DataError(f"{config.images}: class {max(classes)}; expected a data set of two classes, 0 and 1")
        return splits.train, splits.test, f"images of {Path(config.images).name}"
    p, key = config.phantoms, jax.random.key(config.seed)
    train, test = (
        chests.draw(jax.random.fold_in(key, k), np.arange(number) % 2, tuple(p.space), p.contrast, p.noise)
        for k, number in enumerate((2 * config.train, config.holdout))
    )
    return train, test, f"simulated chests of {' × '.join(map(str, p.space))} voxels (no real images)"


def _cues(config: FrozenConfigDict, cue: str, rng: np.random.Generator, axes: int) -> tuple[Cue, Cue]:
    """Cues of attributes 0 and 1: a dark or a bright mark; a wave along one or the other diagonal of two axes."""
    if cue == "localized":
        return _mark(config, -config.mark.height), _mark(config, config.mark.height)
    wave = partial(add_wave, rng=rng, wavelength=config.wave.wavelength, amplitude=config.wave.amplitude)
    rest = [0.0] * (axes - 2)
    return partial(wave, direction=(1.0, -1.0, *rest)), partial(wave, direction=(1.0, 1.0, *rest))


def _mark(config: FrozenConfigDict, height: float) -> Cue:
    def mark(images: np.ndarray) -> np.ndarray:
        return add_mark(images, cue_center(config, images.shape[1:-1]), config.mark.radius, height)

    return mark
