"""Statistics of regions against NumPy, masks against SciPy's morphology, regression against SciPy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from medjax.errors import DataError
from medjax.ivim.maturity import bootstrap, boundary_sensitivity, moved, region_statistics, regress
from medjax.ivim.signal import Ivim


def maps(shape=(12, 11, 8), seed=0) -> Ivim:
    draw = np.random.default_rng(seed)
    return Ivim(
        *(draw.uniform(*ends, shape).astype(np.float32) for ends in ((1, 2), (0, 1), (1e-3, 3e-3), (1e-2, 0.1)))
    )


def ball(shape=(12, 11, 8), spacing=(2.0, 2.0, 4.0), radius=7.0):
    places = (np.indices(shape).T - (np.array(shape) - 1) / 2) * spacing
    return (np.linalg.norm(places, axis=-1) <= radius).T


def cohort(n=40, seed=0, noise=0.02):
    """Ages, values of known coefficients around 26 weeks, and groups."""
    draw = np.random.default_rng(seed)
    age, group = draw.uniform(20, 38, n), np.arange(n) % 2 == 1
    mean = 0.33 + 0.012 * (age - 26) - 0.008 * np.maximum(age - 26, 0) - 0.04 * group + 0.001 * group * (age - 26)
    return age, mean + draw.normal(0, noise, n), group


# ── regions ──


def test_statistics_are_numpys():
    every, mask = maps(), ball()
    found = region_statistics(every, mask)
    assert found.voxels == mask.sum()
    for name, values in (
        ("f", every.f), ("d", every.d), ("d_star", every.d_star), ("f_d_star", np.float64(every.f) * every.d_star)
    ):  # fmt: skip
        inside = np.float64(values[mask])
        low, high = np.percentile(inside, [25, 75])
        expected = [np.median(inside), inside.mean(), inside.std(ddof=1), high - low]
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-6)


def test_only_usable_voxels_are_read():
    every, mask = maps(), ball()
    usable = every.f < 0.5
    found = region_statistics(every, mask, usable)
    assert found.voxels == (mask & usable).sum() and found.f.mean == pytest.approx(every.f[mask & usable].mean())
    every.d[mask.nonzero()[0][0], mask.nonzero()[1][0], mask.nonzero()[2][0]] = np.nan  # a fit that failed
    assert region_statistics(every, mask).voxels == mask.sum() - 1


def test_one_voxel_has_no_spread():
    one = Ivim(*(np.array([value]) for value in (1.0, 0.3, 1e-3, 2e-2)))
    found = region_statistics(one, np.array([True]))
    assert found.f == (0.3, 0.3, 0, 0) and found.f_d_star.mean == pytest.approx(6e-3)


# ── outlines ──


@pytest.mark.parametrize("distance", [2.0, 3.0, 4.5, 6.1])
def test_a_mask_grows_and_shrinks_by_an_ellipsoid_of_voxels(distance):
    mask, spacing = ball(), (2.0, 2.0, 4.0)
    reach = [int(distance // step) for step in spacing]
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1) * spacing
    element = np.linalg.norm(offsets, axis=-1) <= distance
    np.testing.assert_array_equal(moved(mask, spacing, distance), ndimage.binary_dilation(mask, element))
    np.testing.assert_array_equal(
        moved(mask, spacing, -distance), ndimage.binary_erosion(mask, element, border_value=1)
    )


@given(distance=st.floats(0.1, 9), seed=st.integers(0, 99))
def test_shrinking_a_mask_is_growing_what_is_outside(distance, seed):
    mask = np.random.default_rng(seed).random((7, 6, 5)) < 0.5
    np.testing.assert_array_equal(moved(mask, (1.5, 2.0, 3.0), -distance), ~moved(~mask, (1.5, 2.0, 3.0), distance))
    assert (moved(mask, (1.5, 2.0, 3.0), 0.1) == mask).all()


def test_sensitivity_reads_the_moved_masks():
    every, mask, spacing = maps(), ball(), (2.0, 2.0, 4.0)
    found = boundary_sensitivity(every, mask, spacing)
    assert list(found) == [-2, -1, 0, 1, 2]
    assert found[0.0] == region_statistics(every, mask) == found[1.0] == found[-1.0]  # less than a voxel
    for distance in (-2.0, 2.0):
        assert found[distance] == region_statistics(every, moved(mask, spacing, distance))
    assert found[-2.0].voxels < found[0.0].voxels < found[2.0].voxels


def test_sensitivity_shows_what_is_around():
    """An organ of f 0.4 in surroundings of 0.1: too large a mask reads less, too small a one the same."""
    mask = ball()
    every = maps()._replace(f=np.where(mask, 0.4, 0.1))
    found = boundary_sensitivity(every, mask, (2.0, 2.0, 4.0), (-2, 0, 2, 6))
    means = [found[mm].f.mean for mm in (-2, 0, 2, 6)]
    assert means[0] == pytest.approx(0.4) == means[1] and means[1] > means[2] > means[3] > 0.1
    share = mask.sum() / found[2].voxels
    assert means[2] == pytest.approx(0.4 * share + 0.1 * (1 - share))


def test_a_mask_may_vanish():
    found = boundary_sensitivity(maps(), ball(), (2.0, 2.0, 4.0), (-30.0, 0.0))
    assert found[-30.0].voxels == 0 and np.isnan(found[-30.0].f).all() and found[0.0].voxels > 0


# ── regression ──


def test_one_line_is_scipys():
    age, value, _ = cohort()
    found, expected = regress(age, value, knot=None), stats.linregress(age, value)
    assert found.terms == ("intercept", "age") and found.reference == pytest.approx(age.mean())
    assert found.coefficients[1] == pytest.approx(expected.slope)
    assert found.errors[1] == pytest.approx(expected.stderr) and found.p[1] == pytest.approx(expected.pvalue)
    assert found.r_squared == pytest.approx(expected.rvalue**2) and found.coefficients[0] == pytest.approx(value.mean())
    assert found.freedom == 38
    half = stats.t.ppf(0.975, 38) * expected.stderr
    np.testing.assert_allclose([found.low[1], found.high[1]], [expected.slope - half, expected.slope + half])


def test_a_group_alone_is_students_test():
    """Without any course with age, the group's coefficient is the difference of means, and its t Student's."""
    age, group = np.concatenate([np.linspace(24, 32, 9), np.linspace(24, 32, 11)]), np.arange(20) >= 9
    value = np.random.default_rng(1).normal(0, 1, 20)
    for one in (group, ~group):
        value[one] += value[one].mean() - np.polyval(np.polyfit(age[one], value[one], 1), age[one])
    found, expected = regress(age, value, group, knot=None), stats.ttest_ind(value[group], value[~group])
    difference = value[group].mean() - value[~group].mean()
    np.testing.assert_allclose(found.coefficients[1:], [0, difference, 0], atol=1e-12)
    assert found.t[2] == pytest.approx(expected.statistic * np.sqrt(16 / 18))  # two slopes cost freedom


def test_groups_with_interaction_are_two_lines():
    age, value, group = cohort()
    found = regress(age, value, group, knot=None)
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
    found = regress(age, value, group)
    assert found.terms == ("intercept", "age", "hinge", "group", "age×group") and found.reference == 26
    np.testing.assert_allclose(found.coefficients, [0.33, 0.012, -0.008, -0.04, 0.001], atol=1e-12)
    assert found.r_squared == pytest.approx(1)
    assert regress(age, value, group, interaction=False).terms == found.terms[:4]


def test_a_hinge_is_what_weighted_normal_equations_give():
    """By hand: with the projection on the other columns taken out, one regressor is left."""
    age, value, _ = cohort()
    found = regress(age, value)
    others = np.stack([np.ones_like(age), age], 1)
    hinge = np.maximum(age - 26, 0)
    left = hinge - others @ np.linalg.lstsq(others, hinge)[0]
    beta = left @ value / (left @ left)
    rest = value - np.stack([*others.T, hinge], 1) @ np.linalg.lstsq(np.stack([*others.T, hinge], 1), value)[0]
    assert found.coefficients[2] == pytest.approx(beta)
    assert found.errors[2] == pytest.approx(np.sqrt(rest @ rest / 37 / (left @ left)))
    assert found.p[2] == pytest.approx(2 * stats.t.sf(abs(found.t[2]), 37))


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth = np.array([0.33, 0.012, -0.008, -0.04, 0.001])
    every = [regress(*cohort(24, seed), level=0.9) for seed in range(600)]
    covered = np.mean([(one.low < truth) & (truth < one.high) for one in every], axis=0)
    np.testing.assert_allclose(covered, 0.9, atol=0.04)


def test_bootstrap_repeats_and_agrees_with_least_squares():
    age, value, group = cohort(200)
    found, again = (bootstrap(3, age, value, group, resamples=800) for _ in range(2))
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, bootstrap(4, age, value, group, resamples=800))
    exact = regress(age, value, group)
    assert (found[:, 0] < exact.coefficients).all() and (exact.coefficients < found[:, 1]).all()
    np.testing.assert_allclose(np.ptp(found, axis=1), exact.high - exact.low, rtol=0.2)


def test_bootstrap_draws_subjects_not_errors():
    """Where errors grow with age, least squares' interval of the slope is too narrow; drawn subjects show it."""
    draw = np.random.default_rng(0)
    age = draw.uniform(20, 38, 400)
    value = draw.normal(0, 1, 400) * np.where(np.abs(age - 29) > 6, 1.0, 0.02)
    exact, drawn = regress(age, value, knot=None), bootstrap(0, age, value, knot=None, resamples=1000)
    assert np.ptp(drawn[1]) > 1.2 * (exact.high[1] - exact.low[1])


def test_bootstrap_leaves_out_draws_that_tell_nothing():
    age, value = np.array([20.0, 22, 24, 30]), np.array([1.0, 2, 3, 5])
    found = bootstrap(0, age, value, resamples=300)
    assert np.isfinite(found).all()


# ── bad input ──

AGE, VALUE, GROUP = cohort(12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_statistics(maps(), ball() & False), "none of them usable"),
        (lambda: region_statistics(maps()._replace(f=np.full((12, 11, 8), np.nan)), ball()), "none of them usable"),
        (lambda: region_statistics(maps()._replace(f=np.full((12, 11, 8), np.nan)), ball(), ball()), "not finite"),
        (lambda: region_statistics(maps(), ball((5, 5, 5))), "mask: shape"),
        (lambda: boundary_sensitivity(maps(), ball() & False, (1.0, 1.0, 1.0)), "at least one voxel"),
        (lambda: boundary_sensitivity(maps(), ball(), (1.0, 1.0)), "spacing"),
        (lambda: boundary_sensitivity(maps(), ball(), (1.0, 0.0, 1.0)), "spacing"),
        (lambda: regress(AGE, VALUE, level=1.0), "level"),
        (lambda: regress(AGE, np.where(VALUE > 0.3, np.nan, VALUE)), "not finite"),
        (lambda: regress(AGE[:5], VALUE[:5], GROUP[:5]), "5 subjects; expected more than the 5 terms"),
        (lambda: regress(AGE, VALUE, knot=15.0), "apart"),
        (lambda: regress(AGE, VALUE, GROUP | True), "apart"),
        (lambda: bootstrap(0, AGE, VALUE, resamples=0), "resamples"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
