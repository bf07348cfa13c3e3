"""Penalties of a displacement or velocity field, means over voxels, in voxels of the field's own grid.

    diffusion(u)  ½ mean ‖∇u‖²       first differences
    bending(u)    ½ mean ‖∇²u‖²      second differences, mixed ones counted twice: 0 for affine fields
    l2(u)         ½ mean ‖u‖²

Each is `(field) -> scalar`, for 2-D and 3-D, and jits, vmaps and differentiates.
"""

from functools import reduce
from operator import add

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar


def diffusion(field: Float[Array, "dim *space"]) -> Scalar:
    """Diffusion penalty, ½ Σ over axes of the mean of ‖u(x + e) − u(x)‖² over the voxels where both are.

    Source: Balakrishnan et al., IEEE Transactions on Medical Imaging 38(8), 2019.
    """
    axes = range(1, field.ndim)
    return reduce(add, [_half_mean_square(jnp.diff(field, axis=axis)) for axis in axes if field.shape[axis] > 1])


def bending(field: Float[Array, "dim *space"]) -> Scalar:
    """Bending energy, ½ Σ over pairs of axes of the mean squared second difference; needs 3 voxels along each axis.

    Source: Rueckert et al., IEEE Transactions on Medical Imaging 18(8), 1999.
    """
    terms = []
    for axis in range(1, field.ndim):
        terms.append(_half_mean_square(jnp.diff(field, n=2, axis=axis)))
        for other in range(axis + 1, field.ndim):
            terms.append(2 * _half_mean_square(jnp.diff(jnp.diff(field, axis=axis), axis=other)))
    return reduce(add, terms)


def l2(field: Float[Array, "dim *space"]) -> Scalar:
    """Size of the field, ½ of the mean of ‖u‖²."""
    return _half_mean_square(field)


def _half_mean_square(field: Array) -> Scalar:
    return 0.5 * jnp.mean(jnp.sum(field**2, 0))
