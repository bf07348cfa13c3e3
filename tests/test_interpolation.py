"""Interpolation against SciPy, values and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.interpolation import in_field_of_view, sample, sample_nearest

RNG = np.random.default_rng(0)


def case(shape, channels=2):
    images = RNG.normal(size=(channels, *shape)).astype("float32")
    inside = np.stack([RNG.uniform(0, side - 1, (4, 5)) for side in shape]).astype("float32")
    wide = np.stack([RNG.uniform(-3, side + 2, (4, 5)) for side in shape]).astype("float32")
    return images, inside, wide


@pytest.mark.parametrize("shape", [(7, 9), (5, 1, 6), (6, 7, 8)])
def test_sample_is_scipys(shape):
    images, inside, wide = case(shape)
    for coords in (inside, wide):
        expected = [ndimage.map_coordinates(one, coords, order=1, mode="nearest") for one in images]
        np.testing.assert_allclose(sample(jnp.asarray(images), jnp.asarray(coords)), expected, atol=2e-5)


def test_voxel_centers_keep_their_values():
    image = jnp.asarray(RNG.normal(size=(1, 4, 3)), jnp.float32)
    points = jnp.asarray(np.indices((4, 3)), jnp.float32)
    for interpolate in (sample, sample_nearest):
        np.testing.assert_array_equal(interpolate(image, points, outside=9.0), image)


def test_outside_begins_half_a_voxel_beyond_the_last_center():
    image = jnp.asarray([[1.0, 2.0, 4.0]])
    points = jnp.asarray([[-0.6, -0.4, 2.4, 2.6]])
    np.testing.assert_allclose(sample(image, points, outside=-1.0), [[-1, 1, 4, -1]])
    np.testing.assert_allclose(sample(image, points), [[1, 1, 4, 4]])
    np.testing.assert_array_equal(in_field_of_view(points, (3,)), [False, True, True, False])


def test_nearest_keeps_labels_and_their_type():
    labels = RNG.integers(0, 9, (1, 5, 6)).astype("int32")
    points = RNG.uniform(-1, 5, (2, 50)).astype("float32")
    found = sample_nearest(jnp.asarray(labels), jnp.asarray(points), outside=-1)
    expected = ndimage.map_coordinates(labels[0], np.floor(points + 0.5), order=0, mode="nearest")
    inside = ((points >= -0.5) & (points <= np.array([[4.5], [5.5]]))).all(0)
    np.testing.assert_array_equal(found[0], np.where(inside, expected, -1))
    assert found.dtype == labels.dtype


@pytest.mark.parametrize("outside", [None, 0.5])
def test_derivatives_are_those_of_the_interpolant(outside):
    """Of images: sample is linear in them. Of coordinates: central differences in float64 of SciPy's interpolant."""
    images, inside, _ = case((6, 7, 8))
    coords = np.floor(np.minimum(inside, 4)) + RNG.uniform(0.1, 0.9, inside.shape).astype("float32")
    weights = RNG.normal(size=(2, 4, 5)).astype("float32")

    def total(images, coords):
        return jnp.sum(weights * sample(images, coords, outside=outside))

    by_images, by_coords = jax.grad(total, (0, 1))(jnp.asarray(images), jnp.asarray(coords))
    other = RNG.normal(size=images.shape).astype("float32")
    np.testing.assert_allclose(np.sum(by_images * other), total(jnp.asarray(other), jnp.asarray(coords)), rtol=1e-4)
    for axis in range(3):
        step = np.zeros((3, 1, 1))
        step[axis] = 0.05  # linear along each axis within a voxel, so a finite difference is exact
        apart = [
            ndimage.map_coordinates(one, coords + step, order=1) - ndimage.map_coordinates(one, coords - step, order=1)
            for one in images.astype(float)
        ]
        np.testing.assert_allclose(by_coords[axis], np.sum(weights * apart, 0) / 0.1, atol=1e-4)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(DataError, match="2 components"):
        sample(jnp.zeros((1, 3, 3, 3)), jnp.zeros((2, 5)))
