"""Penalties of fields in closed form, and pyramids against block means and known displacements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.registration.pyramid import downsample, resize_displacement
from medjax.registration.regularizer import bending, diffusion, l2

POINTS = jnp.stack(jnp.meshgrid(*[jnp.arange(8.0)] * 3, indexing="ij"))


def test_penalties_of_polynomials():
    matrix = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    affine = jnp.tensordot(matrix, POINTS, 1)
    assert diffusion(affine) == pytest.approx(0.5 * (matrix**2).sum(), rel=1e-5)
    assert bending(affine) == pytest.approx(0, abs=1e-8)
    quadratic = jnp.stack([POINTS[0] ** 2, POINTS[0] * POINTS[1], 0 * POINTS[2]])
    assert bending(quadratic) == pytest.approx(0.5 * (2**2 + 2 * 1**2), rel=1e-5)
    assert l2(2 * jnp.ones((2, 5, 6))) == 4


@pytest.mark.parametrize("penalty", [diffusion, bending, l2])
def test_penalties_are_0_at_rest_with_a_finite_gradient(penalty):
    value, gradient = jax.jit(jax.value_and_grad(penalty))(jnp.zeros((2, 5, 6)))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_downsampling_keeps_means_and_centers():
    ramp = POINTS[0] + 2 * POINTS[1]
    coarse = downsample(ramp, 2)[1:-1, 1:-1, 1:-1]
    expected = ramp.reshape(4, 2, 4, 2, 4, 2).mean((1, 3, 5))[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(coarse, expected, atol=1e-5)
    assert downsample(jnp.ones((7, 5, 9)), (4, 1, 2)).shape == (2, 5, 5)
    np.testing.assert_allclose(downsample(jnp.ones((7, 5)), 4), 1, rtol=1e-6)
    with pytest.raises(DataError, match="factor"):
        downsample(ramp, 0)


def test_displacements_go_from_level_to_level():
    """A linear field in the middle, where no edge is: the same map of space in voxels half as large."""
    field = 0.3 * POINTS + 1
    fine = resize_displacement(field, (16, 16, 16), 2.0)
    at = (np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij")) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(fine[:, 1:-1, 1:-1, 1:-1], 2 * (0.3 * at + 1)[:, 1:-1, 1:-1, 1:-1], atol=1e-5)
    back = resize_displacement(fine, (8, 8, 8), 0.5)
    np.testing.assert_allclose(back[:, 1:-1, 1:-1, 1:-1], field[:, 1:-1, 1:-1, 1:-1], atol=1e-4)
