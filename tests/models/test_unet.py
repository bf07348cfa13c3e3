"""The U-Net: shapes in two and three dimensions, parts that a user replaces, examples that do not touch each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.layers import group_norm
from medjax.models.unet import unet


@pytest.mark.parametrize("space", [(16, 24), (8, 8, 12)])
def test_logits_have_the_place_and_the_classes(space):
    model = unet(3, (4, 8, 8), group_norm(4))
    x = jnp.ones((2, *space, 1))
    assert jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x).shape == (2, *space, 3)


def test_deep_supervision_gives_every_level_but_the_coarsest():
    model = unet(3, (4, 8, 8), group_norm(4), deep=True)
    x = jnp.ones((2, 16, 24, 1))
    assert [y.shape for y in jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)] == [
        (2, 16, 24, 3),
        (2, 8, 12, 3),
    ]


def test_norm_activation_pool_and_up_are_the_callers():
    seen = []

    def noted(name, function):
        return lambda x: seen.append(name) or function(x)

    parts = {
        "norm": nn.LayerNorm,
        "act": noted("act", jnp.tanh),
        "pool": noted("pool", lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        "up": noted("up", lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)),
    }
    model = unet(2, (4, 4), **parts)
    params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    assert set(seen) == {"act", "pool", "up"}
    assert params["features"]["down_0_norm_0"]["scale"].shape == (4,)


def test_fine_features_go_round_the_coarse_ones():
    """With nothing from the coarser levels the output still depends on the image."""
    model = unet(2, (4, 8), group_norm(4))
    x = jax.random.normal(jax.random.key(1), (1, 8, 8, 1))
    params = model.init(jax.random.key(0), x)
    params["features"]["narrow_0"] = jax.tree.map(jnp.zeros_like, params["features"]["narrow_0"])
    apply = jax.jit(model.apply)
    assert float(jnp.abs(apply(params, x) - apply(params, x[:, ::-1])).max()) > 1e-3


def test_an_example_does_not_depend_on_the_others():
    """So the gradient of a sum with respect to the images is every example's own."""
    model = unet(3, (4, 8), group_norm(4))
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    params = model.init(jax.random.key(0), x)
    together = jax.jit(jax.grad(lambda x: jnp.sum(model.apply(params, x)[..., 1] ** 2)))(x)
    alone = jax.jit(jax.vmap(jax.grad(lambda one: jnp.sum(model.apply(params, one[None])[..., 1] ** 2))))(x)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_equal_settings_are_one_function():
    assert unet(3, (4, 8)) == unet(3, (4, 8))
