"""A network that is no Flax module, for tests of what watches any network."""

import jax

from medjax.iterate import static_partial
from medjax.models.model import Model


def init_two_layers(width, classes, key, images):
    """A network that is no Flax module: two convolutions, no bias."""
    one, two = jax.random.split(key)
    shapes = (3, 3, images.shape[-1], width), (3, 3, width, classes)
    return [0.3 * jax.random.normal(k, shape) for k, shape in zip((one, two), shapes, strict=True)]


def apply_two_layers(params, x, key=None):
    for number, kernel in enumerate(params):
        x = jax.lax.conv_general_dilated(
            jax.nn.relu(x) if number else x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return x


TWO_LAYERS = Model(static_partial(init_two_layers, 6, 4), apply_two_layers)
