"""Rigid and affine registration: known maps between grids of other orientation, voxel size and shape, and bad input."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medjax.errors import DataError
from medjax.registration.affine_registration import center_of_mass, register_affine, to_matrix
from medjax.registration.grid import Grid
from medjax.registration.similarity import lncc

BLOBS = np.random.default_rng(5)
CENTERS, WIDTHS, HEIGHTS = BLOBS.normal(size=(30, 3)) * 20, BLOBS.uniform(6, 14, 30), BLOBS.uniform(0.3, 1, 30)
LEVELS = {"factors": (2, 1), "iterations": (60, 30)}


def image(grid, matrix=None):
    """Blobs, sampled at the grid's voxels, or at what `matrix` makes of their world points."""
    points = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")).astype(float)
    matrix = grid.affine if matrix is None else matrix @ grid.affine
    world = np.tensordot(matrix[:3, :3], points, 1) + matrix[:3, 3].reshape(3, 1, 1, 1)
    total = np.zeros(grid.shape)
    for center, width, height in zip(CENTERS, WIDTHS, HEIGHTS, strict=True):
        total += height * np.exp(-((world - center.reshape(3, 1, 1, 1)) ** 2).sum(0) / 2 / width**2)
    return total.astype(np.float32)


def grid_about(linear, shape, shift=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = shift - linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


FIXED = grid_about(np.diag([5.0, 5.0, 5.0]), (24, 24, 22))
TURN = Rotation.from_euler("xyz", [10, -8, 15], degrees=True).as_matrix()
MOVING = grid_about(TURN[:, [2, 0, 1]] @ np.diag([7.0, -4.5, 4.5]), (18, 28, 26), (5, -3, 8))
PLACES = np.concatenate([CENTERS.T, np.ones((1, 30))])  # where the error is measured


def known(angles_deg, shift_mm, strain=None):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(angles_deg)).as_matrix() @ (
        np.eye(3) if strain is None else strain
    )
    matrix[:3, 3] = shift_mm
    return matrix


STRAIN = np.array([[1.1, 0.06, -0.04], [0, 0.93, 0.05], [0, 0, 1.05]])


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("kind", "matrix", "contrast"),
    [
        ("rigid", known([14, -12, 8], [20, -10, 5]), np.asarray),
        ("affine", known([6, -8, 5], [4, -6, 8], STRAIN), lambda x: np.exp(-x)),  # as of another modality
    ],
    ids=["rigid", "affine"],
)
def test_known_maps_are_recovered(kind, matrix, contrast):
    fixed, moving = image(FIXED), image(MOVING, np.linalg.inv(matrix))
    found = np.asarray(register_affine(fixed, FIXED, contrast(moving), MOVING, kind=kind, **LEVELS), float)
    errors = np.linalg.norm((found @ PLACES - matrix @ PLACES)[:3], axis=0)
    assert errors.mean() < 0.5
    if kind == "rigid":
        np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-5)
        assert np.degrees(Rotation.from_matrix(found[:3, :3] @ matrix[:3, :3].T).magnitude()) < 0.5


def test_planes_are_registered_from_a_start():
    grid = Grid((30, 28), np.diag([3.0, 3.0, 1.0]))
    plane = image(FIXED)[:, :, 11]
    wide = ndimage.zoom(plane, 2, order=3)[9:39, 9:37].astype(np.float32)
    shifted = Grid((30, 28), np.array([[3.0, 0, 6], [0, 3, -3], [0, 0, 1]]))  # the same plane elsewhere in the world
    matrix = register_affine(
        wide,
        grid,
        wide,
        shifted,
        kind="rigid",
        similarity=lncc(4),
        factors=(2, 1),
        iterations=(40, 30),
        start=np.eye(3),
    )
    np.testing.assert_allclose(matrix, [[1, 0, 6], [0, 1, -3], [0, 0, 1]], atol=0.3)  # a tenth of a voxel


def test_parameters_are_rotations_scales_and_shears_about_the_center():
    center, radius = jnp.array([3.0, -2.0, 5.0]), jnp.array(50.0)
    angles, strains = np.array([0.3, -0.2, 0.5]), np.array([0.1, -0.05, 0.2, 0.02, 0.03, -0.04])
    parameters = jnp.asarray(np.concatenate([[1, 2, 3], 50 * angles, 50 * strains]), jnp.float32)
    matrix = np.asarray(to_matrix(parameters, center, radius, "affine"))
    upper = np.diag(np.exp(strains[:3]))
    upper[np.triu_indices(3, 1)] = strains[3:]
    np.testing.assert_allclose(matrix[:3, :3], Rotation.from_rotvec(angles).as_matrix() @ upper, atol=1e-6)
    np.testing.assert_allclose(matrix[:3, :3] @ center + matrix[:3, 3], center + np.array([1, 2, 3]), atol=1e-5)
    np.testing.assert_array_equal(to_matrix(jnp.zeros(6), center, radius, "rigid"), np.eye(4))


def test_center_of_mass_is_in_the_world_and_that_of_the_grid_for_a_constant_image():
    point = np.full(FIXED.shape, -3.0, np.float32)
    point[4, 7, 9] = 1
    np.testing.assert_allclose(center_of_mass(point, FIXED), (FIXED.affine @ [4, 7, 9, 1])[:3])
    np.testing.assert_allclose(center_of_mass(0 * point, FIXED), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moving": np.zeros((4, 4), np.float32)}, "moving: 2 axes; expected 3"),
        ({"moving": np.zeros((4, 4, 4), np.float32)}, r"moving: shape \(4, 4, 4\); expected that of its grid"),
        ({"fixed": np.full((6, 6, 6), np.nan, np.float32)}, "fixed: holds values that are not finite"),
        ({"iterations": (1,)}, "factors"),
        ({"moving_grid": Grid((6, 6, 6), np.zeros((4, 4)))}, "singular"),
    ],
)
def test_bad_input_is_refused(change, message):
    zeros, grid = np.zeros((6, 6, 6), np.float32), Grid((6, 6, 6), np.eye(4))
    arguments = {"fixed": zeros, "fixed_grid": grid, "moving": zeros, "moving_grid": grid, "kind": "rigid", **LEVELS}
    arguments |= change
    images = [arguments.pop(name) for name in ("fixed", "fixed_grid", "moving", "moving_grid")]
    with pytest.raises(DataError, match=message):
        register_affine(*images, **arguments)


def test_a_start_that_leaves_no_overlap_is_refused():
    far = np.eye(4)
    far[0, 3] = 1e4
    run = partial(register_affine, image(FIXED), FIXED, image(FIXED), FIXED, kind="rigid", similarity=lncc(1))
    with pytest.raises(DataError, match="field of view"):
        run(factors=(2,), iterations=(1,), start=far)
