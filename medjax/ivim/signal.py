"""The bi-exponential IVIM signal, in voxels along the last axis.

    S(b) = S0 [(1 − f) exp(−b D) + f exp(−b k)],     k = D* ("absolute") or D + D* ("excess")

Both conventions of D* are in use: absolute by OSIPI, DIPY and IVIM-NET, excess by some least-squares codes of fetal
MRI. Each function here names its convention.

b-values are in s/mm², diffusivities in mm²/s, f is a fraction from 0 to 1.

Source: Le Bihan et al., Radiology 168(2), 1988.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import ConfigError

Convention = Literal["absolute", "excess"]
UM2_PER_MS = 1e-3  # mm²/s; fits use µm²/ms, and ms/µm² for b-values: all numbers are then of order one


class Ivim(NamedTuple):
    """IVIM parameters S0, f, D and D* of each voxel, or their bounds."""

    s0: Float[Array | np.ndarray, "*voxels"]
    f: Float[Array | np.ndarray, "*voxels"]
    d: Float[Array | np.ndarray, "*voxels"]  # mm²/s
    d_star: Float[Array | np.ndarray, "*voxels"]  # mm²/s, in a convention that is named beside it


@partial(jax.jit, static_argnames="convention", inline=True)
def signal(
    parameters: Ivim, bvalues: Float[Array | np.ndarray, " b"], convention: Convention = "absolute"
) -> Float[Array, "b *voxels"]:
    """Bi-exponential IVIM signal S(b) of every voxel.

    Raises:
        ConfigError: no such convention.
    """
    s0, f, d, d_star = (jnp.asarray(p) for p in parameters)
    b = jnp.asarray(bvalues, d.dtype).reshape(-1, *(1,) * d.ndim)
    fast = pseudo_diffusion(d[None], d_star[None], convention)
    return s0[None] * ((1 - f[None]) * jnp.exp(-b * d[None]) + f[None] * jnp.exp(-b * fast))


def pseudo_diffusion(d: Array, d_star: Array, convention: Convention) -> Array:
    """Rate k of the fast decay exp(−b k), mm²/s: D*, or D + D* in the excess convention."""
    if convention not in ("absolute", "excess"):
        raise ConfigError(f"convention '{convention}'; expected absolute or excess")
    return d_star if convention == "absolute" else d + d_star


def convert_d_star(parameters: Ivim, convention: Convention, to: Convention) -> Ivim:
    """Convert D* from one convention to another; the signal stays the same."""
    d = jnp.asarray(parameters.d)
    fast = pseudo_diffusion(d, jnp.asarray(parameters.d_star), convention)
    return parameters._replace(d_star=pseudo_diffusion(-d, fast, to))
