"""Correlations equal those of SciPy and pingouin to 1e-12 in float64; residuals keep their digits in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.correlation import (
    average_ranks,
    kendall,
    normalize,
    partial_correlation,
    partial_spearman,
    pearson,
    residual,
    semipartial_correlation,
    spearman,
)

# pingouin 0.7.0, partial_corr of `samples()`: z, or z and w, removed from x and y (covar) or from x only (x_covar).
PINGOUIN = {
    partial_correlation: (0.5990666232945785, 0.5032043825627294),
    semipartial_correlation: (0.5399895051118383, 0.4178316346231786),
    partial_spearman: (0.5426566493329679, 0.43336575583009357),
}


def samples():
    draw = np.random.default_rng(1)
    x, y, z, w = draw.normal(size=(4, 60))
    y = y + 0.5 * x
    return np.round(x * 2) / 2, y, z + x - y, w + x  # x has ties


@pytest.mark.usefixtures("x64")
def test_ranks_and_correlations_are_those_of_scipy():
    x, y, z, _ = samples()
    y = np.round(y, 1)
    np.testing.assert_array_equal(average_ranks(np.stack([x, y])), stats.rankdata(np.stack([x, y]), axis=1))
    batch = np.stack([y, z])
    for ours, scipys in ((pearson, stats.pearsonr), (spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        expected = [scipys(x, other).statistic for other in batch]
        np.testing.assert_allclose(ours(x, batch), expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("function", PINGOUIN)
def test_partial_correlations_are_those_of_pingouin(function):
    x, y, z, w = samples()
    found = [function(x, y, z), function(x, y, np.stack([z, w]))]
    np.testing.assert_allclose(found, PINGOUIN[function], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_batch_gives_each_its_own():
    draw = np.random.default_rng(2)
    x, y, z = draw.normal(size=(3, 4, 30))
    each = [partial_correlation(*row) for row in zip(x, y, z, strict=True)]
    np.testing.assert_allclose(partial_correlation(x, y, z), each, atol=1e-14)
    np.testing.assert_allclose(jax.vmap(partial_correlation)(x, y, z), each, atol=1e-14)
    one = [partial_correlation(row, y[0], z[:2]) for row in x]  # two covariates, the same ones for all x
    np.testing.assert_allclose(partial_correlation(x, y[0], z[None, :2]), one, atol=1e-14)


def off_line(values, *covariates):
    design = np.column_stack([np.ones(60), *covariates]).astype(np.float64)
    return values - design @ np.linalg.lstsq(design, values.astype(np.float64), rcond=None)[0]


def nearly_collinear(offset=0):
    z, noise, y, w = np.random.default_rng(3).normal(size=(4, 20, 60)).astype(np.float32)
    z = z + np.float32(offset)
    return z + np.float32(0.0063) * noise, y, z, w


@pytest.mark.parametrize("offset", [0, 10])
def test_residuals_keep_their_digits_in_float32(offset):
    x, y, z, w = nearly_collinear(offset)
    assert np.median([np.corrcoef(*row)[0, 1] for row in zip(x, z, strict=True)]) == pytest.approx(0.99998, abs=2e-6)
    both = np.stack([w, z], 1)
    single = partial_correlation(x, y, z), semipartial_correlation(x, y, z)
    double = partial_correlation(x, y, both), semipartial_correlation(x, y, both)
    for n in range(20):
        for found, covariates in ((single, [z[n]]), (double, [w[n], z[n]])):
            left = off_line(x[n], *covariates)
            assert abs(found[0][n] - np.corrcoef(left, off_line(y[n], *covariates))[0, 1]) < 3e-7
            assert abs(found[1][n] - np.corrcoef(left, y[n])[0, 1]) < 3e-7


def test_the_textbooks_formula_does_not():
    x, y, z, _ = (each[0] for each in nearly_collinear())
    xy, xz, yz = (pearson(*pair) for pair in ((x, y), (x, z), (y, z)))
    textbook = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert abs(textbook - np.corrcoef(off_line(x, z), off_line(y, z))[0, 1]) > 1e-5


def test_ranks_do_not_know_a_monotone_map_and_r_no_unit():
    x, y, z, _ = samples()
    np.testing.assert_array_equal(average_ranks(np.exp(x)), average_ranks(x))
    assert pearson(1e30 * x, 1e-30 * y + 0) == pytest.approx(float(pearson(x, y)), abs=1e-6)
    assert pearson(x, -3 * x) == pytest.approx(-1)
    assert partial_correlation(x, y, z) == pytest.approx(float(partial_correlation(5 * x, y - 7, 2 * z)), abs=1e-5)


def test_a_covariate_that_does_not_matter_leaves_the_pairwise_correlation():
    x, y, z, _ = samples()
    z = residual(z, np.stack([x, y]))
    assert partial_correlation(x, y, z) == pytest.approx(float(pearson(x, y)), abs=1e-6)


@pytest.mark.parametrize("constant", [np.full(60, 0.1), np.full(60, 1e6), np.zeros(60)])
def test_a_constant_has_no_correlation(constant):
    x, y, z, _ = samples()
    values = [pearson(constant, y), spearman(constant, y), kendall(y, constant), normalize(constant)]
    values += [partial_correlation(constant, y, z)]
    values += [partial_correlation(x, y, each) for each in (constant, np.stack([constant, z]))]
    assert np.isnan(np.concatenate([np.ravel(each) for each in values])).all()


def test_what_covariates_explain_has_no_correlation():
    x, y, z, _ = samples()
    values = [partial_correlation(3 * z + 1, y, z), semipartial_correlation(3 * z - 0.1 * x, y, np.stack([z, x]))]
    values += [partial_correlation(x, y, np.stack([z, 2 * z + 1])), partial_correlation(x[:3], y[:3], np.eye(5, 3))]
    assert np.isnan(values).all()
    np.testing.assert_array_equal(residual(3 * z + 1, z), 0)


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_a_missing_value_makes_all_undefined(missing):
    x, y, z, _ = samples()
    x[3] = missing
    values = [pearson(x, y), kendall(y, x), partial_correlation(x, y, z), partial_correlation(y, z, x)]
    values += [semipartial_correlation(y, z, np.stack([x, y]))]
    if np.isnan(missing):
        values += [spearman(x, y), partial_spearman(y, z, x)]
    assert np.isnan(values).all()


def test_samples_of_different_length_are_refused():
    x = np.zeros(5)
    with pytest.raises(DataError, match="x, covariates: 5 and 4 samples"):
        residual(x, x[:4])
    with pytest.raises(DataError, match="do not broadcast"):
        residual(jnp.zeros((2, 5)), jnp.zeros((3, 5)))
