"""What stands for "nothing" in an image: a number, an image of the same shape, or a function of the image.

insertion(score, baseline=static_partial(gaussian_blur, sigma=5.0))
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.shortcuts.attribution.target import AnyArray, Image

Baseline = float | Float[AnyArray, "..."] | Callable[[Array], Array]


def baseline_image(baseline: Baseline, x: Image) -> Float[Array, "*space channel"]:
    """Baseline of the image `x`, of its shape.

    Raises:
        DataError: it is neither one number nor of x's shape.
    """
    values = jnp.asarray(baseline(jnp.asarray(x)) if callable(baseline) else baseline, x.dtype)
    if values.shape not in ((), x.shape):
        raise DataError(f"baseline: shape {values.shape}; expected one number or the image's {x.shape}")
    return jnp.broadcast_to(values, x.shape)


def gaussian_blur(x: Image, sigma: float) -> Float[Array, "*space channel"]:
    """Image blurred by a Gaussian of `sigma` voxels along each axis, to 4 σ; the border's values go on beyond it.

    Raises:
        DataError: `sigma` is not above 0.
    """
    if not sigma > 0:
        raise DataError(f"sigma: {sigma}; expected above 0 voxels")
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    x = jnp.asarray(x)
    for axis, size in enumerate(x.shape[:-1]):
        weights = np.zeros((size, size))
        np.add.at(weights, (np.arange(size)[:, None], np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)), kernel)
        rows = jnp.asarray(weights / kernel.sum(), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(rows, x, (1, axis), precision="highest"), 0, axis)
    return x
