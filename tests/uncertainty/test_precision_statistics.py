"""The one-screen assessment: every figure is that of its own function; the explained difference has its closed form."""

import jaxtyping
import numpy as np
import pytest
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.metrics.agreement import bland_altman, icc
from medjax.uncertainty import precision
from medjax.uncertainty.explained_difference import explained_difference
from medjax.uncertainty.precision import assess, cohort_figures, cohort_intervals, point_figures, subject_table
from medjax.uncertainty.sample_distance import standardized_difference, wasserstein
from medjax.uncertainty.sample_intervals import interval_overlap, intervals
from medjax.uncertainty.sample_size import curve_over_n
from medjax.uncertainty.sample_tests import significant_fraction


def cohort(seed=0, subjects=30, n=20, m=None, tau=1.0):
    """Samples of standard deviation 1 about means of a population (60 ± 8) that shift by `tau` from scan to scan."""
    rng = np.random.default_rng(seed)
    true = rng.normal(60, 8, (subjects, 1))
    shifts = rng.normal(0, tau, (2, subjects, 1))
    return true + shifts[0] + rng.normal(size=(subjects, n)), true + shifts[1] + rng.normal(size=(subjects, m or n))


SCAN, RESCAN = cohort()


# ── explained difference ──


def test_an_honest_model_explains_its_differences():
    n = 8
    found = explained_difference(*cohort(1, 20_000, n, tau=(1 - 1 / n) ** 0.5))
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert found.sampling == pytest.approx(1 / n, abs=0.005)
    assert found.inside == pytest.approx(0.95, abs=0.006)
    assert found.predicted_sd == pytest.approx(2**0.5, rel=0.01)
    assert found.difference_sd == pytest.approx(2**0.5, rel=0.02)


@pytest.mark.parametrize("tau", [0.0, 0.5, 2.0])
def test_the_explained_difference_has_its_closed_form(tau):
    found = explained_difference(*cohort(2, 8000, 50, tau=tau))
    ratio = 1 / (tau**2 + 1 / 50)
    assert found.ratio == pytest.approx(ratio, rel=0.05)
    assert found.inside == pytest.approx(2 * stats.norm.cdf(1.959964 * ratio**0.5) - 1, abs=0.012)


def test_draws_that_scan_and_rescan_share_explain_less_of_a_mean():
    """Of correlation r = 0.9: the error of the means' difference is 2 (1 − r) σ² / N, all of it without a shift."""
    rng = np.random.default_rng(5)
    shared, *own = rng.normal(size=(3, 20_000, 8))
    scan, rescan = (0.9**0.5 * shared + 0.1**0.5 * one for one in own)
    found = explained_difference(scan, rescan)
    assert found.sampling == pytest.approx(1, abs=0.04)
    assert found.ratio == pytest.approx(8 / 0.1, rel=0.04)
    shifted = explained_difference(scan, rescan + rng.normal(0, 1, (20_000, 1)))
    assert shifted.sampling == pytest.approx(0.2 / 8 / (1 + 0.2 / 8), rel=0.05)
    assert explained_difference(scan, own[1][:, :4]).sampling == pytest.approx(1, abs=0.04)  # independent, 8 and 4


def test_a_model_that_knows_which_subjects_are_uncertain_has_a_rank_correlation():
    rng = np.random.default_rng(3)
    sd = rng.uniform(0.2, 4, (500, 1))
    scan, rescan = (rng.normal(0, 1, (500, 1)) * sd + sd * rng.normal(size=(500, 10)) for _ in range(2))
    found = explained_difference(scan, rescan)
    spearman = stats.spearmanr(
        np.hypot(scan.std(1, ddof=1), rescan.std(1, ddof=1)), np.abs(scan.mean(1) - rescan.mean(1))
    )
    assert found.rank_correlation == pytest.approx(spearman.statistic) and found.rank_correlation > 0.4
    assert abs(explained_difference(SCAN, RESCAN).rank_correlation) < 0.4


def test_no_difference_and_no_variation_are_told_apart():
    assert explained_difference(SCAN, SCAN).ratio == np.inf
    flat = np.ones((3, 4))
    found = explained_difference(flat, flat)
    assert np.isnan(found.ratio) and found.inside == 1 and np.isnan(found.rank_correlation)
    assert explained_difference(flat, flat + 1).ratio == 0 and explained_difference(flat, flat + 1).inside == 0
    with pytest.raises(DataError, match="0 subjects"):
        explained_difference(flat[:0], flat[:0])


# ── assessment ──


def test_every_figure_is_that_of_its_own_function():
    found = assess(SCAN, RESCAN)
    assert (found.subjects, found.samples, found.left_out.tolist()) == (30, (20, 20), [])
    x, y = SCAN.mean(1), RESCAN.mean(1)
    assert found.points.limits == bland_altman(y, x)
    assert found.points.icc == icc(np.stack([x, y], 1))
    overlap = interval_overlap(intervals(SCAN, "normal"), intervals(RESCAN, "normal"), "dice")
    assert found.figures["overlap/normal/dice"] == np.mean(overlap > 0.5)
    p = stats.ttest_ind(SCAN, RESCAN, axis=1, equal_var=False).pvalue
    np.testing.assert_allclose(found.table["p/welch"], p, rtol=1e-10)
    assert found.figures["significant/welch/bh"] == significant_fraction(p, 0.05, "bh")
    assert found.figures["wasserstein"] == pytest.approx(wasserstein(SCAN, RESCAN).mean())
    assert found.figures["hedges_g"] == np.median(np.abs(standardized_difference(SCAN, RESCAN)))
    assert found.explained == explained_difference(SCAN, RESCAN)
    assert {len(column) for column in found.table.values()} == {30}


def test_good_points_and_different_distributions_at_once():
    """What the paper reports: the shift is small beside the population, not beside the model's own deviation."""
    found = assess(SCAN, RESCAN)
    assert found.points.icc.value > 0.9
    assert found.figures["overlap/percentile/iou"] < 0.7 and found.figures["significant/welch/none"] > 0.5


def test_tables_of_points_have_agreement_of_points_only():
    found = assess(SCAN[:, :1], RESCAN[:, :1])
    assert found.samples == (1, 1) and found.figures == {} and found.explained is None and found.min_p == {}
    assert found.points.limits == bland_altman(RESCAN[:, 0], SCAN[:, 0])
    assert assess(SCAN, RESCAN[:, :1]).figures == {}
    assert set(cohort_intervals(0, found, resamples=50)) == set(point_figures(found.points))


def test_numbers_of_samples_may_differ():
    found = assess(*cohort(4, m=7))
    assert found.samples == (20, 7) and "significant/paired/none" not in found.figures
    assert "significant/paired/none" not in assess(SCAN, RESCAN, paired=False).figures


def test_samples_that_are_not_finite_are_refused_or_their_subject_left_out():
    broken = SCAN.copy()
    broken[3, 4:6], broken[9, 0] = np.nan, np.inf
    with pytest.raises(DataError, match=r"scan: 3 of 600 samples are not finite, in 2 subject\(s\), first row 3"):
        assess(broken, RESCAN)
    found, keep = assess(broken, RESCAN, missing="leave_out"), np.delete(np.arange(30), [3, 9])
    assert found.left_out.tolist() == [3, 9] and found.subjects == 28
    assert found.figures == assess(SCAN[keep], RESCAN[keep]).figures
    with pytest.raises(DataError, match=r"0 subject\(s\), 30 left out"):
        assess(np.full_like(SCAN, np.nan), RESCAN, missing="leave_out")


def test_point_estimates_may_be_others_than_the_means():
    medians = np.median(SCAN, 1), np.median(RESCAN, 1)
    found = assess(SCAN, RESCAN, point_estimates=medians)
    assert found.points.limits == bland_altman(medians[1], medians[0])
    np.testing.assert_array_equal(found.table["scan"], medians[0])
    assert found.figures == assess(SCAN, RESCAN).figures


def test_a_biomarker_that_is_always_the_same_has_no_icc():
    found = assess(np.zeros((4, 5)), np.zeros((4, 5)))
    assert np.isnan(found.points.icc.value) and np.isnan(found.points.repeatability.cov)
    assert found.points.limits.bias == 0 and found.figures["overlap/percentile/iou"] == 1
    assert found.figures["significant/welch/holm"] == 0


def test_intervals_over_subjects_hold_their_estimates():
    found = assess(SCAN, RESCAN)
    ends = cohort_intervals(0, found, resamples=100)
    assert set(ends) == set(point_figures(found.points)) | set(found.figures)
    assert ends["bias"].estimate == pytest.approx(found.points.limits.bias)
    assert ends["bias"].low == pytest.approx(found.points.limits.bias_interval.low, abs=0.1)
    assert ends["icc"].low < found.points.icc.value < ends["icc"].high
    for name in ("overlap/percentile/iou", "significant/ks/none"):
        assert ends[name].estimate == found.figures[name]
        assert ends[name].low <= found.figures[name] <= ends[name].high
        se = (found.figures[name] * (1 - found.figures[name]) / 30) ** 0.5
        assert ends[name].high - ends[name].low == pytest.approx(2 * 1.96 * se, rel=0.35)


def test_all_figures_have_a_curve_over_n():
    def figures(scan, rescan):
        return cohort_figures(subject_table(scan, rescan))

    curves = curve_over_n(0, SCAN, RESCAN, figures, [5, 20], draws=4)
    for name in ("overlap/mean/iou", "width/mean"):
        assert curves[name].mean[0] > curves[name].mean[1]
    assert curves["significant/welch/none"].mean[0] < curves["significant/welch/none"].mean[1]
    assert {name: curve.mean[1] for name, curve in curves.items()} == assess(SCAN, RESCAN).figures


def test_other_subjects_and_words_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    for call, message in (
        (lambda: assess(SCAN, RESCAN[1:]), "same subjects"),
        (lambda: assess(SCAN[0], RESCAN[0]), "same subjects"),
        (lambda: assess(SCAN[:1], RESCAN[:1]), r"1 subject\(s\), 0 left out; expected at least two"),
        (lambda: assess(SCAN[:, :0], RESCAN[:, :0]), r"0 sample\(s\) of each subject; expected at least 1"),
        (lambda: assess(SCAN, RESCAN, level=95), "level"),
        (lambda: assess(SCAN, RESCAN, alpha=5), "alpha"),
        (lambda: assess(SCAN, RESCAN, point_estimates=(SCAN[:3, 0], RESCAN[:3, 0])), "point_estimates: .*30 subjects"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_unknown_word_for_missing_samples_is_refused():
    with pytest.raises((ConfigError, jaxtyping.TypeCheckError)):
        precision.assess(SCAN, RESCAN, missing="drop")
