"""Weights of a larger network from those of a smaller one: for volumes from images, for more input channels from fewer.

For volumes, kernels are repeated along the third axis and divided by their number.

    volumes = resnet(2, depth=18)
    params = inflate(params_2d, like=jax.eval_shape(volumes.init, key, volume))

Away from the ends of the third axis, a volume of equal planes then has the response of one plane in two dimensions.

Source: Carreira & Zisserman, CVPR 2017.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from medjax.errors import ConfigError, DataError


def inflate_kernel(kernel: Float[Array, "kx ky in out"], depth: int) -> Float[Array, "kx ky depth in out"]:
    """3-D kernel of `depth` equal planes, whose sum is the 2-D kernel.

    Raises:
        ConfigError: a depth below 1.
    """
    if depth < 1:
        raise ConfigError(f"depth: {depth}; expected 1 or more")
    return jnp.repeat(kernel[:, :, None], depth, axis=2) / depth


def inflate(params: PyTree, like: PyTree) -> PyTree:
    """Parameters of a network for volumes from those of the same network for images.

    `like` has the shapes of the result: what `jax.eval_shape` gives of the network's init for a volume.

    Raises:
        DataError: other names, or an array that has neither the shape in `like` nor, inflated, gets it.
    """
    if jax.tree.structure(params) != jax.tree.structure(like):
        raise DataError("params: names of arrays are not those of `like`; expected the same network")
    return jax.tree_util.tree_map_with_path(_inflate, params, like)


def add_inputs(kernel: Float[Array, "*taps few out"], inputs: int, blocks: int = 1) -> Float[Array, "*taps many out"]:
    """Kernel for more input channels, the new ones behind the old and of weight 0: the response stays as it was.

    Where the network takes blocks of voxels as channels (`score_layers.space_to_depth`), the channels of a voxel lie
    side by side: each of the `blocks` voxels gets its new channels behind its own.

    Raises:
        ConfigError: fewer `inputs` than the kernel has, or numbers that are no multiples of `blocks`.
    """
    *taps, known, out = kernel.shape
    if inputs < known or known % blocks or inputs % blocks:
        raise ConfigError(
            f"inputs: {inputs} from {known} in {blocks} blocks; expected no fewer, and multiples of those"
        )
    parted = kernel.reshape(*taps, blocks, known // blocks, out)
    ends = [(0, 0)] * parted.ndim
    ends[-2] = (0, (inputs - known) // blocks)
    return jnp.pad(parted, ends).reshape(*taps, inputs, out)


def _inflate(path: tuple[Any, ...], array: Array, like: Any) -> Array:
    inflated = inflate_kernel(array, like.shape[2]) if array.ndim == 4 and len(like.shape) == 5 else array
    if inflated.shape != like.shape:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        raise DataError(f"params: {name} has shape {array.shape}, {inflated.shape} inflated; expected {like.shape}")
    return inflated
