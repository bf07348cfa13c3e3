"""The two-step fit that most IVIM studies report: diffusion from high b-values, then perfusion from what is missing.

Above a threshold the fast decay is over: log S = log A − b D, by least squares with the weights that errors of S give
its logarithm, S², from the prediction. The perfusion fraction is what A falls short of the signal without diffusion
weighting, f = (S(0) − A) / S(0), and D* follows alone, with the other three held.

It is quick, steady and biased: f takes up any error of A, and a fast decay slower than the threshold allows leaks
into D. `fit` starts from no such assumption.

Source: Sigmund et al., Journal of Magnetic Resonance Imaging, 2026, and its consensus code (OSIPI, TF2.4).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.ivim.fit import LOWER, UPPER, Found
from medjax.ivim.lm import lm
from medjax.ivim.signal import UNIT, Convention, Ivim, converted, signal

THRESHOLD = 200.0  # s/mm²


def segmented(
    signals: Float[Array, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    convention: Convention = "absolute",
    lower: Ivim = LOWER,
    upper: Ivim = UPPER,
    threshold: float = THRESHOLD,
) -> Found:
    """S0, f, D, then D*, within bounds; a voxel without signal gives zeros.

    Raises:
        DataError: no frame without diffusion weighting, or fewer than two b-values at or above the threshold.
    """
    high = bvalues >= threshold
    if not (bvalues == 0).any() or len(np.unique(bvalues[high])) < 2:
        raise DataError(
            f"b-values from {bvalues.min():g}, {len(np.unique(bvalues[high]))} of at least {threshold:g}; "
            "a segmented fit needs b = 0 and two of those"
        )
    y = jnp.where(jnp.isfinite(signals), signals, 0.0)
    s0 = jnp.mean(y[bvalues == 0], axis=0)
    seen = s0 > 0
    s0 = jnp.where(seen, s0, 1.0)
    slope, intercept = log_linear(y[high] / s0[None], bvalues[high] * UNIT)
    d = jnp.clip(-slope, lower.d / UNIT, upper.d / UNIT)
    f = jnp.clip(1 - jnp.exp(intercept), lower.f, upper.f)
    b = jnp.asarray(bvalues * UNIT, y.dtype)[:, None]

    def model(p: Array) -> Array:
        return (1 - f)[None] * jnp.exp(-b * d[None]) + f[None] * jnp.exp(-b * p)

    low, top = (jnp.full((1, 1), bound.d_star / UNIT, y.dtype) for bound in (lower, upper))
    fast = lm(model, 10 * d[None], y / s0[None], low, top, steps=20).parameters[0]
    absolute = Ivim(*(jnp.where(seen, p, 0) for p in (s0, f, d * UNIT, fast * UNIT)))
    cost = jnp.sum((y - signal(absolute, bvalues)) ** 2, axis=0)
    return Found(converted(absolute, "absolute", convention), jnp.where(seen, cost, 0))


def log_linear(
    y: Float[Array, "b voxel"], b: Float[np.ndarray, " b"], reweightings: int = 5
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """(slope, intercept) of log y against b, weights ŷ², first y²; values that are not above 0 are left out."""
    above = y > 0
    log = jnp.log(jnp.where(above, y, 1.0))
    x = jnp.asarray(b, y.dtype)[:, None]

    def line(weight: Array) -> tuple[Array, Array]:
        w = jnp.where(above, weight, 0.0)
        total = jnp.maximum(jnp.sum(w, axis=0), 1e-20)
        middle, height = jnp.sum(w * x, axis=0) / total, jnp.sum(w * log, axis=0) / total
        away = x - middle[None]
        slope = jnp.sum(w * away * log, axis=0) / jnp.maximum(jnp.sum(w * away**2, axis=0), 1e-20)
        return slope, height - slope * middle

    def again(_: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, intercept = found
        return line(jnp.exp(2 * jnp.clip(intercept[None] + slope[None] * x, -30, 30)))

    return jax.lax.fori_loop(0, reweightings, again, line(y**2))
