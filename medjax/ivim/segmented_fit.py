"""Segmented (two-step) IVIM fit: D from high b-values, then f and D* from the signal that this leaves at low ones.

Above a threshold the fast decay is over: log S = log A − b D, by least squares with the weights that errors of S give
its logarithm, S², from the prediction. With A and D held, what is missing below follows: S − A exp(−b D) =
C exp(−b D*), so that S0 = A + C and f = C / S0. No frame at b = 0 is needed.

It is fast, robust and biased: f takes up any error of A, and a fast decay slower than the threshold allows leaks
into D. `fit` makes no such assumption.

Source: Sigmund et al., Journal of Magnetic Resonance Imaging, 2026, and its consensus code (OSIPI, TF2.4).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from medjax import defaults
from medjax.errors import DataError
from medjax.ivim.bounds import LOWER, UPPER
from medjax.ivim.fit import FitResult
from medjax.ivim.levenberg_marquardt import levenberg_marquardt
from medjax.ivim.signal import UM2_PER_MS, Convention, Ivim, convert_d_star, signal


def segmented_fit(
    signals: Float[Array, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    convention: Convention = "absolute",
    lower: Ivim = LOWER,
    upper: Ivim = UPPER,
    threshold: float = defaults.IVIM_THRESHOLD,
    weights: Float[Array, " b"] | None = None,
) -> FitResult:
    """Segmented fit of S0, f, D and D* in each voxel, within bounds; a voxel without signal gives zeros.

    Args:
        convention: convention of the D* that is returned: absolute or excess.
        lower: lower bounds of f, D and absolute D*.
        upper: upper bounds of f, D and absolute D*.
        threshold: b-value from which perfusion is neglected, s/mm².
        weights: number of measurements averaged for each frame; 0 leaves a frame out.

    Raises:
        DataError: fewer than two b-values at or above the threshold, or below it.
    """
    high = bvalues >= threshold
    counts = len(np.unique(bvalues[~high])), len(np.unique(bvalues[high]))
    if min(counts) < 2:
        raise DataError(
            f"{counts[0]} b-values below and {counts[1]} from {threshold:g} s/mm²; a segmented fit needs two of each"
        )
    rows = np.flatnonzero(high)  # as an argument: protocols of equally many high b-values share a compilation
    low, top = (Ivim(*(jnp.asarray(p, signals.dtype) for p in bound)) for bound in (lower, upper))
    return _segmented_fit(signals, bvalues, rows, int(np.argmin(bvalues)), convention, low, top, weights)


@partial(jax.jit, static_argnames="convention")
def _segmented_fit(
    signals: Array,
    bvalues: Array,
    high: Array,
    lowest: Array | int,
    convention: Convention,
    lower: Ivim,
    upper: Ivim,
    weights: Array | None,
) -> FitResult:
    largest = jnp.max(jnp.nan_to_num(signals), axis=0)
    scale = jnp.where(largest > 0, largest, 1.0)
    y = jnp.where(jnp.isfinite(signals), signals, 0.0) / scale[None]
    finite = jnp.isfinite(signals)
    averages = finite if weights is None else finite * weights[:, None]
    slope, intercept = log_linear(y[high], bvalues[high] * UM2_PER_MS, averages[high])
    d = jnp.clip(-slope, lower.d / UM2_PER_MS, upper.d / UM2_PER_MS)
    slow = jnp.exp(jnp.clip(intercept, -30, 30))
    b = jnp.asarray(bvalues * UM2_PER_MS, y.dtype)[:, None]
    rest = y - slow[None] * jnp.exp(-b * d[None])

    def model(p: Array) -> Array:
        return p[:1] * jnp.exp(-b * p[1:])

    low, top = (
        jnp.array([[end], [bound.d_star / UM2_PER_MS]], y.dtype) for end, bound in ((0.0, lower), (jnp.inf, upper))
    )
    start = jnp.stack([jnp.maximum(rest[lowest], 0.05), 10 * d])
    missing, fast = levenberg_marquardt(model, start, rest, low, top, averages.astype(y.dtype), steps=20).parameters
    f = jnp.clip(missing / jnp.maximum(slow + missing, 1e-20), lower.f, upper.f)
    seen = largest > 0
    absolute = Ivim(*(jnp.where(seen, p, 0) for p in ((slow + missing) * scale, f, d * UM2_PER_MS, fast * UM2_PER_MS)))
    cost = jnp.sum(averages * (y * scale[None] - signal(absolute, bvalues)) ** 2, axis=0)
    return FitResult(convert_d_star(absolute, "absolute", convention), jnp.where(seen, cost, 0))


@partial(jax.jit, static_argnames="reweightings", inline=True)
def log_linear(
    y: Float[Array, "b voxel"],
    b: Float[Array | np.ndarray, " b"],
    averages: Shaped[Array, "b voxel"] | None = None,
    reweightings: int = 5,
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """Slope and intercept of log y against b, by least squares with weights `averages` ŷ² (first y²), where y > 0."""
    above = y > 0
    times = jnp.ones_like(y) if averages is None else averages.astype(y.dtype)
    log = jnp.log(jnp.where(above, y, 1.0))
    x = jnp.asarray(b, y.dtype)[:, None]

    def line(weight: Array) -> tuple[Array, Array]:
        w = jnp.where(above, times * weight, 0.0)
        total = jnp.maximum(jnp.sum(w, axis=0), 1e-20)
        middle, height = jnp.sum(w * x, axis=0) / total, jnp.sum(w * log, axis=0) / total
        away = x - middle[None]
        slope = jnp.sum(w * away * log, axis=0) / jnp.maximum(jnp.sum(w * away**2, axis=0), 1e-20)
        return slope, height - slope * middle

    def again(_: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, intercept = found
        return line(jnp.exp(2 * jnp.clip(intercept[None] + slope[None] * x, -30, 30)))

    return jax.lax.fori_loop(0, reweightings, again, line(y**2))
