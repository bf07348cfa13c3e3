"""A likelihood of three methods gets the rest: against closed forms of least squares and SciPy's line search."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from medjax.likelihood import Gaussian, Likelihood, precondition, proximal, update

MATRIX = np.random.default_rng(0).uniform(0.1, 1, (9, 5))
X = np.random.default_rng(1).uniform(0.5, 2, 5)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LeastSquares:
    """½ ‖data − A x‖²: three methods and no more."""

    data: Any
    matrix: Any

    def expected(self, image):
        return self.matrix @ image

    def deviance(self, expected):
        return jnp.sum((expected - self.data) ** 2) / 2

    def gradient(self, image):
        return self.matrix.T @ (self.data - self.expected(image))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Poisson:
    """Counts with a background: three methods and no more."""

    counts: Any
    matrix: Any

    def expected(self, image):
        return self.matrix @ image + 0.3

    def deviance(self, expected):
        return jnp.sum(expected - self.counts + jax.scipy.special.xlogy(self.counts, self.counts / expected))

    def gradient(self, image):
        return self.matrix.T @ (self.counts / self.expected(image) - 1)


def least_squares() -> LeastSquares:
    return LeastSquares(jnp.asarray(MATRIX @ X + 0.1), jnp.asarray(MATRIX))


def poisson() -> Poisson:
    counts = np.random.default_rng(2).poisson(5 * MATRIX @ X + 0.3)
    return Poisson(jnp.asarray(counts, float), jnp.asarray(5 * MATRIX))


def test_three_methods_make_a_likelihood(x64: None):
    assert isinstance(least_squares(), Likelihood) and isinstance(Gaussian(jnp.ones(3), 1.0), Likelihood)
    assert not isinstance(object(), Likelihood)


def test_update_is_the_exact_line_search_of_least_squares(x64: None):
    one, start = least_squares(), jnp.asarray(X[::-1])
    gradient = np.asarray(one.gradient(start))
    size = gradient @ gradient / (gradient @ MATRIX.T @ MATRIX @ gradient)
    np.testing.assert_allclose(jax.jit(update)(one, start), start + size * gradient, rtol=1e-10)
    np.testing.assert_allclose(update(one, start, one.expected(start)), start + size * gradient, rtol=1e-10)
    np.testing.assert_allclose(precondition(one, start, jnp.asarray(gradient)), size * gradient, rtol=1e-10)


def test_update_is_scipys_line_search_of_counts(x64: None):
    one, start = poisson(), jnp.ones(5)
    gradient = one.gradient(start)

    def along(alpha: float) -> float:
        value = float(one.deviance(one.expected(start + alpha * gradient)))
        return value if np.isfinite(value) else np.inf

    best = minimize_scalar(along, bounds=(0, 0.1), method="bounded", options={"xatol": 1e-14})
    np.testing.assert_allclose(update(one, start), start + best.x * gradient, rtol=1e-6)


@pytest.mark.parametrize("make", [least_squares, poisson])
def test_updates_never_lose_likelihood_and_reach_its_maximum(make: Any, x64: None):
    one, image = make(), jnp.ones(5)
    step, deviances = jax.jit(update), []
    for _ in range(300):
        deviances.append(float(one.deviance(one.expected(image))))
        image = step(one, image)
    assert np.all(np.diff(deviances) <= 1e-12)
    assert float(jnp.linalg.norm(one.gradient(image))) < 1e-3 * float(jnp.linalg.norm(one.gradient(jnp.ones(5))))


def test_a_search_finds_the_minimum_where_the_deviance_is_a_straight_line_at_first(x64: None):
    @dataclass(frozen=True)
    class Absolute:  # nearly |x − 9|, whose second derivative tells nothing of how far it is
        def expected(self, image):
            return image

        def deviance(self, expected):
            return jnp.sum(jnp.sqrt((expected - 9.0) ** 2 + 1e-6))

        def gradient(self, image):
            return -jax.grad(self.deviance)(image)

    np.testing.assert_allclose(update(Absolute(), jnp.zeros(1)), 9.0, rtol=1e-9)
    step = precondition(Absolute(), jnp.zeros(1), jnp.ones(1))
    assert 0 < float(step[0]) <= 9.0 + 1e-9


def test_proximal_steps_reach_the_closed_form(x64: None):
    one, anchor, weight = least_squares(), jnp.asarray(X[::-1]), 0.7
    image, step = jnp.ones(5), jax.jit(proximal)
    for _ in range(400):
        image = step(one, image, anchor, weight)
    normal = MATRIX.T @ MATRIX + weight * np.eye(5)
    want = np.linalg.solve(normal, MATRIX.T @ np.asarray(one.data) + weight * np.asarray(anchor))
    np.testing.assert_allclose(image, want, rtol=1e-6)


def test_at_the_maximum_nothing_moves(x64: None):
    one = LeastSquares(jnp.asarray(MATRIX @ X), jnp.asarray(MATRIX))
    for moved in (update(one, jnp.asarray(X)), proximal(one, jnp.asarray(X), jnp.asarray(X), 1.0)):
        np.testing.assert_allclose(moved, X, rtol=1e-9)
    np.testing.assert_array_equal(precondition(one, jnp.asarray(X), jnp.zeros(5)), np.zeros(5))


def test_a_likelihoods_own_methods_come_first(x64: None):
    own = Gaussian(jnp.asarray(X), 0.5, curvature=2.0)
    image, anchor = jnp.ones(5), jnp.zeros(5)
    np.testing.assert_array_equal(update(own, image), own.update(image))
    np.testing.assert_array_equal(precondition(own, image, anchor + 1), own.precondition(image, anchor + 1))
    np.testing.assert_array_equal(proximal(own, image, anchor, 0.3), own.proximal(image, anchor, 0.3))
