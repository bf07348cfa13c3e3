"""Paired readings: each statistic is SciPy's or follows from a closed form, and fractions do not know the unit."""

import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.paired import PairedAgreement, accuracy, paired_agreement


def readings(bias=0.02, number=30):
    draw = np.random.default_rng(0)
    manual = draw.normal(0.3, 0.05, number)
    return manual, manual + draw.normal(bias * 0.3, 0.01, number)


def test_each_statistic_is_that_of_scipy_or_a_closed_form():
    manual, automatic = readings()
    found, mean, off = paired_agreement(manual, automatic, 0.05, 0.01), manual.mean(), automatic - manual
    sd, error = off.std(ddof=1), stats.sem(off)
    np.testing.assert_allclose([found.bias, found.upper], np.array([off.mean(), off.mean() + 1.959964 * sd]) / mean)
    assert found.lower + found.upper == pytest.approx(2 * found.bias)
    assert found.paired_p == pytest.approx(stats.ttest_1samp(off, 0).pvalue)
    ends = [stats.t.sf((0.05 * mean - sign * off.mean()) / error, 29) for sign in (1, -1)]
    assert found.tost_p == pytest.approx(max(ends))
    scipys = stats.nct.sf(stats.t.isf(0.025, 29), 29, np.array([found.detectable, 0.01]) * mean / error)
    np.testing.assert_allclose(scipys, [0.8, found.paired_power], rtol=1e-3)
    subjects, residual = 2 * np.var((manual + automatic) / 2, ddof=1), sd**2 / 2
    between = 30 * off.mean() ** 2 / 2
    assert found.icc == pytest.approx((subjects - residual) / (subjects + residual + 2 * (between - residual) / 30))


def test_the_power_to_find_equivalence_is_how_often_it_is_found():
    draw = np.random.default_rng(1)
    manual = draw.normal(0.3, 0.05, 12)
    off = draw.normal(0, 0.03, (2000, 12))
    found = [paired_agreement(manual, manual + one, 0.1, 0.01) for one in off[:200]]
    margin, (low, high) = 0.1 * manual.mean(), stats.t.interval(0.9, 11, off.mean(1), stats.sem(off, 1))
    often = np.mean((low > -margin) & (high < margin))
    assert np.mean([one.tost_power for one in found]) == pytest.approx(often, abs=0.05)
    assert [one.tost_p < 0.05 for one in found] == [*((low > -margin) & (high < margin))[:200]]


def test_fractions_do_not_know_the_unit():
    manual, automatic = readings()
    np.testing.assert_allclose(
        paired_agreement(manual, automatic, 0.1, 0.01), paired_agreement(7 * manual, 7 * automatic, 0.1, 0.01)
    )


def test_accuracy_is_relative_to_each_subjects_truth():
    truth = np.array([1.0, 2.0, 4.0])
    assert accuracy(truth, 1.1 * truth) == pytest.approx((0.1, 0.0, 1.0))
    found = accuracy(truth, np.array([1.2, 2.0, 3.2]))
    assert found == pytest.approx((0.0, 0.2, stats.pearsonr(truth, [1.2, 2.0, 3.2]).statistic))


def test_two_subjects_say_nothing():
    assert np.isnan(paired_agreement(np.ones(2), np.ones(2), 0.1, 0.01)).all()
    assert len(PairedAgreement._fields) == 9


@pytest.mark.parametrize(
    ("reference", "margin", "difference", "message"),
    [
        (np.array([1.0, np.nan, 3.0]), 0.1, 0.01, "not finite"),
        (np.array([-1.0, -2.0, -3.0]), 0.1, 0.01, "mean of the reference: -2; expected above 0"),
        (np.array([1.0, 2.0, 3.0]), 0.0, 0.01, "margin: 0; expected above 0"),
        (np.array([1.0, 2.0, 3.0]), 0.1, -0.01, "difference: -0.01; expected above 0"),
    ],
)
def test_bad_input_is_refused(reference, margin, difference, message):
    with pytest.raises(DataError, match=message):
        paired_agreement(reference, np.array([1.0, 2.5, 2.9]), margin, difference)
