"""Implicit differentiation of a minimum with respect to the data of its cost, whatever solver found it.

At p̂ = argmin c(p, θ) inside the bounds ∂c/∂p = 0, so by the implicit function theorem

    ∂p̂/∂θ = −H⁻¹ ∂²c / ∂p ∂θ,      H = ∂²c / ∂p²

with the full Hessian: JᵀJ alone, as Gauss–Newton has it, is off by the curvature of the model times the residual,
which is a fifth at the signal-to-noise ratio of fetal scans. Parameters at a bound that holds them back do not move,
and where H is not positive definite there is no such derivative: zero is given.

Source: Krantz & Parks, The Implicit Function Theorem, 2002; for solvers, Blondel et al., NeurIPS 2022.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.ivim.levenberg_marquardt import cholesky, solve

MIN_PIVOT = 1e-6  # pivot of a Hessian, relative to its diagonal element, that still counts as positive
Cost = Callable[[Float[Array, "parameter voxel"]], Float[Array, " voxel"]]


def differentiable_minimum(
    cost: Cost,
    minimize: Callable[[], Float[Array, "parameter voxel"]],
    lower: Float[Array, "parameter #voxel"],
    upper: Float[Array, "parameter #voxel"],
) -> Float[Array, "parameter voxel"]:
    """The minimum that `minimize()` returns, with implicit derivatives (forward and reverse) from `cost`.

    Derivatives are with respect to whatever `cost` closes over; `minimize` itself is not differentiated.
    """

    def slope(p: Array) -> Array:
        gradient = jax.grad(lambda q: jnp.sum(cost(q)))(p)
        held = ((p <= lower) & (gradient > 0)) | ((p >= upper) & (gradient < 0))
        return jnp.where(held, p - jax.lax.stop_gradient(p), gradient)

    def tangent(hessian_of: Callable[[Array], Array], right: Array) -> Array:
        rows = [hessian_of(jnp.zeros_like(right).at[k].set(1.0)) for k in range(len(right))]
        matrix = [[rows[j][i] for j in range(i + 1)] for i in range(len(rows))]
        pivots = zip(cholesky(matrix), matrix, strict=True)
        definite = jnp.stack([factor[-1] ** 2 > MIN_PIVOT * jnp.abs(row[-1]) for factor, row in pivots])
        return jnp.where(jnp.all(definite, axis=0)[None], solve(matrix, right), 0.0)

    shape = jax.eval_shape(minimize)
    return jax.lax.custom_root(slope, jnp.zeros(shape.shape, shape.dtype), lambda _slope, _start: minimize(), tangent)
