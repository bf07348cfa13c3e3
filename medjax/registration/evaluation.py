"""Measures of a registration: overlap of labels, folds, regularity, inverse consistency and target registration error.

Displacements are in voxels of their own grid, component first; results in mm take the grid's voxel size. A rim of
voxels, where differences are one-sided and what is mapped to is outside the image, is left out where that matters.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Scalar

from medjax.metrics.overlap import overlap
from medjax.registration.grid import Points
from medjax.registration.transforms import Chain, transform_world_points
from medjax.registration.warp import compose, jacobian_determinant

Lengths = tuple[float, ...] | Float[Array, " dim"] | Float[np.ndarray, " dim"]
Field = Float[Array, "dim *space"] | Float[np.ndarray, "dim *space"]
Labels = Integer[Array, "*space"] | Integer[np.ndarray, "*space"]
RIM = 2  # voxels at each edge that are left out


def dice(prediction: Labels, reference: Labels, classes: int) -> Float[Array, " label"]:
    """Dice coefficient 2 |P ∩ R| / (|P| + |R|) of the labels 1 … classes − 1; NaN for a label that neither map has.

    Raises:
        DataError: labels are no integers, shapes differ, or a label is out of range.
    """
    return overlap(prediction, reference, classes).dice[1:]


def folds_fraction(displacement: Field, *, rim: int = RIM) -> Scalar:
    """Fraction of the voxels where the Jacobian determinant of x + u(x) is not positive."""
    return jnp.mean(_inner(jacobian_determinant(jnp.asarray(displacement)), rim) <= 0)


def sd_log_jacobian(displacement: Field, *, rim: int = RIM) -> Scalar:
    """Standard deviation of the log Jacobian determinant over the voxels where it is positive."""
    determinant = _inner(jacobian_determinant(jnp.asarray(displacement)), rim)
    positive = determinant > 0
    return jnp.std(jnp.log(jnp.where(positive, determinant, 1)), where=positive)


def inverse_consistency_mm(
    displacement: Field,
    inverse: Field,
    voxel_mm: Lengths,
    *,
    rim: int = RIM,
) -> Scalar:
    """Mean distance of y + v(y) + u(y + v(y)) from y, mm: u after its inverse v."""
    return jnp.mean(_inner(_lengths(compose(jnp.asarray(displacement), jnp.asarray(inverse)), voxel_mm), rim))


def target_error_mm(
    displacement: Field,
    reference: Field,
    voxel_mm: Lengths,
    mask: Float[Array, "*space"] | Float[np.ndarray, "*space"] | None = None,
) -> Scalar:
    """Target registration error, the mean distance between two displacements over the mask's voxels, mm."""
    distance = _lengths(jnp.asarray(displacement) - jnp.asarray(reference), voxel_mm)
    return distance.mean() if mask is None else jnp.sum(mask * distance) / jnp.maximum(mask.sum(), 1e-6)


def landmark_errors_mm(chain: Chain, fixed_mm: Points, moving_mm: Points) -> Float[Array, " number"]:
    """Target registration error of each landmark: distance of its transformed fixed point from its moving point, mm."""
    return jnp.linalg.norm(transform_world_points(chain, fixed_mm) - jnp.asarray(moving_mm, jnp.float32), axis=1)


def _lengths(displacement: Array, voxel_mm: Lengths) -> Array:
    sizes = jnp.asarray(voxel_mm, displacement.dtype).reshape(-1, *[1] * (displacement.ndim - 1))
    return jnp.sqrt(jnp.sum((sizes * displacement) ** 2, 0))


def _inner(values: Array, rim: int) -> Array:
    """Values without a rim, where the image is large enough to have a middle."""
    return values[tuple(slice(rim, -rim) if rim and side > 2 * rim else slice(None) for side in values.shape)]
