"""Scores of samples against scoringrules, SciPy and integrals; uniform ranks pass as often as they should."""

import numpy as np
import pytest
from scipy import integrate, stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.ensemble_scores import crps, normal_log_score, pit, quantile_score, rank_histogram

SAMPLES = np.array([[50.0, 53, 49, 61, 55], [40, 40, 44, 38, 47], [62, 62, 62, 62, 62], [70.5, 66, 71, 69, 68]])
TRUTH = np.array([57.0, 36.0, 61.0, 69.0])


def test_scores_equal_scoringrules():
    """scoringrules 0.10.0: crps_ensemble(TRUTH, SAMPLES, estimator="nrg" or "fair"), quantile_score, logs_normal."""
    np.testing.assert_allclose(crps(SAMPLES, TRUTH), [2.68, 4.04, 1.0, 0.5])
    np.testing.assert_allclose(crps(SAMPLES, TRUTH, "fair"), [2.1, 3.6, 1.0, 0.25])
    low, high = np.quantile(SAMPLES, [0.1, 0.9], axis=1)
    np.testing.assert_allclose(quantile_score(high, TRUTH, 0.9), [0.16, 0.98, 0.1, 0.18])
    np.testing.assert_allclose(quantile_score(low, TRUTH, 0.1), [0.76, 2.52, 0.9, 0.22])
    scores = normal_log_score(SAMPLES, TRUTH)
    np.testing.assert_allclose(scores[[0, 1, 3]], [2.7358275731, 3.4832893722, 1.6195315417])
    assert scores[2] == np.inf and normal_log_score(SAMPLES[2:3], np.array([62.0])) == -np.inf


def test_crps_is_the_integral_it_is_defined_by():
    grid = np.linspace(20, 90, 700_001)
    x, y = SAMPLES[0], TRUTH[0]
    below = np.searchsorted(np.sort(x), grid, side="right") / len(x)
    assert crps(x[None], np.array([y]))[0] == pytest.approx(
        integrate.trapezoid((below - (grid >= y)) ** 2, grid), abs=1e-3
    )


def test_the_fair_crps_does_not_depend_on_the_number_of_samples():
    """Of a standard normal forecast and truth 0.5: the closed form of Gneiting & Raftery 2007, equation 5."""
    y = 0.5
    closed = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    rng = np.random.default_rng(0)
    for n in (2, 5, 20):
        x = rng.normal(size=(40_000, n))
        truth = np.full(40_000, y)
        assert crps(x, truth, "fair").mean() == pytest.approx(closed, abs=0.01)
        # the plain form is larger by E|X − X′|/(2n), E|X − X′| = 2/√π
        assert crps(x, truth).mean() == pytest.approx(closed + 1 / (n * np.sqrt(np.pi)), abs=0.01)


def test_one_sample_is_a_point_forecast():
    np.testing.assert_allclose(crps(SAMPLES[:, :1], TRUTH), np.abs(SAMPLES[:, 0] - TRUTH))
    with pytest.raises(DataError, match="1 sample"):
        crps(SAMPLES[:, :1], TRUTH, "fair")


def test_shifted_and_scaled_scores_are_shifted_and_scaled():
    np.testing.assert_allclose(crps(1e6 + 2 * SAMPLES, 1e6 + 2 * TRUTH), 2 * crps(SAMPLES, TRUTH), rtol=1e-8)


def test_ranks_and_pit_by_hand():
    np.testing.assert_allclose(pit(SAMPLES, TRUTH), np.array([4.5, 0.5, 0.5, 3.0]) / 6)  # the last one ties with 69
    whole = rank_histogram(SAMPLES, TRUTH, bins=6)
    np.testing.assert_allclose(whole.count, [2, 0, 0.5, 0.5, 1, 0])
    np.testing.assert_allclose(whole.expected, 4 / 6)
    assert whole.p == pytest.approx(stats.chisquare(whole.count).pvalue)
    two = rank_histogram(SAMPLES, TRUTH, bins=2)
    np.testing.assert_allclose(two.count, [2.5, 1.5])


def test_uniform_ranks_are_rejected_as_often_as_they_should():
    rng = np.random.default_rng(1)
    centers = rng.normal(60, 10, (400, 60, 1))
    x, y = centers + rng.normal(size=(400, 60, 20)), centers[..., 0] + rng.normal(size=(400, 60))
    p = np.array([rank_histogram(a, b).p for a, b in zip(x, y, strict=True)])
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.025)
    wide = centers[..., 0] + 2.5 * (y - centers[..., 0])  # the samples' standard deviation is too small by 2.5
    p = np.array([rank_histogram(a, b).p for a, b in zip(x[:50], wide[:50], strict=True)])
    assert np.mean(p < 0.05) > 0.9


@pytest.mark.parametrize(
    ("samples", "truth", "message"),
    [
        (SAMPLES, TRUTH[:3], "4 and 3 subjects"),
        (SAMPLES[:0], TRUTH[:0], "0 and 0 subjects"),
        (np.where(SAMPLES == 53, np.nan, SAMPLES), TRUTH, "samples: 1 of 20 samples are not finite"),
        (SAMPLES, np.array([57.0, np.nan, 61.0, 69.0]), "truth: 1 of 4 values are not finite, first row 1"),
        (SAMPLES[:, :0], TRUTH, "0 sample"),
    ],
)
def test_unusable_samples_are_refused(samples, truth, message):
    for score in (crps, normal_log_score, pit, rank_histogram):
        with pytest.raises(DataError, match=message):
            score(samples, truth)


def test_settings_are_checked():
    with pytest.raises(DataError, match="bins: 7; expected 2 to 6"):
        rank_histogram(SAMPLES, TRUTH, bins=7)
    with pytest.raises(DataError, match="level: 1; expected"):
        quantile_score(TRUTH, TRUTH, 1)
    with pytest.raises((ConfigError, TypeError), match="form"):
        crps(SAMPLES, TRUTH, "kernel")
