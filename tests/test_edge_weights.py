"""Spatially varying weights w κⱼ κₖ against double loops, autodiff and the penalties without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.penalty import Patch, Quadratic, RelativeDifference, edge_weights, neighbors
from tests.test_penalty import SHAPE, VOXEL, image, pairs

GAMMA, EPSILON = 1.3, 0.05


def kappa() -> np.ndarray:
    return np.random.default_rng(5).uniform(0.2, 3, SHAPE)


def test_pairs_weigh_by_both_of_their_voxels(x64: None):
    x, k = image(), kappa()
    weighted = edge_weights(neighbors(SHAPE, VOXEL), jnp.asarray(k))
    square = sum(w * k[a] * k[b] * (x[a] - x[b]) ** 2 / 2 for a, b, w in pairs())
    np.testing.assert_allclose(Quadratic(weighted).value(jnp.asarray(x)), square, rtol=1e-12)

    def relative(a: tuple[int, ...], b: tuple[int, ...]) -> float:
        return (x[a] - x[b]) ** 2 / (x[a] + x[b] + GAMMA * abs(x[a] - x[b]) + EPSILON)

    want = sum(w * k[a] * k[b] * relative(a, b) for a, b, w in pairs())
    np.testing.assert_allclose(RelativeDifference(weighted, GAMMA, EPSILON).value(jnp.asarray(x)), want, rtol=1e-12)


@pytest.mark.parametrize("kind", ["quadratic", "relative difference"])
def test_derivatives_are_autodiffs(kind: str, x64: None):
    weighted = edge_weights(neighbors(SHAPE, VOXEL), jnp.asarray(kappa()))
    penalty = Quadratic(weighted) if kind == "quadratic" else RelativeDifference(weighted, GAMMA, EPSILON)
    x = jnp.asarray(image())
    gradient, hessian = jax.jit(lambda x: (jax.grad(penalty.value)(x), jax.jacfwd(penalty.gradient)(x)))(x)
    np.testing.assert_allclose(penalty.gradient(x), gradient, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.ravel(penalty.curvature(x)), np.diag(hessian.reshape(x.size, x.size)), rtol=1e-10)


def test_the_surrogate_touches_and_lies_above(x64: None):
    penalty = Quadratic(edge_weights(neighbors(SHAPE, VOXEL), jnp.asarray(kappa())))
    at = jnp.asarray(image())
    anchor, curvature = penalty.surrogate(at)
    np.testing.assert_allclose(curvature * (at - anchor), penalty.gradient(at), rtol=1e-10, atol=1e-12)
    constant = penalty.value(at) - jnp.sum(curvature * (at - anchor) ** 2) / 2
    for seed in range(1, 20):
        x = jnp.asarray(at + 0.3 * (image(seed) - 1))
        assert constant + jnp.sum(curvature * (x - anchor) ** 2) / 2 > penalty.value(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ones_change_no_bit(dtype: type, x64: None):
    plain = neighbors(SHAPE, VOXEL)
    plain = type(plain)(plain.weights.astype(dtype), plain.offsets)
    same, x = edge_weights(plain, jnp.ones(SHAPE, dtype)), jnp.asarray(image().astype(dtype))
    np.testing.assert_array_equal(same.weights, plain.weights)
    for make in (Quadratic, RelativeDifference, lambda pairs: Patch(pairs, 0.3)):
        for method in ("value", "gradient"):
            got, want = (getattr(make(one), method)(x) for one in (same, plain))
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, want)
