"""The solved data step against dense float64 algebra; draws' mean and covariance; convergence; what is refused."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import data_step
from medjax.errors import ConfigError
from medjax.likelihood import Gaussian, linear_operator

from .conftest import BLOB

SCALE, VARIANCE = 30.0, 0.16
SHAPE = (4, 5)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Affine:
    """A user's likelihood of data ~ N(A x + b, variance), without forward and adjoint of its own."""

    matrix: jax.Array
    constant: jax.Array
    data: jax.Array
    variances: jax.Array

    def expected(self, image):
        return jnp.einsum("ij,j->i", self.matrix, image.ravel(), precision="highest") + self.constant

    def residual(self, expected):
        return self.data - expected

    def precision(self, expected):
        return 1 / self.variances

    def deviance(self, expected):
        return jnp.sum(self.residual(expected) ** 2 / self.variances) / 2

    def gradient(self, image):
        return jax.grad(lambda x: -self.deviance(self.expected(x)))(image)


def affine(size=20, data=26):
    draw = np.random.default_rng(1)
    arrays = (draw.uniform(0, 1, (data, size)), draw.uniform(1, 2, data), draw.uniform(5, 9, data))
    return Affine(*(jnp.asarray(a, jnp.float32) for a in (*arrays, draw.uniform(0.5, 2, data))))


def matrix_of(scan):
    """A of a PET scan, one column a voxel."""
    return np.asarray(jax.jit(jax.vmap(scan.forward))(jnp.eye(256).reshape(256, 16, 16, 1))).reshape(256, -1).T


def dense(matrix, weights, data, anchor, variance, scale):
    """(AᵀWA + 1/v)⁻¹ (AᵀW y + a/v), and the inverse, in float64."""
    a, w = np.float64(matrix) * scale, np.float64(weights).ravel()
    precision = a.T @ (w[:, None] * a) + np.eye(a.shape[1]) / variance
    right = a.T @ (w * np.float64(data).ravel()) + np.float64(anchor).ravel() / variance
    return np.linalg.solve(precision, right).reshape(anchor.shape), np.linalg.inv(precision)


@pytest.fixture(scope="module")
def problem(scan, early_image, noisy_blob):
    return data_step.normal_equations(scan, early_image, SCALE), noisy_blob


@jax.jit
def solved(equations, anchor, variance, iterations):
    return data_step.solve(equations, anchor, variance, iterations)


def test_a_pet_step_is_the_dense_solution(scan, problem):
    equations, anchor = problem
    counts = np.float64(scan.counts) - np.float64(scan.additive)
    for variance in (0.01, 0.16, 2.0):
        x, info = solved(equations, anchor, variance, 60)
        expected, _ = dense(matrix_of(scan), equations.weights, counts, anchor, variance, SCALE)
        np.testing.assert_allclose(x, expected, atol=2e-4)
        assert info.residual < 1e-4 and info.projector_calls == 122


def test_weights_are_of_counts(scan, problem):
    expected = scan.expected(SCALE * jnp.asarray(BLOB))
    np.testing.assert_allclose(scan.precision(expected), 1 / np.maximum(expected, 0.1))
    assert jnp.isfinite(scan.precision(0 * expected)).all()
    np.testing.assert_array_equal(scan.residual(expected), scan.counts - expected)
    np.testing.assert_allclose(
        scan.gradient(SCALE * jnp.asarray(BLOB)), scan.adjoint(scan.residual(expected) / expected), atol=2e-3
    )


def test_the_preconditioner_pays(problem):
    """Eight iterations leave a tenth of the error; without it a third."""
    equations, anchor = problem
    plain = equations._replace(kappa=jnp.ones_like(anchor), response=0 * equations.response, inverse_kappa2=1.0)
    limit = solved(equations, anchor, VARIANCE, 60)[0]
    np.testing.assert_allclose(solved(plain, anchor, VARIANCE, 200)[0], limit, atol=2e-4)
    start = jnp.linalg.norm(anchor - limit)
    error = [float(jnp.linalg.norm(solved(e, anchor, VARIANCE, 8)[0] - limit) / start) for e in (equations, plain)]
    assert error[0] < 0.12 and error[0] < 0.4 * error[1], error


def test_any_affine_likelihood_is_solved():
    """A random matrix is not shift-invariant at all: still the same solution."""
    likelihood = affine()
    anchor = jnp.asarray(np.random.default_rng(3).standard_normal(SHAPE), jnp.float32)
    equations = data_step.normal_equations(likelihood, anchor, 2.0)
    x, info = solved(equations, anchor, 0.3, 40)
    weights, data = 1 / np.asarray(likelihood.variances), likelihood.data - likelihood.constant
    np.testing.assert_allclose(x, dense(likelihood.matrix, weights, data, anchor, 0.3, 2.0)[0], atol=2e-4)
    forward, adjoint = linear_operator(likelihood, anchor)
    np.testing.assert_allclose(forward(anchor), likelihood.matrix @ anchor.ravel(), atol=1e-4)
    np.testing.assert_allclose(adjoint(data), (likelihood.matrix.T @ data).reshape(SHAPE), rtol=1e-5)
    assert info.residual < 1e-3


def test_draws_have_the_mean_and_the_covariance():
    likelihood, variance = affine(), 0.3
    anchor = jnp.asarray(np.random.default_rng(3).standard_normal(SHAPE), jnp.float32)
    equations = data_step.normal_equations(likelihood, anchor, 2.0)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws, info = jax.jit(jax.vmap(lambda key: data_step.draw(key, equations, anchor, variance, 25)))(keys)
    data = likelihood.data - likelihood.constant
    mean, covariance = dense(likelihood.matrix, 1 / likelihood.variances, data, anchor, variance, 2.0)
    draws = np.float64(draws).reshape(4000, -1)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(axis=0) - mean.ravel()) / deviation, 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(draws.var(axis=0) / deviation**2, 1, atol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(deviation, deviation), covariance / np.outer(deviation, deviation), atol=0.1
    )
    assert info.residual.shape == (4000,)


def test_volumes_and_axes_of_one_voxel():
    """Denoising, A = 1: the mean of data and anchor by their precisions, in one iteration, in any number of axes."""
    for shape in ((7,), (6, 5, 1), (4, 3, 5), (1, 1, 1)):
        data, anchor = jnp.asarray(np.random.default_rng(4).standard_normal((2, *shape)), jnp.float32)
        x, info = data_step.solve(data_step.normal_equations(Gaussian(data, 0.5), data), anchor, 0.3, 1)
        np.testing.assert_allclose(x, (data / 0.25 + anchor / 0.3) / (1 / 0.25 + 1 / 0.3), atol=1e-5)
        assert info.residual < 1e-5


def test_limits_of_the_variance_and_empty_data(scan, problem):
    equations, anchor = problem
    x, info = solved(equations, anchor, 0.0, 3)
    np.testing.assert_array_equal(x, anchor)
    assert info.residual == 0
    assert jnp.isfinite(solved(equations, anchor, 1e12, 30)[0]).all()
    silent = replace(scan, multiplicative=0 * scan.multiplicative, sensitivity=0 * scan.sensitivity)
    x, info = solved(data_step.normal_equations(silent, jnp.asarray(BLOB), SCALE), anchor, 1.0, 3)
    np.testing.assert_array_equal(x, anchor)


def test_a_likelihood_without_its_gaussian_approximation_is_refused_by_name():
    class Laplace:
        expected = deviance = gradient = residual = staticmethod(jnp.abs)

    jax.tree_util.register_static(Laplace)
    with pytest.raises(ConfigError, match=r"a solved data step needs .* Laplace has no precision"):
        data_step.normal_equations(Laplace(), jnp.ones(SHAPE))
    with pytest.raises(ConfigError, match="object has no expected"):
        data_step.normal_equations(object(), jnp.ones(SHAPE))
