"""Summaries of samples; intervals that cover as often as they say; recalibration; diagnostics of chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.posterior import (
    coverage,
    draw_samples,
    effective_sample_size,
    error_bins,
    recalibrate,
    recalibration_factor,
    sharpness,
    split_rhat,
    summarize,
)
from medjax.errors import DataError


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_give_the_same_samples(chunk):
    keys = jax.random.split(jax.random.key(0), 5)
    means = jnp.arange(5.0)
    found = draw_samples(lambda key, mean: mean + jax.random.normal(key, (3,)), keys, means, chunk=chunk)
    for key, mean, one in zip(keys, means, found, strict=True):
        np.testing.assert_allclose(one, mean + jax.random.normal(key, (3,)), rtol=1e-6)


def test_summary_is_numpys():
    samples = jax.random.uniform(jax.random.key(0), (6, 4, 4)) + 1
    found = summarize(samples)
    np.testing.assert_allclose(found.mean, np.mean(samples, axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.standard_deviation, np.std(samples, axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(found.coefficient_of_variation, found.standard_deviation / found.mean, rtol=1e-5)
    assert (summarize(samples.at[:, 0].set(0.0)).coefficient_of_variation[0] == 0).all()
    with pytest.raises(DataError, match="two or more"):
        summarize(samples[:1])


def test_calibrated_samples_cover_as_often_as_they_say():
    key, levels = jax.random.key(0), jnp.asarray([0.5, 0.8, 0.9])
    samples = jax.random.normal(key, (25, 40_000))
    truth = jax.random.normal(jax.random.fold_in(key, 1), (40_000,))
    mask = jnp.ones(40_000, bool)
    np.testing.assert_allclose(coverage(samples, truth, mask, levels), levels, atol=0.01)
    assert np.isnan(coverage(samples, truth, mask, jnp.asarray([0.95]))).all()  # 25 samples do not tell
    narrow = coverage(0.5 * samples, truth, mask, levels)
    assert (narrow < levels - 0.15).all()


def test_intervals_of_normal_samples_are_as_wide_as_their_quantiles_say():
    levels = jnp.asarray([0.5, 0.8, 0.9, 0.98])
    samples = 2 * jax.random.normal(jax.random.key(0), (199, 2_000))
    mask = jnp.arange(2_000) < 1_500
    found = np.asarray(sharpness(samples, mask, levels))
    np.testing.assert_allclose(found[:3], 4 * np.array([0.6745, 1.2816, 1.6449]), rtol=0.03)
    assert np.isfinite(found[3]) and np.isnan(sharpness(samples[:20], mask, levels)[3])


SCANS = np.random.default_rng(0)
TRUE_SD = np.linspace(0.1, 1.0, 12_000).reshape(3, 4_000)  # of three scans
TRUTH = TRUE_SD * SCANS.standard_normal((3, 4_000))
DRAWS = TRUE_SD * SCANS.standard_normal((40, 3, 4_000))
MASK = SCANS.random((3, 4_000)) < 0.7


def test_recalibration_finds_the_factor_that_was_taken_away():
    assert recalibration_factor(DRAWS, TRUTH, MASK) == pytest.approx(1, abs=0.02)
    narrow = recalibrate(jnp.asarray(DRAWS), 0.4)
    assert recalibration_factor(narrow, TRUTH, MASK) == pytest.approx(2.5, abs=0.1)
    np.testing.assert_allclose(recalibrate(narrow, 2.5), DRAWS, atol=1e-5)
    np.testing.assert_allclose(narrow.mean(axis=0), DRAWS.mean(axis=0), atol=1e-5)
    assert np.isnan(recalibration_factor(np.ones((3, 3, 4_000)), TRUTH, MASK))
    with pytest.raises(DataError, match="no voxel"):
        recalibration_factor(DRAWS, TRUTH, np.zeros_like(MASK))
    with pytest.raises(DataError, match="two or more"):
        recalibration_factor(DRAWS[:1], TRUTH, MASK)


def test_error_grows_as_the_samples_say():
    bins = error_bins(DRAWS, TRUTH, MASK, 5)
    assert (np.diff(bins.standard_deviation) > 0).all()
    np.testing.assert_allclose(bins.error, bins.standard_deviation, rtol=0.15)
    total = np.sqrt(np.mean(bins.error**2))
    assert total == pytest.approx(np.sqrt(np.mean((DRAWS.mean(axis=0) - TRUTH)[MASK] ** 2)), rel=1e-3)
    with pytest.raises(DataError, match="bins: 0"):
        error_bins(DRAWS, TRUTH, MASK, 0)


def chains() -> np.ndarray:
    """Autoregressive chains of three voxels, the third one's first chain elsewhere."""
    draw = np.random.default_rng(0).standard_normal((4, 25, 3))
    values, memory = np.zeros_like(draw), np.array([0, 0.8, 0.5])
    for n in range(25):
        values[:, n] = (memory * values[:, n - 1] if n else 0) + draw[:, n]
    values[0, :, 2] += 3
    return values


def test_rhat_and_sample_size_are_those_of_arviz():
    """ArviZ 0.x, az.rhat(…, method="rank") and az.ess(…, method="bulk")."""
    values = chains()
    np.testing.assert_allclose(split_rhat(values), [0.9955039762, 1.1267931172, 1.8387803970], rtol=1e-9)
    np.testing.assert_allclose(effective_sample_size(values), [116.839876571, 27.921225189, 8.6251473080], rtol=1e-9)
    images = values.reshape(4, 25, 3, 1)
    np.testing.assert_array_equal(split_rhat(images)[:, 0], split_rhat(values))


def test_chains_without_a_verdict():
    values = chains()
    values[:, :, 0], values[2, 3, 1] = 7.0, np.nan
    rhat, size = split_rhat(values), effective_sample_size(values)
    assert np.isnan(rhat[:2]).all() and np.isnan(size[:2]).all() and np.isfinite([rhat[2], size[2]]).all()
    for diagnostic in (split_rhat, effective_sample_size):
        with pytest.raises(DataError, match="4 or more draws a chain"):
            diagnostic(values[:, :3])
