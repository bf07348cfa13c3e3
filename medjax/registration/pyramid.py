"""Multi-resolution pyramids: images by an integer factor smaller, and displacements from one level to the next.

Voxel i of a level with factor f covers the voxels f·i … f·i + f − 1 of the full image, so its centre is at
f·i + (f − 1) / 2. A side that f does not divide is continued by its last voxel.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.interpolation import sample
from medjax.registration.smoothing import gaussian


def downsample(image: Float[Array, "*space"], factor: int | tuple[int, ...]) -> Float[Array, "*coarse"]:
    """Mean over blocks of `factor` voxels along each axis, after a light Gaussian (σ = factor / 4) against aliasing.

    Raises:
        DataError: a factor is below 1, or there is not one for each axis.
    """
    factors = (factor,) * image.ndim if isinstance(factor, int) else factor
    if len(factors) != image.ndim or min(factors) < 1:
        raise DataError(f"factor: {factor}; expected 1 or more, for each of {image.ndim} axes")
    for axis, each in enumerate(factors):
        if each > 1:
            image = gaussian(image, each / 4, axes=(axis,))
    image = jnp.pad(image, [(0, -side % each) for side, each in zip(image.shape, factors, strict=True)], mode="edge")
    blocks = [size for side, each in zip(image.shape, factors, strict=True) for size in (side // each, each)]
    return image.reshape(blocks).mean(tuple(range(1, 2 * image.ndim, 2)))


def resize_displacement(
    displacement: Float[Array, "dim *coarse"], shape: tuple[int, ...], ratio: float
) -> Float[Array, "dim *space"]:
    """Displacement on a grid whose voxels are `ratio` times smaller (below 1: larger); its unit is the new voxel.

    Args:
        displacement: in voxels of its own grid.
        shape: of the new grid.
        ratio: of the voxel sizes, old / new.
    """
    at = jnp.meshgrid(*[(jnp.arange(side) + 0.5) / ratio - 0.5 for side in shape], indexing="ij")
    return ratio * sample(displacement, jnp.stack(at).astype(displacement.dtype))
