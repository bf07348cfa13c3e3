"""Integrated gradients, SmoothGrad, VarGrad and GradientSHAP: closed forms of linear and smooth scores, chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.shortcuts.attribution.gradient_shap import gradient_shap
from medjax.shortcuts.attribution.integrated_gradients import integrated_gradients
from medjax.shortcuts.attribution.samples import sum_over, values_over
from medjax.shortcuts.attribution.smoothgrad import smooth_grad, var_grad
from medjax.shortcuts.attribution.target import class_score
from tests.shortcuts.attribution.networks import linear, network

KEY = jax.random.key(0)
SCORE, W, X = linear()
B = np.random.default_rng(9).normal(size=X.shape).astype(np.float32)


def quadratic(x):
    """f = Σ x³ / 3: gradient x²."""
    return jnp.sum(x**3) / 3


def test_linear_scores():
    for baseline, away in ((0.0, X), (0.5, X - 0.5), (B, X - B), (jnp.flip, X - np.flip(X))):
        found = integrated_gradients(SCORE, 3, baseline)(X)
        np.testing.assert_allclose(found, W * away, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(smooth_grad(KEY, SCORE, samples=5)(X), W, rtol=1e-5)
    np.testing.assert_array_equal(var_grad(KEY, SCORE, samples=5)(X), np.zeros_like(X))
    np.testing.assert_allclose(gradient_shap(KEY, SCORE, B[None], samples=5)(X), W * (X - B), rtol=1e-4, atol=1e-6)


def test_path_integral_of_a_cubic_score_is_exact_with_two_nodes():
    np.testing.assert_allclose(integrated_gradients(quadratic, 2)(X), X**3 / 3, rtol=1e-4, atol=1e-7)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(integrated_gradients(quadratic, 1)(X), X**3 / 3, rtol=1e-1)


def test_noise_of_the_published_size():
    """∇f = x²: its mean over N(x, σ²) is x² + σ², its variance 4 x² σ² + 2 σ⁴."""
    samples, x = 4000, X[:2, :2]
    sd = 0.15 * (x.max() - x.min())
    mean = smooth_grad(KEY, quadratic, samples, chunk=500)(x)
    variance = 4 * x**2 * sd**2 + 2 * sd**4
    assert (np.abs(mean - x**2 - sd**2) < 4.5 * np.sqrt(variance / samples)).all()
    np.testing.assert_allclose(var_grad(KEY, quadratic, samples, chunk=500)(x), variance, rtol=0.2)


def test_variance_keeps_its_digits_beside_a_large_gradient():
    found = var_grad(KEY, lambda x: quadratic(x) + 3e4 * jnp.sum(x), 50, noise=0.2)(X)
    np.testing.assert_allclose(found, var_grad(KEY, quadratic, 50, noise=0.2)(X), rtol=0.1, atol=0.05)


def test_smooth_grad_of_another_method():
    method = partial(integrated_gradients, steps=2)
    some, none = (smooth_grad(KEY, SCORE, 7, noise, method=method)(X) for noise in (0.1, 0.0))
    assert np.abs(some - W * X).max() > 1e-3  # w (x + noise)
    np.testing.assert_allclose(none, W * X, rtol=1e-5, atol=1e-6)


def test_baselines_and_points_of_gradient_shap():
    """f = Σ x³/3 from two baselines: the mean of both path integrals."""
    baselines = np.stack([np.zeros_like(X), B])[:, :2, :2]
    x = X[:2, :2]
    parts = [integrated_gradients(quadratic, 2, each)(x) for each in baselines]
    found = gradient_shap(KEY, quadratic, baselines, samples=4000, chunk=500)(x)
    np.testing.assert_allclose(found, np.mean(parts, 0), atol=0.1)


MODEL = network(act=jnp.tanh)
PARAMS = MODEL.init(jax.random.key(1), X[None])
METHODS = {
    "integrated": lambda score, chunk: integrated_gradients(score, 7, chunk=chunk),
    "smooth": lambda score, chunk: smooth_grad(KEY, score, 7, chunk=chunk),
    "variance": lambda score, chunk: var_grad(KEY, score, 7, chunk=chunk),
    "shap": lambda score, chunk: gradient_shap(KEY, score, np.stack([B, -B]), 7, chunk=chunk),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_chunks_change_rounding_only(method):
    one, three, all_at_once = (method(class_score(MODEL, PARAMS), chunk)(X) for chunk in (1, 3, 100))
    np.testing.assert_allclose(three, one, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(all_at_once, one, rtol=1e-4, atol=1e-6)
    assert np.abs(one).max() > 1e-3


def test_sums_and_values_over_samples():
    for number, chunk in ((1, 1), (5, 2), (6, 3), (4, 9)):
        index = np.arange(number)
        total, square = sum_over(lambda n: (n, jnp.full(2, n**2)), number, chunk, (jnp.array(0), jnp.zeros(2, int)))
        assert total == index.sum() and (square == (index**2).sum()).all()
        np.testing.assert_array_equal(values_over(lambda n: n**2, number, chunk), index**2)


def test_the_whole_path_is_of_the_class_of_the_image():
    """A score whose class would change along the path: completeness to f(b) of the image's class."""
    score = class_score(MODEL, PARAMS)
    own = int(np.argmax(MODEL.apply(PARAMS, X[None])))
    found = integrated_gradients(score, 30, baseline=-3 * X)(X)
    np.testing.assert_allclose(found, integrated_gradients(class_score(MODEL, PARAMS, own), 30, -3 * X)(X), rtol=1e-5)
    assert int(np.argmax(MODEL.apply(PARAMS, -3 * X[None]))) != own


def test_refusals_and_nan():
    for make, message in (
        (lambda: integrated_gradients(SCORE, 0), "steps: 0"),
        (lambda: integrated_gradients(SCORE, 5, chunk=0)(X), "chunk: 0"),
        (lambda: integrated_gradients(SCORE, baseline=B[0])(X), "baseline: shape"),
        (lambda: smooth_grad(KEY, SCORE, 0)(X), "number of samples: 0"),
        (lambda: smooth_grad(KEY, SCORE, noise=-0.1), "noise: -0.1"),
        (lambda: var_grad(KEY, SCORE, noise=float("nan")), "noise: nan"),
        (lambda: gradient_shap(KEY, SCORE, B[:, None])(X), "baselines: shape"),
        (lambda: gradient_shap(KEY, SCORE, B[None][:0])(X), "baselines: shape"),
        (lambda: integrated_gradients(lambda x: x, 2)(X), "score: shape"),
    ):
        with pytest.raises(DataError, match=message):
            make()
    hidden = X.copy()
    hidden[0, 0, 0] = np.nan
    for method in METHODS.values():
        assert np.isnan(method(class_score(network(), PARAMS, 0), 7)(hidden)).all()
