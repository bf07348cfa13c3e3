"""The figures of one biomarker are those of the functions behind them; recalibration covers held-out halves."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.uncertainty.calibration import calibration_figures, recalibration_figures
from medjax.uncertainty.conformal import KINDS, cross_conformal
from medjax.uncertainty.ensemble_scores import crps
from medjax.uncertainty.interval_coverage import coverage, expected_coverage, interval_score
from medjax.uncertainty.sample_intervals import intervals


def cohort(subjects=40, samples=20, noise=9.0):
    rng = np.random.default_rng(3)
    sd = rng.gamma(4, 0.7, (subjects, 1))
    x = rng.normal(140, 30, (subjects, 1)) + sd * rng.normal(size=(subjects, samples))
    return x, x.mean(1) + noise / 3 * sd[:, 0] * rng.normal(size=subjects)


def test_figures_are_those_of_the_functions():
    x, y = cohort()
    found = calibration_figures(x, y, 0.9)
    for kind in ("percentile", "normal", "mean"):
        own = intervals(x, kind, 0.9)
        assert found[f"coverage/{kind}"] == coverage(*own, y).value
        assert found[f"width/{kind}"] == pytest.approx(np.mean(own.high - own.low))
        assert found[f"interval_score/{kind}"] == pytest.approx(interval_score(*own, y, 0.9).mean())
        assert found[f"expected_coverage/{kind}"] == expected_coverage(20, 0.9, kind)
        assert found[f"coverage/{kind}/low"] < found[f"coverage/{kind}"] < found[f"coverage/{kind}/high"]
    assert found["crps"] == pytest.approx(crps(x, y).mean()) and found["crps_fair"] < found["crps"]
    assert found["error"] == pytest.approx(np.mean(x.mean(1) - y)) and (found["subjects"], found["samples"]) == (40, 20)
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())


def test_recalibration_is_the_mean_over_splits():
    x, y = cohort()
    found = recalibration_figures(5, x, y, 0.9, splits=3)
    for kind in KINDS:
        every = [cross_conformal(5 + k, x, y, kind, 0.9) for k in range(3)]
        assert found[f"coverage/{kind}"] == pytest.approx(np.mean([one.after.value for one in every]))
        assert found[f"width/{kind}"] == pytest.approx(np.mean([one.after.width for one in every]))
        assert found[f"coverage/{kind}"] > 0.85 > found["coverage/before"] == every[0].before.value
    assert found["interval_score/normalized"] < found["interval_score/before"]


def test_one_sample_has_errors_and_no_intervals():
    x, y = cohort(samples=1)
    found = calibration_figures(x, y)
    assert set(found) == {"subjects", "samples", "error", "absolute_error", "crps"}
    assert found["crps"] == found["absolute_error"]
    after = recalibration_figures(0, x, y, 0.9, ("absolute",), 2)
    assert after["coverage/before"] == 0 and after["coverage/absolute"] > 0.8


def test_bad_input_is_refused():
    x, y = cohort()
    with pytest.raises(DataError, match="40 and 39 subjects"):
        calibration_figures(x, y[:-1])
    with pytest.raises(DataError, match="splits: 0"):
        recalibration_figures(0, x, y, splits=0)
    with pytest.raises(DataError, match="18 calibration subjects; expected at least 19"):
        recalibration_figures(0, x[:36], y[:36])
    with pytest.raises(DataError, match="level"):
        calibration_figures(x, y, 1)
