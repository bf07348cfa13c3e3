"""Images from PNG and similar files (2-D) or NIfTI (2-D or 3-D): grey values, or the numbers of label images.

The axes of a PNG are (row, column); it must be grey, since the meaning of colours is not known. A NIfTI of one slice is
2-D, of axes (x, y).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from medjax.errors import DataError
from medjax.io.nifti import read_nifti

if TYPE_CHECKING:
    from PIL.Image import Image

NIFTI_SUFFIXES = (".nii", ".nii.gz")
LOSSY = {"JPEG", "MPO", "JPEG2000", "WEBP"}  # formats whose values are not what was saved


def read_image(
    path: Path, *, labels: bool = False
) -> tuple[Float[np.ndarray, "*space"], Float[np.ndarray, "4 4"] | None]:
    """Read an image: grey values as they are in the file, and the affine of a NIfTI.

    Args:
        path: file of the image.
        labels: its values are labels: those of a palette are its numbers, the colours being for the eye.

    Raises:
        DataError: the file is no image and no NIfTI, cannot be read, is in colours or transparent in places, or has
            labels in a format that loses them.
        FileNotFoundError: there is none.
    """
    if path.name.endswith(NIFTI_SUFFIXES):
        volume = read_nifti(path)
        array = volume.array[..., 0] if volume.array.shape[2] == 1 else volume.array
        return np.asarray(array, np.float32), volume.affine
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if labels and image.format in LOSSY:
                found = f"{image.format}, which changes values where it compresses (or may)"
                raise DataError(f"{path}: {found}; expected labels as PNG or NIfTI, exported anew")
            return _gray(path, image, labels), None
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: neither an image such as PNG nor NIfTI") from error
    except OSError as error:
        if error.errno is not None:  # no such file, no permission
            raise
        raise DataError(f"{path}: {error}") from error


def _gray(path: Path, image: "Image", labels: bool) -> Float[np.ndarray, "row column"]:
    """The one channel of an image, or the numbers of its palette; its opacity counts for nothing if it is uniform."""
    if image.mode in ("P", "PA") and not labels:
        image = image.convert("RGBA")
    array, bands = np.asarray(image, np.float32), image.getbands()
    if array.ndim == 2:
        return array
    if bands[-1] in "Aa":
        if (array[..., -1] != array[0, 0, -1]).any():
            raise DataError(f"{path}: transparent in places; expected one channel of grey values or class numbers")
        array = array[..., :-1]
    if (array != array[..., :1]).any():
        raise DataError(f"{path}: an image in colours; expected one channel of grey values or class numbers")
    return array[..., 0]


def resize(array: Shaped[np.ndarray, "*old"], space: tuple[int, ...], order: int) -> Shaped[np.ndarray, "*new"]:
    """Resize an array to a grid of `space` voxels over the same field; smoothed before downsampling.

    `order` 1 interpolates; 0 takes the nearest, for labels.
    """
    sides = list(zip(array.shape, space, strict=True))
    if order:
        array = ndimage.gaussian_filter(array, [max(old / new - 1, 0) / 2 for old, new in sides])
    places = np.meshgrid(*((np.arange(new) + 0.5) * old / new - 0.5 for old, new in sides), indexing="ij")
    return ndimage.map_coordinates(array, places, order=order, mode="nearest")
