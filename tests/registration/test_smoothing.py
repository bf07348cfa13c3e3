"""Smoothing against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.registration.smoothing import box_sum, gaussian, window_counts

IMAGE = np.random.default_rng(0).normal(size=(9, 12, 10)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.7])
def test_gaussian_equals_scipy(sigma):
    radius = int(np.ceil(3 * sigma))
    expected = ndimage.gaussian_filter(IMAGE.astype(float), sigma, mode="nearest", radius=radius)
    np.testing.assert_allclose(gaussian(jnp.asarray(IMAGE), sigma), expected, atol=2e-6)


def test_gaussian_of_some_axes_and_of_a_traced_width():
    expected = ndimage.gaussian_filter1d(IMAGE.astype(float), 0.8, axis=1, mode="nearest", radius=3)
    smoothed = jax.jit(lambda x, sigma: gaussian(x, sigma, radius=3, axes=(1,)))(IMAGE, 0.8)
    np.testing.assert_allclose(smoothed, expected, atol=2e-6)
    np.testing.assert_array_equal(gaussian(jnp.asarray(IMAGE), 0.0), IMAGE)


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4])
def test_box_sums_equal_scipy(radius):
    width = 2 * radius + 1
    expected = ndimage.uniform_filter(IMAGE.astype(float), width, mode="constant") * width**3
    np.testing.assert_allclose(box_sum(jnp.asarray(IMAGE), radius), expected, atol=3e-5)
    ones = ndimage.uniform_filter(np.ones(IMAGE.shape), width, mode="constant") * width**3
    np.testing.assert_allclose(window_counts(IMAGE.shape, radius), ones, rtol=1e-6)


@pytest.mark.parametrize("sigma", [-1.0, float("nan")])
def test_wrong_widths_are_refused(sigma):
    with pytest.raises(DataError, match="sigma"):
        gaussian(jnp.asarray(IMAGE), sigma)


def test_a_traced_width_needs_a_radius():
    with pytest.raises(DataError, match="radius"):
        jax.jit(lambda x, sigma: gaussian(x, sigma))(IMAGE, 1.0)
