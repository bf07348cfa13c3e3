"""What networks share: weights that start as JAX's own do, norms that equal each other, dropout of channels."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import layers
from medjax.models.layers import (
    CONVOLUTION,
    HE,
    TRANSPOSED,
    FanIn,
    group_norm,
    instance_norm,
    spatial_dropout,
)
from medjax.models.unet import unet

KEY = jax.random.key(5)


@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 5, 6), (1, 3, 3, 4, 6)])
@pytest.mark.parametrize(
    ("initializer", "jaxs"),
    [
        (layers.LECUN, nn.initializers.lecun_normal()),
        (CONVOLUTION, nn.initializers.variance_scaling(HE, "fan_in", "normal")),
        (TRANSPOSED, nn.initializers.variance_scaling(HE, "fan_in", "normal", in_axis=-1, out_axis=-2)),
    ],
)
def test_weights_start_as_jaxs_initializers_draw_them_bit_for_bit(initializer, jaxs, shape):
    np.testing.assert_array_equal(
        jax.jit(initializer, static_argnums=1)(KEY, shape), jax.jit(jaxs, static_argnums=1)(KEY, shape)
    )


@pytest.mark.parametrize(
    ("ours", "flaxs", "channels"),
    [(layers.Conv(4, (3, 3)), nn.Conv(4, (3, 3)), (1, 8, 8, 3)), (layers.Dense(4), nn.Dense(4), (1, 3))],
)
def test_layers_are_flaxs_with_its_names_and_numbers(ours, flaxs, channels):
    x = jnp.ones(channels)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ours.init)(KEY, x), jax.jit(flaxs.init)(KEY, x))


def test_the_deviation_is_that_of_the_fan_in():
    drawn = FanIn(2.0, truncated=False)(KEY, (5, 4, 50, 20))
    np.testing.assert_allclose(jnp.std(drawn), np.sqrt(2 / 1000), rtol=0.02)


def test_norms_made_equally_are_equal_and_compile_once():
    assert group_norm(4) == group_norm(4) and hash(group_norm(4)) == hash(group_norm(4))
    assert group_norm(4) != group_norm(2) and instance_norm() == instance_norm() != instance_norm(1e-3)
    assert group_norm(4)().num_groups == 4 and instance_norm()().epsilon == 1e-5

    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(model, params, x):
        return model.apply(params, x)

    x = jnp.ones((1, 8, 8, 1))
    first, second = (unet(2, (4, 4), group_norm(4), dropout=0.1) for _ in range(2))
    params = first.init(KEY, x)
    np.testing.assert_array_equal(apply(first, params, x), apply(second, params, x))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x):
        return spatial_dropout(self, x, 0.25)


def test_dropout_takes_whole_channels_of_an_example_and_keeps_the_mean():
    x = jnp.ones((40, 2, 3, 50))
    y = np.asarray(Dropped().apply({}, x, rngs={"dropout": KEY}))
    assert (y == y[:, :1, :1]).all() and {0.0, np.float32(4 / 3)} == set(y.ravel())
    assert len(np.unique(y[:, 0, 0], axis=0)) == 40
    np.testing.assert_allclose(y.mean(), 1, atol=4 * np.sqrt(1 / 3 / 2000))
    assert Dropped().apply({}, x) is x


@pytest.mark.parametrize("space", [(7,), (5, 8), (4, 5, 3)])
def test_max_pool_is_flaxs_and_so_is_its_gradient_where_voxels_tie(space):
    axes = len(space)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, *space, 4)), jnp.float32)

    def flaxs(x):
        return nn.max_pool(x, (3,) * axes, (2,) * axes, ((1, 1),) * axes)

    def loss(x, pool):
        y = pool(x)
        return jnp.sum(jnp.cos(jnp.arange(y.size)).reshape(y.shape) * y), y

    both = jax.jit(lambda x: [jax.grad(loss, has_aux=True)(x, pool) for pool in (layers.max_pool, flaxs)])
    for found, expected in zip(*both(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
