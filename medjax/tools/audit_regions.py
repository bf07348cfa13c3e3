"""Regions of an audit, as `--regions` names them.

grid:7x7      cells of a regular grid, as many along each axis
slic:49       about so many superpixels of the images' mean edges
FILE          a label volume on the maps' grid: NIfTI, .npy or PNG
FOLDER        a label volume for each image, by id: regions of equal label values are the same
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import voxel_mm
from medjax.io.tables import read_table
from medjax.shortcuts.regions import Regions, grid_regions, label_regions, slic_regions
from medjax.shortcuts.surrogates import centroid_distances
from medjax.tools.attribution_maps import Affine, Image, MapSet, check_map, open_maps, read_image_file

EXPECTED = "grid:7x7, slic:49, a label volume, or a folder of one for each image"


class Partition(NamedTuple):
    """Regions of all images, or of each of them."""

    regions: Regions  # of all images; or of the first one
    affine: Affine | None  # of their label volume
    of: Callable[[str, Image], tuple[Regions, Affine | None]]  # both of an image, by its id and a map, on whose grid
    one: bool  # whether they are the same for all images


def region_files(text: str) -> list[Path]:
    """Files that `--regions` reads."""
    path = Path(text)
    if _kind(text) is not None:
        return []
    return [path, *(path.iterdir() if path.is_dir() else [])]


def choose_regions(
    text: str, first: Image, ids: list[str], images: MapSet | None = None, names: Path | None = None
) -> Partition:
    """Partition of the maps whose `first` one is given.

    Args:
        text: value of `--regions`.
        first: a map, whose grid is that of all unless each image has its own labels.
        ids: ids of the images.
        images: the images, for superpixels.
        names: CSV with columns label and name: labels that are regions; default: all but 0, the background.

    Raises:
        ConfigError: no such regions.
        DataError: files that cannot be read, another grid than the maps', or a region without a voxel.
    """
    kind = _kind(text)
    if kind is not None and names is not None:
        raise ConfigError(f"--names with --regions {text}; expected it with a label volume")
    if kind == "grid":
        cells = tuple(int(one) for one in text.removeprefix("grid:").split("x"))
        try:
            return _of_all(grid_regions(first.values.shape, cells))
        except DataError as error:
            raise ConfigError(f"--regions {text}: {error}") from error
    if kind == "slic":
        if images is None:
            raise ConfigError(f"--regions {text} needs --images, of whose edges superpixels are made")
        shown = (check_map(images.read(one), f"{images.name}: {one}", first, "the maps") for one in ids)
        return _of_all(slic_regions(shown, int(text.removeprefix("slic:"))))
    path = Path(text)
    if not path.exists():
        raise ConfigError(f"--regions {text}: no such file or folder; expected {EXPECTED}")
    known = None if names is None else _read_names(names)
    if path.is_dir():
        return _of_each(path, ids, first, known)
    labels = read_image_file(path, labels=True)
    check_same_grid(path, labels.values.shape, labels.affine, "the maps", first.values.shape, first.affine)
    return _of_all(_regions(labels, path, known), labels.affine)


def _kind(text: str) -> str | None:
    if re.fullmatch(r"grid:[1-9]\d{0,5}(x[1-9]\d{0,5}){0,3}", text):
        return "grid"
    if re.fullmatch(r"slic:[1-9]\d{0,8}", text):
        return "slic"
    if text.startswith(("grid:", "slic:")):
        raise ConfigError(f"--regions {text}; expected {EXPECTED}")
    return None


def distances(regions: Regions, like: Image) -> Float[np.ndarray, "region region"]:
    """Distances between the centres of regions on the grid of `like`: mm, or voxels where it has no affine."""
    spacing = None if like.affine is None else voxel_mm(like.affine)[: like.values.ndim]
    return centroid_distances(regions.labels, len(regions.names), spacing)


def _of_all(regions: Regions, affine: Affine | None = None) -> Partition:
    return Partition(regions, affine, lambda *_: (regions, affine), True)


def _of_each(folder: Path, ids: list[str], first: Image, known: dict[int, str] | None) -> Partition:
    source = open_maps(folder)
    if missing := sorted(set(ids) - set(source.ids)):
        raise DataError(f"{folder}: no labels of {missing[0]}; expected a label volume for each image")
    labels = as_labels(source.read(ids[0]).values, f"{folder}: {ids[0]}")
    names = known or {value: str(value) for value in np.unique(labels).tolist() if value}

    def of(one: str, like: Image) -> tuple[Regions, Affine | None]:
        labels, name = source.read(one), f"{folder}: {one}"
        check_same_grid(name, labels.values.shape, labels.affine, "its map", like.values.shape, like.affine)
        values = set(np.unique(as_labels(labels.values, name)).tolist()) - {0}
        if known is None and (other := sorted(values - names.keys())):
            raise DataError(f"{name}: label {other[0]}, which {ids[0]} has not; expected the same, or --names")
        return _regions(labels, name, names), labels.affine

    return Partition(*of(ids[0], first), of, False)


def _regions(labels: Image, name: Path | str, known: dict[int, str] | None) -> Regions:
    try:
        return label_regions(as_labels(labels.values, name), known)
    except DataError as error:
        raise DataError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error


def _read_names(path: Path) -> dict[int, str]:
    rows = read_table(path, ("label", "name"))
    for row in rows:
        if not row["label"].strip().isdecimal():
            raise DataError(f"{path}: label {row['label']!r}; expected whole numbers from 0")
    names = {int(row["label"]): row["name"].strip() for row in rows}
    if len(names) < len(rows):
        raise DataError(f"{path}: {len(rows)} rows of {len(names)} labels; expected each label once")
    return names
