"""Coverage against published intervals, simulation and scoringrules; few samples cover what they are expected to."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.interval_coverage import (
    coverage,
    coverage_curve,
    expected_coverage,
    interval_score,
    mean_absolute_calibration_error,
)
from medjax.uncertainty.sample_intervals import intervals


@pytest.mark.parametrize(
    ("hits", "subjects", "wilson", "exact"),
    [  # Newcombe, Statistics in Medicine 17, 1998, table I
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_intervals_of_the_coverage_are_as_published(hits, subjects, wilson, exact):
    truth = np.where(np.arange(subjects) < hits, 0.5, 2.0)
    found = coverage(np.zeros(subjects), np.ones(subjects), truth)
    assert (found.value, found.width, found.subjects) == (hits / subjects, 1.0, subjects)
    np.testing.assert_allclose([found.low, found.high], wilson, atol=5e-5)
    found = coverage(np.zeros(subjects), np.ones(subjects), truth, method="clopper-pearson")
    np.testing.assert_allclose([found.low, found.high], exact, atol=5e-5)


def test_ends_belong_to_the_interval_and_may_be_infinite():
    low, high = np.array([1.0, 1.0, -np.inf]), np.array([2.0, 2.0, np.inf])
    found = coverage(low, high, np.array([1.0, 2.0, 1e9]))
    assert found.value == 1 and found.width == np.inf


def test_the_interval_score_equals_scoringrules():
    """scoringrules 0.10.0: interval_score(truth, low, high, 0.2)."""
    samples = np.array([[50.0, 53, 49, 61, 55], [40, 40, 44, 38, 47], [62, 62, 62, 62, 62], [70.5, 66, 71, 69, 68]])
    score = interval_score(*intervals(samples, "percentile", 0.8), np.array([57.0, 36.0, 61.0, 69.0]), 0.8)
    np.testing.assert_allclose(score, [9.2, 35.0, 10.0, 4.0])


def test_the_true_interval_has_the_best_score():
    y, z = np.random.default_rng(0).normal(size=20_000), stats.norm.ppf(0.95)
    means = [interval_score(np.full(20_000, -w * z), np.full(20_000, w * z), y, 0.9).mean() for w in (0.7, 1.0, 1.4)]
    assert means[1] < min(means[0], means[2])
    assert means[1] == pytest.approx(2 * stats.norm.pdf(z) / 0.05, rel=0.02)  # 2/α · 2 φ(z) for α = 0.1


@pytest.mark.parametrize("n", [2, 5, 20])
def test_few_samples_cover_what_is_expected_of_them(n):
    rng = np.random.default_rng(n)
    x, y = rng.uniform(size=(40_000, n)), rng.uniform(size=40_000)
    found = coverage(*intervals(x, "percentile", 0.95), y).value
    assert found == pytest.approx(expected_coverage(n, 0.95), abs=0.01)
    x, y = rng.normal(3, 2, (40_000, n)), rng.normal(3, 2, 40_000)
    for kind in ("normal", "mean"):
        found = coverage(*intervals(x, kind, 0.95), y).value
        assert found == pytest.approx(expected_coverage(n, 0.95, kind), abs=0.01)


def test_calibrated_samples_are_near_the_diagonal_and_narrow_ones_below_it():
    rng = np.random.default_rng(1)
    x, y = rng.normal(60, 5, (2000, 400)), rng.normal(60, 5, 2000)
    curve = coverage_curve(x, y)
    assert mean_absolute_calibration_error(curve) < 0.02 and curve.subjects == 2000
    assert ((curve.low <= curve.empirical) & (curve.empirical <= curve.high)).all()
    assert (np.diff(curve.empirical) >= 0).all() and (np.diff(curve.width) > 0).all()
    narrow = coverage_curve(60 + 0.5 * (x - 60), y, interval=lambda s, level: intervals(s, "normal", level))
    z = stats.norm.ppf((1 + narrow.nominal) / 2)
    np.testing.assert_allclose(narrow.empirical, 2 * stats.norm.cdf(0.5 * z) - 1, atol=0.03)
    np.testing.assert_allclose(
        mean_absolute_calibration_error(narrow), np.abs(narrow.nominal - narrow.empirical).mean()
    )


def test_chance_alone_gives_the_calibration_error_that_is_stated():
    rng = np.random.default_rng(2)
    errors = [
        mean_absolute_calibration_error(coverage_curve(rng.uniform(size=(40, 100)), rng.uniform(size=40)))
        for _ in range(25)
    ]
    assert np.mean(errors) == pytest.approx(0.3 / np.sqrt(40), rel=0.2)


ONES = np.ones(3)


@pytest.mark.parametrize(
    ("low", "high", "truth", "message"),
    [
        (ONES, ONES, ONES[:2], "3, 3, 2 subjects"),
        (ONES[:0], ONES[:0], ONES[:0], "0, 0, 0 subjects"),
        (ONES, 0 * ONES, ONES, "3 intervals whose lower end is above"),
        (np.array([1, np.nan, 1]), ONES, ONES, "low: 1 of 3 values are NaN"),
        (ONES, ONES, np.array([1, 1, np.nan]), "truth: 1 of 3 values are NaN"),
        (ONES, ONES, np.array([1, 1, np.inf]), "1 infinite truths"),
    ],
)
def test_unusable_intervals_are_refused(low, high, truth, message):
    for measure in (coverage, interval_score):
        with pytest.raises((DataError, TypeError), match=message):
            measure(low, high, truth)


def test_settings_are_checked():
    for call in (
        partial(interval_score, ONES, ONES, ONES, 1.0),
        partial(coverage, ONES, ONES, ONES, confidence=0),
        partial(coverage_curve, np.ones((3, 4)), ONES, np.array([0.5, 1.0])),
        partial(coverage_curve, np.ones((3, 1)), ONES),
        partial(coverage_curve, np.full((3, 4), np.nan), ONES),
        partial(expected_coverage, 1),
    ):
        with pytest.raises(DataError, match=r"expected"):
            call()
    with pytest.raises((ConfigError, TypeError), match="method"):
        coverage(ONES, ONES, ONES, method="wald")
