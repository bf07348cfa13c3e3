"""Numbers over runs against NumPy and SciPy, and how they are written."""

import numpy as np
import pytest
from scipy import stats

from medjax.metrics.summary import cell, confidence_interval, flatten_metrics, mean_sd, range_over_runs, summarize_runs

VALUES = [0.81, 0.83, 0.86, 0.8]


def test_mean_deviation_and_interval_are_scipys():
    mean, sd = mean_sd(VALUES)
    assert (mean, sd) == pytest.approx((np.mean(VALUES), np.std(VALUES, ddof=1)))
    for level in (0.5, 0.95):
        wanted = stats.t.interval(level, len(VALUES) - 1, loc=mean, scale=stats.sem(VALUES))
        assert confidence_interval(VALUES, level) == pytest.approx(wanted)


def test_the_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 4))
    ends = np.array([confidence_interval(row, 0.9) for row in draws])
    assert np.mean((ends[:, 0] < 0) & (ends[:, 1] > 0)) == pytest.approx(0.9, abs=0.015)


def test_what_is_undefined_is_left_out_or_nan():
    assert mean_sd([*VALUES, np.nan]) == mean_sd(VALUES)
    for values, wanted in (([0.5], (0.5, np.nan)), ([np.nan], (np.nan, np.nan)), ([], (np.nan, np.nan))):
        np.testing.assert_equal(mean_sd(values), wanted)
        assert np.isnan(confidence_interval(values)).all()


def test_metrics_over_runs_and_their_cells():
    metrics = summarize_runs([{"dice": 0.81, "area": 4.0}, {"dice": 0.83, "area": np.nan}])
    assert list(metrics) == ["dice", "area", "sd/dice", "sd/area"]
    assert cell(metrics, "dice") == "0.820 ± 0.014"
    assert cell(metrics, "dice", 1, percent=True) == "82.0 ± 1.4 %"
    assert cell(metrics, "area", 1) == "4.0" and cell(metrics, "absent") == "–"
    assert cell({"a": 1.0, "a_sd": 0.25}, "a", 2, sd="a_sd") == "1.00 ± 0.25"


def test_a_range_over_runs_and_its_cell():
    ends = range_over_runs(
        [
            {"p": 0.48, "q": 1e-5, "r": np.nan},
            {"p": 0.0113, "q": 1e-5, "r": np.nan},
            {"p": np.nan, "q": 1e-5, "r": np.nan},
        ]
    )
    assert list(ends) == ["min/p", "min/q", "min/r", "max/p", "max/q", "max/r"]
    assert (ends["min/p"], ends["max/p"]) == (0.0113, 0.48)
    assert [cell(ends, name) for name in "pqr"] == ["0.011 to 0.48", "1e-05", "–"]


def test_nested_metrics_are_named_by_their_path():
    nested = {"dice": {"plain": np.float32(0.5), "drop": 1}, "epoch": np.array(3)}
    assert flatten_metrics(nested, "random/0.25") == {
        "dice/plain/random/0.25": 0.5, "dice/drop/random/0.25": 1.0, "epoch/random/0.25": 3.0
    }  # fmt: skip
    assert list(flatten_metrics(nested)) == ["dice/plain", "dice/drop", "epoch"] and flatten_metrics({}) == {}
