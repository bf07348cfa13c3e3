"""Lesions drawn for a slice of a deformed head lie in its white matter, apart from each other."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.phantoms.brain import brain
from medjax.phantoms.heads import deform, deformation, generator, smooth_images, white_matter_lesions


@pytest.fixture(scope="module")
def head():
    pytest.importorskip("nilearn")
    return brain(2.0)


def test_lesions_lie_in_the_white_matter_of_the_deformed_slice(head):
    change = deformation(5, strength=0.5)
    x, y, _ = change.center_mm.tolist()
    grid = ((2.0, 2.0, 2.0), (110, 110, 1), (x, y, 25.0))
    plain = deform(head, change, *grid)
    drawn = white_matter_lesions(3, plain, change, head.affine, 3, radius_mm=5.0, contrast=3.0)
    assert drawn == white_matter_lesions(generator(3), plain, change, head.affine, 3, radius_mm=5.0, contrast=3.0)
    assert len(drawn) == 3 and all(one.kind == "pet" and one.radius_mm == 5.0 for one in drawn)
    spotted = deform(brain(2.0, lesions=drawn), change, *grid)
    voxels = [np.argwhere(spotted.lesion_ids == number) for number in (1, 2, 3)]
    centers = [2.0 * own[:, :2].mean(axis=0) for own in voxels]
    for number, own in enumerate(voxels, 1):
        assert plain.white[spotted.lesion_ids == number].mean() > 0.7
        assert len(own) * 4 == pytest.approx(np.pi * 25, rel=0.4)  # the sphere's middle lies in the slice
    apart = [np.linalg.norm(centers[i] - centers[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(apart) > 22
    hot = spotted.activity[spotted.lesion_ids > 0].mean() / plain.activity[spotted.lesion_ids > 0].mean()
    assert hot == pytest.approx(3, rel=0.2)


def test_a_head_smoothed_once_deforms_as_one_smoothed_each_time(head):
    change, grid = deformation(5), ((3.0, 3.0, 4.0), (70, 80, 1))
    each = deform(head, change, *grid)
    once = deform(smooth_images(head, grid[0]), change, *grid, smooth=False)
    for name in ("activity", "t1", "mu", "gray", "white"):
        np.testing.assert_array_equal(getattr(once, name), getattr(each, name))
    assert (once.brain_mask != each.brain_mask).mean() < 0.01  # masks are not smoothed


def test_a_volume_is_refused(head):
    change = deformation(5)
    with pytest.raises(DataError, match="expected a slice"):
        white_matter_lesions(3, head, change, head.affine, 3)
