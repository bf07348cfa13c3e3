"""Averages over frames of one b-value, such as diffusion directions: arithmetic, or geometric (trace-weighted)."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError

Mean = Literal["mean", "geometric"]
B_TOLERANCE = 0.02  # relative difference of b-values that count as equal


class AveragedSignals(NamedTuple):
    """One averaged frame for each b-value, in ascending order."""

    signals: Float[np.ndarray, "b voxel"]
    bvalues: Float[np.ndarray, " b"]
    averages: Float[np.ndarray, " b"]  # number of frames averaged for each b-value: the weights of a fit


def average(
    signals: Float[np.ndarray, "frame voxel"], bvalues: Float[np.ndarray, " frame"], kind: Mean = "mean"
) -> AveragedSignals:
    """Arithmetic or geometric means over frames whose b-values differ by 2 % at most; NaN and infinities are left out.

    The geometric mean of three orthogonal directions measures the trace of the diffusion tensor, and what scanners call
    trace-weighted; it is sensitive to noise, for it is 0 where one frame is. The arithmetic mean of magnitudes is not.

    Raises:
        ConfigError: no such mean.
    """
    if kind not in ("mean", "geometric"):
        raise ConfigError(f"average '{kind}'; expected mean or geometric")
    order = np.argsort(bvalues, kind="stable")
    rising = bvalues[order]
    starts = [0]
    for k in range(1, len(rising)):
        if rising[k] - rising[starts[-1]] > B_TOLERANCE * rising[k]:
            starts.append(k)
    groups = np.split(order, starts[1:])
    means: list[np.ndarray] = []
    counts: list[int] = []
    for group in groups:
        y = signals[group]
        finite = np.isfinite(y)
        number = np.maximum(finite.sum(0), 1)
        values = np.where(finite, y, 0.0) if kind == "mean" else np.log(np.maximum(np.where(finite, y, 1.0), 1e-30))
        mean = values.sum(0) / number
        means.append(np.where(finite.any(0), mean if kind == "mean" else np.exp(mean), np.nan))
        counts.append(len(group))
    shells = np.array([bvalues[group].mean() for group in groups], np.float32)
    return AveragedSignals(np.stack(means).astype(np.float32), shells, np.array(counts, np.float32))
