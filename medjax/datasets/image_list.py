"""Images with a label and an attribute, listed but not yet read; and reading them at a size, 2-D or 3-D.

    listed = chexpert(folder, finding("Pleural Effusion"), SEX)       a reader of a published layout
    test = subset(listed, indices)                                    indices of `medjax.shortcuts.imbalance`, say
    images = read_images(test.paths, 224, z_score=True)               (image, row, column, channel)

What is label and what attribute is the reader's argument: a column of the table and the class number of its values.
Values that have none (unknown, uncertain, other groups) leave the row out, and `dropped` counts them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import DataError
from medjax.io.images import open_image
from medjax.io.nifti import grid_affine, read_nifti, resample
from medjax.running.progress import track

if TYPE_CHECKING:
    from PIL.Image import Image


class CodedColumn(NamedTuple):
    """A column of a table, and the class number of its values; None for those that leave their row out."""

    column: str
    code: Callable[[str], int | None]


Row = tuple[str, str, int, int, Path, float | int]  # id, subject, label, attribute, path, age


class ImageList(NamedTuple):
    """Images of a data set, of which several may be of one subject."""

    ids: list[str]
    subjects: list[str]
    label: Int[np.ndarray, " image"]
    attribute: Int[np.ndarray, " image"]
    paths: list[Path]
    age: Float[np.ndarray, " image"]  # years; NaN where the data set has none
    dropped: dict[str, int]  # number of rows left out, by reason


def by_value(column: str, codes: Mapping[str, int]) -> CodedColumn:
    """A column coded by its values, such as {"F": 0, "M": 1}; whole numbers are compared as such: 5.0 is 5."""
    return CodedColumn(column, lambda value: codes.get(plain(value)))


def by_threshold(column: str, threshold: float | int) -> CodedColumn:
    """A column of numbers coded as 1 from `threshold` on, 0 below it; what is no number leaves its row out."""
    return CodedColumn(column, lambda value: None if np.isnan(number(value)) else int(number(value) >= threshold))


def plain(value: str | None) -> str:
    """Value of a cell to be coded: text without blanks, whole numbers without decimals."""
    text = (value or "").strip()
    return str(int(number(text))) if number(text).is_integer() else text


def number(value: str | None) -> float:
    """Number in a cell, NaN if it is none."""
    try:
        return float("nan" if not value or "_" in value else value)  # Python reads 1_000, which names subjects here
    except ValueError:
        return float("nan")


def subset(images: ImageList, indices: Sequence[int] | Int[np.ndarray | Array, "_"]) -> ImageList:
    """The images of these indices, in their order."""
    chosen = np.asarray(indices, int)
    lists = ([one[k] for k in chosen.tolist()] for one in (images.ids, images.subjects, images.paths))
    ids, subjects, paths = lists
    return ImageList(
        ids, subjects, images.label[chosen], images.attribute[chosen], paths, images.age[chosen], images.dropped
    )


def to_list(rows: Sequence[Row], dropped: Mapping[str, int], source: Path) -> ImageList:
    """Image list of its rows; `source` is named in messages.

    Raises:
        DataError: there is none, or an id occurs twice.
    """
    if not rows:
        found = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "no row"
        raise DataError(f"{source}: no image left ({found}); expected at least one")
    ids, subjects, label, attribute, paths, age = zip(*rows, strict=True)
    if len({*ids}) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{source}: image '{twice}' occurs more than once; expected one row for each image")
    counts = {reason: count for reason, count in dropped.items() if count}
    return ImageList([*ids], [*subjects], np.array(label), np.array(attribute), [*paths], np.array(age, float), counts)


def read_images(
    paths: Sequence[Path], size: int, *, channels: Literal[1, 3] = 1, crop: int | None = None, z_score: bool = False
) -> Float[np.ndarray, "image row column channel"]:
    """Images of files such as JPEG or PNG, resized to `size`² pixels (bilinear, smoothed where it reduces), 0 … 1.

    Args:
        paths: files.
        size: number of pixels along each axis.
        channels: 1 for grey values, 3 for colours.
        crop: side in pixels of the centre that is taken first, such as 178 for CelebA.
        z_score: whether each image is standardised to mean 0 and standard deviation 1.

    Raises:
        DataError: no path, a file that is missing or no image, of grey values other than 8 or 16 bits, smaller than
            the crop, or constant with `z_score`.
    """
    return _stack(paths, lambda path: _read_image(path, size, channels, crop), "all" if z_score else None)


def read_volumes(
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    voxel_mm: float | int,
    *,
    z_score: Literal["volume", "brain"] | None = None,
    center_mm: tuple[float | int, float | int, float | int] | None = None,
) -> Float[np.ndarray, "image x y z 1"]:
    """Scans of NIfTI files, each resampled to a grid of `shape` voxels, axes towards RAS+.

    Outside the scan the grid is 0. One scan is in memory at its full size at a time.

    Args:
        paths: NIfTI files.
        shape: number of voxels along each axis.
        voxel_mm: size of the voxels.
        z_score: standardise each scan to mean 0 and standard deviation 1: over the volume, background included, as
            published, which lets head size leak into intensities; or over the brain, its non-zero voxels, 0 elsewhere.
        center_mm: centre of the grid, RAS+ mm, one for all scans that are registered; default: each scan's own.

    Raises:
        DataError: no path, a file that `read_nifti` refuses, or a constant scan with `z_score`.
    """

    def read(path: Path) -> np.ndarray:
        volume = read_nifti(path)
        return resample(volume, shape, grid_affine(shape, voxel_mm, center_mm or volume.center_mm)).array[..., None]

    return _stack(paths, read, {"volume": "all", "brain": "non-zero", None: None}[z_score])


def _stack(paths: Sequence[Path], read: Callable[[Path], np.ndarray], standardized: str | None) -> np.ndarray:
    if not paths:
        raise DataError("paths: none; expected at least one image")
    arrays = []
    for path in track(paths, "reading"):
        array = read(path).astype(np.float32)
        arrays.append(array if standardized is None else _z_score(path, array, standardized))
    return np.stack(arrays)


def _z_score(path: Path, array: np.ndarray, where: str) -> np.ndarray:
    inside = array != 0 if where == "non-zero" else np.ones(array.shape, bool)
    values = array[inside].astype(float)
    if not values.size or values.std() == 0:
        raise DataError(f"{path}: constant; expected an image with contrast, to be standardised")
    return np.where(inside, (array - values.mean()) / values.std(), 0).astype(np.float32)


def _read_image(path: Path, size: int, channels: int, crop: int | None) -> np.ndarray:
    from PIL import Image

    with open_image(path, "an image: the table names it") as file:
        image = _grey_16_bits(path, file) or file.convert("L" if channels == 1 else "RGB")
    if crop is not None:
        if min(image.size) < crop:
            raise DataError(f"{path}: {image.size[0]} × {image.size[1]} pixels; expected {crop} or more, to be cropped")
        left, top = ((side - crop) // 2 for side in image.size)
        image = image.crop((left, top, left + crop, top + crop))
    array = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
    return np.broadcast_to(array.reshape(size, size, -1), (size, size, channels))


def _grey_16_bits(path: Path, image: "Image") -> "Image | None":
    """Grey values of 16 bits, 0 … 65535, as floats 0 … 255, since `convert` clips them at 255; None for 8 bits."""
    from PIL.Image import fromarray

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return fromarray(np.asarray(image, np.float32) / 257)
    if image.mode in ("I", "F"):
        raise DataError(f"{path}: grey values of 32 bits, whose range is unknown; expected 8 or 16 bits")
    return None
