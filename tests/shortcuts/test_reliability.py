"""Split-half reliability: that of the psychometric model, and its limits."""

import jax
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.metrics.correlation import pearson
from medjax.shortcuts.reliability import split_half_reliability

KEY = jax.random.key(0)


def images(number, signal, seed=0, regions=400):
    draw = np.random.default_rng(seed)
    return signal * np.random.default_rng(9).normal(size=regions) + draw.normal(size=(number, regions))


def test_it_is_the_correlation_with_the_profile_of_other_images():
    profiles = [np.median(images(40, 0.2, seed), 0) for seed in range(6)]
    others = [pearson(profiles[0], other) for other in profiles[1:]]
    assert float(split_half_reliability(KEY, images(40, 0.2)).median) == pytest.approx(np.mean(others), abs=0.06)


def test_a_split_is_the_correlation_of_two_halves():
    values = images(5, 1)
    found = split_half_reliability(KEY, values, 1)
    chosen = np.asarray(jax.random.permutation(jax.random.split(KEY, 1)[0], 5))
    halves = [np.median(values[np.isin(chosen, part)], 0) for part in ((0, 1), (2, 3))]
    r = np.corrcoef(*halves)[0, 1]
    np.testing.assert_allclose(found, 2 * r / (1 + r), rtol=1e-5)


def test_noise_has_none_and_equal_images_have_all():
    noise, equal = (split_half_reliability(KEY, images(40, signal)) for signal in (0, 1e6))
    assert abs(noise.median) < 0.1 and noise.low < noise.median < noise.high
    assert equal.low == pytest.approx(1)


def test_nan_and_constants_are_undefined():
    values = images(40, 1)
    values[3, 5] = np.nan
    assert np.isnan(split_half_reliability(KEY, values)).all()
    assert np.isnan(split_half_reliability(KEY, np.ones((40, 400)))).all()


def test_what_is_refused():
    with pytest.raises(DataError, match="ranks: 1 images; expected at least 2"):
        split_half_reliability(KEY, np.zeros((1, 4)))
    with pytest.raises(ConfigError, match="splits: 0"):
        split_half_reliability(KEY, np.zeros((4, 4)), 0)
