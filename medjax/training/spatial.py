"""Means over the pixels of images, over all or over blocks (average pooling)."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean(values: Float[Array, "batch *space"]) -> Float[Array, " batch"]:
    """Mean over all pixels of each image."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def block_means(values: Float[Array, "batch *fine_and_rest"], space: tuple[int, ...]) -> Float[Array, "batch *coarse"]:
    """Average pooling to the shape `space` along the axes behind the first; further axes stay as they are."""
    split: list[int] = [len(values)]
    for side, coarse in zip(values.shape[1 : 1 + len(space)], space, strict=True):
        split += [coarse, side // coarse]
    blocks = values.reshape(*split, *values.shape[1 + len(space) :])
    return blocks.mean(axis=tuple(range(2, 2 * len(space) + 1, 2)))
