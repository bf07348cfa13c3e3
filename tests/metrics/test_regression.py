"""Regression against SciPy, by hand, and by how often its intervals cover the truth."""

import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.regression import bootstrap_regression, predict, regress, undefined_regression

KNOT = 26.0  # weeks


def cohort(n=40, seed=0, noise=0.02):
    """Ages, values of known coefficients around 26 weeks, and groups."""
    draw = np.random.default_rng(seed)
    age, group = draw.uniform(20, 38, n), np.arange(n) % 2 == 1
    mean = 0.33 + 0.012 * (age - 26) - 0.008 * np.maximum(age - 26, 0) - 0.04 * group + 0.001 * group * (age - 26)
    return age, mean + draw.normal(0, noise, n), group


def test_one_line_is_scipys():
    age, value, _ = cohort()
    found, expected = regress(age, value, name="age"), stats.linregress(age, value)
    assert found.terms == ("intercept", "age") and found.reference == pytest.approx(age.mean())
    assert found.coefficients[1] == pytest.approx(expected.slope)
    assert found.standard_errors[1] == pytest.approx(expected.stderr) and found.p[1] == pytest.approx(expected.pvalue)
    assert found.r_squared == pytest.approx(expected.rvalue**2) and found.coefficients[0] == pytest.approx(value.mean())
    assert found.degrees_of_freedom == 38
    half = stats.t.ppf(0.975, 38) * expected.stderr
    np.testing.assert_allclose([found.low[1], found.high[1]], [expected.slope - half, expected.slope + half])


def test_a_group_alone_is_students_test():
    """Without any course with age, the group's coefficient is the difference of means, and its t Student's."""
    age, group = np.concatenate([np.linspace(24, 32, 9), np.linspace(24, 32, 11)]), np.arange(20) >= 9
    value = np.random.default_rng(1).normal(0, 1, 20)
    for one in (group, ~group):
        value[one] += value[one].mean() - np.polyval(np.polyfit(age[one], value[one], 1), age[one])
    found, expected = regress(age, value, group), stats.ttest_ind(value[group], value[~group])
    difference = value[group].mean() - value[~group].mean()
    np.testing.assert_allclose(found.coefficients[1:], [0, difference, 0], atol=1e-12)
    assert found.t[2] == pytest.approx(expected.statistic * np.sqrt(16 / 18))  # two slopes cost freedom


def test_groups_with_interaction_are_two_lines():
    age, value, group = cohort()
    found = regress(age, value, group)
    lines = [stats.linregress(age[g], value[g]) for g in (~group, group)]
    at = [line.intercept + line.slope * found.reference for line in lines]
    expected = [at[0], lines[0].slope, at[1] - at[0], lines[1].slope - lines[0].slope]
    np.testing.assert_allclose(found.coefficients, expected)
    pooled = sum(
        (len(age) / 2 - 2) * line.stderr**2 * np.var(age[g]) * 20
        for line, g in zip(lines, (~group, group), strict=True)
    )
    assert found.residual_sd == pytest.approx(np.sqrt(pooled / 36))


def test_without_noise_the_coefficients_are_the_truth():
    age, value, group = cohort(noise=0.0)
    found = regress(age, value, group, KNOT, name="age")
    assert found.terms == ("intercept", "age", "hinge", "group", "age×group") and found.reference == 26
    np.testing.assert_allclose(found.coefficients, [0.33, 0.012, -0.008, -0.04, 0.001], atol=1e-12)
    assert found.r_squared == pytest.approx(1)
    assert regress(age, value, group, KNOT, interaction=False, name="age").terms == found.terms[:4]


def test_a_hinge_is_what_weighted_normal_equations_give():
    """By hand: with the projection on the other columns taken out, one regressor is left."""
    age, value, _ = cohort()
    found = regress(age, value, knot=KNOT)
    others = np.stack([np.ones_like(age), age], 1)
    hinge = np.maximum(age - 26, 0)
    left = hinge - others @ np.linalg.lstsq(others, hinge)[0]
    beta = left @ value / (left @ left)
    rest = value - np.stack([*others.T, hinge], 1) @ np.linalg.lstsq(np.stack([*others.T, hinge], 1), value)[0]
    assert found.coefficients[2] == pytest.approx(beta)
    assert found.standard_errors[2] == pytest.approx(np.sqrt(rest @ rest / 37 / (left @ left)))
    assert found.p[2] == pytest.approx(2 * stats.t.sf(abs(found.t[2]), 37))


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth = np.array([0.33, 0.012, -0.008, -0.04, 0.001])
    every = [regress(*cohort(24, seed), KNOT, level=0.9) for seed in range(600)]
    covered = np.mean([(one.low < truth) & (truth < one.high) for one in every], axis=0)
    np.testing.assert_allclose(covered, 0.9, atol=0.04)


def test_bootstrap_repeats_and_agrees_with_least_squares():
    age, value, group = cohort(200)
    found, again = (bootstrap_regression(3, age, value, group, KNOT, resamples=800) for _ in range(2))
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, bootstrap_regression(4, age, value, group, KNOT, resamples=800))
    exact = regress(age, value, group, KNOT)
    assert (found[:, 0] < exact.coefficients).all() and (exact.coefficients < found[:, 1]).all()
    np.testing.assert_allclose(np.ptp(found, axis=1), exact.high - exact.low, rtol=0.2)


def test_bootstrap_draws_subjects_not_errors():
    """Where errors grow with age, least squares' interval of the slope is too narrow; drawn subjects show it."""
    draw = np.random.default_rng(0)
    age = draw.uniform(20, 38, 400)
    value = draw.normal(0, 1, 400) * np.where(np.abs(age - 29) > 6, 1.0, 0.02)
    exact, drawn = regress(age, value), bootstrap_regression(0, age, value, resamples=1000)
    assert np.ptp(drawn[1]) > 1.2 * (exact.high[1] - exact.low[1])


def test_bootstrap_leaves_out_draws_that_tell_nothing():
    age, value = np.array([20.0, 22, 24, 30]), np.array([1.0, 2, 3, 5])
    found = bootstrap_regression(0, age, value, knot=KNOT, resamples=300)
    assert np.isfinite(found).all()


# ── bad input ──

AGE, VALUE, GROUP = cohort(12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regress(AGE, VALUE, level=1.0), "level"),
        (lambda: regress(AGE, np.where(VALUE > 0.3, np.nan, VALUE)), "not finite"),
        (lambda: regress(AGE[:5], VALUE[:5], GROUP[:5], KNOT), "5 subjects; expected more than the 5 terms"),
        (lambda: regress(AGE, VALUE, knot=15.0), "apart"),
        (lambda: regress(AGE, VALUE, GROUP | True), "apart"),
        (lambda: bootstrap_regression(0, AGE, VALUE, resamples=0), "resamples"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("interaction", [True, False])
@pytest.mark.parametrize("knot", [None, KNOT])
def test_the_line_at_the_subjects_leaves_their_residuals(knot, interaction):
    """Residuals of least squares have no correlation with any term, and their variance is what the fit says."""
    age, value, group = cohort()
    found = regress(age, value, group, knot, interaction, name="age")
    residual = value - predict(found, age, group)
    assert np.sqrt(residual @ residual / found.degrees_of_freedom) == pytest.approx(found.residual_sd)
    columns = [np.ones(40), age, group, *([] if knot is None else [np.maximum(age - knot, 0)])]
    np.testing.assert_allclose([residual @ column for column in columns], 0, atol=1e-9)
    step = predict(found, np.array([found.reference]), True) - predict(found, np.array([found.reference]))
    assert step[0] == pytest.approx(found.coefficients[found.terms.index("group")])


def test_an_undefined_regression_has_the_shape_of_a_known_one():
    found, nothing = regress(*cohort(), KNOT, name="age"), undefined_regression(("intercept", "age"))
    assert [type(value) for value in nothing] == [type(value) for value in found] and len(nothing.p) == 2
    assert np.isnan([*nothing.coefficients, *nothing.p, nothing.r_squared]).all()
    assert np.isnan(predict(nothing, np.array([24.0, 30.0]), True)).all()
