"""Inflated weights: a volume of equal planes has the response of one plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError, DataError
from medjax.models.inflate import add_inputs, inflate, inflate_kernel
from medjax.models.layers import conv3d
from medjax.models.resnet import resnet
from medjax.models.score_layers import space_to_depth

KEY = jax.random.key(0)


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_volume_of_equal_planes_has_the_response_of_a_plane_away_from_the_ends(depth):
    image, kernel = drawn(7, 6), drawn(3, 5, 1, 1)
    volume = jnp.repeat(image[:, :, None], 5, axis=2)[None, ..., None]
    found = conv3d(volume, inflate_kernel(kernel, depth))[0, ..., 0]
    expected = ndimage.correlate(np.asarray(image, float), np.asarray(kernel[..., 0, 0], float), mode="constant")
    for plane in range(depth // 2, 5 - depth // 2):
        np.testing.assert_allclose(found[..., plane], expected, atol=1e-5)


def test_a_resnet_for_images_becomes_one_for_volumes():
    model = resnet(2, 10, (4, 4, 4, 4))
    flat = model.init(KEY, jnp.ones((1, 8, 8, 1)))
    like = jax.eval_shape(model.init, KEY, jnp.ones((1, 8, 8, 8, 1)))
    deep = inflate(flat, like)
    assert jax.tree.map(jnp.shape, deep) == jax.tree.map(jnp.shape, like)
    stem = deep["features"]["stem_conv"]["kernel"]
    assert stem.shape == (7, 7, 7, 1, 4)
    np.testing.assert_allclose(stem.sum(2), flat["features"]["stem_conv"]["kernel"], atol=1e-6)
    np.testing.assert_array_equal(deep["head"]["kernel"], flat["head"]["kernel"])


@pytest.mark.parametrize("block", [1, 2])
def test_new_inputs_leave_the_response_as_it_was(block):
    image, other, kernel = drawn(1, 8, 6, 2), 3 + drawn(1, 8, 6, 1), drawn(3, 3, 2 * block**2, 5)

    def response(image, kernel):
        x = space_to_depth(image, block)
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    more = add_inputs(kernel, 3 * block**2, block**2)
    found = response(jnp.concatenate([image, other], axis=-1), more)
    np.testing.assert_allclose(found, response(image, kernel), atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="inputs: 6 from 4 in 4 blocks; expected no fewer, and multiples of those"):
        add_inputs(jnp.ones((3, 3, 4, 1)), 6, 4)
    with pytest.raises(ConfigError, match="depth: 0; expected 1 or more"):
        inflate_kernel(jnp.ones((3, 3, 1, 1)), 0)
    like = {"conv": jax.ShapeDtypeStruct((3, 3, 3, 1, 4), jnp.float32)}
    with pytest.raises(DataError, match="names of arrays are not those of `like`"):
        inflate({"other": jnp.ones((3, 3, 1, 4))}, like)
    with pytest.raises(DataError, match=r"params: conv has shape \(3, 3, 3, 4\), \(3, 3, 3, 3, 4\) inflated; expected"):
        inflate({"conv": jnp.ones((3, 3, 3, 4))}, like)
