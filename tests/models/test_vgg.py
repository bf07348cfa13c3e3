"""VGG: the published number of weights, the size of its last map, features and head, 2-D and 3-D."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.models.networks import build
from medjax.models.vgg import vgg

TINY = vgg(2, (4, 8), (1, 2))


def sizes(params):
    return [(jax.tree_util.keystr(path), leaf.size) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]


def test_vgg16_has_the_published_convolutions():
    """torchvision's vgg16().features has 14,714,688 parameters, 4,224 of them biases, which norms have here."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(vgg(2).init, jax.random.key(0), image)
    assert sum(size for name, size in sizes(params["features"]) if "kernel" in name) == 14_714_688 - 4_224
    assert sum(size for name, size in sizes(params["features"]) if "bias" in name) == 4_224
    assert jax.eval_shape(vgg(2).features, params, image).shape == (1, 14, 14, 512)


@pytest.mark.parametrize(("space", "coarse"), [((28, 28), (7, 7)), ((9, 12), (3, 3)), ((8, 8, 8), (2, 2, 2))])
def test_nothing_is_pooled_after_the_last_stage(space, coarse):
    model = vgg(2, (4, 8, 8), (1, 1, 1))
    image = jax.ShapeDtypeStruct((2, *space, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    assert jax.eval_shape(model.features, params, image).shape == (2, *coarse, 8)
    assert jax.eval_shape(model.apply, params, image).shape == (2, 2)


def test_logits_are_the_heads_of_the_features():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 12, 10, 1)), jnp.float32)
    params = TINY.init(jax.random.key(0), x)
    z = TINY.features(params, x)
    assert float(z.min()) >= 0  # after a ReLU
    np.testing.assert_allclose(TINY.head(params, z), TINY.apply(params, x), rtol=1e-5, atol=1e-6)
    dense = params["head"]
    wanted = np.asarray(z).mean((1, 2)) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    np.testing.assert_allclose(TINY.apply(params, x), wanted, rtol=1e-4, atol=1e-5)
    assert build("vgg", {"classes": 2, "widths": [4, 8], "convolutions": [1, 2]}) == TINY


@pytest.mark.parametrize("arguments", [((4, 8), (1,)), ((), ()), ((4, 0), (1, 1))])
def test_stages_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"widths .*, convolutions .*; expected one of each a stage, at least 1"):
        vgg(2, *arguments)
