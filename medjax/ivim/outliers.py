"""Which frames of a scan do not go with the others: each is left out in turn, and the fit asked what it makes of it.

With one of n frames left out, the median over voxels of the residual variance, Σ (S − model)² / (n − 1 − 4), stays what
it was if the frame was as good as the others. Where it falls by far, motion or a dropout spoilt that frame; it goes,
and the rest is asked again. A robust likelihood weighs single measurements; this judges a frame as a whole.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.ivim.fit import check, fit

FALL = 0.7  # share of the residual variance that is left without a spoilt frame, at most
LEAST = 6  # frames that are kept at least: two more than parameters
ASKED = 2048  # voxels that are asked


def outlier_frames(
    signals: Float[np.ndarray, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    weights: Float[np.ndarray, " b"] | None = None,
    fall: float = FALL,
    least: int = LEAST,
) -> Bool[np.ndarray, " b"]:
    """Frames to leave out of a fit of this region's voxels; `weights` says how many were averaged for each.

    Raises:
        DataError: no fit can come of these b-values.
    """
    check(signals, bvalues)
    chosen = np.linspace(0, signals.shape[1] - 1, ASKED).astype(int)  # all over; repeated where they are few
    count = np.ones(len(bvalues), np.float32) if weights is None else weights
    remaining = partial(_remaining, jnp.asarray(signals[:, chosen]), jnp.asarray(bvalues), jnp.asarray(count))
    keep = np.ones(len(bvalues), bool)
    now = float(remaining(jnp.asarray(keep)))
    while keep.sum() > least:
        without = keep & ~np.eye(len(keep), dtype=bool)[keep]
        told = [len(np.unique(bvalues[one])) >= 4 for one in without]
        variances = [
            float(remaining(jnp.asarray(one))) if ok else np.inf for one, ok in zip(without, told, strict=True)
        ]
        best = int(np.argmin(variances))
        if variances[best] > fall * now:
            break
        keep, now = without[best], variances[best]
    return ~keep


@jax.jit
def _remaining(signals: Array, bvalues: Array, count: Array, keep: Array) -> Array:
    """Median residual variance of the fit of the frames kept."""
    cost = fit(signals, bvalues, weights=count * keep).cost
    return jnp.median(cost) / (jnp.sum(keep) - 4)
