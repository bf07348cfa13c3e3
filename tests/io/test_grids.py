"""One grid or not, by where its corners are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import DataError
from medjax.io.grids import TOLERANCE, check_same_grid, corner_distance

SHAPE = (200, 180, 40)


def turned(angle, sizes=(1.0, 1.0, 4.0)):
    """A grid of voxels of these sizes in mm, turned about z through its first voxel."""
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return rotation @ np.diag([*sizes, 1.0])


def test_corners_move_by_the_angle_times_their_distance():
    voxels, millimetres = corner_distance(SHAPE, turned(0.0), turned(0.009))
    reach = np.hypot(199.5, 179.5)  # of the far corner, mm
    np.testing.assert_allclose(millimetres, 2 * np.sin(0.0045) * reach, rtol=1e-9)
    assert 0.009 * 179 < voxels < 0.009 * 201
    assert np.abs(turned(0.0) - turned(0.009)).max() < 1e-2  # no entry tells it


@given(st.tuples(*[st.floats(-TOLERANCE, TOLERANCE)] * 3), st.floats(0.2, 5), st.integers(0, 2))
def test_a_shift_counts_in_voxels(shift, size, axis):
    affine = turned(0.3, (size, 2 * size, 3 * size))
    other = affine.copy()
    other[:3, 3] += 0.99 * affine[:3, :3] @ shift
    check_same_grid("b", SHAPE, other, "a", SHAPE, affine)
    other[:3, 3] = affine[:3, 3] + 1.01 * TOLERANCE * affine[:3, axis]
    with pytest.raises(DataError, match=r"b: another affine than a, corners up to .* mm \(0.05\d* voxels\) apart"):
        check_same_grid("b", SHAPE, other, "a", SHAPE, affine)


def test_rounded_headers_slices_and_images_without_a_place():
    affine = turned(0.3)
    affine[:3, 3] = [-123.456, 78.9, 1000.1]
    check_same_grid("b", SHAPE, affine.astype(np.float32), "a", SHAPE, affine)
    check_same_grid("b", (5, 6), None, "a", (5, 6), affine)
    check_same_grid("b", (5, 6), affine, "a", (5, 6), affine)
    with pytest.raises(DataError, match=r"b: shape \(5, 6\); expected that of a, \(6, 5\)"):
        check_same_grid("b", (5, 6), None, "a", (6, 5), None)
