"""Agreement against published tables, SciPy's tests and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.metrics.agreement import (
    bland_altman,
    concordance,
    detectable_difference,
    icc,
    power_of_paired_test,
    power_of_tost,
    tost,
)

# Six subjects and four judges: Shrout & Fleiss, Psychological Bulletin 86(2), 1979, table 2.
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
# Peak expiratory flow (l/min) by a Wright meter and a mini meter: Bland & Altman, The Lancet 327, 1986, table.
WRIGHT = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427])
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451])


def normal(seed, shape, mean=0.0, sd=1.0):
    return np.random.default_rng(seed).normal(mean, sd, shape)


# ── Bland–Altman ──


def test_peak_flow_is_as_published():
    found = bland_altman(WRIGHT, MINI)
    assert (round(found.bias, 1), round(found.sd, 1)) == (-2.1, 38.8)
    np.testing.assert_allclose(found.bias_interval, [-22.0, 17.8], atol=0.06)
    two = bland_altman(WRIGHT, MINI, coverage=float(2 * stats.norm.cdf(2) - 1))  # they took ±2 standard deviations
    np.testing.assert_allclose([two.lower, two.upper], [-79.7, 75.5], atol=0.16)  # from rounded numbers
    assert found.upper - found.bias == pytest.approx(1.959964 * found.sd, rel=1e-6)


def test_the_bias_has_students_interval():
    d = normal(0, 12, 0.4)
    found = bland_altman(d, np.zeros(12), level=0.9)
    np.testing.assert_allclose(found.bias_interval, stats.ttest_1samp(d, 0).confidence_interval(0.9))


@pytest.mark.parametrize("n", [6, 40])
def test_intervals_of_the_limits_cover_them_as_often_as_they_say(n):
    d = normal(1, (2000, n), 0.3, 2.0)
    every = [bland_altman(one, np.zeros(n), level=0.9) for one in d]
    for name, truth in (("lower", 0.3 - 1.959964 * 2), ("upper", 0.3 + 1.959964 * 2)):
        bounds = np.array([getattr(one, f"{name}_interval") for one in every])
        for beyond in (bounds[:, 0] > truth, bounds[:, 1] < truth):
            assert np.mean(beyond) == pytest.approx(0.05, abs=0.015)


def test_swapping_the_methods_turns_the_signs():
    a, b = normal(2, (2, 15))
    one, other = bland_altman(a, b), bland_altman(b, a)
    np.testing.assert_allclose([one.bias, one.lower, one.upper], [-other.bias, -other.upper, -other.lower])
    np.testing.assert_allclose(one.lower_interval, [-end for end in other.upper_interval[::-1]])


# ── ICC ──


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [  # values as in the paper; intervals as R's psych::ICC prints them for this table
        ("1,1", 0.17, -0.133, 0.72),
        ("2,1", 0.29, 0.019, 0.76),
        ("3,1", 0.71, 0.342, 0.95),
        ("1,k", 0.44, -0.884, 0.91),
        ("2,k", 0.62, 0.071, 0.93),
        ("3,k", 0.91, 0.676, 0.99),
    ],
)
def test_icc_of_shrout_and_fleiss_table(form, value, low, high):
    found = icc(JUDGES, form)
    assert round(found.value, 2) == value
    assert round(found.low, 3) == low and round(found.high, 2) == high
    f, p = (1.79, 0.16477) if form[0] == "1" else (11.03, 0.000135)
    assert found.f == pytest.approx(f, abs=0.006) and found.p == pytest.approx(p, rel=0.01)


def test_the_one_way_f_is_scipys():
    found, expected = icc(JUDGES, "1,1"), stats.f_oneway(*JUDGES)
    assert (found.f, found.p) == pytest.approx((expected.statistic, expected.pvalue))


@pytest.mark.parametrize("form", ["1,1", "2,1", "3,1", "2,k"])
def test_intervals_of_icc_cover_it_as_often_as_they_say(form):
    n, k, between, raters, noise = 15, 3, 1.0, 0.0 if form == "1,1" else 0.6, 0.7
    draw = np.random.default_rng(3)
    own = draw.normal(0, between, (1200, n, 1)) + draw.normal(0, noise, (1200, n, k))
    own = own + draw.normal(0, raters, (1200, 1, k))
    truth = between**2 / (between**2 + noise**2 + (raters**2 if form[0] == "2" else 0))
    truth = k * truth / (1 + (k - 1) * truth) if form[-1] == "k" else truth
    bounds = np.array([icc(one, form)[1:3] for one in own])
    covered = np.mean((bounds[:, 0] < truth) & (truth < bounds[:, 1]))
    assert covered == pytest.approx(0.95, abs=0.03 if form[0] == "2" else 0.02)


@given(seed=st.integers(0, 999), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_icc_does_not_depend_on_units_and_consistency_not_on_bias(seed, shift, scale):
    x = normal(seed, (6, 3)) + normal(seed + 1, (6, 1))
    for form in ("1,1", "2,1", "3,1"):
        np.testing.assert_allclose(icc(shift + scale * x, form), icc(x, form), rtol=1e-6, atol=1e-9)
    biased = x + np.array([0, shift, 2 * shift])
    assert icc(biased, "3,1").value == pytest.approx(icc(x, "3,1").value, abs=1e-9)


def test_perfect_and_merely_consistent_ratings():
    same = np.repeat(np.arange(5.0)[:, None], 2, axis=1)
    for form in ("1,1", "2,1", "3,1", "1,k", "2,k", "3,k"):
        assert icc(same, form)[:3] == (1, 1, 1)
    shifted = same + np.array([0.0, 3.0])
    biased = icc(shifted, "2,1")
    assert icc(shifted, "3,1").value == 1 and 0 < biased.value < 0.5 and biased.low < biased.value < biased.high


# ── concordance ──


def test_concordance_is_its_definition_and_penalises_bias():
    found = concordance(WRIGHT, MINI)
    a, b = WRIGHT - WRIGHT.mean(), MINI - MINI.mean()
    bias = (WRIGHT.mean() - MINI.mean()) ** 2
    assert found.value == pytest.approx(2 * (a @ b) / (a @ a + b @ b + 17 * bias))
    assert found.value < np.corrcoef(a, b)[0, 1] and 0.8 < found.low < found.value < found.high < 1
    assert concordance(a, a)[:3] == pytest.approx((1, 1, 1)) and concordance(a, a + 90).value < 0.8


def test_intervals_of_concordance_cover_it_as_often_as_they_say():
    draw = np.random.default_rng(0)
    x = draw.multivariate_normal([0, 0.5], [[1, 0.72], [0.72, 0.81]], (1500, 40))
    truth = 2 * 0.72 / (1 + 0.81 + 0.25)
    bounds = np.array([concordance(*pair.T)[1:] for pair in x])
    assert np.mean((bounds[:, 0] < truth) & (truth < bounds[:, 1])) == pytest.approx(0.95, abs=0.025)


# ── equivalence and power ──


@pytest.mark.parametrize(("mean", "margin"), [(0.0, 1.0), (0.6, 1.0), (-0.6, 1.0), (2.0, 1.0)])
def test_tost_is_scipys_two_tests(mean, margin):
    d, nothing = normal(5, 14, mean), np.zeros(14)
    found = tost(d, margin)
    lower = stats.ttest_rel(d + margin, nothing, alternative="greater").pvalue
    upper = stats.ttest_rel(d - margin, nothing, alternative="less").pvalue
    np.testing.assert_allclose([found.p_lower, found.p_upper, found.p], [lower, upper, max(lower, upper)])
    np.testing.assert_allclose([found.low, found.high], stats.ttest_1samp(d, 0).confidence_interval(0.9))
    assert found.equivalent == (-margin < found.low and found.high < margin) == (found.p < 0.05)


def test_tost_tells_where_the_difference_is_small():
    assert tost(normal(0, 50, 0.0, 0.5), 0.5).equivalent
    assert not tost(normal(0, 50, 0.5, 0.5), 0.5).equivalent
    assert not tost(normal(0, 4, 0.0, 2.0), 0.5).equivalent  # too few to tell


@pytest.mark.parametrize(("n", "margin", "difference"), [(20, 0.8, 0.0), (20, 0.8, 0.3), (8, 1.0, -0.2), (5, 0.5, 0.0)])
def test_power_of_tost_is_how_often_it_finds_equivalence(n, margin, difference):
    d = normal(7, (40000, n), difference)
    half = stats.sem(d, axis=1) * stats.t.ppf(0.95, n - 1)
    often = np.mean((d.mean(1) - half > -margin) & (d.mean(1) + half < margin))
    assert power_of_tost(n, 1.0, margin, difference) == pytest.approx(often, abs=0.008)


def test_power_of_tost_at_its_ends():
    assert power_of_tost(2000, 1.0, 0.5) == pytest.approx(1) and power_of_tost(4, 1.0, 0.01) < 1e-4
    assert power_of_tost(500, 1.0, 0.5, difference=0.5) == pytest.approx(0.05, abs=1e-3)  # the level, on the margin
    assert power_of_tost(12, 2.0, 1.6) == pytest.approx(power_of_tost(12, 1.0, 0.8))


def test_power_of_the_paired_test_is_how_often_it_rejects():
    assert power_of_paired_test(34, 1.0, 0.5) == pytest.approx(0.8078, abs=1e-4)  # G*Power, dz 0.5, 34 pairs
    for n, difference in ((12, 0.7), (5, 1.0), (2, 8.0)):
        rejected = stats.ttest_1samp(normal(9, (40000, n), difference), 0, axis=1).pvalue < 0.05
        assert power_of_paired_test(n, 1.0, difference) == pytest.approx(rejected.mean(), abs=0.008)
    assert power_of_paired_test(10, 1.0, 0.0) == 0.05
    assert power_of_paired_test(10, 1.0, -0.6) == power_of_paired_test(10, 1.0, 0.6)
    many = [power_of_paired_test(30, 1.0, float(d)) for d in np.linspace(0, 20, 100)]
    assert (np.diff(many) >= -1e-9).all() and many[-1] == pytest.approx(1)


@given(n=st.integers(2, 200), power=st.floats(0.1, 0.99), sd=st.floats(0.01, 100))
def test_the_detectable_difference_is_detected_that_often(n, power, sd):
    difference = detectable_difference(n, sd, power)
    assert power_of_paired_test(n, sd, difference) == pytest.approx(power, abs=1e-6)


# ── bad input ──


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bland_altman(np.ones(1), np.ones(1)), "two subjects"),
        (lambda: bland_altman(np.array([1, np.nan]), np.ones(2)), "a: 1 of 2 values are not finite"),
        (lambda: bland_altman(np.ones(3), np.ones(3), level=1.0), "level"),
        (lambda: bland_altman(np.ones(3), np.ones(3), coverage=0.0), "coverage"),
        (lambda: icc(np.ones((4, 1))), "4 subjects, 1 raters"),
        (lambda: icc(np.ones((4, 2))), "values that differ"),
        (lambda: icc(np.array([[1, np.inf], [1, 2]])), "not finite"),
        (lambda: tost(np.arange(4.0), 0.0), "margin"),
        (lambda: tost(np.arange(4.0), 1.0, alpha=0.6), "alpha"),
        (lambda: tost(np.ones(4), 1.0), "values that differ"),
        (lambda: power_of_tost(1, 1.0, 1.0), "subjects"),
        (lambda: power_of_paired_test(10, 0.0, 1.0), "sd"),
        (lambda: detectable_difference(10, 1.0, power=0.04), "power"),
        (lambda: concordance(np.ones(4), np.arange(4)), "differ"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_unknown_form_is_refused():
    from medjax.metrics import agreement

    with pytest.raises((ConfigError, TypeError), match=r"4,1|form"):
        agreement.icc(JUDGES, "4,1")


def test_icc_of_subjects_that_are_equal_is_no_division_by_zero():
    """As of a bootstrap resample of one subject twice: no variance between subjects, and no residual."""
    found = icc(np.array([[1.0, 2.0], [1.0, 2.0]]))
    assert found.value == found.low == found.high == 0 and np.isnan(found.f) and np.isnan(found.p)
