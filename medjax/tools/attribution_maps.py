"""Attribution maps and images of any framework from files, each with the id of its image.

maps = open_maps(Path("ts.npz"))                maps.ids; maps.read(id) → a map and its affine, if any

FILE.npz     keys `maps` (or `images`), an array (image, *space), and `ids`, as many texts or numbers (stripped);
             `affine`, 4 × 4, voxel index → RAS+ mm, is optional
FILE.npy     an array (image, *space), and beside it FILE.csv with a column `id`, in the array's order
FOLDER       one file an image, NIfTI (.nii, .nii.gz), .npy or PNG: its id is its name without ending
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from medjax.errors import DataError
from medjax.io.files import read_npy, read_npz
from medjax.io.grids import check_same_grid
from medjax.io.images import read_image
from medjax.io.label_images import list_files
from medjax.io.tables import read_table

ENDINGS = (".nii.gz", ".nii", ".npy", ".png")
Affine = Float[np.ndarray, "4 4"]


class Image(NamedTuple):
    """A map or an image, and its affine if it has one."""

    values: Shaped[np.ndarray, "*space"]
    affine: Affine | None


class MapSet(NamedTuple):
    """Maps or images by id, read one at a time."""

    name: str  # for messages
    ids: list[str]
    read: Callable[[str], Image]


def list_inputs(path: Path) -> list[Path]:
    """Files that `open_maps` may read, and the folder of them."""
    return [path, path.with_suffix(".csv"), *(path.iterdir() if path.is_dir() else [])]


def open_maps(path: Path) -> MapSet:
    """Maps or images of a file or a folder.

    Raises:
        DataError: none of the documented layouts, cannot be read, or not as many ids as maps.
    """
    if path.is_dir():
        files = list_files(path, ENDINGS)
        return MapSet(str(path), list(files), lambda one: read_image_file(files[one]))
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix == ".npz":
        return _from_npz(path)
    if path.suffix == ".npy":
        ids = [row["id"].strip() for row in read_table(path.with_suffix(".csv"), ("id",))]
        return from_arrays(str(path), load_array(path), ids)
    raise DataError(f"{path}: expected .npz, .npy or a folder of NIfTI, .npy or PNG files")


def from_arrays(
    name: str,
    maps: Shaped[np.ndarray, "image *space"],
    ids: list[str],
    affine: Affine | None = None,
) -> MapSet:
    """Maps of an array, by the ids of their images.

    Raises:
        DataError: not as many ids as maps.
    """
    if maps.ndim < 3 or len(maps) != len(ids):
        raise DataError(f"{name}: maps of shape {maps.shape}, {len(ids)} ids; expected (image, *space), an id for each")
    index = {one: number for number, one in enumerate(ids)}
    return MapSet(name, ids, lambda one: Image(maps[index[one]], affine))


def check_map(one: Image, name: str, like: Image, like_name: str) -> Float[np.ndarray, "*space"]:
    """Check that a map or an image is finite and on the grid of `like`; returns its values in float64.

    Raises:
        DataError: it is not.
    """
    check_same_grid(name, one.values.shape, one.affine, like_name, like.values.shape, like.affine)
    if one.values.dtype.kind not in "fiub":
        raise DataError(f"{name}: an array of {one.values.dtype}; expected real numbers")
    values = one.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{name}: {int((~np.isfinite(values)).sum())} NaN or infinite values; expected finite ones")
    return values


def read_image_file(path: Path, *, labels: bool = False) -> Image:
    """Map or image of one file, NIfTI, .npy or PNG; `labels` as in `read_image`.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix == ".npy":
        return Image(load_array(path), None)
    try:
        return Image(*read_image(path, labels=labels))
    except ImportError as error:
        raise DataError(f"{path}: PNG needs pillow; install medjax[data], or use NIfTI") from error


def load_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Array of a .npy file.

    Raises:
        DataError: it cannot be read, or needs pickle.
    """
    return read_npy(path, "one array, as numpy.save(path, array) writes it")


def _from_npz(path: Path) -> MapSet:
    expected = "numpy.savez(path, maps=…, ids=…), the ids texts or whole numbers; or weights, with --method"
    arrays = read_npz(path, expected)
    keys = ", ".join(arrays)[:200]
    ids, values = arrays.get("ids"), arrays.get("maps", arrays.get("images"))
    if values is None or ids is None or ids.ndim != 1 or ids.dtype.kind not in "USiu":
        raise DataError(f"{path}: keys {keys}; expected {expected}")
    affine = arrays.get("affine")
    if affine is not None and (
        affine.dtype.kind not in "fiu" or affine.shape != (4, 4) or not np.isfinite(affine).all()
    ):
        raise DataError(f"{path}: affine of shape {affine.shape}; expected a finite 4 × 4 matrix")
    names = [(one.decode() if isinstance(one, bytes) else str(one)).strip() for one in ids]
    return from_arrays(str(path), values, names, None if affine is None else affine.astype(float))
