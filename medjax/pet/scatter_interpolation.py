"""From a coarse scatter simulation to a sinogram: averages of images, splines between detectors.

What a pair of detectors gets changes slowly with the angle and the ring of each of them. It is interpolated by cubic
splines, periodic along a ring, without the factor r² / (c c) of the pair's solid angle, which is known for every bin.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline, make_interp_spline

from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram
from medjax.pet.randoms import bin_crystals
from medjax.pet.scanner import Scanner

_HIGHEST = lax.Precision.HIGHEST
_PLANES = 8  # that are interpolated at once


def coarsen(
    images: Float[Array, "image x y z"], grid: Grid, voxel_mm: float
) -> tuple[Float[Array, "image x2 y2 z2"], Grid]:
    """Means over voxels of about `voxel_mm`, or the grid's where those are larger, and their grid."""
    extent = np.asarray(grid.shape) * grid.voxel_mm
    shape = [min(n, max(low, round(e / voxel_mm))) for n, e, low in zip(grid.shape, extent, (2, 2, 1), strict=True)]
    for axis, size in enumerate(shape):
        if size != grid.shape[axis]:
            weights = jnp.asarray(_overlap(grid.shape[axis], size), images.dtype)
            images = jnp.moveaxis(jnp.tensordot(images, weights, ((axis + 1,), (1,)), precision=_HIGHEST), -1, axis + 1)
    x, y, z = (float(e) / n for e, n in zip(extent, shape, strict=True))
    return images, Grid((shape[0], shape[1], shape[2]), (x, y, z))


def _overlap(fine: int, coarse: int) -> np.ndarray:
    """Fraction of each coarse cell that each fine one fills, along one axis."""
    low, high = np.arange(fine) / fine, np.arange(1, fine + 1) / fine
    first, last = np.arange(coarse)[:, None] / coarse, np.arange(1, coarse + 1)[:, None] / coarse
    return np.maximum(0, np.minimum(high, last) - np.maximum(low, first)) * coarse


def ring_weights(rings: int, nodes: int) -> Float[np.ndarray, "ring node"]:
    """Weights by which `nodes` equally spaced values from the first to the last ring make a value a ring."""
    if nodes == 1:
        return np.ones((rings, 1))
    at = np.linspace(0, rings - 1, nodes)
    return make_interp_spline(at, np.eye(nodes), k=min(3, nodes - 1))(np.arange(rings))


def crystal_weights(crystals: int, nodes: int) -> Float[np.ndarray, "crystal node"]:
    """Weights by which `nodes` values at equal angles, the first at crystal 0, make a value a crystal of a ring."""
    at = np.arange(nodes + 1) * crystals / nodes
    values = np.concatenate([np.eye(nodes), np.eye(nodes)[:1]])
    return CubicSpline(at, values, bc_type="periodic")(np.arange(crystals))


def interpolate_pairs(
    pairs: Float[Array, "ring crystal ring crystal"], scanner: Scanner, planes: Michelogram
) -> Float[Array, "view bin plane"]:
    """Sinogram S from what coarse pairs of detectors get without the factor r² / (c c): see `scatter`."""
    rings = ring_weights(scanner.rings, pairs.shape[0])
    one, other = np.nonzero(planes.plane_of_pair >= 0)
    weights = np.zeros((planes.planes, pairs.shape[0], pairs.shape[0]))
    plane = planes.plane_of_pair[one, other]
    np.add.at(weights, plane, rings[one][:, :, None] * rings[other][:, None, :] / planes.ring_pairs[plane, None, None])
    crystals = crystal_weights(scanner.crystals, pairs.shape[1])
    # r² / (c c) = 4 R² (1 + h² / t²)² of two crystals of a ring t apart across and h along the axis
    first, second = bin_crystals(scanner)
    radius = scanner.radius_mm + scanner.depth_mm
    chord = 2 * radius * np.sin(np.pi * np.abs(first - second)[0, 0] / scanner.crystals)
    rise = (other - one) * scanner.ring_spacing_mm
    moments = [np.bincount(plane, rise**k, planes.planes) / planes.ring_pairs for k in (2.0, 4.0)]
    across = 4 * radius**2 * np.stack([np.ones_like(chord), 2 / chord**2, 1 / chord**4])
    factor = np.matmul(np.stack([np.ones(planes.planes), *moments], axis=-1), across)
    as_float = partial(jnp.asarray, dtype=pairs.dtype)
    return _to_bins(pairs, as_float(weights), as_float(crystals), first, second, as_float(factor))


@jax.jit
def _to_bins(
    pairs: Array, rings: Array, crystals: Array, first: Array, second: Array, factor: Float[Array, "plane bin"]
) -> Float[Array, "view bin plane"]:
    middle = jnp.einsum("pab,aibj->pij", rings, pairs, precision=_HIGHEST)

    def one_plane(operands: tuple[Array, Array]) -> Array:
        between, scale = operands
        fine = jnp.matmul(jnp.matmul(crystals, between, precision=_HIGHEST), crystals.T, precision=_HIGHEST)
        return jnp.maximum(fine[first, second].mean(axis=1) * scale[None], 0)

    return jnp.moveaxis(lax.map(one_plane, (middle, factor), batch_size=_PLANES), 0, -1)
