"""Distances of samples against SciPy, quadrature, closed forms, and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medjax.errors import DataError
from medjax.uncertainty.sample_distance import (
    bhattacharyya_coefficient,
    bhattacharyya_distance,
    overlap_coefficient,
    standardized_difference,
    wasserstein,
)

RNG = np.random.default_rng(0)
SCAN, RESCAN = RNG.normal(60, 5, (6, 12)), RNG.normal(63, [[2], [4], [5], [5], [9], [30]], (6, 12))
LONGER = RNG.normal(61, 4, (6, 17))


def with_moments(mean, sd):
    """Three samples of this mean and standard deviation."""
    return np.array([[mean - sd, mean, mean + sd]], float)


GRID = np.linspace(-200, 320, 20_001)


def integral(combine, densities):
    return np.trapezoid(combine(*(density(GRID) for density in densities)), GRID)


def root(f, g):
    return np.sqrt(f * g)


# ── overlap and Bhattacharyya coefficients ──


def test_coefficients_of_normal_densities_are_their_integrals():
    overlap, coefficient = overlap_coefficient(SCAN, RESCAN), bhattacharyya_coefficient(SCAN, RESCAN)
    for k, pair in enumerate(zip(SCAN, RESCAN, strict=True)):
        densities = [stats.norm(one.mean(), one.std(ddof=1)).pdf for one in pair]
        assert overlap[k] == pytest.approx(integral(np.minimum, densities), abs=1e-6)
        assert coefficient[k] == pytest.approx(integral(root, densities), abs=1e-9)
    np.testing.assert_allclose(bhattacharyya_distance(SCAN, RESCAN), -np.log(coefficient))
    np.testing.assert_allclose(overlap_coefficient(RESCAN, SCAN), overlap)


@given(st.floats(0, 8), st.floats(0, 0.3))
def test_equal_deviations_have_the_closed_forms_and_are_their_limit(delta, extra):
    one, other = with_moments(0, 1), with_moments(delta, 1)
    assert overlap_coefficient(one, other) == pytest.approx(2 * stats.norm.cdf(-delta / 2), abs=1e-12)
    assert bhattacharyya_coefficient(one, other) == pytest.approx(np.exp(-(delta**2) / 8), abs=1e-12)
    near = with_moments(delta, 1 + extra * 1e-7)
    assert overlap_coefficient(one, near) == pytest.approx(2 * stats.norm.cdf(-delta / 2), abs=1e-7)


def test_coefficients_of_kernel_densities_are_integrals_of_scipys_kde():
    scan, rescan = np.concatenate([SCAN[:2], SCAN[:1]]), np.concatenate([LONGER[:2], 30 * LONGER[:1] - 1700])
    overlap, coefficient = overlap_coefficient(scan, rescan, "kde"), bhattacharyya_coefficient(scan, rescan, "kde")
    for k, pair in enumerate(zip(scan, rescan, strict=True)):
        densities = [stats.gaussian_kde(one) for one in pair]
        assert overlap[k] == pytest.approx(integral(np.minimum, densities), abs=1e-4)
        assert coefficient[k] == pytest.approx(integral(root, densities), abs=1e-4)


def test_far_scans_do_not_overlap_and_equal_ones_do():
    far = SCAN + 1e4
    for density in ("normal", "kde"):
        np.testing.assert_allclose(overlap_coefficient(SCAN, SCAN, density), 1, atol=2e-4)
        np.testing.assert_allclose(overlap_coefficient(SCAN, far, density), 0, atol=1e-12)
        np.testing.assert_allclose(bhattacharyya_coefficient(SCAN, far, density), 0, atol=1e-12)


def test_samples_that_are_all_equal_are_points():
    point, same, other, wide = (np.array([row]) for row in ([0.1] * 3, [0.1] * 3, [0.2] * 3, [0.0, 0.1, 0.2]))
    for coefficient in (overlap_coefficient, bhattacharyya_coefficient):
        for density in ("normal", "kde"):
            values = [coefficient(point, one, density)[0] for one in (same, other, wide)]
            assert values == [1, 0, 0]
    assert [bhattacharyya_distance(point, one)[0] for one in (same, other)] == [0, np.inf]
    assert [standardized_difference(point, one)[0] for one in (same, other)] == [0, np.inf]
    assert standardized_difference(other, point)[0] == -np.inf


# ── Wasserstein ──


@pytest.mark.parametrize("other", [RESCAN, LONGER, np.round(LONGER), RESCAN[:, :1]])
def test_wasserstein_is_scipys(other):
    scan = np.round(SCAN) if np.array_equal(other, np.round(other)) else SCAN  # ties, also between the scans
    expected = [stats.wasserstein_distance(x, y) for x, y in zip(scan, other, strict=True)]
    np.testing.assert_allclose(wasserstein(scan, other), expected, rtol=1e-12)
    np.testing.assert_allclose(wasserstein(other, scan), expected, rtol=1e-12)


def test_wasserstein_of_a_shift_is_the_shift_and_scales_with_the_unit():
    np.testing.assert_allclose(wasserstein(SCAN, SCAN + 2.5), 2.5)
    np.testing.assert_allclose(wasserstein(1000 * SCAN, 1000 * RESCAN), 1000 * wasserstein(SCAN, RESCAN))


def test_few_samples_of_one_distribution_are_as_far_apart_as_the_docstring_says():
    for n in (10, 40):
        x, y = np.random.default_rng(n).normal(size=(2, 2000, n))
        assert wasserstein(x, y).mean() * n**0.5 == pytest.approx(1.65, abs=0.1)


# ── standardised difference ──


def test_cohens_d_and_hedges_g():
    n, m = SCAN.shape[1], LONGER.shape[1]
    t = [stats.ttest_ind(y, x).statistic for x, y in zip(SCAN, LONGER, strict=True)]
    d = standardized_difference(SCAN, LONGER, unbiased=False)
    np.testing.assert_allclose(d, np.array(t) * (1 / n + 1 / m) ** 0.5)
    np.testing.assert_allclose(standardized_difference(SCAN, LONGER) / d, 1 - 3 / (4 * (n + m - 2) - 1), rtol=1e-4)


def test_an_effect_size_is_pingouins():
    """pingouin 0.7.0: compute_effsize(y, x, eftype="cohen") and "hedges", whose factor is the approximate one."""
    x = np.array([[58.1, 62.4, 49.7, 71.0, 55.5, 66.2, 60.3, 44.8, 68.9, 53.6]])
    y = np.array([[59.6, 61.0, 52.3, 70.1, 54.2, 68.8]])
    assert standardized_difference(x, y, unbiased=False) == pytest.approx(0.24253964508597659, abs=1e-12)
    assert standardized_difference(x, y) == pytest.approx(0.22931020989946876, rel=1e-3)


def test_hedges_g_has_no_bias():
    x, y = np.random.default_rng(3).normal([[[0.0]], [[1.5]]], 1, (2, 20_000, 5))
    assert standardized_difference(x, y).mean() == pytest.approx(1.5, abs=0.02)
    assert standardized_difference(x, y, unbiased=False).mean() > 1.6


def test_other_subjects_are_refused():
    for distance in (overlap_coefficient, bhattacharyya_distance, wasserstein, standardized_difference):
        with pytest.raises(DataError, match="same subjects"):
            distance(SCAN, RESCAN[1:])
        with pytest.raises(DataError, match=r"rescan: 1 of 72 samples are not finite, in 1 subject\(s\), first row 2"):
            distance(SCAN, np.where(np.arange(72).reshape(6, 12) == 30, np.nan, RESCAN))
