"""Small classifiers as plain functions: convolution, activation, global average pool, dense. 2-D or 3-D."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax.iterate import static_partial
from medjax.models.model import Model


def init(key, x, width=4, classes=3, side=3):
    first, second, third = jax.random.split(key, 3)
    space, channels = x.ndim - 2, x.shape[-1]
    size = side**space * channels * width
    return {
        "conv": jax.random.normal(first, (size,)).reshape(*[side] * space, channels, width) / side,
        "bias": 0.3 * jax.random.normal(second, (width,)),
        "dense": jax.random.normal(third, (width * classes,)).reshape(width, classes),
    }


def features(params, x, key=None, act=jax.nn.relu, stride=1):
    letters = "XYZ"[: x.ndim - 2]
    order = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    stride = (stride,) * len(letters)
    h = jax.lax.conv_general_dilated(x, params["conv"], stride, "SAME", dimension_numbers=order)
    return act(h + params["bias"].reshape(*[1] * (h.ndim - 1), -1))


def head(params, z, key=None):
    return jnp.matmul(z.mean(range(1, z.ndim - 1)), params["dense"])


def apply(params, x, key=None, **settings):
    return head(params, features(params, x, **settings))


def network(act=jax.nn.relu, stride=1):
    settings = {"act": act, "stride": stride}
    return Model(init, static_partial(apply, **settings), static_partial(features, **settings), head)


def linear_apply(params, x, key=None):
    """Logits Σ w x + b of class 1, and 0."""
    one = jnp.sum(params["w"][None] * x, range(1, x.ndim)) + params["b"]
    return jnp.stack([jnp.zeros_like(one), one], axis=1)


LINEAR = Model(init, linear_apply)


def linear(shape=(6, 5, 2), seed=0):
    """A linear score, f(x) = Σ w x + 0.7, with w and an image x."""
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    return lambda image: jnp.sum(w * image) + 0.7, w, x
