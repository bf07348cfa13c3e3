"""Tests of samples against SciPy row by row, their type-I error by enumeration and simulation, and the trends in N."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.multiple_testing import holm
from medjax.uncertainty.sample_intervals import interval_overlap, intervals
from medjax.uncertainty.sample_tests import min_p, scan_rescan_tests, significant_fraction

SCIPYS = {
    "ks": stats.ks_2samp,
    "mann_whitney": stats.mannwhitneyu,
    "welch": lambda x, y: stats.ttest_ind(x, y, equal_var=False),
    "paired": stats.ttest_rel,
}


def simulated(seed, tau, subjects, n, m=None):
    """Samples of standard deviation 1 about means that shift from scan to scan with standard deviation `tau`."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, tau, (2, subjects, 1))
    return rng.normal(means[0], 1, (subjects, n)), rng.normal(means[1], 1, (subjects, m or n))


@pytest.mark.filterwarnings("ignore:ks_2samp:RuntimeWarning")
@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 5), (8, 12), (20, 20), (50, 50), (7, 30)])
def test_p_values_are_scipys(n, m):
    scan, rescan = simulated(n, 1.0, 40, n, m)
    scan[::3], rescan[::3] = np.round(scan[::3]), np.round(rescan[::3])  # ties in some subjects only
    found = scan_rescan_tests(scan, rescan)
    assert set(found) == set(SCIPYS) if n == m else set(found) == set(SCIPYS) - {"paired"}
    for name, p in found.items():
        varied = (np.ptp(one, axis=1) > 0 for one in (scan, rescan, scan[:, :2] - rescan[:, :2]))
        rows = np.flatnonzero(np.logical_and.reduce([*varied]))
        expected = [SCIPYS[name](scan[k], rescan[k]).pvalue for k in rows]
        np.testing.assert_allclose(p[rows], expected, rtol=1e-10, atol=1e-14, err_msg=name)


def test_pairing_is_left_out_where_it_means_nothing():
    scan, rescan = simulated(0, 0, 3, 6)
    assert "paired" not in scan_rescan_tests(scan, rescan, paired=False)


def test_type_i_error_of_rank_tests_by_enumeration():
    """Under equal distributions all 252 arrangements of 5 and 5 samples are equally likely."""
    first = [list(one) for one in combinations(range(10), 5)]
    second = [sorted(set(range(10)) - set(one)) for one in first]
    p = scan_rescan_tests(np.array(first, float), np.array(second, float))
    assert np.mean(p["ks"] <= 0.05) == pytest.approx(2 / 252)  # of the table: .01
    assert np.mean(p["mann_whitney"] <= 0.05) == pytest.approx(8 / 252)  # .03
    for name in ("ks", "mann_whitney"):
        assert p[name].min() == pytest.approx(min_p(5, 5)[name])
        for alpha in (0.01, 0.1, 0.3):
            assert np.mean(p[name] <= alpha) <= alpha


@pytest.mark.parametrize(("n", "ks"), [(5, 0.0079), (20, 0.0335), (50, 0.0392)])
def test_type_i_error_is_alpha_without_a_shift(n, ks):
    """`ks`: the largest p-value at most 0.05 that its discrete statistic can have."""
    p = scan_rescan_tests(*simulated(n, 0, 4000, n))
    assert np.mean(p["ks"] <= 0.05) == pytest.approx(ks, abs=0.01)
    for name, expected in (("mann_whitney", 0.0317 if n == 5 else 0.05), ("welch", 0.05), ("paired", 0.05)):
        assert np.mean(p[name] <= 0.05) == pytest.approx(expected, abs=0.011), name


def test_only_the_paired_test_keeps_its_type_i_error_where_scans_share_their_draws():
    """Samples k of scan and rescan have correlation 0.9, as of one member: others are conservative, miss shifts."""
    rng = np.random.default_rng(9)
    shared, *own = rng.normal(size=(3, 4000, 10))
    scan, rescan = (0.9**0.5 * shared + 0.1**0.5 * one for one in own)
    p = scan_rescan_tests(scan, rescan)
    assert np.mean(p.pop("paired") <= 0.05) == pytest.approx(0.05, abs=0.011)
    assert all(np.mean(one <= 0.05) < 0.002 for one in p.values())
    p = scan_rescan_tests(scan, rescan + 0.5)
    assert np.mean(p.pop("paired") <= 0.05) > 0.8 > 0.2 > max(np.mean(one <= 0.05) for one in p.values())


def test_type_i_error_of_welch_with_unequal_numbers_and_deviations():
    scan, rescan = simulated(4, 0, 4000, 20, 8)
    assert np.mean(scan_rescan_tests(scan, 3 * rescan)["welch"] <= 0.05) == pytest.approx(0.05, abs=0.012)


def fractions(tau, n, subjects, seed=0):
    scan, rescan = simulated((seed, n, round(10 * tau)), tau, subjects, n)
    a, b = intervals(scan), intervals(rescan)
    overlaps = [np.mean(interval_overlap(a, b, kind) > 0.5) for kind in ("iou", "shorter", "dice")]
    mean = np.mean(interval_overlap(intervals(scan, "mean"), intervals(rescan, "mean")) > 0.5)
    p = scan_rescan_tests(scan, rescan)
    return [*overlaps, mean, *(np.mean(p[name] < 0.05) for name in ("welch", "mann_whitney", "ks", "paired"))]


# An independent simulation of the same model: τ, N; overlap by IoU, shorter, Dice; IoU of the means' intervals; tests.
TABLE = [
    (0, 5, (0.54, 0.92, 0.81, 0.60, 0.05, 0.03, 0.01, 0.05)),
    (0, 50, (1.0, 1.0, 1.0, 0.66, 0.05, 0.05, 0.06, 0.05)),
    (0.5, 5, (0.42, 0.80, 0.68, 0.47, 0.17, 0.10, 0.04, 0.14)),
    (0.5, 50, (0.88, 0.99, 0.98, 0.21, 0.59, 0.58, 0.53, 0.58)),
    (1, 10, (0.43, 0.71, 0.65, 0.24, 0.53, 0.49, 0.34, 0.51)),
    (1, 20, (0.52, 0.77, 0.72, 0.16, 0.66, 0.60, 0.56, 0.66)),
    (2, 20, (0.30, 0.47, 0.43, 0.09, 0.82, 0.78, 0.71, 0.81)),
]


@pytest.mark.parametrize(("tau", "n", "expected"), TABLE)
def test_overlap_and_significance_depend_on_n_and_on_the_definition_as_in_the_reference_table(tau, n, expected):
    found = fractions(tau, n, 2000)
    np.testing.assert_allclose(found[:5], expected[:5], atol=0.035)
    np.testing.assert_allclose(found[5:], expected[5:], atol=0.02, rtol=0.1)  # the table's rank tests lie below SciPy's


@pytest.mark.slow
def test_overlap_and_significance_of_many_subjects():
    for tau, n, expected in TABLE:
        found = fractions(tau, n, 8000, seed=1)
        np.testing.assert_allclose(found[:5], expected[:5], atol=0.03)
        np.testing.assert_allclose(found[5:], expected[5:], atol=0.025, rtol=0.1)


def test_more_samples_make_every_shift_significant():
    rates = [fractions(0.5, n, 500)[4] for n in (5, 20, 80, 320)]
    assert rates == sorted(rates) and rates[-1] > 0.8 > 0.3 > rates[0]


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # of SciPy's, in which 0.1 six times has an sd
def test_samples_that_are_all_equal_have_a_documented_outcome():
    scan, rescan = np.full((3, 6), 0.1), np.array([[0.1] * 6, [0.3] * 6, [0.1, 0.2, 0.3, 0.1, 0.2, 0.3]])
    p = scan_rescan_tests(scan, rescan)
    assert np.isnan(p["welch"][0]) and np.isnan(p["paired"][0]) and p["ks"][0] == p["mann_whitney"][0] == 1
    assert p["welch"][1] == p["paired"][1] == 0
    assert 0 < p["welch"][2] < 1
    np.testing.assert_allclose(p["welch"][2], stats.ttest_ind(scan[2], rescan[2], equal_var=False).pvalue)


def test_significant_fractions():
    p = np.array([0.001, 0.02, 0.03, 0.9, np.nan])
    assert significant_fraction(p, 0.05, "none") == 3 / 5
    assert significant_fraction(p, 0.05, "bh") == 3 / 5  # 0.004, 0.04, 0.04, 0.9
    assert significant_fraction(p, 0.05, "holm") == np.mean(holm(p) <= 0.05) == 1 / 5  # 0.004, 0.06, 0.06, 0.9


def test_few_samples_cannot_be_significant_after_holms_correction():
    scan = np.zeros((40, 5)) + np.arange(5)
    p = scan_rescan_tests(scan, scan + 1000)  # as different as can be
    assert significant_fraction(p["ks"], 0.05, "holm") == significant_fraction(p["mann_whitney"], 0.05, "holm") == 0
    assert significant_fraction(p["welch"], 0.05, "holm") == 1
    assert 40 * min_p(5, 5)["ks"] > 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scan_rescan_tests(np.ones((3, 1)), np.ones((3, 1))), r"scan: 1 sample\(s\) of each subject"),
        (lambda: scan_rescan_tests(np.ones((3, 4)), np.ones((2, 4))), "same subjects"),
        (lambda: significant_fraction(np.array([]), 0.05), "0 p-values"),
        (lambda: significant_fraction(np.array([0.1]), 5), "alpha, p: 5"),
        (lambda: significant_fraction(np.array([1.1]), 0.05), "expected p-values between 0 and 1"),
        (lambda: min_p(1, 5), "1, 5; expected at least 2"),
    ],
)
def test_corrupted_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
