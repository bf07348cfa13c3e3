"""Surface metrics against SciPy and the definitions of MONAI and MedPy by brute force in float64; what they obey."""

from functools import partial
from inspect import unwrap  # to call as outside of tests, where no annotation is checked

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from medjax.errors import DataError
from medjax.metrics import surface as metrics
from medjax.metrics.distance import distance_transform

SPACINGS = {(17,): (0.7,), (13, 9): (0.7, 1.9), (7, 6, 8): (2.5, 0.8, 1.1)}
TOLERANCE = 1.5  # mm
TRANSFORM, METRICS = jax.jit(distance_transform), jax.jit(metrics.surface_metrics)


def blob(shape, seed=0, share=0.3):
    """A random mask with structure, which touches the border."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return smooth > np.quantile(smooth, 1 - share)


def one_voxel(shape, index=0):
    mask = np.zeros(shape, bool)
    mask[(index,) * len(shape)] = True
    return mask


def directed(first, second, spacing):
    """Distances of the surface voxels of the first mask to those of the second, by comparing all pairs."""
    points = [
        np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(spacing, float) for mask in (first, second)
    ]
    return cdist(*points).min(axis=1)


def by_definition(first, second, spacing, tolerance=TOLERANCE):
    """(HD, HD95 as MONAI, HD95 as MedPy, ASSD as MONAI, mean of the directed means, NSD as MONAI)."""
    forth, back = directed(first, second, spacing), directed(second, first, spacing)
    pooled = np.hstack((forth, back))
    return (
        max(forth.max(), back.max()),
        max(np.percentile(forth, 95), np.percentile(back, 95)),
        np.percentile(pooled, 95),
        pooled.mean(),
        (forth.mean() + back.mean()) / 2,
        ((forth <= tolerance).sum() + (back <= tolerance).sum()) / pooled.size,
    )


def all_metrics(first, second, spacing, tolerance=TOLERANCE):
    return METRICS(first, second, jnp.asarray(spacing), tolerance=tolerance)


MASKS = {
    "blob": blob,
    "sparse": partial(blob, share=0.03),
    "full": partial(np.ones, dtype=bool),
    "first voxel": one_voxel,
    "inner voxel": partial(one_voxel, index=3),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SPACINGS, ids=str)
def test_distance_transform_and_surface_are_scipys(shape, mask):
    mask = MASKS[mask](shape)
    for spacing in (SPACINGS[shape], SPACINGS[shape][::-1], (1.0,) * len(shape)):
        expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
        np.testing.assert_allclose(TRANSFORM(mask, jnp.asarray(spacing)), expected, rtol=1e-6)
    np.testing.assert_array_equal(metrics.surface(mask), mask & ~ndimage.binary_erosion(mask))


def test_transform_in_four_dimensions_and_in_float64(x64):
    mask = blob((5, 4, 6, 3), share=0.05)
    spacing = (1.3, 0.7, 1.0, 2.1)
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
    np.testing.assert_allclose(distance_transform(mask, spacing), expected, rtol=1e-14)
    distances = metrics.surface_distances(mask, blob(mask.shape, seed=1), spacing)
    expected = np.percentile(np.hstack([each[~np.isnan(each)] for each in map(np.asarray, distances)]), 95)
    np.testing.assert_allclose(metrics.hausdorff_percentile_pooled(distances), expected, rtol=1e-14)


def test_transform_of_nothing_is_infinite_and_default_spacing_is_1_mm():
    assert np.isinf(distance_transform(np.zeros((3, 4), bool))).all()
    np.testing.assert_array_equal(distance_transform(one_voxel((4,))), [0, 1, 2, 3])


def test_long_lines_stay_exact():
    """Far beyond float32's 24 bits a wrong order of operations would show."""
    mask = np.zeros((3, 2000), bool)
    mask[0, 0] = True
    expected = ndimage.distance_transform_edt(~mask, sampling=(5.0, 0.31))
    np.testing.assert_allclose(distance_transform(mask, (5.0, 0.31)), expected, rtol=3e-7)


@pytest.mark.parametrize("second", MASKS)
@pytest.mark.parametrize("first", ["blob", "first voxel"])
@pytest.mark.parametrize("shape", SPACINGS, ids=str)
def test_metrics_are_their_definitions(shape, first, second):
    first, second = MASKS[first](shape, 1) if first == "blob" else one_voxel(shape), MASKS[second](shape)
    found = all_metrics(first, second, SPACINGS[shape])
    np.testing.assert_allclose(found, by_definition(first, second, SPACINGS[shape]), rtol=1e-5, atol=1e-6)


def test_conventions_differ_and_each_field_has_its_own():
    """One stray voxel: the directed percentile sees it on a small surface only, the pooled one not at all."""
    first = one_voxel((13, 9), 4)
    second = first.copy()
    second[4, 4:7] = second[0, 0] = True
    found = all_metrics(first, second, (1, 1))
    forth, back = [0], [0, 1, 2, np.sqrt(32)]
    expected = by_definition(first, second, (1, 1))
    assert expected[1] == np.percentile(back, 95) > np.percentile(forth + back, 95) == expected[2]
    assert expected[3] == pytest.approx(np.mean(forth + back)) and expected[4] == pytest.approx(np.mean(back) / 2)
    named = (found.hd, found.hd95_max, found.hd95_pooled, found.assd_pooled, found.assd_mean, found.nsd)
    np.testing.assert_allclose(named, expected, rtol=1e-6)


@given(seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)), share=st.floats(0.01, 0.9))
def test_random_masks(seeds, share):
    first, second = blob((13, 9), seeds[0], share), blob((13, 9), seeds[1], 0.3)
    spacing = SPACINGS[13, 9]
    found = all_metrics(first, second, spacing)
    np.testing.assert_allclose(found, by_definition(first, second, spacing), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, all_metrics(second, first, spacing), rtol=1e-6)  # symmetric
    np.testing.assert_array_equal(all_metrics(first, first, spacing), [0, 0, 0, 0, 0, 1])


@given(shift=st.integers(0, 5), spacing=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
def test_a_moved_ball_is_its_shift_away(shift, spacing):
    grid = np.indices((16, 12))
    first = ((grid - np.array([5, 5])[:, None, None]) ** 2).sum(0) <= 9
    second = np.roll(first, shift, axis=0)
    np.testing.assert_allclose(all_metrics(first, second, spacing).hd, shift * np.float32(spacing[0]), rtol=1e-6)


@given(scale=st.floats(0.01, 100))
def test_distances_scale_with_the_spacing_and_nsd_with_both(scale):
    first, second, spacing = blob((13, 9)), blob((13, 9), 1), np.array(SPACINGS[13, 9])
    scaled = all_metrics(first, second, scale * spacing, scale * TOLERANCE)
    once = all_metrics(first, second, spacing)
    np.testing.assert_allclose(scaled[:5], scale * np.array(once[:5]), rtol=1e-5)
    np.testing.assert_allclose(scaled.nsd, once.nsd)


@given(percentile=st.floats(0, 100), seed=st.integers(0, 99))
def test_percentiles_are_numpys(percentile, seed):
    first, second = blob((13, 9)), blob((13, 9), seed)
    distances = TEST_DISTANCES(first, second)
    forth, back = (each[~np.isnan(each)] for each in map(np.asarray, distances))
    expected = max(np.percentile(forth, percentile), np.percentile(back, percentile))
    found = PERCENTILE(distances, np.float32(percentile))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


TEST_DISTANCES, PERCENTILE = jax.jit(metrics.surface_distances), jax.jit(metrics.hausdorff_percentile_max)


def test_percentile_of_many_voxels_keeps_its_digits():
    """Where (n − 1) · 0.95 has a fraction that float32 cannot hold beside its whole part; neighbours are 1 apart."""
    count = 200_003
    values = np.arange(count, dtype=np.float32)
    np.random.default_rng(0).shuffle(values)
    distances = metrics.SurfaceDistances(jnp.asarray(values), jnp.zeros(count).at[1:].set(jnp.nan))
    found = metrics.hausdorff_percentile_max(distances)
    np.testing.assert_allclose(found, np.percentile(values.astype(float), 95), rtol=1e-7)
    # the fraction alone, below 1 so that float32 shows it
    steps = jnp.asarray(np.where(values > 0.95 * (count - 1), 1, 0), jnp.float32)
    expected = np.percentile(np.asarray(steps, float), 95)
    assert 0 < expected < 1
    np.testing.assert_allclose(
        metrics.hausdorff_percentile_max(metrics.SurfaceDistances(steps, distances.reference)), expected, atol=1e-5
    )


def test_a_distance_of_the_tolerance_is_within_it():
    """3 · 0.3 mm is above 0.9 mm in float32."""
    first, second = one_voxel((17,)), one_voxel((17,), 3)
    for tolerance, expected in ((0.9, 1), (0.8999, 0), (-1.0, np.nan)):
        np.testing.assert_equal(float(all_metrics(first, second, (0.3,), tolerance).nsd), expected)
    assert float(all_metrics(first, first, (0.3,), 0.0).nsd) == 1


def test_one_empty_mask_is_infinitely_far_and_two_are_nothing():
    mask, empty = blob((13, 9)), np.zeros((13, 9), bool)
    assert np.isnan(all_metrics(empty, empty, (1, 1))).all()
    for pair in ((mask, empty), (empty, mask)):
        np.testing.assert_array_equal(all_metrics(*pair, (1, 1)), [np.inf] * 5 + [0])
    assert np.isinf(np.nanmin(metrics.surface_distances(mask, empty).prediction))


def test_a_failure_counts_as_the_diagonal_if_asked_for():
    """Mean HD95 over a hit, a miss and an image with nothing to find: NaN for both empty hid the miss."""
    mask, empty, spacing = blob((13, 9)), np.zeros((13, 9), bool), SPACINGS[13, 9]
    diagonal = np.hypot(12 * spacing[0], 8 * spacing[1])
    np.testing.assert_allclose(metrics.image_diagonal(mask, spacing), diagonal, rtol=1e-6)
    found = [
        METRICS(*pair, jnp.asarray(spacing), tolerance=TOLERANCE, one_empty=diagonal)
        for pair in ((mask, mask), (mask, empty), (empty, empty))
    ]
    means = [np.nanmean(each) for each in zip(*found, strict=True)]
    np.testing.assert_allclose(means, [diagonal / 2] * 5 + [0.5], rtol=1e-6)


def test_plain_calls_compile_once(caplog):
    masks = blob((13, 9)), blob((13, 9), 1)
    maps = [mask.astype(np.int32) for mask in masks]
    once = metrics.surface_metrics(*masks, (1.0, 1.0), tolerance=1.0)
    each = metrics.surface_metrics_per_class(*maps, (1, 2), (1.0, 1.0), tolerance=1.0)
    np.testing.assert_allclose(np.array(each)[:, 0], np.array(once), rtol=1e-6)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        metrics.surface_metrics(*masks[::-1], (2.0, 1.0), tolerance=2.0)
        metrics.surface_metrics_per_class(*maps[::-1], (2, 1), (2.0, 1.0), tolerance=2.0)
    assert not [one.message for one in caplog.records if "ompil" in one.message]


def test_a_traced_spacing_that_is_none_gives_nan():
    mask = blob((13, 9))
    for wrong in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, np.nan), (np.inf, 1.0)):
        assert np.isnan(TRANSFORM(mask, jnp.asarray(wrong))).all()
        assert np.isnan(all_metrics(mask, blob((13, 9), 1), wrong)).all()


def test_vmap_is_a_loop():
    first = np.stack([blob((13, 9), seed) for seed in range(3)] + [np.zeros((13, 9), bool)])
    second = np.stack([blob((13, 9), seed + 10, 0.1 * seed + 0.1) for seed in range(4)])
    spacing = jnp.asarray(SPACINGS[13, 9])
    batched = jax.jit(jax.vmap(partial(metrics.surface_metrics, tolerance=TOLERANCE), (0, 0, None)))
    looped = [all_metrics(*pair, spacing) for pair in zip(first, second, strict=True)]
    np.testing.assert_allclose(batched(first, second, spacing), np.transpose(looped), rtol=1e-6)


def test_each_class_is_its_mask():
    prediction, reference = (blob((13, 9), 1) + 2 * blob((13, 9), s) for s in (2, 3))
    prediction = np.where(prediction == 3, 2, prediction).astype(np.uint8)
    found = metrics.surface_metrics_per_class(prediction, reference, (1, 2, 3, 7), (0.7, 1.9), tolerance=TOLERANCE)
    for number, label in enumerate((1, 2)):
        expected = all_metrics(prediction == label, reference == label, (0.7, 1.9))
        np.testing.assert_allclose([each[number] for each in found], expected, rtol=1e-6)
    assert found.hd.shape == (4,) and np.isnan([each[3] for each in found]).all()  # 7 is in no map
    np.testing.assert_array_equal([each[2] for each in found], [np.inf] * 5 + [0])  # 3 in one only


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mask: distance_transform(mask, (1.0,)), "spacing: shape"),
        (lambda mask: distance_transform(mask, (1.0, 0.0)), "spacing: .*positive"),
        (lambda mask: distance_transform(mask, (1.0, np.float32("nan"))), "spacing: .*positive"),
        (lambda mask: distance_transform(np.array(True)), r"mask: shape \(\)"),
        (lambda mask: distance_transform(mask[:0]), r"mask: shape \(0, 9\)"),
        (lambda mask: unwrap(distance_transform)(mask.astype(np.int32)), "mask: an array of int32; expected a boolean"),
        (lambda mask: unwrap(metrics.surface_distances)(0.3 * mask, mask), "prediction: an array of float64"),
        (lambda mask: metrics.surface_metrics(mask, mask, (1, -1), tolerance=1), "spacing: .*positive"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call(blob((13, 9)))
    assert "\n" not in str(caught.value)
