"""Networks with a closed form, for tests of predictive methods: logits (image, *space, 2), the first class's 0."""

import jax
import jax.numpy as jnp

from medjax.models.model import Model

RATE = 0.25


def two_classes(foreground):
    return jnp.stack([jnp.zeros_like(foreground), foreground], axis=-1)


def weighted(params, images):
    weight = params["weight"].reshape(*(1,) * (images.ndim - 1), -1)
    return jnp.sum(images * weight, axis=-1) + params["bias"][0]


def init(key, images):
    return {"weight": jnp.ones(images.shape[-1]), "bias": jnp.zeros(1)}


def linear(params, images, key=None):
    """w · x + b in every voxel, channels dropped as whole maps, as by spatial dropout: a mask for each image."""
    if key is not None:
        shape = (len(images), *(1,) * (images.ndim - 2), images.shape[-1])
        images = images * jax.random.bernoulli(key, 1 - RATE, shape) / (1 - RATE)
    return two_classes(weighted(params, images))


def uphill(params, images, key=None):
    """w · x + b + the first coordinate: not equivariant to flips."""
    side = images.shape[1]
    ramp = jnp.arange(side).reshape(1, side, *(1,) * (images.ndim - 3))
    return two_classes(weighted(params, images) + ramp)


def without_dropout(params, images, key=None):
    return linear(params, images)


LINEAR = Model(init, linear)
UPHILL = Model(init, uphill)
WITHOUT_DROPOUT = Model(init, without_dropout)


def stacked(biases, channels=1):
    """Members that differ in their bias."""
    count = len(biases)
    return {"weight": jnp.ones((count, channels)), "bias": jnp.asarray(biases, jnp.float32)[:, None]}
