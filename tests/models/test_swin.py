"""3-D Swin: outputs of MONAI's encoder, sizes, rematerialisation, parts swapped in."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.models.layers import group_norm
from medjax.models.swin import swin

KEY = jax.random.key(0)
# The last map of MONAI's SwinTransformer(2, 12, (5, 5, 5), (2, 2, 2), (2, 2, 1, 1), (3, 6, 12, 24), use_v2=…), default
# "merging", in float64 with the weights and the volume below: `fixed_…` from MONAI 1.6.1, `legacy_…` from 1.4.0, both
# with PyTorch 2.14.1.
MONAI = Path(__file__).parent / "fixtures" / "swin_monai.npz"
SMALL = {"width": 4, "depths": (2,), "heads": (2,), "window": 3}


def formula_weights(shapes):
    """The k-th array in order of names is s · sin(1 + 0.7 k + 1.3 n), n = 0, 1, …, and 1 more if it is a scale.

    s is √(2 / fan in) for kernels and 0.3 for others.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    weights = []
    for number, (path, leaf) in enumerate(leaves):
        name, size = jax.tree_util.keystr(path), int(np.prod(leaf.shape))
        s = np.sqrt(2 * leaf.shape[-1] / size) if "kernel" in name else 0.3
        wave = s * np.sin(1 + 0.7 * number + 1.3 * np.arange(size))
        weights.append(jnp.asarray(wave.reshape(leaf.shape) + ("scale" in name)))
    return jax.tree.unflatten(tree, weights)


def formula_volume(*shape: int) -> jax.Array:
    n = np.arange(int(np.prod(shape)))
    return jnp.asarray(np.sin(0.37 * n + n**2 / 1000).reshape(shape))


def shapes_of(model, x):
    return jax.eval_shape(model.init, KEY, x)


@pytest.mark.parametrize(
    ("order", "version"),
    [
        ("fixed", 2),
        ("legacy", 1),
        pytest.param("fixed", 1, marks=pytest.mark.slow),
        pytest.param("legacy", 2, marks=pytest.mark.slow),
    ],
)
def test_the_last_map_is_monais(order, version, x64):
    """Sides that are no multiples of patch and window, axes with and without a shift, maps smaller than the window."""
    model = swin(2, 2, 12, (2, 2, 1, 1), (3, 6, 12, 24), 5, version, order)
    x = formula_volume(1, 17, 20, 23, 2)
    found = model.features(formula_weights(shapes_of(model, x)), x)
    expected = np.load(MONAI)[f"{order}_{version}"]
    assert found.dtype == jnp.float64 and found.shape == (1, 1, 1, 1, 192)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-11)


@pytest.mark.parametrize(("version", "number"), [(1, 2_039_346), (2, 4_683_186)])
def test_numbers_of_parameters_of_the_published_encoder(version, number):
    """MONAI's of feature size 24: 2.04 and 4.68 million."""
    params = shapes_of(swin(2, version=version), jnp.ones((1, 32, 32, 32, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params["features"])) == number


@pytest.mark.parametrize(
    ("space", "coarse"), [((48, 56, 48), (6, 7, 6)), ((9, 7, 4), (2, 1, 1)), ((1, 1, 1), (1, 1, 1))]
)
def test_any_sides_will_do(space, coarse):
    model, x = swin(3, 2, 4, (2, 1), (2, 2), 3), jnp.ones((2, *space, 1))
    params = shapes_of(model, x)
    assert jax.eval_shape(model.features, params, x).shape == (2, *coarse, 16)
    assert jax.eval_shape(model.apply, params, x).shape == (2, 3)


@pytest.mark.parametrize("version", [1, 2])
def test_rematerialisation_changes_no_number_and_stores_less_for_the_gradient(version):
    """Bytes of what the forward pass leaves for the gradient: compiled programs for CPUs do not tell."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 7, 1)), jnp.float32)
    plain, remat = (swin(2, version=version, remat=on, **SMALL) for on in (False, True))
    params = plain.init(KEY, x)
    assert jax.tree.structure(params) == jax.tree.structure(shapes_of(remat, x))

    def loss(model, params):
        return jnp.sum(jnp.sin(model.apply(params, x)))

    def stored(model):
        """The weights apart, which are there anyway."""
        kept = jax.eval_shape(lambda params: jax.vjp(lambda params: loss(model, params), params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) - 4 * size

    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert 0 < 5 * stored(remat) < stored(plain)
    if version == 1:  # one comparison of numbers, since each compiles two programs
        gradients = jax.jit(lambda params: [jax.value_and_grad(loss, 1)(model, params) for model in (plain, remat)])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *gradients(params))


def test_features_and_head_are_the_output_and_parts_are_swapped_without_other_parameters():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 7, 6, 1)), jnp.float32)
    used = []
    plain = swin(2, **SMALL)
    swapped = swin(
        2,
        **SMALL,
        norm=group_norm(2),
        act=lambda x: used.append("act") or nn.relu(x),
        add=lambda x, y: used.append("add") or x + y,
        average=lambda z: used.append("average") or z.max((1, 2, 3)),
    )
    params = plain.init(KEY, x)
    assert jax.tree.structure(params) == jax.tree.structure(shapes_of(swapped, x))
    used.clear()
    jax.eval_shape(swapped.apply, params, x)
    assert {part: used.count(part) for part in used} == {"act": 2, "add": 5, "average": 1}
    whole, parts = jax.jit(lambda params, x: (plain.apply(params, x), plain.head(params, plain.features(params, x))))(
        params, x
    )
    np.testing.assert_array_equal(parts, whole)
    assert swin(2, depths=[2], heads=[3]) == swin(2, depths=(2,), heads=(3,)) != swin(2, depths=(1,), heads=(3,))


def test_bfloat16_parameters_and_volumes_give_bfloat16_logits():
    model = swin(2, **SMALL)
    x = jnp.ones((1, 8, 8, 8, 1), jnp.bfloat16)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), shapes_of(model, x))
    assert jax.eval_shape(model.apply, params, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": (2, 2)}, "depths, heads: 2 and 4; expected one of each for every stage"),
        ({"depths": (), "heads": ()}, "depths, heads: 0 and 0"),
        ({"width": 12, "heads": (3, 5, 12, 24)}, "heads: 5 in stage 1; expected a divisor of its 24 channels"),
        ({"window": 1}, "window: 1; expected 2 or more"),
        ({"version": 3}, "version: 3; expected 1 or 2"),
        ({"merge_order": "new"}, "merge_order: 'new'; expected one of fixed, legacy"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        swin(2, **settings)


def test_images_are_refused():
    with pytest.raises(DataError, match=r"x: shape \(1, 8, 8, 1\); expected \(batch, x, y, z, channel\)"):
        shapes_of(swin(2, **SMALL), jnp.ones((1, 8, 8, 1)))
