"""Split-conformal intervals against MAPIE, and their coverage against what is guaranteed, by simulation."""

import numpy as np
import pytest
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.conformal import (
    KINDS,
    Conformal,
    calibrate,
    calibrated_coverage,
    conformal_interval,
    conformal_quantile,
    cross_conformal,
)
from medjax.uncertainty.sample_intervals import intervals


def cohort(seed, subjects, samples, noise=4.0):
    """Subjects whose samples have standard deviations of their own, and a truth beside their mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(50, 10, (subjects, 1)) + rng.gamma(2, 1.5, (subjects, 1)) * rng.normal(size=(subjects, samples))
    return x, x.mean(1) + rng.normal(0, noise, subjects)


# MAPIE 1.6.0 on cohort(5, 40, 12), calibrated on 24 subjects, of subjects 24 to 27, level 0.8: SplitConformalRegressor
# with AbsoluteConformityScore, the same with ResidualNormalisedScore (residual estimator: the samples' standard
# deviation), and ConformalizedQuantileRegressor (symmetric correction) on the samples' quantiles; all prefit.
MAPIE = {
    "absolute": [[49.0671457513, 51.9654367206, 28.2583955147, 41.3853754332],
                 [61.1497587722, 64.0480497415, 40.3410085356, 53.4679884541]],
    "normalized": [[50.7339260429, 52.715801873, 30.5005029185, 46.6528882223],
                   [59.4829784805, 63.2976845891, 38.0989011318, 48.2004756649]],
    "cqr": [[50.2278779733, 52.4442706025, 29.7633205525, 44.2793677586],
            [59.9043703409, 62.7663318809, 38.4634928872, 50.498948147]],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_equal_mapie(kind):
    x, y = cohort(5, 40, 12)
    conformal = calibrate(x[:24], y[:24], kind, 0.8)
    np.testing.assert_allclose(conformal_interval(conformal, x[24:28]), MAPIE[kind], rtol=1e-9)
    assert conformal.subjects == 24 and conformal.level == 0.8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "level"), [(19, 0.95), (20, 0.8)])
def test_coverage_of_new_subjects_is_within_the_guarantee(kind, n, level):
    """Over many calibration sets; the samples alone would cover far less."""
    covered, sets = [], 500
    x, y = cohort(0, sets * (n + 10), 5)
    for a, b in zip(np.split(x, sets), np.split(y, sets), strict=True):
        low, high = conformal_interval(calibrate(a[:n], b[:n], kind, level), a[n:])
        covered.append(np.mean((low <= b[n:]) & (b[n:] <= high)))
    error = 4 * np.std(covered) / np.sqrt(sets)
    assert level - error < np.mean(covered) < level + 1 / (n + 1) + error
    low, high = intervals(x, "percentile", level)
    assert np.mean((low <= y) & (y <= high)) < level - 0.2


def test_coverage_of_one_calibration_is_beta():
    n, level, rng = 20, 0.9, np.random.default_rng(1)
    quantiles = [conformal_quantile(np.abs(rng.normal(size=n)), level) for _ in range(4000)]
    true = 2 * stats.norm.cdf(quantiles) - 1
    np.testing.assert_allclose(calibrated_coverage(n, level, 0.9), np.quantile(true, [0.05, 0.95]), atol=0.01)
    np.testing.assert_allclose(calibrated_coverage(20, 0.95), [0.05**0.05, 0.95**0.05])  # Beta(20, 1): the maximum


def test_the_rank_is_that_of_n_plus_one():
    scores = np.random.default_rng(2).permutation(np.arange(1.0, 20.0))
    for level, rank in ((0.95, 19), (0.9, 18), (0.5, 10), (0.51, 11), (0.05, 1)):
        assert conformal_quantile(scores, level) == rank
    assert conformal_quantile(scores, 0.951) == np.inf
    assert conformal_quantile(np.arange(1.0, 100.0), 0.55) == 55  # 100 · 0.55 is 55, though float64 has more for it


def test_too_few_subjects_are_refused_and_said():
    x, y = cohort(3, 18, 5)
    with pytest.raises(DataError, match=r"18 calibration subjects; expected at least 19 for level 0.95"):
        calibrate(x, y, "absolute", 0.95)
    calibrate(*cohort(3, 19, 5), "absolute", 0.95)
    with pytest.raises(DataError, match="18 calibration subjects"):
        cross_conformal(0, *cohort(3, 37, 5), "cqr", 0.95)
    with pytest.raises(DataError, match="subjects, level"):
        calibrated_coverage(18, 0.95)


def test_either_half_is_calibrated_by_the_other():
    x, y = cohort(4, 41, 5)
    found = cross_conformal(7, x, y, "normalized", 0.9)
    assert sorted(np.bincount(found.half)) == [20, 21]
    for k in (0, 1):
        ours, others = found.half == k, found.half != k
        assert found.calibrations[1 - k] == calibrate(x[others], y[others], "normalized", 0.9)
        low, high = conformal_interval(found.calibrations[1 - k], x[ours])
        np.testing.assert_array_equal(np.stack([found.low[ours], found.high[ours]]), np.stack([low, high]))
    assert found.after.value == np.mean((found.low <= y) & (y <= found.high)) > found.before.value
    assert found.before.value < 0.7 and found.after.width > found.before.width
    again, other = cross_conformal(7, x, y, "normalized", 0.9), cross_conformal(8, x, y, "normalized", 0.9)
    np.testing.assert_array_equal(again.half, found.half)
    assert not np.array_equal(other.half, found.half)


def test_one_sample_is_enough_for_absolute_residuals_only():
    x, y = cohort(6, 40, 1)
    found = cross_conformal(0, x, y, "absolute", 0.9)
    assert found.before == found.before._replace(value=0.0, width=0.0) and found.after.value > 0.7
    for kind in ("normalized", "cqr"):
        with pytest.raises(DataError, match="1 sample"):
            calibrate(x, y, kind, 0.9)


def test_wide_samples_are_shortened_and_never_turned_inside_out():
    x, y = cohort(8, 60, 20, noise=0.01)
    conformal = calibrate(x[:30], y[:30], "cqr", 0.5)
    assert conformal.quantile < 0
    low, high = conformal_interval(conformal, x)
    plain = intervals(x, "percentile", 0.5)
    assert (low <= high).all() and (high - low).mean() < (plain.high - plain.low).mean()
    assert (high == low).any()  # subjects whose samples agree more than the quantile takes away


def test_samples_that_are_all_equal():
    """Of one subject: its interval is a point. Of many calibration subjects: only infinite intervals cover."""
    x, y = cohort(9, 40, 5)
    x[0] = x[0, 0]
    low, high = conformal_interval(calibrate(x[1:], y[1:], "normalized", 0.9), x[:1])
    assert low == high == x[0, 0]
    some = calibrate(x, y, "normalized", 0.9)
    assert np.isfinite(some.quantile)
    x[:10] = x[:10, :1]
    every = conformal_interval(calibrate(x, y, "normalized", 0.9), x)
    assert (every.low == -np.inf).all() and (every.high == np.inf).all()


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_samples_are_refused(kind):
    x, y = cohort(10, 40, 5)
    x[3, 1] = np.nan
    with pytest.raises(DataError, match="samples: 1 of 200 samples are not finite"):
        calibrate(x, y, kind, 0.9)
    with pytest.raises(DataError, match="samples: 1 of 200"):
        conformal_interval(Conformal(kind, 0.9, 1.0, 20), x)
    with pytest.raises(DataError, match="40 and 39 subjects"):
        cross_conformal(0, x, y[:39], kind, 0.9)
    with pytest.raises(DataError, match="level: 1; expected"):
        calibrate(*cohort(10, 40, 5), kind, 1)


def test_settings_are_checked():
    with pytest.raises((ConfigError, TypeError), match="kind"):
        calibrate(*cohort(0, 40, 5), "mondrian")
    with pytest.raises(DataError, match="1 NaN"):
        conformal_quantile(np.array([1.0, np.nan]), 0.5)
    with pytest.raises(DataError, match="probability"):
        calibrated_coverage(20, 0.9, 1.0)
