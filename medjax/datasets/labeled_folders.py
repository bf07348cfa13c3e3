"""Images and label masks of a user: two folders of files with equal names, PNG or NIfTI, such as nnU-Net's.

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
from medjax.io.label_images import fit_to_grid, read_labeled
from medjax.io.tables import read_table
from medjax.memory import check_memory
from medjax.running.progress import say, track
from medjax.training.batches import FIRST_CHANNEL, name_without_ending, pairs

MAX_CLASSES = 64
FEW_CLASSES = 8  # up to this many may all be thin: more, which mostly fill no voxel's neighbours, are grey values


class LabeledImages(NamedTuple):
    """Images and labels on one grid, and their names."""

    names: list[str]
    images: Float[np.ndarray, "image *space 1"]  # 0 … 1
    labels: Int[np.ndarray, "image *space"]
    voxels: Float[np.ndarray, "image axis"] | None = None  # size of each image's voxels in mm, or in pixels of its file


def read(images: Path, masks: Path, size: int, classes: int | None = None, min_images: int = 1) -> LabeledImages:
    """Images and label masks of two folders, paired by `pairs` and resampled to `size` voxels along each axis.

    Labels are class numbers. Where numbers are left out (masks of 0 and 255, say) and `classes` is None, their values
    are taken as classes 0, 1, … in order, with a message.

    Args:
        images: folder of the images.
        masks: folder of the label masks.
        size: number of voxels along each axis.
        classes: number of classes with background; None: from the masks.
        min_images: minimum number of images.

    Raises:
        DataError: files do not pair up or fit, there are fewer than `min_images`, all masks are empty or become so at
            this size, or their values are grey values: few fill a voxel and its neighbours anywhere.
    """
    files = pairs(images, masks)
    if len(files) < min_images:
        raise DataError(f"{images}: {len(files)} images; expected at least {min_images}")
    channels = [*images.glob(f"*{FIRST_CHANNEL[:-1]}1.*")]
    if channels and not {image.name for image, _ in files} & {file.name for file in channels}:
        say(f"several channels a case: the first one, {FIRST_CHANNEL}, is taken")
    arrays: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    voxels: list[np.ndarray] = []
    richest = np.zeros(2, int)  # most values of an image, and of a mask
    present, filling = {0}, {0}  # label values, and those that somewhere fill a voxel and its neighbours
    for image, mask in track(files, "reading"):
        one = read_labeled(image, mask, classes)
        present.update(np.unique(one.label).tolist())
        richest = np.maximum(richest, [len(np.unique(both)) for both in (one.image, one.label)])
        filling.update(np.unique(one.label[_inner(one.label)]).tolist())
        if not arrays:
            check_memory(f"--size {size}", 16 * len(files) * size**one.image.ndim, "use a smaller one")
        array, label = fit_to_grid(one, (size,) * (one.image.ndim if not arrays else arrays[0].ndim))
        sizes = 1.0 if one.affine is None else np.linalg.norm(one.affine[:3, : one.image.ndim], axis=0)
        voxels.append(sizes * np.divide(one.image.shape, array.shape))
        arrays.append(array)
        labels.append(label)
    values, stacked = np.array(sorted(present)), np.stack(labels)
    _check_values(masks, values, np.unique(stacked), size)
    many = len(values) > MAX_CLASSES and len(values) <= values.max()  # and numbers left out between them
    if classes is None and (many or len(values) > max(FEW_CLASSES, 2 * len(filling))):
        found = f"{len(values)} different values, of which {len(filling)} fill a voxel and its neighbours somewhere"
        raise DataError(f"{masks}: {found}; expected class numbers, not grey values: are IMAGES and MASKS swapped?")
    if len(values) > FEW_CLASSES and richest[0] < richest[1]:
        found = f"up to {richest[1]} different values, and the images up to {richest[0]}"
        raise DataError(f"{masks}: {found}; expected masks of fewer: are IMAGES and MASKS swapped?")
    if classes is None and len(values) <= values.max():
        say(f"labels {', '.join(map(str, values))} are taken as classes 0 to {len(values) - 1}")
        stacked = np.searchsorted(values, stacked).astype(np.int32)
    return LabeledImages([image.name for image, _ in files], np.stack(arrays)[..., None], stacked, np.stack(voxels))


def _inner(label: Int[np.ndarray, "*space"]) -> Bool[np.ndarray, "*space"]:
    """Voxels whose face neighbours have their label; those beyond the border count as such."""
    inner = np.ones(label.shape, bool)
    for axis in range(label.ndim):
        same, along = (np.swapaxes(one, 0, axis) for one in (np.diff(label, axis=axis) == 0, inner))
        along[1:] &= same  # a view of `inner`
        along[:-1] &= same
    return inner


def _check_values(masks: Path, present: np.ndarray, kept: np.ndarray, size: int) -> None:
    """Check that there are structures, and that some are left at this size; say which are not."""
    if present.max() == 0:
        raise DataError(f"{masks}: every label is 0; expected class numbers above 0")
    lost = ", ".join(map(str, np.setdiff1d(present, [0, *kept])))
    if kept.max() == 0:
        raise DataError(
            f"{masks}: all structures (labels {lost}) vanish at {size} voxels along each axis; expected a larger --size"
        )
    if lost:
        say(f"labels {lost} vanish at {size} voxels along each axis: a larger --size keeps them")


def digest(data: LabeledImages) -> str:
    """SHA-256 of names, images and labels, its first eight hex digits."""
    found = hashlib.sha256("\0".join(data.names).encode(errors="surrogateescape"))
    for array in (data.images, data.labels):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:8]


def _stem(name: str) -> str:
    return name_without_ending(Path(name))


def _case(name: str) -> str:
    return _stem(name).removesuffix(FIRST_CHANNEL)


def read_trusted(path: Path, names: list[str]) -> tuple[Int[np.ndarray, " some"], Bool[np.ndarray, " some"]]:
    """Trusted set: indices of the images whose labels were checked, and whether each is wrong.

    Raises:
        DataError: no columns name and wrong, an unknown name, or a value that is neither 0 nor 1.
    """
    rows = read_table(path, ("name", "wrong"))
    known = {name_of(name): k for k, name in enumerate(names) for name_of in (_case, _stem, str)}
    try:
        numbers = np.array([known[row["name"]] for row in rows])
        return numbers, np.array([{0: False, 1: True}[int(row["wrong"])] for row in rows], bool)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}; expected columns name (of an image) and wrong (0 or 1)") from error
