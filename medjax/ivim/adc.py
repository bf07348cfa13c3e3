"""The apparent diffusion coefficient: one exponential decay, S(b) = S0 exp(−b ADC).

Source: Stejskal & Tanner, Journal of Chemical Physics 42(1), 1965.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.ivim.lm import lm
from medjax.ivim.noise import Kind, noise_of
from medjax.ivim.segmented import log_linear
from medjax.ivim.signal import UNIT

MOST = 6e-3  # mm²/s; water at 37 °C has half of it


class Adc(NamedTuple):
    """Maps of a mono-exponential fit."""

    s0: Float[Array, " voxel"]
    adc: Float[Array, " voxel"]  # mm²/s
    cost: Float[Array, " voxel"]


def adc(
    signals: Float[Array, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    noise: Kind = "gaussian",
    sigma: Float[Array, "#voxel"] | Float[Array, ""] | float = 1.0,
    weights: Float[Array, " b"] | None = None,
    steps: int = 12,
) -> Adc:
    """The most likely S0 and ADC, 0 ≤ ADC ≤ 6e-3 mm²/s; a voxel that is nowhere above 0 gives zeros.

    `sigma` is that of one measurement, `weights` says how many were averaged for each frame, 0 leaves one out.
    """
    y = jnp.where(jnp.isfinite(signals), signals, 0.0)
    largest = jnp.max(y, axis=0)
    scale = jnp.where(largest > 0, largest, 1.0)
    b = jnp.asarray(bvalues * UNIT, y.dtype)
    times = jnp.ones(len(b), y.dtype) if weights is None else weights
    count = jnp.where(jnp.isfinite(signals), times[:, None], 0.0)
    slope, intercept = log_linear(y / scale[None], bvalues * UNIT, count)
    start = jnp.stack([jnp.exp(jnp.clip(intercept, -9, 9)), -slope])

    def model(p: Array) -> Array:
        return p[:1] * jnp.exp(-b[:, None] * p[1:])

    top = jnp.array([[jnp.inf], [MOST / UNIT]], y.dtype)
    spread = jnp.broadcast_to(jnp.asarray(sigma, y.dtype), largest.shape)[None] / scale[None]
    likelihood = noise_of(noise, spread / jnp.sqrt(jnp.maximum(times, 1e-6))[:, None])
    found = lm(model, start, y / scale[None], jnp.zeros_like(top), top, count, steps, likelihood)
    seen = jnp.where(largest > 0, 1.0, 0.0)
    s0, decay = found.parameters
    return Adc(seen * s0 * scale, seen * decay * UNIT, seen * found.cost * scale**2)
