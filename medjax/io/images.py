"""Images and label masks from PNG and similar files (2-D) or NIfTI (2-D or 3-D).

The axes of a PNG are (row, column); it must be grey, since the meaning of colours is not known. A NIfTI of one slice is
2-D, of axes (x, y).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import ndimage

from medjax.errors import DataError
from medjax.io.nifti import read_nifti

NIFTI_SUFFIXES = (".nii", ".nii.gz")


class LabeledImage(NamedTuple):
    """An image and its label mask on one grid; without an affine for PNG."""

    image: Float[np.ndarray, "*space"]
    label: Int[np.ndarray, "*space"]
    affine: Float[np.ndarray, "4 4"] | None


def read_image(path: Path) -> tuple[Float[np.ndarray, "*space"], Float[np.ndarray, "4 4"] | None]:
    """Read an image: grey values as they are in the file, and the affine of a NIfTI.

    Raises:
        DataError: the file is no image and no NIfTI, or cannot be read.
        FileNotFoundError: there is none.
    """
    if path.name.endswith(NIFTI_SUFFIXES):
        volume = read_nifti(path)
        array = volume.array[..., 0] if volume.array.shape[2] == 1 else volume.array
        return np.asarray(array, np.float32), volume.affine
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            # a palette stays numbers: they are the labels, its colours are for the eye
            array = np.asarray(image, np.float32)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: neither an image such as PNG nor NIfTI") from error
    except OSError as error:
        if error.errno is not None:  # no such file, no permission
            raise
        raise DataError(f"{path}: {error}") from error
    if array.ndim == 3 and any(
        (array[..., :1] != array[..., k : k + 1]).any() for k in range(1, min(array.shape[2], 3))
    ):
        raise DataError(f"{path}: an image in colours; expected one channel of grey values or class numbers")
    return (array[..., 0] if array.ndim == 3 else array), None


def read_labeled(image: Path, mask: Path, classes: int | None = None) -> LabeledImage:
    """Read an image and its label mask; labels are class numbers from 0, below `classes` if not None.

    Raises:
        DataError: shapes or affines differ, or a label is no class number.
    """
    gray, affine = read_image(image)
    named, other = read_image(mask)
    if gray.shape != named.shape:
        raise DataError(f"{mask}: {named.shape}, its image {image.name} has {gray.shape}; expected one grid")
    if affine is not None and other is not None and not np.allclose(affine, other, atol=1e-2):
        raise DataError(f"{mask}: its affine is not that of {image.name}; expected one grid")
    label = np.rint(named)
    if not (np.isfinite(named).all() and (np.abs(named - label) < 1e-3).all() and label.min() >= 0):
        raise DataError(f"{mask}: values that are no class numbers; expected 0, 1, 2, …")
    if classes is not None and label.max() >= classes:
        raise DataError(f"{mask}: label {label.max():.0f}; expected 0 to {classes - 1}")
    return LabeledImage(gray, label.astype(np.int32), affine)


def fit_to_grid(
    labeled: LabeledImage, space: tuple[int, ...]
) -> tuple[Float[np.ndarray, "*new"], Int[np.ndarray, "*new"]]:
    """Fit a labelled image to a grid of `space` voxels over the same field, and rescale its intensities to 0 … 1.

    0 and 1 are the 1st and the 99th percentile.

    Raises:
        DataError: another number of axes.
    """
    if labeled.image.ndim != len(space):
        raise DataError(f"an image of {labeled.image.ndim} axes; expected {len(space)}, as the others have")
    low, high = np.percentile(labeled.image, [1, 99])
    gray = np.clip((labeled.image - low) / max(high - low, 1e-12), 0, 1)
    return resize(gray, space, 1).astype(np.float32), resize(labeled.label, space, 0)


def resize(array: Shaped[np.ndarray, "*old"], space: tuple[int, ...], order: int) -> Shaped[np.ndarray, "*new"]:
    """Resize an array to a grid of `space` voxels over the same field; smoothed before downsampling.

    `order` 1 interpolates; 0 takes the nearest, for labels.
    """
    sides = list(zip(array.shape, space, strict=True))
    if order:
        array = ndimage.gaussian_filter(array, [max(old / new - 1, 0) / 2 for old, new in sides])
    places = np.meshgrid(*((np.arange(new) + 0.5) * old / new - 0.5 for old, new in sides), indexing="ij")
    return ndimage.map_coordinates(array, places, order=order, mode="nearest")
