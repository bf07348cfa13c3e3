"""Images of `shortcut_audit` whose attribute is their own: CheXpert and CelebA, in their published layouts.

The hold-out set is drawn first; training sets come from all other subjects, with an exact fraction of anti-correlated
images. The published design ties effusion to women, and blond hair to women.
"""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import FrozenConfigDict

from experiments.audit.images import CueImages, Source
from medjax.datasets.celeba import celeba
from medjax.datasets.chexpert import chexpert, finding
from medjax.datasets.image_list import read_images, subset
from medjax.shortcuts.imbalance import balanced_subset, biased_subset, other_subjects

CROP = 178  # of CelebA's images, as published


def listed_images(config: FrozenConfigDict) -> Source:
    """Images in the folder `config.images`, read anew for every network.

    Raises:
        ConfigError, DataError: as the reader of the layout; or a group has too few images.
    """
    folder, c, is_chexpert = Path(config.images), config.listed, config.layout == "chexpert"
    every = chexpert(folder, finding(c.label)) if is_chexpert else celeba(folder, c.label, c.attribute)
    key = jax.random.key(config.seed)
    held_out = balanced_subset(jax.random.fold_in(key, 0), every.label, every.attribute, config.holdout)
    rest = other_subjects(every.subjects, held_out)

    def read(chosen: Int[np.ndarray, "_"]) -> CueImages:
        some = subset(every, chosen)
        channels, crop = (1, None) if is_chexpert else (3, CROP)
        image = read_images(some.paths, c.side, channels=channels, crop=crop, z_score=True)
        return CueImages(image.astype(np.float32), some.label, some.attribute)

    def training(cue: str, seed: int, fraction: float) -> CueImages:
        own = jax.random.fold_in(jax.random.fold_in(key, 1), seed)
        return read(rest[biased_subset(own, every.label[rest], every.attribute[rest], config.train, fraction)])

    holdout = read(held_out)
    name = f"{'CheXpert' if is_chexpert else 'CelebA'}, {c.label} and {'Sex' if is_chexpert else c.attribute}"
    return Source(lambda cue: holdout, training, holdout.image, name)
