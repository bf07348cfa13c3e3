"""Certainty κ of the data in each voxel, by which a penalty's edge weights make resolution uniform.

    κ = √(H 1),   H = Aᵀ diag(y / q²) A,   q = A x + b

H is the Hessian of −log-likelihood at an image x, such as OSEM's. Where κ is large many counts speak for a voxel, and a
penalty of constant weight smooths little; with the weights w κⱼ κₖ of `medjax.penalty.edge_weights` it smooths alike
everywhere. A quadratic penalty follows sensitivity and activity then; the relative difference, whose curvature falls
with activity as the counts' certainty does, needs κ for sensitivity only, and smooths hot regions less with it.

    penalty = RelativeDifference(edge_weights(neighbors(grid.shape, grid.voxel_mm), kappa(stacked, osem_image)))

Source: Fessler & Rogers, IEEE Transactions on Image Processing 5(9), 1996; row sums in place of the diagonal: Tsai et
al., IEEE Transactions on Medical Imaging 39(1), 2020, as in the PETRIC challenge.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.one_program import one_program
from medjax.pet.acquisition import Acquisition, divide


@one_program
def hessian_row_sums(acquisition: Acquisition, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Row sums Aᵀ(y / q² · A 1) of the Hessian of −log-likelihood at an image: two projections and a back-projection.

    Takes an acquisition with or without subsets.
    """

    def of(part: Acquisition) -> Array:
        expected = part.expected(image)
        return part.adjoint(divide(divide(part.counts, expected), expected) * part.forward(jnp.ones_like(image)))

    if acquisition.sensitivity.ndim == 3:
        return of(acquisition)
    return jax.lax.map(of, acquisition).sum(axis=0)


def kappa(acquisition: Acquisition, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Certainty κ = √(H 1) of each voxel at an image; 0 where no line of response passes."""
    return jnp.sqrt(jnp.maximum(hessian_row_sums(acquisition, image), 0))
