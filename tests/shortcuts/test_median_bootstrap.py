"""The bootstrap of medians is NumPy's loop over the same resamples; a window that is too small is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.shortcuts.median_bootstrap import (
    bootstrap_medians,
    percentile_interval,
    resample_counts,
    sort_columns,
    weighted_medians,
    windowed_medians,
)

KEY = jax.random.key(3)


def ranks(images, models=2, regions=9):
    draw = np.random.default_rng(0).integers(2, 2 * regions, (models, images, regions))
    return (draw / 2).astype(np.float32)  # half-integers, with many ties


def numpys(values, resamples):
    images = values.shape[1]
    draws = [jax.random.randint(jax.random.fold_in(KEY, b), (images,), 0, images) for b in range(resamples)]
    return np.stack([np.median(values[:, np.asarray(draw)], axis=1) for draw in draws])


@pytest.mark.parametrize("images", [40, 41])
def test_medians_are_those_of_numpys_loop(images):
    values = ranks(images)
    expected = numpys(values, 20)
    np.testing.assert_array_equal(bootstrap_medians(KEY, values, 20), expected)
    for window in (1, 14):
        np.testing.assert_array_equal(bootstrap_medians(KEY, values, 20, window=window, chunk=7), expected)


def test_a_window_too_small_is_flagged():
    values = ranks(201)
    columns = sort_columns(values.transpose(0, 2, 1).reshape(-1, 201))
    counts = resample_counts(KEY, 201, jnp.arange(60))
    exact = weighted_medians(counts, columns, 201)
    wide, narrow = (windowed_medians(counts, columns, 201, window) for window in (40, 3))
    assert wide.ok.all()
    np.testing.assert_array_equal(wide.medians, exact)
    assert 0.2 < 1 - narrow.ok.mean() < 0.9  # the crossing lies within ±3 of the middle in about a third
    np.testing.assert_array_equal(narrow.medians[narrow.ok], exact[narrow.ok])
    np.testing.assert_array_equal(bootstrap_medians(KEY, values, 60, window=3), exact.reshape(60, 2, 9))


def test_counts_are_those_of_the_draws():
    counts = np.asarray(resample_counts(KEY, 30, jnp.arange(5, 9)))
    assert (counts.sum(0) == 30).all()
    drawn = jax.random.randint(jax.random.fold_in(KEY, 6), (30,), 0, 30)
    np.testing.assert_array_equal(counts[:, 1], np.bincount(drawn, minlength=30))


def test_models_share_their_resamples():
    values = ranks(40, models=1)
    medians = bootstrap_medians(KEY, np.concatenate([values, 10 - values]), 20)
    np.testing.assert_array_equal(medians[:, 1], 10 - medians[:, 0])


def test_medians_have_the_bootstraps_exact_distribution():
    """The median of 41 draws is at most the k-th value where 21 or more are: a binomial of probability k / 41."""
    values = np.random.default_rng(1).permutation(41).astype(np.float32)[None, :, None]
    medians = np.asarray(bootstrap_medians(KEY, values, 4000))[:, 0, 0]
    below = [np.mean(medians <= k) for k in range(41)]
    np.testing.assert_allclose(below, stats.binom.sf(20, 41, np.arange(1, 42) / 41), atol=0.03)


def test_intervals_are_quantiles_of_what_is_defined():
    values = np.random.default_rng(2).normal(size=(100, 3)).astype(np.float32)
    values[:10, 1], values[:, 2] = np.nan, np.nan
    interval = percentile_interval(values, 0.9)
    expected = np.quantile(values[:, 0], [0.05, 0.95]), np.quantile(values[10:, 1], [0.05, 0.95])
    np.testing.assert_allclose(np.stack([interval.low, interval.high], 1)[:2], expected, rtol=1e-5)
    np.testing.assert_allclose(interval.undefined, [0, 0.1, 1], atol=1e-6)
    assert np.isnan([interval.low[2], interval.high[2]]).all()


def test_a_region_with_nan_is_nan():
    values = ranks(40)
    values[1, 7, 2] = np.nan
    medians = bootstrap_medians(KEY, values, 20)
    assert np.isnan(medians[:, 1, 2]).all() and np.isnan(medians).sum() == 20


def test_it_lowers_for_accelerators():
    values = jax.ShapeDtypeStruct((2, 40, 9), jnp.float32)
    program = jax.jit(lambda values: bootstrap_medians(KEY, values, 20, window=4))
    jax.export.export(program, platforms=("cpu", "cuda", "tpu"))(values)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="resamples, window, chunk: 0, None, 5000; expected 1 or more"):
        bootstrap_medians(KEY, ranks(5), 0)
    with pytest.raises(DataError, match="expected at least one image"):
        bootstrap_medians(KEY, ranks(0), 5)
    with pytest.raises(ConfigError, match="level: 95"):
        percentile_interval(np.zeros((3, 1)), 95.0)
