"""Images, labels and masks of a registration: read and checked, each on its grid."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import Volume
from medjax.registration.grid import Grid
from medjax.registration.transform_files import image_on_grid
from medjax.tools.checks import as_paths, check_volume

ImageFile = Path | str | Volume


class Pair(NamedTuple):
    """Fixed and moving image, each on its grid."""

    fixed: Float[np.ndarray, "*space"]
    fixed_grid: Grid
    moving: Float[np.ndarray, "*other"]
    moving_grid: Grid
    fixed_volume: Volume
    moving_volume: Volume


def read_pair(fixed: ImageFile, moving: ImageFile) -> Pair:
    """Read two images to register.

    Raises:
        DataError: one cannot be read, is constant, or only one of them is 2-D.
    """
    volumes, images = list[Volume](), list[tuple[str, np.ndarray, Grid]]()
    for one, name in ((fixed, "fixed"), (moving, "moving")):
        volume, name = check_volume(as_paths(one)[0], name)
        if np.ptp(volume.array) == 0:
            raise DataError(f"{name}: a constant image; expected one with something to register")
        volumes.append(volume)
        images.append((name, *image_on_grid(volume, name)))
    (fixed_name, fixed_image, fixed_grid), (moving_name, moving_image, moving_grid) = images
    if len(fixed_grid.shape) != len(moving_grid.shape):
        both = f"{len(moving_grid.shape)}-D, and {fixed_name} {len(fixed_grid.shape)}-D"
        raise DataError(f"{moving_name}: {both}; expected two images of one dimension")
    return Pair(fixed_image, fixed_grid, moving_image, moving_grid, *volumes)


def read_labels(
    images: Pair, fixed: ImageFile, moving: ImageFile, fixed_labels: ImageFile | None, moving_labels: ImageFile | None
) -> tuple[Int[np.ndarray, "*space"], Int[np.ndarray, "*other"]] | None:
    """Read the labels of both images, or None without any; floats that are whole numbers are labels.

    Raises:
        DataError: one cannot be read, lies off its image's grid, or holds other values than labels.
    """
    if fixed_labels is None or moving_labels is None:
        return None
    found = []
    sides = ((fixed_labels, images.fixed_volume, fixed), (moving_labels, images.moving_volume, moving))
    for (labels, volume, image), grid in zip(sides, (images.fixed_grid, images.moving_grid), strict=True):
        name = labels if isinstance(labels, Path) else "labels"
        found.append(as_labels(read_on_grid(labels, "labels", volume, image).array, name).reshape(grid.shape))
    return found[0], found[1]


def read_mask(mask: ImageFile | None, images: Pair, fixed: ImageFile) -> Float[np.ndarray, "*space"] | None:
    """Read the mask of the fixed image's voxels that count, 0 or 1; None for None.

    Raises:
        DataError: it cannot be read, lies off the fixed image's grid, or is 0 throughout.
    """
    if mask is None:
        return None
    inside = read_on_grid(mask, "mask", images.fixed_volume, fixed).array != 0
    if not inside.any():
        raise DataError(f"{mask if isinstance(mask, Path) else 'mask'}: all voxels are 0; expected some that count")
    return inside.reshape(images.fixed_grid.shape).astype(np.float32)


def read_on_grid(one: ImageFile, name: str, volume: Volume, image: ImageFile) -> Volume:
    """Volume that lies on the grid of another; `image` is the other's file, for messages.

    Raises:
        DataError: it cannot be read, or lies on another grid.
    """
    read, name = check_volume(as_paths(one)[0], name)
    other = image if isinstance(image, Path) else "the image"
    check_same_grid(name, read.array.shape, read.affine, other, volume.array.shape, volume.affine)
    return read
