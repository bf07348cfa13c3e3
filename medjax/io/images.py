"""Images from PNG and similar files (2-D) or NIfTI (2-D or 3-D): grey values, or the numbers of label images.

The axes of a PNG are (row, column); it must be grey, since the meaning of colours is not known. A NIfTI of one slice is
2-D, of axes (x, y).
"""

import io
import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from medjax.errors import DataError, type_and_message
from medjax.io.files import read_bytes
from medjax.io.nifti import read_nifti
from medjax.memory import check_memory

if TYPE_CHECKING:
    from PIL.Image import Image

NIFTI_SUFFIXES = (".nii", ".nii.gz")
IMAGE_TYPES = ("PNG", "TIFF", "BMP", "JPEG", "GIF")  # that are opened, of those that Pillow knows
LOSSY = {"JPEG", "MPO"}  # formats whose values are not what was saved
EXPECTED = "an image such as PNG"


def read_image(
    path: Path, *, labels: bool = False
) -> tuple[Float[np.ndarray, "*space"], Float[np.ndarray, "4 4"] | None]:
    """Read an image: grey values as they are in the file, and the affine of a NIfTI.

    Args:
        path: file of the image.
        labels: its values are labels: those of a palette are its numbers, the colours being for the eye.

    Raises:
        DataError: there is none, the file is no image and no NIfTI, cannot be read, is in colours or transparent in
            places, or has labels in a format that loses them.
    """
    if path.name.endswith(NIFTI_SUFFIXES):
        volume = read_nifti(path)
        array = volume.array[..., 0] if volume.array.shape[2] == 1 else volume.array
        return np.asarray(array, np.float32), volume.affine
    with open_image(path) as image:
        if labels and image.format in LOSSY:
            found = f"{image.format}, which changes values where it compresses (or may)"
            raise DataError(f"{path}: {found}; expected labels as PNG or NIfTI, exported anew")
        return _gray(path, image, labels), None


@contextmanager
def open_image(path: Path, expected: str = EXPECTED) -> Generator["Image", None, None]:
    """Context with a decoded image of one of `IMAGE_TYPES`, whatever its name ends in; `expected` is it in messages.

    Raises:
        DataError: there is none, it is of another format, damaged, or has more pixels than Pillow or the memory takes.
    """
    from PIL import Image

    content = io.BytesIO(read_bytes(path, expected))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(content, formats=IMAGE_TYPES)
            check_memory(str(path), 4.0 * math.prod(image.size) * len(image.getbands()))
            image.load()
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = Image.MAX_IMAGE_PIXELS or 0
        raise DataError(f"{path}: an image of more than {most:,} pixels; expected fewer") from error
    except Image.UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_TYPES)
        raise DataError(f"{path}: cannot be read as an image of {formats}, and is no NIfTI; expected one") from error
    except Exception as error:  # a damaged file can fail anywhere inside Pillow
        raise DataError(f"{path}: cannot be read as an image ({type_and_message(error)})") from error
    with image:
        yield image


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
