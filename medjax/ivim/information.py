"""How precisely a protocol can tell the parameters at all: Cramér–Rao bounds.

The standard deviation of any unbiased estimate is at least √ of the diagonal of (Jᵀ J / σ²)⁻¹, with J the signal's
derivatives with respect to S0, f, D and D*, in the convention used, and σ that of Gaussian noise. A fit that reaches
the bound cannot be bettered; a bound as large as the parameter says that the protocol does not see it.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.ivim.lm import cholesky, jacobian
from medjax.ivim.signal import UNIT, Convention, Ivim, signal


def cramer_rao(
    parameters: Ivim,
    bvalues: Float[Array | np.ndarray, " b"],
    sigma: Float[Array | np.ndarray, " voxel"] | float,
    convention: Convention = "absolute",
    weights: Float[Array | np.ndarray, " b"] | None = None,
) -> Ivim:
    """The least standard deviation of each parameter in each voxel, in the parameter's own unit.

    `sigma` is that of one measurement; `weights` says how many were averaged for each b-value.
    """
    units = jnp.array([1.0, 1.0, UNIT, UNIT])
    p = jnp.stack([jnp.asarray(one, jnp.float32) for one in parameters]) / units[:, None]
    b = jnp.asarray(bvalues, jnp.float32)

    def model(p: Array) -> Array:
        return signal(Ivim(*(p * units[:, None])), b, convention)

    _, slopes = jacobian(model, p)
    w = jnp.ones((len(b), 1)) if weights is None else jnp.asarray(weights, jnp.float32)[:, None]
    information = [[jnp.sum(w * a * c, axis=0) for c in slopes[: i + 1]] for i, a in enumerate(slopes)]
    covariance = inverse(information)
    return Ivim(*(units[k] * sigma * jnp.sqrt(covariance[k][k]) for k in range(4)))


def identifiable(parameters: Ivim, bounds: Ivim, largest: float = 0.5) -> Bool[Array, " voxel"]:
    """Where no bound of f, D and D* is more than the share `largest` of its parameter."""
    pairs = list(zip(parameters, bounds, strict=True))[1:]
    return jnp.all(jnp.stack([bound <= largest * jnp.abs(value) for value, bound in pairs]), axis=0)


def inverse(matrix: list[list[Array]]) -> list[list[Array]]:
    """Rows of the lower triangle of A⁻¹ = L⁻ᵀ L⁻¹ for each voxel's positive-definite A, given the same way."""
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
