"""Cramér–Rao lower bounds (CRLB) of the IVIM parameters, from the Fisher information of a protocol's b-values.

The standard deviation of any unbiased estimate is at least √ of the diagonal of (Jᵀ J / σ²)⁻¹, with J the signal's
derivatives with respect to S0, f, D and D*, in the convention used, and σ that of Gaussian noise. A fit that reaches
the bound cannot be bettered; a bound as large as the parameter says that the protocol does not see it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.ivim.levenberg_marquardt import cholesky, jacobian
from medjax.ivim.signal import UM2_PER_MS, Convention, Ivim, signal


def cramer_rao(
    parameters: Ivim,
    bvalues: Float[Array | np.ndarray, " b"],
    sigma: Float[Array | np.ndarray, " voxel"] | float,
    convention: Convention = "absolute",
    weights: Float[Array | np.ndarray, " b"] | None = None,
) -> Ivim:
    """Cramér–Rao lower bound (standard deviation) of each parameter in each voxel, in the parameter's own unit.

    Args:
        sigma: standard deviation of the Gaussian noise of one measurement, in units of S0.
        convention: convention of the D* in `parameters`: absolute or excess.
        weights: number of measurements averaged for each b-value.
    """
    return _cramer_rao(parameters, bvalues, sigma, convention, weights)


@partial(jax.jit, static_argnames="convention", inline=True)
def _cramer_rao(
    parameters: Ivim, bvalues: Array, sigma: Array | float, convention: Convention, weights: Array | None
) -> Ivim:
    units = jnp.array([1.0, 1.0, UM2_PER_MS, UM2_PER_MS])
    p = jnp.stack([jnp.asarray(one, jnp.float32) for one in parameters]) / units[:, None]
    b = jnp.asarray(bvalues, jnp.float32)

    def model(p: Array) -> Array:
        return signal(Ivim(*(p * units[:, None])), b, convention)

    _, derivatives = jacobian(model, p)
    w = jnp.ones((len(b), 1)) if weights is None else jnp.asarray(weights, jnp.float32)[:, None]
    information = [[jnp.sum(w * a * c, axis=0) for c in derivatives[: i + 1]] for i, a in enumerate(derivatives)]
    covariance = inverse(information)
    return Ivim(*(units[k] * sigma * jnp.sqrt(covariance[k][k]) for k in range(4)))


def identifiable(parameters: Ivim, bounds: Ivim, max_cv: float = 0.5) -> Bool[Array, " voxel"]:
    """Mask of identifiable voxels: the CRLB of f, D and D* are each at most `max_cv` times the parameter."""
    return jnp.all(identifiable_each(parameters, bounds, max_cv), axis=0)


@partial(jax.jit, static_argnames="max_cv", inline=True)
def identifiable_each(parameters: Ivim, bounds: Ivim, max_cv: float = 0.5) -> Bool[Array, "parameter voxel"]:
    """The same of each parameter: whether the CRLB of f, of D, of D* is at most `max_cv` times the parameter."""
    pairs = list(zip(parameters, bounds, strict=True))[1:]
    return jnp.stack([bound <= max_cv * jnp.abs(value) for value, bound in pairs])


def inverse(matrix: list[list[Array]]) -> list[list[Array]]:
    """Inverse A⁻¹ = L⁻ᵀ L⁻¹ of each voxel's positive-definite matrix A, both as rows of their lower triangle."""
    factor = cholesky(matrix)
    size = range(len(factor))
    zero = jnp.zeros_like(factor[0][0])
    half: list[list[Array]] = []  # columns of L⁻¹
    for column in size:
        x: list[Array] = []
        for i in size:
            right = zero + 1 if i == column else zero
            x.append((right - sum((factor[i][j] * x[j] for j in range(i)), zero)) / factor[i][i])
        half.append(x)
    return [[sum((half[i][k] * half[j][k] for k in size), zero) for j in range(i + 1)] for i in size]
