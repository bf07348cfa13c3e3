"""Summaries of samples; intervals that cover as often as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.posterior import coverage, draw_samples, summarize
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
