"""Layers of the score network: GroupNorm against Flax's, blocks of voxels as channels against loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.score_layers import GroupNorm, depth_to_space, space_to_depth

KEY = jax.random.key(5)


@pytest.mark.parametrize(("space", "groups"), [((6,), 2), ((5, 4), 8), ((3, 2, 4), 1)])
def test_our_group_norm_is_flaxs_its_gradient_too(space, groups):
    """With a mean far from 0 too, of images that differ."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.standard_normal((3, *space, 8)) * np.arange(1, 9) + 5, jnp.float32)
    ours, flaxs = GroupNorm(groups), nn.GroupNorm(groups)
    params = {"params": {"scale": jnp.arange(1.0, 9), "bias": jnp.arange(8.0)}}
    assert jax.tree.map(jnp.shape, ours.init(KEY, x)) == jax.tree.map(jnp.shape, flaxs.init(KEY, x))

    def loss(norm, params, x):
        return jnp.sum(jnp.sin(norm.apply(params, x)))

    np.testing.assert_allclose(ours.apply(params, x), flaxs.apply(params, x), atol=1e-4)
    for own, known in zip(*(jax.grad(loss, (1, 2))(norm, params, x) for norm in (ours, flaxs)), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), own, known)


def test_our_group_norm_of_a_constant_is_its_bias():
    params = {"params": {"scale": jnp.ones(4), "bias": jnp.arange(4.0)}}
    normalised = GroupNorm(2).apply(params, jnp.full((1, 3, 4), 7.0))
    np.testing.assert_allclose(normalised[0, 0], np.arange(4.0), atol=1e-2)


@pytest.mark.parametrize(("space", "block"), [((6,), 3), ((4, 6), 2), ((2, 4, 6), 2), ((4, 6), 1)])
def test_space_to_depth_puts_each_voxel_of_a_block_in_its_channel(space, block):
    x = np.random.default_rng(0).standard_normal((2, *space, 3)).astype(np.float32)
    folded = np.asarray(space_to_depth(jnp.asarray(x), block))
    expected = np.zeros((2, *(side // block for side in space), 3 * block ** len(space)), np.float32)
    for index in np.ndindex(*space):
        within = np.ravel_multi_index([i % block for i in index], (block,) * len(space))
        expected[:, *(i // block for i in index), 3 * within : 3 * within + 3] = x[:, *index]
    np.testing.assert_array_equal(folded, expected)
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(folded), block), x)
