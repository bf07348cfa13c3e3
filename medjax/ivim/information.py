"""How precisely a protocol can tell the parameters at all: Cramér–Rao bounds.

The standard deviation of any unbiased estimate is at least √ of the diagonal of (Jᵀ J / σ²)⁻¹, with J the signal's
derivatives with respect to S0, f, D and D*, in the convention used, and σ that of Gaussian noise. A fit that reaches
the bound cannot be bettered; a bound as large as the parameter says that the protocol does not see it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.ivim.lm import cholesky
from medjax.ivim.signal import UNIT, Convention, Ivim, signal


def cramer_rao(
    parameters: Ivim,
    bvalues: Float[Array | np.ndarray, " b"],
    sigma: Float[Array | np.ndarray, " voxel"] | float,
    convention: Convention = "absolute",
) -> Ivim:
    """The least standard deviation of each parameter in each voxel, in the parameter's own unit."""
    units = jnp.array([1.0, 1.0, UNIT, UNIT])
    p = jnp.stack([jnp.asarray(one, jnp.float32) for one in parameters]) / units[:, None]
    b = jnp.asarray(bvalues, jnp.float32)

    def model(p: Array) -> Array:
        return signal(Ivim(*(p * units[:, None])), b, convention)

    _, push = jax.linearize(model, p)
    slopes = [push(jnp.zeros_like(p).at[k].set(1.0)) for k in range(4)]
    information = [[jnp.sum(a * c, axis=0) for c in slopes[: i + 1]] for i, a in enumerate(slopes)]
    variance = _inverse_diagonal(cholesky(information))
    return Ivim(*(units[k] * sigma * jnp.sqrt(variance[k]) for k in range(4)))


def identifiable(parameters: Ivim, bounds: Ivim, largest: float = 0.5) -> Bool[Array, " voxel"]:
    """Where no bound of f, D and D* is more than the share `largest` of its parameter."""
    pairs = list(zip(parameters, bounds, strict=True))[1:]
    return jnp.all(jnp.stack([bound <= largest * jnp.abs(value) for value, bound in pairs]), axis=0)


def _inverse_diagonal(factor: list[list[Array]]) -> list[Array]:
    """The diagonal of (L Lᵀ)⁻¹: squared columns of L⁻¹."""
    number = len(factor)
    out = []
    for column in range(number):
        x: list[Array] = []
        for i in range(number):
            right = jnp.ones_like(factor[0][0]) if i == column else jnp.zeros_like(factor[0][0])
            x.append((right - sum((factor[i][j] * x[j] for j in range(i)), jnp.zeros_like(right))) / factor[i][i])
        out.append(sum((one**2 for one in x), jnp.zeros_like(x[0])))
    return out
