"""Outlier frames of a diffusion scan (motion, signal dropout), by leave-one-out residual variance.

With one of n frames left out, the median over voxels of the residual variance, Σ (S − model)² / (n − 1 − 4), stays what
it was if the frame was as good as the others. Where it falls by far the frame is an outlier, and the search goes on
among the rest. A robust likelihood weighs single measurements; this assesses a frame as a whole.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.ivim.fit import check_bvalues, fit

MAX_VARIANCE_RATIO = 0.7  # residual variance without an outlier frame over that with it, at most
MIN_FRAMES = 6  # frames that are always kept: two more than parameters
SAMPLED_VOXELS = 2048  # voxels whose fits are compared


def outlier_frames(
    signals: Float[np.ndarray, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    weights: Float[np.ndarray, " b"] | None = None,
    max_variance_ratio: float = MAX_VARIANCE_RATIO,
    min_frames: int = MIN_FRAMES,
) -> Bool[np.ndarray, " b"]:
    """Mask of the outlier frames of these voxels, to be left out of a fit.

    Args:
        weights: number of measurements averaged for each frame.
        max_variance_ratio: residual variance without a frame, relative to that with it, below which it is an outlier.
        min_frames: number of frames that are always kept.

    Raises:
        DataError: these b-values cannot determine the parameters.
    """
    check_bvalues(signals, bvalues)
    chosen = np.linspace(0, signals.shape[1] - 1, SAMPLED_VOXELS).astype(int)  # all over; repeated where they are few
    count = np.ones(len(bvalues), np.float32) if weights is None else weights
    remaining = partial(_remaining, jnp.asarray(signals[:, chosen]), jnp.asarray(bvalues), jnp.asarray(count))
    keep = np.ones(len(bvalues), bool)
    now = float(remaining(jnp.asarray(keep)))
    while keep.sum() > min_frames:
        without = keep & ~np.eye(len(keep), dtype=bool)[keep]
        determined = [len(np.unique(bvalues[one])) >= 4 for one in without]
        variances = [
            float(remaining(jnp.asarray(one))) if ok else np.inf for one, ok in zip(without, determined, strict=True)
        ]
        best = int(np.argmin(variances))
        if variances[best] > max_variance_ratio * now:
            break
        keep, now = without[best], variances[best]
    return ~keep


@jax.jit
def _remaining(signals: Array, bvalues: Array, count: Array, keep: Array) -> Array:
    """Median residual variance of the fit of the frames kept."""
    cost = fit(signals, bvalues, weights=count * keep).cost
    return jnp.median(cost) / (jnp.sum(keep) - 4)
