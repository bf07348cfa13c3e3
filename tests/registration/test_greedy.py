"""Greedy registration: a known warp, a start, masks, many pairs, repeats, and images without anything to register."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax import iterate
from medjax.errors import DataError
from medjax.registration.evaluation import folds_fraction, inverse_consistency_mm, target_error_mm
from medjax.registration.greedy import greedy, init, register
from medjax.registration.similarity import lncc, mean_squares
from medjax.registration.warp import warp


def warped_pair(shape, seed=0, max_displacement=2.5, noise=0.01):
    """Blobs, the same through a smooth random warp, and the warp: fixed(x) = moving(x + u(x))."""
    draw = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    moving = ndimage.gaussian_filter(draw.normal(size=shape), 2.0, mode="constant")
    moving = moving / np.abs(moving).max() * 0.5 + 0.5
    field = np.stack([ndimage.gaussian_filter(draw.normal(size=shape), 5.0, mode="constant") for _ in shape])
    field *= max_displacement / np.sqrt((field**2).sum(0)).max()
    fixed = ndimage.map_coordinates(moving, points + field, order=1, mode="nearest")
    images = [(image + noise * draw.normal(size=shape)).astype(np.float32) for image in (fixed, moving)]
    return *images, field.astype(np.float32)


SHORT = {"factors": (2, 1), "iterations": (30, 20)}
flat = jax.jit(partial(register, similarity=mean_squares, **SHORT))
many = jax.jit(jax.vmap(partial(register, similarity=mean_squares, **SHORT)))


@pytest.mark.optimized
@pytest.mark.parametrize(("shape", "similarity"), [((24, 22, 26), lncc(2)), ((40, 36), mean_squares)])
def test_a_known_warp_is_recovered(shape, similarity):
    fixed, moving, field = warped_pair(shape, max_displacement=1.0 * len(shape) - 0.5)
    result = register(fixed, moving, similarity=similarity, **SHORT)
    ones = (1.0,) * len(shape)
    inner = np.zeros(shape, np.float32)
    inner[(slice(4, -4),) * len(shape)] = 1  # what leaves the image at an edge cannot be known
    error, before = (target_error_mm(each, field, ones, inner) for each in (result.displacement, 0 * field))
    assert error < 0.4 * before
    assert folds_fraction(result.displacement) == 0
    assert inverse_consistency_mm(result.displacement, result.inverse, ones) < 0.05
    assert np.mean((warp(jnp.asarray(moving), result.displacement) - fixed) ** 2) < 0.2 * np.mean((moving - fixed) ** 2)


def test_pairs_in_a_batch_are_registered_as_one_by_one_and_the_same_on_repeat():
    pairs = [warped_pair((20, 18), seed, max_displacement=1.0) for seed in range(3)]
    fixed, moving = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
    batch = many(fixed, moving)
    for number in range(3):
        alone, again = (flat(fixed[number], moving[number]) for _ in range(2))
        np.testing.assert_allclose(batch.displacement[number], alone.displacement, atol=5e-3)
        np.testing.assert_array_equal(alone.displacement, again.displacement)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e5])
def test_constant_images_are_left_where_they_are(level):
    constant = np.full((20, 18), level, np.float32)
    result = flat(constant, constant)
    np.testing.assert_array_equal(result.displacement, 0)
    np.testing.assert_array_equal(result.inverse, 0)
    assert np.isfinite(flat(constant, warped_pair((20, 18))[1]).displacement).all()


def test_scales_of_intensity_do_not_matter():
    fixed, moving, _ = warped_pair((20, 18), max_displacement=1.0)
    one, other = flat(fixed, moving), flat(1024 * fixed, 1024 * moving)
    np.testing.assert_allclose(one.displacement, other.displacement, atol=5e-3)


def test_a_start_is_refined_and_the_mask_is_heeded():
    fixed, moving, field = warped_pair((20, 18))
    refine = partial(register, similarity=mean_squares, factors=(1,), iterations=(5,))
    started = refine(fixed, moving, start=jnp.asarray(field))
    assert target_error_mm(started.displacement, field, (1.0, 1.0)) < 0.5
    none = refine(fixed, moving, mask=np.zeros((20, 18), np.float32))
    np.testing.assert_array_equal(none.displacement, 0)


def test_a_level_is_an_algorithm_whose_settings_are_traced():
    fixed, moving, _ = warped_pair((20, 18))

    @jax.jit
    def losses(max_step, sigma):
        level = greedy(
            jnp.asarray(fixed), jnp.asarray(moving), mean_squares, max_step=max_step, update_sigma=sigma, radii=(4, 2)
        )
        return iterate.scan(level, init(jnp.zeros((2, 20, 18))), 15)[1].loss

    swept = jax.vmap(losses)(jnp.array([0.0, 0.5]), jnp.array([1.0, 1.0]))
    assert swept[0].max() == swept[0].min() == swept[1, 0]
    assert swept[1, -1] < 0.5 * swept[1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moving": np.zeros((20, 17), np.float32)}, r"moving: shape \(20, 17\); expected \(20, 18\)"),
        ({"moving": np.zeros((20, 18, 4), np.float32)}, "moving: shape"),
        ({"fixed": np.full((20, 18), np.nan, np.float32)}, "fixed: holds values that are not finite"),
        ({"mask": np.full((20, 18), np.inf, np.float32)}, "mask: holds"),
        ({"start": np.zeros((3, 20, 18), np.float32)}, "start: shape"),
        ({"factors": (2, 1), "iterations": (3,)}, "factors"),
    ],
)
def test_bad_input_is_refused(change, message):
    images = {"fixed": np.zeros((20, 18), np.float32), "moving": np.zeros((20, 18), np.float32)}
    with pytest.raises(DataError, match=message):
        register(**(images | change))
