"""Images and label masks of a user: two folders of files with equal names, PNG or NIfTI.

    data = read(Path("images"), Path("masks"), size=64)         arrays of 64 voxels along each axis
    read_trusted(Path("trusted.csv"), data.names)               which labels were checked, and which of them are wrong

An array of images has a last axis for the channel, of which there is one.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import DataError
from medjax.io.images import fit_to_grid, read_labeled
from medjax.io.tables import read_table
from medjax.running.progress import say, track
from medjax.training.batches import pairs

MAX_CLASSES = 64


class LabeledImages(NamedTuple):
    """Images and labels on one grid, and their names."""

    names: list[str]
    images: Float[np.ndarray, "image *space 1"]  # 0 … 1
    labels: Int[np.ndarray, "image *space"]


def read(images: Path, masks: Path, size: int, classes: int | None = None, min_images: int = 1) -> LabeledImages:
    """Images and label masks of two folders, paired by name and resampled to `size` voxels along each axis.

    Labels are class numbers. Where numbers are left out (masks of 0 and 255, say) and `classes` is None, their values
    are taken as classes 0, 1, … in order, with a message.

    Args:
        images: folder of the images.
        masks: folder of the label masks.
        size: number of voxels along each axis.
        classes: number of classes with background; None: from the masks.
        min_images: minimum number of images.

    Raises:
        DataError: files do not pair up or fit, there are fewer than `min_images`, or all masks are empty.
    """
    files = pairs(images, masks)
    if len(files) < min_images:
        raise DataError(f"{images}: {len(files)} images; expected at least {min_images}")
    arrays: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for image, mask in track(files, "reading"):
        one = read_labeled(image, mask, classes)
        array, label = fit_to_grid(one, (size,) * (one.image.ndim if not arrays else arrays[0].ndim))
        arrays.append(array)
        labels.append(label)
    stacked = np.stack(labels)
    values = np.unique(stacked)
    if values.max() == 0:
        raise DataError(f"{masks}: every label is 0; expected class numbers above 0")
    if classes is None and len(values) <= values.max():
        values = np.union1d(0, values)
        if len(values) > MAX_CLASSES:
            raise DataError(f"{masks}: {len(values)} different values; expected class numbers, not grey values")
        say(f"labels {', '.join(map(str, values))} are taken as classes 0 to {len(values) - 1}")
        stacked = np.searchsorted(values, stacked).astype(np.int32)
    return LabeledImages([image.name for image, _ in files], np.stack(arrays)[..., None], stacked)


def digest(data: LabeledImages) -> str:
    """SHA-256 of names, images and labels, its first eight hex digits."""
    found = hashlib.sha256("\0".join(data.names).encode())
    for array in (data.images, data.labels):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:8]


def read_trusted(path: Path, names: list[str]) -> tuple[Int[np.ndarray, " some"], Bool[np.ndarray, " some"]]:
    """Trusted set: indices of the images whose labels were checked, and whether each is wrong.

    Raises:
        DataError: no columns name and wrong, an unknown name, or a value that is neither 0 nor 1.
    """
    rows = read_table(path, ("name", "wrong"))
    known = {name.partition(".")[0]: k for k, name in enumerate(names)} | {name: k for k, name in enumerate(names)}
    try:
        numbers = np.array([known[row["name"]] for row in rows])
        return numbers, np.array([{0: False, 1: True}[int(row["wrong"])] for row in rows], bool)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}; expected columns name (of an image) and wrong (0 or 1)") from error
