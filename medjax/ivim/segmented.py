"""The two-step fit that most IVIM studies report: diffusion from high b-values, then perfusion from what is missing.

Above a threshold the fast decay is over: log S = log A − b D, by least squares with the weights that errors of S give
its logarithm, S², from the prediction. With A and D held, what is missing below follows: S − A exp(−b D) =
C exp(−b D*), so that S0 = A + C and f = C / S0. No frame at b = 0 is needed.

It is quick, steady and biased: f takes up any error of A, and a fast decay slower than the threshold allows leaks
into D. `fit` starts from no such assumption.

Source: Sigmund et al., Journal of Magnetic Resonance Imaging, 2026, and its consensus code (OSIPI, TF2.4).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

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
    weights: Float[Array, " b"] | None = None,
) -> Found:
    """A and D, then C and D*, within the bounds of D, D* and f; a voxel without signal gives zeros.

    Raises:
        DataError: fewer than two b-values at or above the threshold, or below it.
    """
    high = bvalues >= threshold
    counts = len(np.unique(bvalues[~high])), len(np.unique(bvalues[high]))
    if min(counts) < 2:
        raise DataError(
            f"{counts[0]} b-values below and {counts[1]} from {threshold:g} s/mm²; a segmented fit needs two of each"
        )
    largest = jnp.max(jnp.nan_to_num(signals), axis=0)
    scale = jnp.where(largest > 0, largest, 1.0)
    y = jnp.where(jnp.isfinite(signals), signals, 0.0) / scale[None]
    finite = jnp.isfinite(signals)
    count = finite if weights is None else finite * weights[:, None]
    slope, intercept = log_linear(y[high], bvalues[high] * UNIT, count[high])
    d = jnp.clip(-slope, lower.d / UNIT, upper.d / UNIT)
    slow = jnp.exp(jnp.clip(intercept, -30, 30))
    b = jnp.asarray(bvalues * UNIT, y.dtype)[:, None]
    rest = y - slow[None] * jnp.exp(-b * d[None])

    def model(p: Array) -> Array:
        return p[:1] * jnp.exp(-b * p[1:])

    low, top = (jnp.array([[end], [bound.d_star / UNIT]], y.dtype) for end, bound in ((0.0, lower), (jnp.inf, upper)))
    start = jnp.stack([jnp.maximum(rest[np.argmin(bvalues)], 0.05), 10 * d])
    missing, fast = lm(model, start, rest, low, top, count.astype(y.dtype), steps=20).parameters
    f = jnp.clip(missing / jnp.maximum(slow + missing, 1e-20), lower.f, upper.f)
    seen = largest > 0
    absolute = Ivim(*(jnp.where(seen, p, 0) for p in ((slow + missing) * scale, f, d * UNIT, fast * UNIT)))
    cost = jnp.sum(count * (y * scale[None] - signal(absolute, bvalues)) ** 2, axis=0)
    return Found(converted(absolute, "absolute", convention), jnp.where(seen, cost, 0))


def log_linear(
    y: Float[Array, "b voxel"],
    b: Float[np.ndarray, " b"],
    count: Shaped[Array, "b voxel"] | None = None,
    reweightings: int = 5,
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """(slope, intercept) of log y against b, weights `count` ŷ², first y²; values not above 0 are left out."""
    above = y > 0
    times = jnp.ones_like(y) if count is None else count.astype(y.dtype)
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
