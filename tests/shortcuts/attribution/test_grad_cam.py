"""Grad-CAM is CAM where the head is a global average and a dense layer; Grad-CAM++ has a closed form there too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.shortcuts.attribution.grad_cam import grad_cam, grad_cam_plus_plus
from medjax.shortcuts.attribution.target import class_features
from tests.shortcuts.attribution.networks import network


@pytest.fixture(scope="module", params=[(8, 6, 2), (4, 6, 4, 1)], ids=["2-D", "3-D"])
def case(request):
    model = network(stride=2)
    x = np.random.default_rng(0).normal(size=request.param).astype(np.float32)
    params = model.init(jax.random.key(3), x[None])
    return model, params, x, np.asarray(model.features(params, x[None])[0], np.float64)


def upsample(coarse, space):
    """Linear upsampling with pixel areas aligned, axis by axis."""
    for axis, size in enumerate(space):
        number = coarse.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * number / size - 0.5, 0, number - 1)
        low = np.minimum(at.astype(int), number - 2)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(coarse.ndim)])
        coarse = coarse.take(low, axis) * (1 - part) + coarse.take(low + 1, axis) * part
    return coarse


def test_is_cam_of_a_global_average_and_a_dense_layer(case):
    model, params, x, maps = case
    locations = np.prod(maps.shape[:-1])
    for target in (0, 2):
        cam = maps @ np.asarray(params["dense"], np.float64)[:, target] / locations
        split = class_features(model, params, target)
        found = grad_cam(*split)(x)
        assert found.shape == (*x.shape[:-1], 1)
        np.testing.assert_allclose(found[..., 0], upsample(np.maximum(cam, 0), x.shape[:-1]), atol=1e-6)
        signed = grad_cam(*split, relu=False)(x)
        np.testing.assert_allclose(signed[..., 0], upsample(cam, x.shape[:-1]), atol=1e-6)
        assert signed.min() < 0


def test_plus_plus_of_a_global_average_and_a_dense_layer(case):
    """g = w / N, Σ_locations α ReLU(g) = ReLU(w) / (2 + w · mean A)."""
    model, params, x, maps = case
    w = np.asarray(params["dense"], np.float64)[:, 1]
    weight = np.maximum(w, 0) / (2 + w * maps.mean(tuple(range(maps.ndim - 1))))
    found = grad_cam_plus_plus(*class_features(model, params, 1))(x)
    np.testing.assert_allclose(found[..., 0], upsample(maps @ weight, x.shape[:-1]), rtol=1e-4, atol=1e-6)


def test_plus_plus_has_the_published_weights_where_gradients_differ():
    """α = ∂²Y / (2 ∂²Y + Σ A ∂³Y) of Y = exp(f), by derivatives of the exponential of a linear f."""
    rng = np.random.default_rng(1)
    maps, slopes = rng.uniform(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    y = np.exp((maps * slopes).sum())
    second, third = y * slopes**2, y * slopes**3
    alpha = second / (2 * second + maps.sum((0, 1)) * third)
    weight = (alpha * np.maximum(y * slopes, 0)).sum((0, 1)) / y
    wanted = np.maximum((maps * weight).sum(-1), 0)
    own, linear = jnp.asarray(maps, jnp.float32), jnp.asarray(slopes, jnp.float32)
    found = grad_cam_plus_plus(lambda x: own, lambda a: jnp.sum(a * linear))(np.zeros((3, 4, 1), np.float32))
    np.testing.assert_allclose(found[..., 0], wanted, rtol=1e-5)


def test_refusals_and_nan(case):
    model, params, x, _ = case
    features, head = class_features(model, params, 1)
    with pytest.raises(DataError, match="features: shape"):
        grad_cam(lambda x: features(x).mean(0), head)(x)
    hidden = x.copy()
    hidden.flat[0] = np.nan
    assert np.isnan(grad_cam(features, head)(hidden)).all()
    negative = jnp.full((3, 4, 1), -1.0)  # 2 + g Σ A < 0
    found = grad_cam_plus_plus(lambda x: negative, jnp.sum)(np.zeros((3, 4, 1), np.float32))
    assert np.isnan(found).all()
