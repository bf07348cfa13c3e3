"""Images and label masks of one's own: two folders of files with equal names, PNG or NIfTI.

    data = read(Path("images"), Path("masks"), size=64)         arrays on one grid of 64 voxels each way
    read_trusted(Path("trusted.csv"), data.names)               which labels were checked, and which of them are wrong

An array of images has a last axis for the channel, of which there is one.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import DataError
from medjax.io.pictures import fitted, read_labelled
from medjax.io.tables import read_table
from medjax.running.progress import say, track
from medjax.training.batches import pairs

MOST_CLASSES = 64


class LabelledImages(NamedTuple):
    """Images and labels on one grid, and their names."""

    names: list[str]
    images: Float[np.ndarray, "image *space 1"]  # 0 … 1
    labels: Int[np.ndarray, "image *space"]


def read(images: Path, masks: Path, size: int, classes: int | None = None, fewest: int = 1) -> LabelledImages:
    """Every pair of files of the two folders, on `size` voxels each way.

    Labels are class numbers, below `classes` if that is given. Otherwise, where they leave numbers out (masks of 0 and
    255, say), their values are taken as classes 0, 1, … in order, which is said.

    Raises:
        DataError: files do not pair up or fit, there are fewer than `fewest`, or no label names a structure.
    """
    files = pairs(images, masks)
    if len(files) < fewest:
        raise DataError(f"{images}: {len(files)} images; expected at least {fewest}")
    arrays: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for image, mask in track(files, "reading"):
        one = read_labelled(image, mask, classes)
        array, label = fitted(one, (size,) * (one.image.ndim if not arrays else arrays[0].ndim))
        arrays.append(array)
        labels.append(label)
    stacked = np.stack(labels)
    values = np.unique(stacked)
    if values.max() == 0:
        raise DataError(f"{masks}: every label is 0; expected class numbers above 0")
    if classes is None and len(values) <= values.max():
        values = np.union1d(0, values)
        if len(values) > MOST_CLASSES:
            raise DataError(f"{masks}: {len(values)} different values; expected class numbers, not grey values")
        say(f"labels {', '.join(map(str, values))} are taken as classes 0 to {len(values) - 1}")
        stacked = np.searchsorted(values, stacked).astype(np.int32)
    return LabelledImages([image.name for image, _ in files], np.stack(arrays)[..., None], stacked)


def digest(data: LabelledImages) -> str:
    """Eight hex digits of names, images and labels."""
    found = hashlib.sha256("\0".join(data.names).encode())
    for array in (data.images, data.labels):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:8]


def read_trusted(path: Path, names: list[str]) -> tuple[Int[np.ndarray, " some"], Bool[np.ndarray, " some"]]:
    """Images that were looked at, by number, and whether their labels are wrong.

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
