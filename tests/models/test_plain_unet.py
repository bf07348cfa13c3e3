"""nnU-Net's network: what each layer is, levels and heads, the start, parts that a user replaces."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.models.layers import conv3d, conv_transpose3d
from medjax.models.plain_unet import NORM, plain_unet

KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 1))
SETTINGS = (3, (4, 6, 8), KERNELS, STRIDES)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8, 6, 2)), jnp.float32)


@pytest.fixture(scope="module")
def params():
    model = plain_unet(*SETTINGS)
    start = jax.eval_shape(model.init, jax.random.key(0), X)
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) * 0.3, jnp.float32), start)


def by_hand(params, x):
    """The network written out, layer by layer, from its parameters."""
    p = params["features"]

    def block(x, name, kernel, strides):
        for number in range(2):
            conv, norm = p[f"{name}_conv_{number}"], p[f"{name}_norm_{number}"]
            assert conv["kernel"].shape[:3] == kernel
            y = conv3d(x, conv["kernel"], strides if number == 0 else (1, 1, 1), "native") + row(conv["bias"])
            mean, sd = (f(y, axis=(1, 2, 3), keepdims=True) for f in (jnp.mean, jnp.std))
            y = (y - mean) / jnp.sqrt(sd**2 + 1e-5) * row(norm["scale"]) + row(norm["bias"])
            x = jnp.where(y > 0, y, 0.01 * y)
        return x

    def row(values):
        return values.reshape(1, 1, 1, 1, -1)

    def up(x, skip, stage):
        wide = conv_transpose3d(x, p[f"widen_{stage}"]["kernel"]) + row(p[f"widen_{stage}"]["bias"])
        return block(jnp.concatenate([wide, skip], -1), f"up_{stage}", KERNELS[stage], (1, 1, 1))

    first = block(x, "down_0", KERNELS[0], STRIDES[0])
    second = block(first, "down_1", KERNELS[1], STRIDES[1])
    coarse = up(block(second, "down_2", KERNELS[2], STRIDES[2]), second, 1)
    fine = up(coarse, first, 0)
    heads = (params["head_0"], params["head_1"])
    return tuple(y @ head["kernel"][0, 0, 0] + row(head["bias"]) for y, head in zip((fine, coarse), heads, strict=True))


def test_it_is_the_network_written_out_and_not_deep_is_its_finest_level(params):
    levels, finest = plain_unet(*SETTINGS).apply, plain_unet(*SETTINGS, deep=False).apply
    found = jax.jit(lambda params, x: (levels(params, x), finest(params, x)))(params, X)
    expected = jax.jit(by_hand)(params, X)
    assert [y.shape for y in found[0]] == [(2, 4, 8, 6, 3), (2, 4, 4, 3, 3)]
    for one, other in zip(found[0], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    np.testing.assert_allclose(found[1], found[0][0], atol=1e-5)


def test_both_forms_have_the_parameters_of_both_depths():
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(plain_unet(*SETTINGS, deep=deep, form=form).init, *start))
        for deep in (True, False)
        for form in ("native", "folded")
        for start in [(jax.random.key(0), X)]
    ]
    assert all(one == shapes[0] for one in shapes)


def test_it_starts_with_he_normal_weights_as_pytorch_counts_them():
    model = plain_unet(2, (32, 64), ((1, 3, 3), (3, 3, 3)), ((1, 1, 1), (1, 2, 2)), convolutions=1)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1, 2, 2, 64)))
    gain = np.sqrt(2 / (1 + 0.01**2))
    fans = {"down_0_conv_0": 64 * 9, "down_1_conv_0": 32 * 27, "widen_0": 32 * 4, "up_0_conv_0": 64 * 9}
    for name, fan in fans.items():
        layer = params["features"][name]
        np.testing.assert_allclose(jnp.std(layer["kernel"]), gain / np.sqrt(fan), rtol=0.03)
        assert not layer["bias"].any()
    np.testing.assert_allclose(jnp.std(params["head_0"]["kernel"]), gain / np.sqrt(32), rtol=0.25)


def test_an_example_does_not_depend_on_the_others(params):
    apply = jax.jit(plain_unet(*SETTINGS, deep=False).apply)
    both = apply(params, X)
    np.testing.assert_allclose(apply(params, jnp.stack([X[0], X[0]]))[0], both[0], atol=1e-5)


def test_norm_and_activation_are_the_callers_and_so_is_the_number_of_convolutions():
    seen = []
    model = plain_unet(
        2, (4,), ((3, 3, 3),), ((1, 1, 1),), nn.LayerNorm, lambda x: seen.append(1) or jnp.tanh(x), convolutions=3
    )
    start = jax.eval_shape(model.init, jax.random.key(0), X)
    assert len(seen) == 3 and set(start) == {"features", "head_0"}
    assert start["features"]["down_0_norm_2"]["scale"].shape == (4,)
    assert NORM().epsilon == 1e-5


def test_equal_settings_are_one_function_and_impossible_ones_are_refused():
    assert plain_unet(*SETTINGS) == plain_unet(*SETTINGS)
    with pytest.raises(ConfigError, match=r"stages: .*'kernels': 2.*; expected as many of each"):
        plain_unet(3, (4, 6, 8), KERNELS[:2], STRIDES)
    with pytest.raises(ConfigError, match=r"the first stage has \(1, 2, 2\); expected \(1, 1, 1\)"):
        plain_unet(3, (4, 6), KERNELS[:2], STRIDES[1:])
    with pytest.raises(ConfigError, match=r"kernels: .*expected odd"):
        plain_unet(3, (4,), ((2, 3, 3),), STRIDES[:1])
    with pytest.raises(ConfigError, match="form: 'fast'"):
        plain_unet(3, (4,), KERNELS[:1], STRIDES[:1], form="fast")
    with pytest.raises(DataError, match=r"x: sides \(4, 6, 6\); expected multiples of \(2, 4, 2\)"):
        jax.eval_shape(plain_unet(*SETTINGS).init, jax.random.key(0), X[:, :, :6])
