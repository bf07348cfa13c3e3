"""Apparent diffusion coefficient (ADC) by a mono-exponential fit, S(b) = S0 exp(−b ADC).

Source: Stejskal & Tanner, Journal of Chemical Physics 42(1), 1965.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.ivim.levenberg_marquardt import levenberg_marquardt
from medjax.ivim.noise import NoiseModel, noise_model
from medjax.ivim.segmented_fit import log_linear
from medjax.ivim.signal import UM2_PER_MS

MAX_ADC = 6e-3  # mm²/s; water at 37 °C has half of it


class Adc(NamedTuple):
    """S0 and ADC of each voxel, of a mono-exponential fit."""

    s0: Float[Array, " voxel"]
    adc: Float[Array, " voxel"]  # mm²/s
    cost: Float[Array, " voxel"]  # Σ_b w (S − model)², or the loss of another noise model


@partial(jax.jit, static_argnames=("noise", "steps"), inline=True)
def adc(
    signals: Float[Array, "b voxel"],
    bvalues: Float[Array | np.ndarray, " b"],
    noise: NoiseModel = "gaussian",
    sigma: Float[Array, "#voxel"] | Float[Array, ""] | float = 1.0,
    weights: Float[Array, " b"] | None = None,
    steps: int = 12,
) -> Adc:
    """Maximum-likelihood S0 and ADC of each voxel, 0 ≤ ADC ≤ 6e-3 mm²/s; a voxel that is nowhere above 0 gives zeros.

    Args:
        noise: noise model: gaussian, rician or student.
        sigma: standard deviation of the noise of one measurement, in units of the signal.
        weights: number of measurements averaged for each frame; 0 leaves a frame out.
        steps: Levenberg–Marquardt iterations.
    """
    y = jnp.where(jnp.isfinite(signals), signals, 0.0)
    largest = jnp.max(y, axis=0)
    scale = jnp.where(largest > 0, largest, 1.0)
    b = jnp.asarray(bvalues * UM2_PER_MS, y.dtype)
    times = jnp.ones(len(b), y.dtype) if weights is None else weights
    count = jnp.where(jnp.isfinite(signals), times[:, None], 0.0)
    slope, intercept = log_linear(y / scale[None], bvalues * UM2_PER_MS, count)
    start = jnp.stack([jnp.exp(jnp.clip(intercept, -9, 9)), -slope])

    def model(p: Array) -> Array:
        return p[:1] * jnp.exp(-b[:, None] * p[1:])

    top = jnp.array([[jnp.inf], [MAX_ADC / UM2_PER_MS]], y.dtype)
    sd = jnp.broadcast_to(jnp.asarray(sigma, y.dtype), largest.shape)[None] / scale[None]
    likelihood = noise_model(noise, sd / jnp.sqrt(jnp.maximum(times, 1e-6))[:, None])
    found = levenberg_marquardt(model, start, y / scale[None], jnp.zeros_like(top), top, count, steps, likelihood)
    seen = jnp.where(largest > 0, 1.0, 0.0)
    s0, decay = found.parameters
    return Adc(seen * s0 * scale, seen * decay * UM2_PER_MS, seen * found.cost * scale**2)
