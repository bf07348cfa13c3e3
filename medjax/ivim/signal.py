"""The bi-exponential IVIM signal, in voxels along the last axis.

    S(b) = S0 [(1 − f) exp(−b D) + f exp(−b k)],     k = D* ("absolute") or D + D* ("excess")

Both conventions of D* are in use: absolute by OSIPI, DIPY and IVIM-NET, excess by some least-squares codes of fetal
MRI. Here it is said each time.

b-values are in s/mm², diffusivities in mm²/s, f is a share from 0 to 1.

Source: Le Bihan et al., Radiology 168(2), 1988.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import ConfigError

Convention = Literal["absolute", "excess"]
UNIT = 1e-3  # diffusivities are fitted in µm²/ms, b-values in ms/µm²: all numbers are then of order one


class Ivim(NamedTuple):
    """Maps of the four parameters, or their bounds."""

    s0: Float[Array | np.ndarray, "*voxels"]
    f: Float[Array | np.ndarray, "*voxels"]
    d: Float[Array | np.ndarray, "*voxels"]  # mm²/s
    d_star: Float[Array | np.ndarray, "*voxels"]  # mm²/s, in a convention that is named beside it


def signal(
    parameters: Ivim, bvalues: Float[Array | np.ndarray, " b"], convention: Convention = "absolute"
) -> Float[Array, "b *voxels"]:
    """S(b) of every voxel.

    Raises:
        ConfigError: no such convention.
    """
    s0, f, d, d_star = (jnp.asarray(p) for p in parameters)
    b = jnp.asarray(bvalues, d.dtype).reshape(-1, *(1,) * d.ndim)
    fast = pseudo_diffusion(d[None], d_star[None], convention)
    return s0[None] * ((1 - f[None]) * jnp.exp(-b * d[None]) + f[None] * jnp.exp(-b * fast))


def pseudo_diffusion(d: Array, d_star: Array, convention: Convention) -> Array:
    """The rate of the fast decay."""
    if convention not in ("absolute", "excess"):
        raise ConfigError(f"convention '{convention}'; expected absolute or excess")
    return d_star if convention == "absolute" else d + d_star


def converted(parameters: Ivim, convention: Convention, to: Convention) -> Ivim:
    """The same signal with D* in the other convention."""
    d = jnp.asarray(parameters.d)
    fast = pseudo_diffusion(d, jnp.asarray(parameters.d_star), convention)
    return parameters._replace(d_star=pseudo_diffusion(-d, fast, to))
