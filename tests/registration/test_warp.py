"""Displacement fields against closed forms, autodiff and SciPy's matrix exponential."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.linalg import expm

from medjax.registration.velocity import exponential
from medjax.registration.warp import (
    compose,
    identity,
    invert,
    jacobian_determinant,
    transform_points,
    warp,
    warp_channels,
    warp_labels,
)

SHAPES = [(20, 24), (14, 16, 18)]


def smooth_field(shape, maximum, seed=0):
    """Random displacement of the lowest two sines along each axis, 0 at the edges."""
    rng, size = np.random.default_rng(seed), len(shape)
    waves = [np.sin(np.pi * np.outer([1, 2], np.arange(side)) / (side - 1)) for side in shape]
    weights = rng.normal(size=(size, *[2] * size))
    field = (
        np.einsum("cab,ax,by->cxy", weights, *waves) if size == 2 else np.einsum("cabd,ax,by,dz->cxyz", weights, *waves)
    )
    return jnp.asarray(field * maximum / np.abs(field).max(), jnp.float32)


def linear_field(matrix, shape):
    """M (x − centre), as a field in voxels."""
    center = (np.array(shape) - 1) / 2
    points = np.indices(shape).reshape(len(shape), -1) - center[:, None]
    return jnp.asarray((matrix @ points).reshape(-1, *shape), jnp.float32)


def interior(array, rim=4):
    return np.asarray(array)[(..., *[slice(rim, -rim)] * (2 if array.shape[-2:] == (20, 24) else 3))]


exp = jax.jit(exponential, static_argnames="steps")
determinant = jax.jit(jacobian_determinant)


@pytest.mark.parametrize("shape", SHAPES)
def test_exponential_of_minus_v_is_the_inverse(shape):
    velocity = smooth_field(shape, 2.0)
    there, back = exp(velocity), exp(-velocity)
    assert np.abs(there).max() > 1
    for both in (compose(there, back), compose(back, there)):
        assert np.abs(both).max() < 0.1  # of 2 voxels: what interpolation costs


@pytest.mark.parametrize("shape", SHAPES)
def test_exponential_of_a_constant_is_a_translation(shape):
    velocity = jnp.broadcast_to(
        jnp.asarray([1.5, -2.25, 0.75][: len(shape)]).reshape(-1, *[1] * len(shape)), (len(shape), *shape)
    )
    np.testing.assert_array_equal(exp(velocity), velocity)


@pytest.mark.parametrize("shape", SHAPES)
def test_exponential_of_a_linear_field_is_the_matrix_exponential(shape):
    matrix = np.random.default_rng(1).normal(size=(len(shape),) * 2) * 0.05
    expected = linear_field(expm(matrix) - np.eye(len(shape)), shape)
    np.testing.assert_allclose(interior(exp(linear_field(matrix, shape), steps=12)), interior(expected), atol=2e-3)


@given(st.integers(0, 1000))
def test_fields_of_small_gradients_do_not_fold(seed):
    velocity = smooth_field((20, 24), 1.0, seed)
    slopes = np.stack(np.gradient(np.asarray(velocity), axis=(1, 2)))
    small = velocity * (0.45 / np.abs(slopes).sum(0).max())  # |∂u/∂x| < 1 in the sum norm
    assert determinant(small).min() > 0
    assert determinant(exp(3 * velocity)).min() > 0  # exponentials do not fold at all


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_determinant_is_that_of_autodiff(shape):
    """A quadratic map, whose central differences are exact."""
    rng = np.random.default_rng(2)
    size = len(shape)
    linear = jnp.asarray(rng.normal(size=(size, size)) * 0.1, jnp.float32)
    quadratic = jnp.asarray(rng.normal(size=(size, size)) * 0.01, jnp.float32)

    def mapped(x):
        return x + (linear * x[None]).sum(1) + (quadratic * x[None] ** 2).sum(1)

    points = identity(shape).reshape(size, -1).T
    expected = jax.vmap(lambda x: jnp.linalg.det(jax.jacfwd(mapped)(x)))(points).reshape(shape)
    field = (jax.vmap(mapped)(points) - points).T.reshape(size, *shape)
    np.testing.assert_allclose(interior(determinant(field), 1), interior(expected, 1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse(shape):
    field = smooth_field(shape, 2.5 if len(shape) == 2 else 1.0)
    inverse = jax.jit(partial(invert, iterations=30))(field)
    np.testing.assert_allclose(compose(field, inverse), np.zeros_like(field), atol=2e-4)
    assert np.abs(compose(inverse, field)).max() < 0.15  # interpolated twice


def test_composition_is_that_of_warps_and_associative():
    u, v, w = (smooth_field((20, 24), 2.0, seed) for seed in range(3))
    image = jnp.asarray(ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(20, 24)), 4), jnp.float32)
    twice, once = warp(warp(image, u), v), warp(image, compose(u, v))
    other = warp(image, compose(v, u))
    assert np.abs(twice - once).max() < 0.25 * float(jnp.abs(twice - other).max())  # and the order matters
    left, right = compose(compose(u, v), w), compose(u, compose(v, w))
    assert np.abs(left - right).max() < 0.1


def test_composition_of_translations_adds_exactly():
    u, v = (jnp.broadcast_to(jnp.asarray(t).reshape(2, 1, 1), (2, 8, 9)) for t in ([1.0, 2.0], [0.5, -0.25]))
    np.testing.assert_array_equal(compose(u, v), u + v)


def test_landmarks_go_where_the_image_comes_from():
    """A blob of the moving image is at p: the warped one has it at the q for which transform_points gives p."""
    shape, target = (20, 24), np.array([[11.0, 9.0]])
    moving = np.exp(-((np.indices(shape) - target.T[:, :, None]) ** 2).sum(0) / 8)
    field = smooth_field(shape, 1.5, 5)
    warped = np.asarray(warp(jnp.asarray(moving, jnp.float32), field), float)
    peak = (np.indices(shape) * warped**8).reshape(2, -1).sum(1) / (warped**8).sum()
    found = transform_points(field, jnp.asarray(peak[None], jnp.float32))
    assert np.linalg.norm(peak - target) > 0.3
    np.testing.assert_allclose(found, target, atol=0.12)


def test_channels_and_labels_are_warped_as_images_are():
    field = smooth_field((20, 24), 2.0)
    images = jnp.asarray(np.random.default_rng(4).normal(size=(3, 20, 24)), jnp.float32)
    np.testing.assert_allclose(warp_channels(images, field), [warp(one, field) for one in images], atol=1e-6)
    labels = jnp.asarray(np.random.default_rng(4).integers(0, 5, (20, 24)))
    expected = ndimage.map_coordinates(labels, np.asarray(identity((20, 24)) + field), order=0, mode="nearest")
    np.testing.assert_array_equal(warp_labels(labels, field), expected)


def test_pairs_are_batched_by_vmap():
    fields = jnp.stack([smooth_field((20, 24), 1.0, seed) for seed in range(2)])
    np.testing.assert_allclose(jax.vmap(exponential)(fields)[1], exponential(fields[1]), atol=1e-6)
