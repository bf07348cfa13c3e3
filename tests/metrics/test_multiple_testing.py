"""Adjusted p-values are those of statsmodels and SciPy; a test that was not made does not count."""

import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.multiple_testing import benjamini_hochberg, holm

P = np.array([0.01, 0.04, 0.03, 0.005, 0.6, 0.03, 0.2])


def test_adjusted_values_are_those_of_statsmodels_and_scipy():
    np.testing.assert_allclose(holm(P), [0.06, 0.15, 0.15, 0.035, 0.6, 0.15, 0.4])  # statsmodels 0.15.0, multipletests
    many = np.random.default_rng(0).uniform(size=(3, 50)) ** 3
    np.testing.assert_allclose(benjamini_hochberg(many), stats.false_discovery_control(many, axis=1))


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_a_nan_is_a_test_that_was_not_made(adjust):
    with_nan = np.insert(P, 2, np.nan)
    adjusted = adjust(np.stack([with_nan, np.full(8, np.nan)]))
    np.testing.assert_allclose(adjusted[0], np.insert(adjust(P), 2, np.nan))
    assert np.isnan(adjusted[1]).all()


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_adjusted_values_keep_the_order_and_stay_probabilities(adjust):
    adjusted = adjust(P)
    assert (adjusted >= P).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(P)]) >= 0).all()
    assert adjust(np.array([0.03])) == [0.03]


def test_holm_keeps_the_family_wise_error():
    null = np.random.default_rng(1).uniform(size=(4000, 10))
    assert np.mean((holm(null) <= 0.05).any(1)) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_what_is_no_probability_is_refused(adjust):
    with pytest.raises(DataError, match=r"p: 1\.2; expected p-values between 0 and 1"):
        adjust(np.array([0.1, 1.2]))
