"""MedMNIST: a data set's own npz, with training, validation and test images and one class each.

    splits = read(Path("pneumoniamnist.npz"))     splits.train.images (image, row, column, 1), 0 … 1

The file has six arrays: train_images, train_labels, val_images, val_labels, test_images, test_labels. Images are whole
numbers from 0 to 255, (image, *space) in grey, in two or three dimensions, or (image, row, column, 3) in colour; labels
are (image, 1) or (image,).

Source: Yang et al., MedMNIST v2, Scientific Data 2023.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.errors import DataError
from medjax.io.files import read_npz
from medjax.phantoms.chests import LabeledImages

SPLITS = ("train", "val", "test")  # as the file's arrays are named
COLORS = 3


class Splits(NamedTuple):
    """Training, validation and test images with their labels."""

    train: LabeledImages
    validation: LabeledImages
    test: LabeledImages


def read(path: Path) -> Splits:
    """Images, scaled from 0 … 255 to 0 … 1 with a last axis for the channel, and class labels of each split.

    Raises:
        DataError: there is no such file, it is no npz, an array is absent, images are not of 0 … 255 or of different
            shapes, or labels are not one class an image.
    """
    arrays = read_npz(path, "MedMNIST's npz")
    names = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
    if absent := [name for name in names if name not in arrays]:
        raise DataError(f"{path}: no {absent[0]}; expected the arrays {', '.join(names)}")
    splits = [_split(path, arrays, name) for name in SPLITS]
    shapes = {one.images.shape[1:] for one in splits}
    if len(shapes) > 1:
        raise DataError(f"{path}: images of {sorted(shapes)} in its splits; expected one shape")
    return Splits(*splits)


def _split(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> LabeledImages:
    """Images and labels of a split, checked."""
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.ndim not in (3, 4) or not images.size:
        raise DataError(
            f"{path}: {name}_images of shape {images.shape}; expected (image, *space), in two or three axes"
        )
    low, high = images.min(), images.max()
    if not np.issubdtype(images.dtype, np.integer) or low < 0 or high > 255:
        raise DataError(f"{path}: {name}_images are {images.dtype}, {low} … {high}; expected whole numbers, 0 … 255")
    if labels.size != len(images):
        found = f"{name}_labels of shape {labels.shape} for {len(images)} images"
        raise DataError(f"{path}: {found}; expected one label an image (sets of several labels are not read)")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise DataError(f"{path}: {name}_labels are {labels.dtype}, from {labels.min()}; expected classes 0, 1, …")
    channels = images if images.ndim == 4 and images.shape[-1] == COLORS else images[..., None]
    return LabeledImages(channels.astype(np.float32) / 255, labels.reshape(-1).astype(np.int32))
