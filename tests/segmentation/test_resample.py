"""Resampling against closed forms and scikit-image, crops and their inverse, grey values."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.segmentation.resample import (
    IntensityProperties,
    ct_normalize,
    lowres_axis,
    new_shape,
    nonzero_box,
    resample,
    resample_labels,
    resample_logits,
    uncrop,
    zscore_normalize,
)

RNG = np.random.default_rng(0)


def centers(shape, spacing):
    """mm from the first face."""
    return np.meshgrid(*((np.arange(n) + 0.5) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")


def ramp(shape, spacing):
    x, y, z = centers(shape, spacing)
    return (1 + 2 * x - 3 * y + 0.5 * z)[..., None].astype(np.float32)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("target", [(1.0, 2.0, 1.5), (0.5, 1.0, 0.75)])
def test_a_ramp_stays_a_ramp_inside(order, target):
    """mm, not indices: the value at a place is what it was, but within a voxel of the faces."""
    spacing, shape = (1.0, 1.0, 1.5), (24, 28, 20)
    found = resample(ramp(shape, spacing), spacing, target, order=order)
    wanted = ramp(new_shape(shape, spacing, target), target)
    assert found.shape == wanted.shape
    inside = (slice(8, -8) if order == 3 else slice(2, -2),) * 3
    np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-2 if order == 3 else 1e-3)


def test_as_scikit_image_resizes():
    transform = pytest.importorskip("skimage.transform")
    image = RNG.normal(size=(9, 12, 10, 2)).astype(np.float32)
    for order in (1, 3):
        found = resample(image, (1.0, 1.0, 1.0), (0.7, 1.3, 0.9), order=order)
        wanted = transform.resize(
            image[..., 1], found.shape[:3], order=order, mode="edge", clip=False, anti_aliasing=False
        )
        np.testing.assert_allclose(found[..., 1], wanted, atol=2e-5)


def test_along_a_thick_axis_the_nearest_slice_is_taken():
    image = np.zeros((8, 8, 4, 1), np.float32)
    image[..., 0] = np.arange(4)
    found = resample(image, (1.0, 1.0, 4.0), (0.5, 0.5, 2.0))
    assert found.shape == (16, 16, 8, 1)
    np.testing.assert_allclose(found[5, 5, :, 0], [0, 0, 1, 1, 2, 2, 3, 3], atol=1e-6)
    thin = resample(image, (1.0, 1.0, 2.0), (0.5, 0.5, 1.0))
    assert 0.1 < thin[5, 5, 1, 0] < 0.4  # a mixture


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((1.0, 1.0, 3.0), (1.0, 1.0, 1.0), None),
        ((1.0, 1.0, 3.1), (1.0, 1.0, 1.0), 2),
        ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0), 0),
        ((5.0, 5.0, 1.0), (1.0, 1.0, 1.0), None),
    ],
)
def test_which_axis_is_thick(spacing, target, axis):
    assert lowres_axis(spacing, target) == axis


def ball(shape, spacing, radius=9.0):
    away = sum((one - n * mm / 2) ** 2 for one, n, mm in zip(centers(shape, spacing), shape, spacing, strict=True))
    return (away < radius**2).astype(np.int32) + (away < (radius / 2) ** 2)


@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0, 1.0), 0.1), ((1.0, 1.0, 4.0), 0.3)])
def test_labels_there_and_back(spacing, tolerance):
    """Whole slices of 4 mm are all that a thick axis has: volumes are coarse."""
    labels = ball((24, 26, 28 if spacing[2] == 1 else 7), spacing)
    target = (0.8, 0.8, spacing[2] * 0.8)
    there = resample_labels(labels, spacing, target, 3)
    assert there.dtype == np.int32 and set(np.unique(there)) == {0, 1, 2}
    x, y, z = labels.shape
    back = resample_labels(there, target, spacing, 3, (x, y, z))
    assert (back == labels).mean() > 0.98
    volumes = [np.bincount(one.ravel()) * np.prod(mm) for one, mm in ((labels, spacing), (there, target))]
    np.testing.assert_allclose(volumes[1][1:], volumes[0][1:], rtol=tolerance)


def test_labels_of_half_planes_are_exact():
    """A straight edge on a voxel's face stays where it is; class 5 is not mixed of 3 and 7."""
    labels = np.full((8, 8, 8), 3, np.int32)
    labels[4:] = 7
    there = resample_labels(labels, (1.0, 1.0, 1.0), (0.5, 1.0, 1.0), 8)
    np.testing.assert_array_equal(there[:8], 3)
    np.testing.assert_array_equal(there[8:], 7)


def test_logits_come_back_on_any_grid():
    logits = np.concatenate([ramp((10, 12, 9), (1.0, 1.0, 1.0)), -ramp((10, 12, 9), (1.0, 1.0, 1.0))], axis=-1)
    back = resample_logits(logits, (1.0, 1.0, 1.0), (0.5, 0.75, 1.0), (20, 16, 9))
    wanted = ramp((20, 16, 9), (0.5, 0.75, 1.0))
    np.testing.assert_allclose(back[2:-2, 2:-2, :, :1], wanted[2:-2, 2:-2], atol=1e-3)
    np.testing.assert_allclose(back[..., 1], -back[..., 0], atol=1e-5)


def test_the_same_grid_changes_nothing():
    image = RNG.normal(size=(5, 6, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(resample(image, (1.0, 1.0, 2.0), (1.0, 1.0, 2.0)), image)


def test_the_crop_and_its_inverse():
    image = np.zeros((9, 8, 7, 2), np.float32)
    image[2:6, 3:7, 1:3, 0] = 1.0
    image[5:8, 3:4, 1:5, 1] = -2.0
    image[3, 4, 1] = 0.0
    box, inside = nonzero_box(image)
    assert box == (slice(2, 8), slice(3, 7), slice(1, 5))
    assert inside.sum() == (image != 0).any(-1).sum()  # on the face, 3, 4, 1 is no hole
    np.testing.assert_array_equal(uncrop(image[box], box, (9, 8, 7), np.zeros(2)), image)
    outside = uncrop(image[box], box, (9, 8, 7), np.array([4.0, 5.0]))
    np.testing.assert_array_equal(outside[0, 0, 0], [4, 5])
    full = np.ones((5, 5, 5, 1), np.float32)
    full[2, 2, 2] = 0
    assert nonzero_box(full)[1].all()
    with pytest.raises(DataError, match="every voxel is 0"):
        nonzero_box(np.zeros((3, 3, 3, 1), np.float32))


def test_grey_values():
    image = RNG.normal(5, 3, size=(8, 8, 8)).astype(np.float32)
    whole = zscore_normalize(image)
    assert abs(whole.mean()) < 1e-5 and abs(whole.std() - 1) < 1e-5
    inside = np.zeros((8, 8, 8), bool)
    inside[2:5] = True
    part = zscore_normalize(image, inside)
    assert abs(part[inside].mean()) < 1e-5 and abs(part[inside].std() - 1) < 1e-5 and not part[~inside].any()
    assert not zscore_normalize(np.full((2, 2, 2), 7.0, np.float32)).any()
    units = np.array([-1000.0, -100.0, 50.0, 3000.0], np.float32).reshape(4, 1, 1)
    found = ct_normalize(units, IntensityProperties(50.0, 100.0, -150.0, 250.0))
    np.testing.assert_allclose(found.ravel(), [-2, -1.5, 0, 2])
