"""Intervals against SciPy and coverage; overlaps against hand-made cases, a brute-force count and their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.biomarker_samples import check_pair, check_samples, mean_and_sd
from medjax.uncertainty.sample_intervals import OVERLAPS, Interval, interval_overlap, intervals

SAMPLES = np.random.default_rng(0).normal(60, 5, (7, 12))


def test_intervals_are_scipys():
    for level in (0.5, 0.95):
        found = {kind: intervals(SAMPLES, kind, level) for kind in ("percentile", "normal", "mean")}
        for k, x in enumerate(SAMPLES):
            ends = {
                "percentile": stats.mstats.mquantiles(x, [(1 - level) / 2, (1 + level) / 2], alphap=1, betap=1),
                "normal": stats.norm.interval(level, x.mean(), x.std(ddof=1)),
                "mean": stats.t.interval(level, 11, x.mean(), stats.sem(x)),
            }
            for kind, own in found.items():
                np.testing.assert_allclose([own.low[k], own.high[k]], ends[kind], rtol=1e-12)


def test_the_interval_of_the_mean_holds_the_mean_and_the_others_a_new_sample_of_many():
    draws = np.random.default_rng(1).normal(size=(4000, 6))
    low, high = intervals(draws, "mean")
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.95, abs=0.012)
    many = np.random.default_rng(2).normal(size=(3, 40_000))
    for kind in ("percentile", "normal"):
        np.testing.assert_allclose(np.stack(intervals(many, kind)), [[-1.96] * 3, [1.96] * 3], atol=0.05)


def test_leading_axes_are_kept():
    found = intervals(np.stack([SAMPLES, SAMPLES + 1]))
    assert found.low.shape == (2, 7)
    np.testing.assert_allclose(found.low[1], found.low[0] + 1)


def interval(low, high):
    return Interval(np.array([float(low)]), np.array([float(high)]))


@pytest.mark.parametrize(
    ("a", "b", "iou", "shorter", "dice"),
    [
        ((0, 4), (2, 6), 2 / 6, 2 / 4, 4 / 8),
        ((0, 4), (1, 2), 1 / 4, 1, 2 / 5),  # one within the other
        ((0, 1), (0, 1), 1, 1, 1),
        ((0, 1), (1, 2), 0, 0, 0),  # touching
        ((0, 1), (5, 9), 0, 0, 0),
        ((3, 3), (3, 3), 1, 1, 1),  # two points
        ((3, 3), (4, 4), 0, 0, 0),
        ((3, 3), (2, 4), 0, 1, 0),  # a point within an interval
        ((2, 2), (2, 4), 0, 1, 0),  # at its end
        ((1, 1), (2, 4), 0, 0, 0),
    ],
)
def test_overlaps_by_hand(a, b, iou, shorter, dice):
    for kind, expected in zip(OVERLAPS, (iou, shorter, dice), strict=True):
        for one, other in ((a, b), (b, a)):
            assert interval_overlap(interval(*one), interval(*other), kind) == pytest.approx(expected)


numbers = st.integers(0, 40)


@given(numbers, numbers, numbers, numbers)
def test_overlaps_count_common_cells(a, b, c, d):
    one, other = sorted((a, b)), sorted((c, d))
    first, second = (set(range(*pair)) for pair in (one, other))
    if first and second:
        both = len(first & second)
        counted = both / len(first | second) if both else 0
        found = {kind: float(interval_overlap(interval(*one), interval(*other), kind)[0]) for kind in OVERLAPS}
        assert found["iou"] == pytest.approx(counted)
        assert found["shorter"] == pytest.approx(both / min(len(first), len(second)))
        assert found["dice"] == pytest.approx(2 * both / (len(first) + len(second)))
        assert found["iou"] <= found["dice"] <= found["shorter"] <= 1
        assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))


def test_samples_that_are_all_equal_have_an_interval_of_width_zero():
    for kind in ("percentile", "normal", "mean"):
        low, high = intervals(np.full((1, 6), 0.1), kind)
        assert low == high == 0.1
    mean, sd = mean_and_sd(np.full((1, 3), 0.1))
    assert mean == 0.1 and sd == 0  # rounding gives NumPy's deviation 1e-17


def test_an_undefined_interval_stays_undefined():
    assert np.isnan(interval_overlap(interval(np.nan, np.nan), interval(0, 1), "shorter")).all()


NAN = np.where(np.arange(12) == 5, np.nan, SAMPLES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intervals(SAMPLES[:, :1]), r"1 sample\(s\) of each subject; expected at least 2"),
        (lambda: intervals(NAN), r"7 of 84 samples are not finite, in 7 subject\(s\), first row 0"),
        (lambda: intervals(SAMPLES, level=95), "level: 95; expected between 0 and 1"),
        (lambda: interval_overlap(interval(1, 0), interval(0, 1)), "expected low ≤ high"),
        (lambda: interval_overlap(intervals(SAMPLES), interval(0, 1)), r"shapes \(7,\), \(1,\)"),
        (lambda: check_pair(SAMPLES, SAMPLES[1:]), r"shapes \(7, 12\), \(6, 12\); expected the same subjects"),
        (lambda: check_samples("scan", np.array([1.0, np.inf])), "scan: 1 of 2 samples are not finite"),
    ],
)
def test_corrupted_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unknown_kinds_are_refused():
    import jaxtyping

    for call in (lambda: intervals(SAMPLES, "sd"), lambda: interval_overlap(interval(0, 1), interval(0, 1), "union")):
        with pytest.raises((ConfigError, jaxtyping.TypeCheckError)):
            call()
