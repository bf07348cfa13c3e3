"""Interpolation of images at voxel coordinates: linear, and nearest neighbour.

    sample(images, coords)                      # edge values are repeated outside
    sample(images, coords, outside=0.0)         # a constant more than half a voxel outside, as ITK has it

Several channels are sampled with the same indices and weights, which costs less than one after another. Both are exact
under autodiff, for images and for coordinates.
"""

from functools import reduce
from itertools import product
from operator import add, mul

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from medjax.errors import DataError


def sample(
    images: Float[Array, "channel *space"], coords: Float[Array, "dim *points"], *, outside: float | None = None
) -> Float[Array, "channel *points"]:
    """Linear interpolation Σ_k w_k I(k) over the 2^dim voxels k around each point, for each channel.

    Args:
        images: channels on one grid, of 2 or 3 axes (or any number).
        coords: voxel coordinates of the points, one component an axis of the grid.
        outside: value of points more than half a voxel outside the outermost voxel centres; None repeats edge values.

    Raises:
        DataError: the points have another number of components than the grid has axes.
    """
    shape = _check(images.shape[1:], coords)
    neighbors = [_neighbors(one, side) for one, side in zip(coords, shape, strict=True)]
    # a weighted sum of gathers is what XLA fuses; a gather of all corners at once is written out, 5 to 15 times as slow
    terms = [
        (_flat([index for index, _ in corner], shape), reduce(mul, [weight for _, weight in corner]))
        for corner in product(*neighbors)
    ]
    values = [
        reduce(add, [weight * jnp.take(channel, index, mode="clip") for index, weight in terms])
        for channel in images.reshape(images.shape[0], -1)
    ]
    return _fill(jnp.stack(values), coords, shape, outside)


def sample_nearest(
    images: Shaped[Array, "channel *space"], coords: Float[Array, "dim *points"], *, outside: int | float | None = None
) -> Shaped[Array, "channel *points"]:
    """Value of the nearest voxel, for each channel; half-way between two it is the higher one, as in ITK.

    Args:
        images: channels on one grid, of any type.
        coords: voxel coordinates of the points, one component an axis of the grid.
        outside: value of points more than half a voxel outside the outermost voxel centres; None repeats edge values.

    Raises:
        DataError: the points have another number of components than the grid has axes.
    """
    shape = _check(images.shape[1:], coords)
    nearest = [
        jnp.clip(jnp.floor(one + 0.5), 0, side - 1).astype(jnp.int32) for one, side in zip(coords, shape, strict=True)
    ]
    flat = images.reshape(images.shape[0], -1)
    return _fill(jnp.take(flat, _flat(nearest, shape), axis=1, mode="clip"), coords, shape, outside)


def in_field_of_view(coords: Float[Array, "dim *points"], shape: tuple[int, ...]) -> Bool[Array, "*points"]:
    """Whether voxel coordinates are in the grid of `shape`, outermost voxels being whole: −½ ≤ x ≤ side − ½."""
    return reduce(
        jnp.logical_and, [(one >= -0.5) & (one <= side - 0.5) for one, side in zip(coords, shape, strict=True)]
    )


def _check(shape: tuple[int, ...], coords: Array) -> tuple[int, ...]:
    if len(coords) != len(shape):
        raise DataError(f"coordinates: {len(coords)} components; expected one for each axis of the grid {shape}")
    return shape


def _neighbors(coordinate: Array, side: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Index and weight of the voxels below and above, along one axis."""
    inside = jnp.clip(coordinate, 0, side - 1)
    low = jnp.clip(jnp.floor(inside), 0, max(side - 2, 0))
    start = low.astype(jnp.int32)
    return (start, 1 - (inside - low)), (jnp.minimum(start + 1, side - 1), inside - low)


def _flat(index: list[Array], shape: tuple[int, ...]) -> Array:
    """Index into the flattened grid."""
    flat = index[0]
    for one, side in zip(index[1:], shape[1:], strict=True):
        flat = flat * side + one
    return flat


def _fill(values: Array, coords: Array, shape: tuple[int, ...], outside: int | float | None) -> Array:
    if outside is None:
        return values
    return jnp.where(in_field_of_view(coords, shape)[None], values, jnp.asarray(outside, values.dtype))
