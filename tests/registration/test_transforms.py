"""Grids and transforms in mm: closed forms, and SimpleITK's resampling of oblique images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.registration.grid import Grid, center_mm, check_grid, to_voxel, to_world, voxel_mm
from medjax.registration.transforms import (
    AffineTransform,
    FieldTransform,
    compose_chain,
    from_displacement,
    invert_chain,
    resample,
    to_displacement,
    transform_world_points,
)
from medjax.registration.warp import warp

RNG = np.random.default_rng(0)


def rotation(*degrees):
    from scipy.spatial.transform import Rotation

    return (
        Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
        if len(degrees) == 3
        else np.array(
            [
                [np.cos(np.radians(degrees[0])), -np.sin(np.radians(degrees[0]))],
                [np.sin(np.radians(degrees[0])), np.cos(np.radians(degrees[0]))],
            ]
        )
    )


def homogeneous(linear, shift):
    out = np.eye(len(shift) + 1)
    out[:-1, :-1], out[:-1, -1] = linear, shift
    return out


def centered(shape, linear, center):
    return Grid(shape, homogeneous(linear, center - linear @ (np.array(shape) - 1) / 2))


FIXED = Grid((12, 14, 10), homogeneous(rotation(10, -5, 20) * np.array([2.0, 1.5, 3.0]), [-10.0, 20.0, 5.0]))
# another orientation (axes flipped and swapped), another voxel size, oblique in another way
MOVING = centered(
    (14, 11, 16), (rotation(-15, 8, 5) * np.array([2.5, 2.0, 2.2]))[:, [2, 0, 1]] * [1, -1, 1], center_mm(FIXED) + 2
)
PLANE = Grid((15, 17), homogeneous(rotation(25) * np.array([1.5, 2.0]), [4.0, -7.0]))
OTHER_PLANE = centered((18, 16), rotation(-10) * np.array([-1.2, 2.2]), center_mm(PLANE) + 2)
PAIRS = [(FIXED, MOVING), (PLANE, OTHER_PLANE)]


def smooth(shape, sigma=2.0, seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma).astype("float32")


def field_on(grid, maximum=3.0, seed=1):
    field = np.stack([smooth(grid.shape, 2.5, seed + k) for k in range(len(grid.shape))])
    return FieldTransform(jnp.asarray(field * maximum / np.abs(field).max()), grid)


def affine_near(grid):
    """A rotation, scale and shear about the middle of a grid, and a shift."""
    size = len(grid.shape)
    linear = rotation(*([12, -7, 5] if size == 3 else [12])) * (1 + 0.05 * np.arange(size)) + 0.02
    center = center_mm(grid)
    return AffineTransform(homogeneous(linear, center + 1.5 - linear @ center))


def test_world_and_voxels():
    voxels = RNG.uniform(0, 10, (5, 3))
    world = to_world(FIXED, voxels)
    np.testing.assert_allclose(world, voxels @ FIXED.affine[:3, :3].T + FIXED.affine[:3, 3])
    np.testing.assert_allclose(to_voxel(FIXED, world), voxels)
    np.testing.assert_allclose(voxel_mm(FIXED), [2, 1.5, 3])
    np.testing.assert_allclose(to_voxel(FIXED, center_mm(FIXED)[None])[0], [5.5, 6.5, 4.5])


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_a_chain_is_its_transforms_one_after_another(fixed, moving):
    affine, field = affine_near(fixed), field_on(fixed)
    points = to_world(fixed, RNG.uniform(2, 8, (20, len(fixed.shape))))
    one = transform_world_points((field,), points)
    both = transform_world_points((field, affine), points)
    np.testing.assert_allclose(both, np.asarray(one) @ affine.matrix[:-1, :-1].T + affine.matrix[:-1, -1], atol=1e-4)
    other = transform_world_points((affine, field), points)
    assert np.abs(both - other).max() > 0.1


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_resampling_is_scipys(fixed, moving):
    """An affine in world space is one matrix between voxels, which SciPy resamples with."""
    image, affine = smooth(moving.shape), affine_near(fixed)
    matrix = np.linalg.inv(moving.affine) @ affine.matrix @ fixed.affine
    expected = ndimage.affine_transform(image, matrix[:-1, :-1], matrix[:-1, -1], fixed.shape, order=1, mode="nearest")
    found = resample(image, moving, fixed, (affine,), outside=None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    coords = (matrix[:-1, :-1] @ np.indices(fixed.shape).reshape(len(fixed.shape), -1)).reshape(-1, *fixed.shape)
    coords += matrix[:-1, -1].reshape(-1, *[1] * len(fixed.shape))
    high = np.array(moving.shape).reshape(-1, *[1] * len(fixed.shape)) - 0.5
    outside = ((coords < -0.5) | (coords > high)).any(0)
    assert 0.05 < outside.mean() < 0.8
    np.testing.assert_allclose(
        resample(image, moving, fixed, (affine,), outside=-3.0), np.where(outside, -3, expected), atol=1e-5
    )


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_one_field_and_one_displacement_do_what_the_chain_does(fixed, moving):
    chain = (field_on(fixed), affine_near(fixed))
    image = jnp.asarray(smooth(moving.shape))
    expected = resample(image, moving, fixed, chain)
    np.testing.assert_allclose(resample(image, moving, fixed, (compose_chain(chain, fixed),)), expected, atol=2e-5)
    displacement = to_displacement(chain, fixed, moving)
    np.testing.assert_allclose(warp(image, displacement, outside=0.0), expected, atol=1e-6)


def test_displacements_in_voxels_become_mm():
    displacement = jnp.asarray(smooth((3, *FIXED.shape)))
    image = jnp.asarray(smooth(FIXED.shape, seed=3))
    found = resample(image, FIXED, FIXED, (from_displacement(displacement, FIXED),), outside=None)
    np.testing.assert_allclose(found, warp(image, displacement), atol=2e-5)


@pytest.mark.parametrize("fixed", [FIXED, PLANE])
def test_inverse_chain(fixed):
    """Also where one field holds a whole affine, which a plain fixed point of −d(y + v) would not invert."""
    affine, field = affine_near(fixed), field_on(fixed, 1.0)
    points = to_world(fixed, np.array(fixed.shape) / 2 + RNG.uniform(-1.5, 1.5, (30, len(fixed.shape))))
    for chain in ((field, affine), (compose_chain((field, affine), fixed),)):
        there = transform_world_points(chain, points)
        assert np.abs(there - points).max() > 1
        back = transform_world_points(invert_chain(chain), np.asarray(there))
        np.testing.assert_allclose(back, points, atol=0.12)  # mm: fields are interpolated


def test_a_large_affine_in_a_field_is_inverted_exactly():
    center = center_mm(PLANE)
    linear = 0.4 * rotation(60)
    chain = (AffineTransform(homogeneous(linear, center - linear @ center)),)
    (inverse,) = invert_chain((compose_chain(chain, PLANE),))
    expected = compose_chain(invert_chain(chain), PLANE)
    np.testing.assert_allclose(inverse.displacement_mm, expected.displacement_mm, atol=1e-3)


def test_labels_keep_their_type_and_values():
    labels = RNG.integers(0, 300, MOVING.shape).astype("uint16")
    found = resample(labels, MOVING, FIXED, (affine_near(FIXED),), order="nearest", outside=0)
    assert found.dtype == np.uint16
    assert set(np.unique(found)) <= {0, *np.unique(labels)}


def test_grids_and_transforms_are_pytrees():
    """Batches of pairs: affines and fields are data."""
    chain = (field_on(PLANE), affine_near(PLANE))
    image = jnp.asarray(smooth(OTHER_PLANE.shape))
    two = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(image, OTHER_PLANE, PLANE, chain)] * 2)
    found = jax.jit(jax.vmap(resample))(*two)
    np.testing.assert_allclose(found[1], resample(image, OTHER_PLANE, PLANE, chain), atol=1e-4)


def test_bad_input():
    image = np.zeros(PLANE.shape, "float32")
    with pytest.raises(DataError, match="2-D"):
        resample(image, PLANE, FIXED)
    with pytest.raises(DataError, match="3-D"):
        resample(image, PLANE, PLANE, (affine_near(FIXED),))
    with pytest.raises(DataError, match="shape"):
        resample(image, OTHER_PLANE, PLANE)
    for broken in (Grid((3, 3), np.eye(4)), Grid((3, 3), np.zeros((3, 3))), Grid((3,), np.eye(2))):
        with pytest.raises(DataError, match="grid"):
            check_grid(broken)


def to_itk(grid, image):
    sitk = pytest.importorskip("SimpleITK")
    size = len(grid.shape)
    flip = np.array([-1.0, -1.0, 1.0])[:size]
    out = sitk.GetImageFromArray(np.asarray(image).T)
    spacing = voxel_mm(grid)
    out.SetSpacing(spacing.tolist())
    out.SetOrigin((flip * grid.affine[:-1, -1]).tolist())
    out.SetDirection((flip[:, None] * grid.affine[:-1, :-1] / spacing).ravel().tolist())
    return out


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_affine_conventions_are_simpleitks(fixed, moving):
    sitk = pytest.importorskip("SimpleITK")
    size, affine, image = len(fixed.shape), affine_near(fixed), smooth(moving.shape)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0] if size == 3 else [-1.0, -1.0, 1.0])
    lps = flip @ affine.matrix @ flip
    transform = sitk.AffineTransform(lps[:-1, :-1].ravel().tolist(), lps[:-1, -1].tolist())
    for order, interpolator in (("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)):
        expected = sitk.Resample(
            to_itk(moving, image), to_itk(fixed, np.zeros(fixed.shape, "float32")), transform, interpolator, -2.0
        )
        expected = sitk.GetArrayFromImage(expected).T
        found = resample(image, moving, fixed, (affine,), order=order, outside=-2.0)
        assert 0.05 < (expected == -2).mean() < 0.8
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_fields_and_chains_are_simpleitks(fixed, moving):
    """SimpleITK's composite applies its last transform first. The field has a smaller grid than the fixed image."""
    sitk = pytest.importorskip("SimpleITK")
    size, image, affine = len(fixed.shape), smooth(moving.shape), affine_near(fixed)
    small = Grid(tuple(side - 3 for side in fixed.shape), fixed.affine)
    field = field_on(small)
    flip = np.array([-1.0, -1.0, 1.0])[:size].reshape(-1, *[1] * size)
    vectors = sitk.GetImageFromArray(
        np.moveaxis(np.asarray(field.displacement_mm, float) * flip, 0, -1).transpose(*range(size)[::-1], size),
        isVector=True,
    )
    vectors.CopyInformation(to_itk(small, np.zeros(small.shape, "float32")))
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0] if size == 3 else [-1.0, -1.0, 1.0])
    lps = matrix @ affine.matrix @ matrix
    chain = sitk.CompositeTransform(
        [
            sitk.AffineTransform(lps[:-1, :-1].ravel().tolist(), lps[:-1, -1].tolist()),
            sitk.DisplacementFieldTransform(vectors),
        ]
    )
    reference = to_itk(fixed, np.zeros(fixed.shape, "float32"))
    expected = sitk.GetArrayFromImage(sitk.Resample(to_itk(moving, image), reference, chain, sitk.sitkLinear, 0.0)).T
    found = resample(image, moving, fixed, (field, affine))
    different = np.abs(found - expected) > 1e-4
    assert different.mean() < 2e-3  # the last digit decides at the edge of the field
    points = to_world(fixed, RNG.uniform(0, 8, (10, size)))
    signs = flip.ravel()
    theirs = [np.array(chain.TransformPoint((signs * point).tolist())) * signs for point in points]
    np.testing.assert_allclose(transform_world_points((field, affine), points), theirs, atol=1e-4)
