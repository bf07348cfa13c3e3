"""ResNets: against a forward pass in NumPy and SciPy, published numbers of parameters, map sizes, parts swapped in."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError
from medjax.models.layers import add, group_norm, max_pool
from medjax.models.model import from_flax
from medjax.models.resnet import NORM, ResidualBlock, resnet
from medjax.models.weights import load_weights, save_weights

KEY = jax.random.key(0)
TINY = resnet(3, 10, (4, 4, 8, 8), (2, 1, 2, 1, 2))


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape))


def perturbed(model, x):
    """Initial weights, with scales and biases that are not all alike."""
    params = model.init(KEY, x)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(2)
    return jax.tree.unflatten(tree, [jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape)) for leaf in leaves])


# ── the equations, in NumPy and SciPy, in float64 ──


def convolved(x, kernel, stride):
    """Zero-padded correlation of every pair of channels, at every `stride`-th voxel."""
    kernel, axes = np.asarray(kernel, float), x.ndim - 2
    every = (slice(None, None, stride),) * axes
    out = [
        [
            sum(ndimage.correlate(one[..., i], kernel[..., i, o], mode="constant") for i in range(x.shape[-1]))[every]
            for o in range(kernel.shape[-1])
        ]
        for one in x
    ]
    return np.moveaxis(np.array(out), 1, -1)


def normed(x, weights, groups=8):
    """Group normalisation, of as many groups as divide the channels."""
    split = x.reshape(len(x), -1, np.gcd(groups, x.shape[-1]), x.shape[-1] // np.gcd(groups, x.shape[-1]))
    split = (split - split.mean((1, 3), keepdims=True)) / np.sqrt(split.var((1, 3), keepdims=True) + 1e-6)
    return split.reshape(x.shape) * np.asarray(weights["scale"], float) + np.asarray(weights["bias"], float)


def block(x, weights, stride, strided):
    y = x
    names = sorted(name[5:] for name in weights if name.startswith("conv_") and name != "conv_shortcut")
    for name in names:
        y = convolved(y, weights[f"conv_{name}"]["kernel"], stride if name == strided else 1)
        y = normed(y, weights[f"norm_{name}"])
        y = y if name == names[-1] else np.maximum(y, 0)
    if "conv_shortcut" in weights:
        x = normed(convolved(x, weights["conv_shortcut"]["kernel"], stride), weights["norm_shortcut"])
    return np.maximum(x + y, 0)


def logits_of(x, params, strides):
    f = params["features"]
    x = np.maximum(normed(convolved(np.asarray(x, float), f["stem_conv"]["kernel"], strides[0]), f["stem_norm"]), 0)
    every = (slice(None), *(slice(None, None, 2),) * (x.ndim - 2), slice(None))
    x = ndimage.maximum_filter(x, (1, *(3,) * (x.ndim - 2), 1), mode="constant", cval=-np.inf)[every]
    for stage in range(4):
        x = block(x, f[f"stage_{stage}_block_0"], strides[stage + 1], "0")
    mean = x.reshape(len(x), -1, x.shape[-1]).mean(1)
    return mean @ np.asarray(params["head"]["kernel"], float) + np.asarray(params["head"]["bias"], float)


@pytest.mark.parametrize("space", [(19, 26), (17, 12, 13)])
def test_logits_are_those_of_the_equations_for_images_and_volumes_of_odd_sides(space, x64):
    x = drawn(2, *space, 2)
    params = perturbed(TINY, x)
    found, map_then_head = jax.jit(
        lambda params, x: (TINY.apply(params, x), TINY.head(params, TINY.features(params, x)))
    )(params, x)
    expected = logits_of(x, params, (2, 1, 2, 1, 2))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_array_equal(map_then_head, found)


def test_a_bottleneck_block_is_that_of_the_equations(x64):
    bottleneck = from_flax(ResidualBlock(4, 2, True, NORM, nn.relu, add))
    x = drawn(2, 7, 6, 5)
    params = perturbed(bottleneck, x)
    found = bottleneck.apply(params, x)
    assert found.shape == (2, 4, 3, 16)
    np.testing.assert_allclose(found, block(np.asarray(x, float), params, 2, "1"), atol=1e-10)


# ── published sizes ──


def size(model, *shape):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, KEY, jnp.ones(shape))))


@pytest.mark.parametrize(("depth", "number"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_numbers_of_parameters_are_torchvisions(depth, number):
    """Torchvision's documentation of `resnet18`, `resnet34`, `resnet50`, for 1,000 classes."""
    assert size(resnet(1000, depth), 1, 32, 32, 3) == number


@pytest.mark.parametrize(("depth", "millions"), [(10, 14.4), (50, 46.2)])
def test_numbers_of_parameters_in_3d_are_medicalnets(depth, millions):
    """Those of its README, for one input channel; its 18 and 34 have shortcuts without parameters."""
    assert round(size(resnet(2, depth), 1, 16, 16, 16, 1) / 1e6, 1) == millions


def test_weights_start_with_torchvisions_variance():
    """Normal with variance 2 / fan out, zero bias, scale 1."""
    params = resnet(2, 10, (32, 32, 32, 32)).init(KEY, jnp.ones((1, 8, 8, 8, 1)))
    one = params["features"]["stage_0_block_0"]
    assert np.std(one["conv_0"]["kernel"]) == pytest.approx(np.sqrt(2 / (27 * 32)), rel=0.02)
    assert np.all(np.asarray(one["norm_0"]["scale"]) == 1) and not np.any(params["head"]["bias"])


@pytest.mark.parametrize(
    ("settings", "shape", "coarse"),
    [
        ({"strides": (1, 1, 2, 2, 1), "stem_pool": False}, (1, 28, 28, 1), (1, 7, 7, 8)),
        ({}, (1, 224, 224, 3), (1, 7, 7, 8)),
        ({"depth": 10}, (1, 48, 56, 48, 1), (1, 2, 2, 2, 8)),
        ({}, (1, 5, 4, 3, 1), (1, 1, 1, 1, 8)),
    ],
)
def test_size_of_the_last_map(settings, shape, coarse):
    model = resnet(2, widths=(4, 4, 4, 8), **settings)
    params = jax.eval_shape(model.init, KEY, jnp.ones(shape))
    assert jax.eval_shape(model.features, params, jnp.ones(shape)).shape == coarse


# ── parts ──


def twice(x, y):
    return add(x, y)


def test_parts_are_swapped_without_other_parameters_and_equal_networks_are_equal():
    settings = {"widths": (4, 4, 4, 4), "strides": (1, 1, 1, 1, 1)}
    x = drawn(1, 6, 6, 1)
    plain = resnet(2, **settings)
    params = plain.init(KEY, x)
    used = []
    swapped = resnet(
        2,
        **settings,
        norm=group_norm(2),
        act=lambda x: used.append("act") or nn.gelu(x),
        add=lambda x, y: used.append("add") or x + y,
        pool=lambda x: used.append("pool") or max_pool(x),
        average=lambda x: used.append("average") or x.mean((1, 2)),
    )
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(swapped.init, KEY, x))
    used.clear()
    assert np.abs(swapped.apply(params, x) - plain.apply(params, x)).max() > 1e-3
    assert {part: used.count(part) for part in used} == {"act": 9, "add": 4, "pool": 1, "average": 1}
    assert resnet(2, widths=[4, 4, 4, 4]) == resnet(2, widths=(4, 4, 4, 4)) != resnet(2, 18, (4, 4, 4, 4))
    assert hash(resnet(2, add=twice)) == hash(resnet(2, add=twice))


def test_dropout_is_of_the_head_and_on_with_a_key():
    plain, dropped = (resnet(2, 10, (4, 4, 4, 64), (1,) * 5, dropout=rate) for rate in (0.0, 0.5))
    z = jnp.abs(drawn(1, 2, 2, 64))
    params = plain.init(KEY, drawn(1, 4, 4, 1))
    np.testing.assert_array_equal(dropped.head(params, z), plain.head(params, z))
    np.testing.assert_array_equal(plain.head(params, z, key=KEY), plain.head(params, z))
    first, again, other = (dropped.head(params, z, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_weights_are_kept_in_a_file(tmp_path):
    params = TINY.init(KEY, jnp.ones((1, 8, 8, 1)))
    save_weights(tmp_path / "w.npz", params, {})
    jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "w.npz", like=params)[0], params)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 12}, "depth: 12; expected one of 10, 18, 34, 50"),
        ({"widths": (8, 16)}, r"widths: \(8, 16\); expected four numbers"),
        ({"widths": (8, 16, 0, 8)}, "expected four numbers of channels"),
        ({"strides": (2, 2, 2, 2)}, r"strides: \(2, 2, 2, 2\); expected five of at least 1"),
        ({"strides": (2, 1, 2, 0, 2)}, "expected five of at least 1"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        resnet(2, **settings)
