"""Regions: grids against numbers counted by hand, SciPy's label means, SLIC's order; what is refused, by name."""

import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.shortcuts.rank_profile import rank_regions
from medjax.shortcuts.regions import (
    Regions,
    grid_regions,
    label_regions,
    region_means,
    slic_regions,
)


def test_a_grid_has_its_cells_in_c_order():
    regions = grid_regions((4, 6), (2, 3))
    np.testing.assert_array_equal(regions.labels, np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2), int)))
    assert regions.names == ("0-0", "0-1", "0-2", "1-0", "1-1", "1-2")
    assert regions.cells == (2, 3)


@pytest.mark.parametrize("shape, cells", [((28, 28), (7, 7)), ((6, 8, 4), (3, 2, 2)), ((7, 9), (3, 4))])
def test_means_are_scipys(shape, cells):
    maps = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    regions = grid_regions(shape, cells)
    numbers = np.arange(len(regions.names))
    expected = [ndimage.mean(one, regions.labels, numbers) for one in maps]
    np.testing.assert_allclose(region_means(maps, regions), expected, atol=1e-6)
    by_label = regions._replace(cells=None)  # the other way to sum
    np.testing.assert_allclose(region_means(maps, by_label), expected, atol=1e-6)
    sizes = np.bincount(regions.labels.ravel())
    assert sizes.min() > 0 and len(sizes) == np.prod(cells)


def test_equal_means_are_ties_whatever_the_regions_sizes():
    """A background of 0.3 in float32, of which sums are not exact, in cells of 4 × 4 to 5 × 5 voxels."""
    maps = np.full((1, 64, 33), np.float32(0.3))
    maps[:, :6, :6] += 1
    regions = grid_regions((64, 33), (14, 7))
    plain = rank_regions(region_means(maps, regions))
    assert np.unique(plain).size == 4  # a cell, two cut alike, one at the corner, and all others
    shifted = rank_regions(region_means(maps.astype(float) + 0.1, regions))
    np.testing.assert_array_equal(shifted, plain)


@pytest.mark.slow
def test_means_of_many_voxels():
    """Of 2²⁵ voxels: float32 counts to 2²⁴. The means are exact: half of the voxels are 3, the others 0."""
    maps = np.tile(np.array([3, 0], np.uint8), 2**24 + 2)[None]
    regions = Regions(np.zeros(maps.size, np.int8), ("all",))
    regions.labels[:4] = 1
    np.testing.assert_array_equal(region_means(maps, regions._replace(names=("all", "four"))), [[1.5, 1.5]])


def test_labels_are_regions_in_their_order_and_background_is_none():
    labels = np.array([[0, 40, 40], [7, 7, 12]])
    regions = label_regions(labels)
    np.testing.assert_array_equal(regions.labels, [[-1, 2, 2], [0, 0, 1]])
    assert regions.names == ("7", "12", "40") and regions.cells is None
    maps = np.arange(12.0).reshape(2, 2, 3)
    np.testing.assert_allclose(region_means(maps, regions), [[3.5, 5, 1.5], [9.5, 11, 7.5]])


def test_named_labels_alone_are_regions():
    labels = np.array([[0, 40, 40], [7, 7, 12]])
    regions = label_regions(labels, {40: "left", 0: "rest"})
    np.testing.assert_array_equal(regions.labels, [[0, 1, 1], [-1, -1, -1]])
    assert regions.names == ("rest", "left")
    with pytest.raises(DataError, match="region hippocampus: no voxel of label 17"):
        label_regions(labels, {40: "left", 17: "hippocampus"})
    with pytest.raises(DataError, match="of different names"):
        label_regions(labels, {40: "left", 7: "left"})
    with pytest.raises(DataError, match="expected two or more"):
        label_regions(np.array([[0, 3]]))


def test_slic_follows_edges_and_is_numbered_in_reading_order():
    images = np.zeros((3, 40, 40))
    images[:, :, 20:] = 1
    images += 0.01 * np.random.default_rng(0).normal(size=images.shape)
    regions = slic_regions(images, 16)
    number = len(regions.names)
    assert 9 <= number <= 25 and set(np.unique(regions.labels)) == set(range(number))
    np.testing.assert_array_equal(slic_regions(images, 16).labels, regions.labels)
    centers = np.array(ndimage.center_of_mass(np.ones((40, 40)), regions.labels, np.arange(number)))
    rows = np.floor((centers[:, 0] + 0.5) / 10).astype(int)
    assert (np.diff(rows) >= 0).all()
    assert all((np.diff(centers[rows == row, 1]) > 0).all() for row in range(4))


def test_slic_of_volumes():
    volumes = np.random.default_rng(0).random((2, 12, 12, 12))
    regions = slic_regions(volumes, 8)
    assert regions.labels.shape == (12, 12, 12) and 4 <= len(regions.names) <= 12


def test_refused():
    maps = np.zeros((2, 4, 4), np.float32)
    hole = Regions(np.array([[0, 0], [2, 2]]), ("left", "middle", "right"))
    with pytest.raises(DataError, match="region middle: no voxel"):
        region_means(maps[:, :2, :2], hole)
    with pytest.raises(DataError, match="label 2, but 2 names"):
        region_means(maps[:, :2, :2], hole._replace(names=("left", "right")))
    with pytest.raises(DataError, match=r"maps: shape \(4, 4\); expected that of the regions, \(2, 2\)"):
        region_means(maps, hole)
    with pytest.raises(DataError, match=r"cells \(5, 2\)"):
        grid_regions((4, 4), (5, 2))
    with pytest.raises(DataError, match=r"cells \(2,\)"):
        grid_regions((4, 4), (2,))
    with pytest.raises(DataError, match="number 1; expected 2 to 16"):
        slic_regions(maps, 1)
    with pytest.raises(DataError, match="NaN or infinite"):
        slic_regions(np.full((1, 4, 4), np.nan), 4)
