"""Measures of a registration in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.registration.evaluation import (
    dice,
    folds_fraction,
    inverse_consistency_mm,
    landmark_errors_mm,
    sd_log_jacobian,
    target_error_mm,
)
from medjax.registration.transforms import AffineTransform
from medjax.registration.warp import identity

POINTS = identity((10, 12))


def test_dice_leaves_the_background_out():
    one, two = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, 2]])
    np.testing.assert_allclose(dice(one, two, 3), [2 / 3, 2 / 3], rtol=1e-6)


def test_folds_and_jacobians_of_linear_fields():
    swapped = jnp.stack([-2 * POINTS[0], 0 * POINTS[1]])  # x → −x
    assert folds_fraction(swapped) == 1
    assert folds_fraction(0.2 * POINTS) == 0
    assert sd_log_jacobian(0.2 * POINTS) == pytest.approx(0, abs=1e-5)
    growing = jnp.stack([jnp.where(POINTS[0] < 5, 0, POINTS[0] - 5), 0 * POINTS[1]])
    rows = np.gradient(np.asarray(growing[0]), axis=0)[2:-2]
    assert sd_log_jacobian(growing) == pytest.approx(np.log(1 + rows)[:, 2:-2].std(), rel=1e-5)


def test_distances_are_in_mm():
    three_four = jnp.stack([jnp.full((10, 12), 3.0), jnp.full((10, 12), 2.0)])
    assert target_error_mm(three_four, 0 * three_four, (1.0, 2.0)) == pytest.approx(5)
    mask = jnp.zeros((10, 12)).at[3].set(1)
    assert target_error_mm(POINTS * mask[None], 0 * POINTS, (1.0, 0.0), mask) == pytest.approx(3)
    assert inverse_consistency_mm(three_four, -three_four, (1.0, 2.0)) == pytest.approx(0, abs=1e-5)
    assert inverse_consistency_mm(three_four, 0 * three_four, (1.0, 2.0)) == pytest.approx(5)
    shift = np.eye(4)
    shift[0, 3] = 2
    errors = landmark_errors_mm(
        (AffineTransform(shift),), np.array([[1.0, 0, 0], [0, 5, 0]]), np.array([[3.0, 0, 0], [2, 5, 4]])
    )
    np.testing.assert_allclose(errors, [0, 4], atol=1e-6)
