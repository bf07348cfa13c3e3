"""Images and label masks from files of either kind: PNG and its kin as pictures, NIfTI as volumes.

A picture's axes are (row, column), and it is grey: one in colours is refused, for what its colours mean is not known
here. A NIfTI of one slice is a picture of axes (x, y).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import ndimage

from medjax.errors import DataError
from medjax.io.nifti import read_nifti

NIFTI = (".nii", ".nii.gz")


class Labelled(NamedTuple):
    """An image and its label on one grid; no affine for pictures."""

    image: Float[np.ndarray, "*space"]
    label: Int[np.ndarray, "*space"]
    affine: Float[np.ndarray, "4 4"] | None


def read_picture(path: Path) -> tuple[Float[np.ndarray, "*space"], Float[np.ndarray, "4 4"] | None]:
    """Grey values as they are in the file, and the affine of a NIfTI.

    Raises:
        DataError: the file is neither, or cannot be read.
        FileNotFoundError: there is none.
    """
    if path.name.endswith(NIFTI):
        volume = read_nifti(path)
        array = volume.array[..., 0] if volume.array.shape[2] == 1 else volume.array
        return np.asarray(array, np.float32), volume.affine
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            # a palette stays numbers: they are the labels, its colours are for the eye
            array = np.asarray(picture, np.float32)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: neither a picture nor NIfTI") from error
    except OSError as error:
        if error.errno is not None:  # no such file, no permission
            raise
        raise DataError(f"{path}: {error}") from error
    if array.ndim == 3 and any(
        (array[..., :1] != array[..., k : k + 1]).any() for k in range(1, min(array.shape[2], 3))
    ):
        raise DataError(f"{path}: a picture in colours; expected one channel of grey values or class numbers")
    return (array[..., 0] if array.ndim == 3 else array), None


def read_labelled(image: Path, mask: Path, classes: int | None = None) -> Labelled:
    """An image and its label; labels are class numbers from 0, below `classes` if that is given.

    Raises:
        DataError: shapes or affines differ, or a label is no class number.
    """
    grey, affine = read_picture(image)
    named, other = read_picture(mask)
    if grey.shape != named.shape:
        raise DataError(f"{mask}: {named.shape}, its image {image.name} has {grey.shape}; expected one grid")
    if affine is not None and other is not None and not np.allclose(affine, other, atol=1e-2):
        raise DataError(f"{mask}: its affine is not that of {image.name}; expected one grid")
    label = np.rint(named)
    if not (np.isfinite(named).all() and (np.abs(named - label) < 1e-3).all() and label.min() >= 0):
        raise DataError(f"{mask}: values that are no class numbers; expected 0, 1, 2, …")
    if classes is not None and label.max() >= classes:
        raise DataError(f"{mask}: label {label.max():.0f}; expected 0 to {classes - 1}")
    return Labelled(grey, label.astype(np.int32), affine)


def fitted(one: Labelled, space: tuple[int, ...]) -> tuple[Float[np.ndarray, "*new"], Int[np.ndarray, "*new"]]:
    """On a grid of `space` voxels over the same field, grey values from the 1st to the 99th percentile as 0 … 1.

    Raises:
        DataError: another number of axes.
    """
    if one.image.ndim != len(space):
        raise DataError(f"an image of {one.image.ndim} axes; expected {len(space)}, as the others have")
    low, high = np.percentile(one.image, [1, 99])
    grey = np.clip((one.image - low) / max(high - low, 1e-12), 0, 1)
    return resized(grey, space, 1).astype(np.float32), resized(one.label, space, 0)


def resized(array: Shaped[np.ndarray, "*old"], space: tuple[int, ...], order: int) -> Shaped[np.ndarray, "*new"]:
    """Values at the centres of a grid of `space` voxels over the same field; smoothed before it is made coarser.

    `order` 1 interpolates; 0 takes the nearest, for labels.
    """
    sides = list(zip(array.shape, space, strict=True))
    if order:
        array = ndimage.gaussian_filter(array, [max(old / new - 1, 0) / 2 for old, new in sides])
    places = np.meshgrid(*((np.arange(new) + 0.5) * old / new - 0.5 for old, new in sides), indexing="ij")
    return ndimage.map_coordinates(array, places, order=order, mode="nearest")
