"""3-D convolutions: both forms against SciPy and each other, gradients too; up-sampling against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError, DataError
from medjax.models.conv3d import conv3d, conv_transpose3d


def drawn(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("form", ["native", "folded"])
def test_one_channel_is_scipys_correlation_and_a_stride_takes_every_other_place(form):
    x, kernel = drawn(0, 7, 6, 5), drawn(1, 3, 5, 1)
    expected = ndimage.correlate(np.asarray(x, np.float64), np.asarray(kernel, np.float64), mode="constant")
    found = conv3d(x[None, ..., None], kernel[..., None, None], (2, 1, 3), form)[0, ..., 0]
    np.testing.assert_allclose(found, expected[::2, :, ::3], atol=1e-5)


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2), (1, 2, 3)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 1, 3)])
def test_folded_is_native_and_so_are_its_gradients(kernel, strides):
    x, w = drawn(0, 2, 7, 8, 5, 3), drawn(1, *kernel, 3, 4)

    @jax.jit
    def both(x, w):
        native, back = jax.vjp(lambda x, w: conv3d(x, w, strides, "native"), x, w)
        folded, fold_back = jax.vjp(lambda x, w: conv3d(x, w, strides, "folded"), x, w)
        return (native, *back(jnp.cos(native))), (folded, *fold_back(jnp.cos(native)))

    for expected, found in zip(*both(x, w), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_auto_is_folded_on_the_cpu_and_native_elsewhere(monkeypatch):
    x, w = drawn(0, 1, 4, 4, 4, 1), drawn(1, 3, 3, 3, 1, 1)

    def axes() -> int:
        jaxpr = jax.make_jaxpr(lambda: conv3d(x, w))()
        [equation] = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
        return len(equation.params["window_strides"])

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert axes() == 2
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert axes() == 3


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 3)])
def test_up_sampling_is_jaxs_transposed_convolution(strides):
    x, w = drawn(0, 2, 3, 4, 2, 5), drawn(1, *strides, 5, 4)
    numbers = ("NXYZC", "XYZIO", "NXYZC")
    expected = jax.lax.conv_transpose(x, w[::-1, ::-1, ::-1], strides, "VALID", dimension_numbers=numbers)
    np.testing.assert_allclose(conv_transpose3d(x, w), expected, atol=1e-5)


def test_what_cannot_be_is_refused():
    x = jnp.ones((1, 4, 4, 4, 1))
    with pytest.raises(ConfigError, match="form: 'fast'; expected one of auto, native, folded"):
        conv3d(x, jnp.ones((3, 3, 3, 1, 1)), form="fast")
    with pytest.raises(ConfigError, match=r"strides: \(1, 0, 1\); expected"):
        conv3d(x, jnp.ones((3, 3, 3, 1, 1)), (1, 0, 1))
    with pytest.raises(DataError, match=r"kernel: sides \(3, 2, 3\); expected odd"):
        conv3d(x, jnp.ones((3, 2, 3, 1, 1)))
