"""Curves over N against enumeration and direct draws; hierarchical bootstrap against closed forms and coverage."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.uncertainty.cohort_bootstrap import hierarchical_bootstrap
from medjax.uncertainty.sample_intervals import interval_overlap, intervals
from medjax.uncertainty.sample_size import curve_over_n

RNG = np.random.default_rng(0)
SCAN, RESCAN = RNG.normal(60, 5, (5, 6)), RNG.normal(62, 5, (5, 6))


def mean_difference(scan, rescan):
    return {"difference": rescan.mean() - scan.mean(), "width": np.ptp(scan, axis=1).mean()}


# ── curve over N ──


def test_a_curve_is_the_mean_over_all_subsets():
    found = curve_over_n(0, SCAN, RESCAN, mean_difference, [2, 6], draws=4000)
    every = [mean_difference(SCAN[:, list(one)], RESCAN[:, list(one)]) for one in combinations(range(6), 2)]
    for name, curve in found.items():
        values = [row[name] for row in every]
        assert curve.mean[0] == pytest.approx(np.mean(values), abs=0.1)
        assert curve.sd[0] == pytest.approx(np.std(values), rel=0.05)
        assert (curve.mean[1], curve.sd[1]) == (pytest.approx(mean_difference(SCAN, RESCAN)[name]), 0)
    assert curve.samples.tolist() == [2, 6]


def test_subsets_stay_paired_and_are_the_same_for_all_subjects():
    seen = []

    def note(scan, rescan):
        seen.append((scan, rescan))
        return {"n": scan.shape[1]}

    numbers = np.tile(np.arange(6.0), (5, 1))
    curve_over_n(0, numbers, numbers, note, [3], draws=20)
    for scan, rescan in seen:
        assert (scan == rescan).all() and (scan == scan[0]).all() and len(set(scan[0])) == 3
    assert len({tuple(scan[0]) for scan, _ in seen}) > 5
    seen.clear()
    curve_over_n(0, numbers, np.tile(np.arange(9.0), (5, 1)), note, [6], draws=20)
    assert len({tuple(rescan[0]) for _, rescan in seen}) > 5


def test_curves_are_those_of_direct_draws_of_n_samples():
    def overlap(scan, rescan):
        return {"overlap": np.mean(interval_overlap(intervals(scan), intervals(rescan)) > 0.5)}

    many = np.random.default_rng(1).normal(size=(2, 1500, 50))
    curve = curve_over_n(0, *many, overlap, [5, 50], draws=5)["overlap"]
    np.testing.assert_allclose(curve.mean, [0.54, 1.0], atol=0.02)  # as the reference table, τ = 0


def test_equal_seeds_give_equal_curves_and_undefined_draws_are_left_out():
    one, other = (curve_over_n(3, SCAN, RESCAN, mean_difference, [2, 3], draws=5) for _ in range(2))
    np.testing.assert_equal(one, other)
    found = curve_over_n(0, SCAN[:, :3], RESCAN[:, :3], lambda x, y: {"first": x[0, 0] or np.nan, "never": np.nan}, [2])
    assert np.isfinite(found["first"].mean).all() and np.isnan(found["never"].mean).all()
    assert np.isnan(found["never"].sd).all()


@pytest.mark.parametrize(
    ("numbers", "draws", "message"),
    [
        ([2, 7], 5, r"numbers: \[2, 7\]; expected one or more, from 1 to 6"),
        ([0], 5, "from 1 to 6"),
        ([], 5, "one or more"),
        ([2], 0, "draws: 0; expected at least 1"),
    ],
)
def test_a_number_of_samples_that_there_is_not_is_refused(numbers, draws, message):
    with pytest.raises(DataError, match=message):
        curve_over_n(0, SCAN, RESCAN, mean_difference, numbers, draws)


# ── hierarchical bootstrap ──


def fraction(values):
    return {"fraction": values.mean()}


def test_the_interval_of_a_fraction_is_binomial():
    inside = np.arange(40) < 28
    found = hierarchical_bootstrap(0, fraction, inside, resamples=8000)["fraction"]
    low, high = stats.binom.ppf([0.025, 0.975], 40, 0.7) / 40
    assert found.estimate == 0.7 and found.undefined == 0
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1 / 40)


def test_the_interval_of_a_fraction_covers_it():
    rng = np.random.default_rng(0)
    cohorts = rng.random((120, 50)) < 0.6
    found = [hierarchical_bootstrap(k, fraction, one, resamples=100)["fraction"] for k, one in enumerate(cohorts)]
    assert np.mean([one.low <= 0.6 <= one.high for one in found]) == pytest.approx(0.94, abs=0.055)


@pytest.mark.slow
def test_the_interval_of_a_fraction_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    cohorts = rng.random((600, 60)) < 0.6
    found = [hierarchical_bootstrap(k, fraction, one, resamples=300)["fraction"] for k, one in enumerate(cohorts)]
    assert np.mean([one.low <= 0.6 <= one.high for one in found]) == pytest.approx(0.945, abs=0.025)


def bootstrap_variance(values, levels, crossed=()):
    means = []
    hierarchical_bootstrap(
        0, lambda x: means.append(x.mean()) or {"m": 0.0}, values, levels=levels, crossed=crossed, resamples=3000
    )
    return np.var(means[1:])


def test_each_level_adds_its_variance():
    values = np.random.default_rng(5).normal(size=(4, 5, 6)) + np.random.default_rng(6).normal(size=(4, 5, 1))
    outer, middle = values.mean((1, 2)), values.mean(2)
    first, second, third = outer.var() / 4, middle.var(1).mean() / 20, values.var(2).mean() / 120
    for levels, expected in ((1, first), (2, first + second), (3, first + second + third)):
        assert bootstrap_variance(values, levels) == pytest.approx(expected, rel=0.12)


def test_crossed_levels_are_drawn_once():
    """Effects a_i + b_j of crossed units add var(a)/I + var(b)/J; nested, those of b would average to var(b)/(I J)."""
    a, b = np.random.default_rng(7).normal(size=(5, 1)), np.random.default_rng(8).normal(size=(1, 6))
    assert bootstrap_variance(a + b, 2, crossed=[1]) == pytest.approx(a.var() / 5 + b.var() / 6, rel=0.12)
    assert bootstrap_variance(a + b, 2) == pytest.approx(a.var() / 5 + b.var() / 30, rel=0.12)


def test_what_belongs_to_a_subject_stays_together():
    subject = np.arange(8.0)

    def figures(x, y, z):
        assert (x == y).all() and (z[:, 0] == x).all()
        return {"m": x.mean() if x.min() > 1 else np.nan}

    found = hierarchical_bootstrap(0, figures, subject, subject, subject[:, None] + np.zeros((1, 3)), resamples=200)[
        "m"
    ]
    assert np.isnan(found.estimate) and 0 < found.undefined < 1 and found.low <= found.high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 3}, "expected 3 leading axes"),
        ({"levels": 0}, "expected 1 leading axes"),
        ({"crossed": [1]}, r"crossed: \[1\]; expected axes from 1 to 0"),
        ({"resamples": 0}, "resamples, level: 0"),
        ({"level": 95}, "between 0 and 1"),
    ],
)
def test_levels_that_there_are_not_are_refused(options, message):
    with pytest.raises(DataError, match=message) as caught:
        hierarchical_bootstrap(0, fraction, SCAN, **options)
    assert "\n" not in str(caught.value)


def test_arrays_of_other_lengths_are_refused():
    for arrays in ((SCAN, SCAN[1:]), (), (SCAN[:0],)):
        with pytest.raises(DataError, match="same lengths"):
            hierarchical_bootstrap(0, fraction, *arrays)
