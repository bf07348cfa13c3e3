"""Repeatability against mean squares of pingouin's analyses of variance, closed forms and simulated coverage."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.metrics.agreement import bland_altman, icc
from medjax.metrics.repeatability import repeatability

FIRST = np.array([58.1, 62.4, 49.7, 71.0, 55.5, 66.2, 60.3, 44.8, 68.9, 53.6])
SECOND = np.array([59.6, 61.0, 52.3, 70.1, 54.2, 68.8, 61.7, 47.5, 67.2, 55.9])
# pingouin 0.7.0 of these: MS "Error" of rm_anova and MS "Within" of anova between subjects, both detailed=True;
# ICC(A,1) of intraclass_corr
MS_ERROR, MS_WITHIN, ICC_AGREEMENT = 1.754222, 1.883, 0.970289


def test_deviations_are_pingouins():
    found = repeatability(FIRST, SECOND)
    assert found.sem**2 == pytest.approx(MS_ERROR, rel=1e-6)
    assert found.within_sd**2 == pytest.approx(MS_WITHIN, rel=1e-9)
    assert icc(np.stack([FIRST, SECOND], 1)).value == pytest.approx(ICC_AGREEMENT, abs=5e-7)


def test_changes_and_coefficients_by_their_formulas():
    found, d = repeatability(FIRST, SECOND), SECOND - FIRST
    assert found.sdc == pytest.approx(1.959964 * 2**0.5 * found.sem)
    assert found.rc == pytest.approx(1.959964 * np.mean(d**2) ** 0.5)
    limits = bland_altman(SECOND, FIRST)
    assert found.sdc == pytest.approx((limits.upper - limits.lower) / 2)
    squares = [np.var(pair, ddof=1) / np.mean(pair) ** 2 for pair in zip(FIRST, SECOND, strict=True)]
    assert found.cov == pytest.approx(np.mean(squares) ** 0.5)
    assert found.cov_of_mean == pytest.approx(found.within_sd / np.mean([FIRST, SECOND]))


def test_coefficients_do_not_know_the_unit_and_the_others_have_it():
    one, other = repeatability(FIRST, SECOND), repeatability(1000 * FIRST, 1000 * SECOND)
    assert (other.cov, other.cov_of_mean) == pytest.approx((one.cov, one.cov_of_mean))
    assert other.sdc_interval == pytest.approx([1000 * end for end in one.sdc_interval])
    assert repeatability(-FIRST, -SECOND).cov == pytest.approx(one.cov)  # strain


def test_a_bias_is_in_the_within_subject_deviation_only():
    biased = repeatability(FIRST, SECOND + 5)
    assert biased.sem == pytest.approx(repeatability(FIRST, SECOND).sem)
    d = SECOND + 5 - FIRST
    assert biased.within_sd**2 == pytest.approx(biased.sem**2 * 0.9 + d.mean() ** 2 / 2)


def test_intervals_hold_the_true_value_as_often_as_they_say():
    true, draws = 1.959964 * 2**0.5 * 2.0, np.random.default_rng(0).normal(0, 2.0, (1500, 2, 8))
    found = [repeatability(*pair, level=0.9) for pair in draws]
    for ends in (np.array([one.rc_interval for one in found]), np.array([one.sdc_interval for one in found])):
        for beyond in (ends[:, 0] > true, ends[:, 1] < true):
            assert np.mean(beyond) == pytest.approx(0.05, abs=0.017)


def test_coefficients_of_values_about_zero_are_undefined():
    found = repeatability(FIRST - 58, SECOND - 58)
    assert np.isnan(found.cov) and np.isnan(found.cov_of_mean) and found.sem > 0
    assert np.isnan(repeatability(np.zeros(4), np.zeros(4)).cov)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: repeatability(FIRST[:1], SECOND[:1]), "two subjects or more"),
        (lambda: repeatability(FIRST, np.where(FIRST > 60, np.nan, SECOND)), "5 of 20 values are not finite"),
        (lambda: repeatability(FIRST, SECOND, level=95), "level: 95; expected between 0 and 1"),
        (lambda: repeatability(FIRST, SECOND, coverage=1), "coverage: 1; expected"),
    ],
)
def test_corrupted_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
