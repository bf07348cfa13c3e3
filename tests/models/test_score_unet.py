"""The score network: shapes in any number of axes, what it starts from, what it can see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.layers import pool, upsample
from medjax.models.residual import residual_cnn
from medjax.models.score_unet import ScoreUNet, fourier, score_unet

KEY = jax.random.key(0)


@pytest.mark.parametrize(("space", "patch"), [((16,), 1), ((8, 16), 2), ((2, 4, 4), 1), ((4, 4, 4), 2)])
def test_any_number_of_axes(space, patch):
    model = score_unet((8, 16), attention=(1,), patch=patch)
    x = jax.random.normal(KEY, (2, *space, 1))
    params = model.init(KEY, x, jnp.zeros(2))
    assert model.apply(params, x, jnp.zeros(2)).shape == x.shape
    assert (model.apply(params, x, jnp.zeros(2)) == 0).all()  # so that training starts from the Gaussian answer


def awake(params):
    """Parameters with no zeros left, so that everything that is seen shows."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    return jax.tree.unflatten(
        tree, [a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    )


def test_level_orientation_and_condition_are_seen():
    module = ScoreUNet((8, 16), attention=(1,))
    x, level, lies = jax.random.normal(KEY, (2, 8, 8, 1)), jnp.zeros(2), jax.nn.one_hot(jnp.asarray([0, 2]), 3)
    mr = jnp.ones((2, 8, 8, 1))
    params = awake(jax.jit(module.init)(KEY, x, level, lies, mr)["params"])

    apply = jax.jit(module.apply)

    def out(*inputs):
        return np.asarray(apply({"params": params}, *inputs))

    base = out(x, level, lies, mr)
    assert not np.allclose(base, out(x, level + 1, lies, mr))
    assert not np.allclose(base, out(x, level, lies[::-1], mr))
    assert not np.allclose(base, out(x, level, lies, 0 * mr))


def test_images_of_a_batch_do_not_see_each_other():
    model = score_unet((8, 16), attention=(1,))
    x = jax.random.normal(KEY, (3, 8, 8, 1))
    params = awake(model.init(KEY, x, jnp.zeros(3)))
    np.testing.assert_allclose(
        model.apply(params, x, jnp.zeros(3))[1:2], model.apply(params, x[1:2], jnp.zeros(1)), atol=1e-5
    )


def test_pooling_and_upsampling():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(pool(x)[0, 0, 0, 0], (0 + 1 + 4 + 5) / 4)
    np.testing.assert_allclose(pool(upsample(x)), x)
    assert fourier(jnp.zeros(3), 8).shape == (3, 8)


def test_residual_cnn_starts_as_the_identity():
    model = residual_cnn(8, 3)
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    np.testing.assert_array_equal(model.apply(model.init(KEY, x), x), x)


def test_blocks_as_channels_keep_the_resolution_and_see_half_as_many_locations():
    """Each of the four voxels of a block has an output of its own; the network within is one of half the sides."""
    x, level, lies = jax.random.normal(KEY, (1, 8, 8, 1)), jnp.zeros(1), jax.nn.one_hot(jnp.asarray([2]), 3)
    folded, plain = score_unet((8, 16), 1, (1,), patch=2), score_unet((8, 16), 1, (1,))
    params = awake(jax.jit(folded.init)(KEY, x, level, lies))
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, jax.eval_shape(plain.init, KEY, x, level, lies))]
    assert shapes[0]["stem"]["kernel"] == (3, 3, 4, 8) and shapes[1]["stem"]["kernel"] == (3, 3, 1, 8)
    assert shapes[0]["head"]["kernel"] == (3, 3, 8, 4) and shapes[1]["head"]["kernel"] == (3, 3, 8, 1)
    del shapes[0]["stem"], shapes[0]["head"], shapes[1]["stem"], shapes[1]["head"]
    assert shapes[0] == shapes[1]
    y = folded.apply(params, x, level, lies)[0, ..., 0]
    assert y.shape == (8, 8) and len(np.unique(np.asarray(y).round(5))) == 64
