"""Regions of images, over which attribution maps are averaged: cells of a grid, labels of an atlas, superpixels.

    grid_regions((28, 28), (7, 7))                 49 cells; of a volume (64, 64, 64), (8, 8, 8)
    label_regions(atlas, {17: "hippocampus"})      labels of an atlas or a segmentation, 0 being background
    slic_regions(images, 49)                       superpixels of the images' mean edges
    region_means(maps, regions)                    (image, region)

Regions are made on the host, and so are means: in float32 they would depend on the size of a region, and regions of
equal means would be ranked by it.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray


class Regions(NamedTuple):
    """A partition of an image: its regions are numbered 0 … R − 1, and −1 is in none of them."""

    labels: Int[np.ndarray, "*space"]
    names: tuple[str, ...]
    cells: tuple[int, ...] | None = None  # number of cells along each axis; None where `labels` are no whole grid


def grid_regions(shape: Sequence[int], cells: Sequence[int]) -> Regions:
    """Cells of a regular grid, in C order, named by their indices from 0 such as `3-5`; 2-D and 3-D.

    Where a side is no multiple of its number of cells, these differ by one voxel.

    Raises:
        DataError: another number of axes, or more cells than voxels along one.
    """
    if len(shape) != len(cells) or not all(1 <= cell <= side for cell, side in zip(cells, shape, strict=True)):
        raise DataError(f"cells {tuple(cells)}: expected 1 or more along each axis of {tuple(shape)}, and no more")
    axes = [np.arange(side) * cell // side for side, cell in zip(shape, cells, strict=True)]
    labels = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), tuple(cells))
    names = tuple("-".join(map(str, index)) for index in np.ndindex(*cells))
    return Regions(labels.astype(np.int32), names, tuple(cells))


def label_regions(labels: Int[AnyArray, "*space"], names: Mapping[int, str] | None = None) -> Regions:
    """Regions of a label image, in the order of the label values.

    Without `names` every value but 0, the background, is a region of that name. With names, exactly their values are
    regions, 0 too if it is named, and the others are in none.

    Raises:
        DataError: a named label without a voxel, two of one name, or fewer than two regions.
    """
    labels = np.asarray(labels)
    present = np.unique(labels)
    known = {int(value): str(value) for value in present if value} if names is None else dict(sorted(names.items()))
    for value, name in known.items():
        if value not in present:
            raise DataError(f"region {name}: no voxel of label {value}; expected one or more, or leave it out")
    if len(known) < 2 or len(set(known.values())) < len(known):
        raise DataError(f"labels: regions {list(known.values())[:5]}; expected two or more, of different names")
    values = np.fromiter(known, present.dtype)
    index = np.minimum(np.searchsorted(values, labels), len(values) - 1)
    return Regions(np.where(values[index] == labels, index, -1).astype(np.int32), tuple(known.values()))


def slic_regions(images: Iterable[Real[AnyArray, "*space"]], number: int, compactness: float = 10.0) -> Regions:
    """Superpixels (SLIC) of the mean edge image of a data set: one partition for all of its images.

    Edges are Sobel magnitudes. Regions are numbered from top to bottom and, within a row of them, from left to right;
    there are about `number`. A low `compactness` follows edges, a high one gives squares.

    Args:
        images: images (row, column) or volumes, of one shape: an array of them, or one after another.
        number: approximate number of regions.
        compactness: weight of distance against difference in edges; 10 is the published one.

    Raises:
        DataError: no image, other ones, values that are not finite, or not between 2 regions and one a voxel.

    Source: Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods, TPAMI 34(11), 2012.
    """
    from scipy.ndimage import center_of_mass
    from skimage.segmentation import slic

    edges = _mean_edges(images)
    space = edges.shape
    if not 2 <= number <= prod(space):
        raise DataError(f"number {number}; expected 2 to {prod(space)}, the number of voxels")
    raw = slic(edges, number, compactness, enforce_connectivity=False, channel_axis=None, start_label=0)
    _, labels = np.unique(raw, return_inverse=True)
    labels = labels.reshape(space)
    rows = max(round(space[0] * (number / prod(space)) ** (1 / len(space))), 1)
    centers = np.array(center_of_mass(np.ones(space), labels, np.arange(labels.max() + 1)))
    centers[:, 0] = np.floor((centers[:, 0] + 0.5) * rows / space[0])  # which row of regions
    order = np.lexsort(centers.T[::-1])
    return Regions(np.argsort(order)[labels].astype(np.int32), tuple(map(str, range(len(order)))))


def region_means(maps: Real[AnyArray, "image *space"], regions: Regions) -> Float[np.ndarray, "image region"]:
    """Mean of each map in each region, in float64.

    Raises:
        DataError: maps of another shape, or a region without a voxel.
    """
    if maps.shape[1:] != regions.labels.shape:
        raise DataError(f"maps: shape {maps.shape[1:]}; expected that of the regions, {regions.labels.shape}")
    _check_not_empty(regions)
    inside = regions.labels >= 0
    labels, maps = regions.labels[inside], np.asarray(maps)
    counts = np.bincount(labels)
    sums = [np.bincount(labels, one[inside]) for one in maps]
    return np.reshape(sums, (len(maps), len(counts))) / counts


def _mean_edges(images: Iterable[AnyArray]) -> np.ndarray:
    from skimage.filters import sobel

    total, number = np.zeros(()), 0
    for image in images:
        edges = sobel(np.asarray(image, np.float64))
        if edges.ndim not in (2, 3) or (number and edges.shape != total.shape):
            raise DataError(f"images: shape {edges.shape} of one; expected (row, column) or volumes, of one shape")
        total, number = total + edges, number + 1
    if not number or not np.isfinite(total).all():
        raise DataError(f"images: {'NaN or infinite values' if number else 'none'}; expected finite ones")
    return total / number


def _check_not_empty(regions: Regions) -> None:
    labels, number = regions.labels, len(regions.names)
    if labels.max(initial=-1) >= number:
        raise DataError(f"regions: label {labels.max()}, but {number} names; expected a name for each region")
    counts = np.bincount(labels.ravel() + 1, minlength=number + 1)[1:]
    if (counts == 0).any():
        raise DataError(f"region {regions.names[int(counts.argmin())]}: no voxel; expected one or more in each region")
