"""Several diffusion directions of one b-value made one signal."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError

Mean = Literal["mean", "geometric"]
CLOSE = 0.02  # relative difference of b-values that count as one


class Averaged(NamedTuple):
    """A frame for each b-value, rising."""

    signals: Float[np.ndarray, "b voxel"]
    bvalues: Float[np.ndarray, " b"]
    frames: Float[np.ndarray, " b"]  # how many frames each was made of: the weights of a fit


def average(
    signals: Float[np.ndarray, "frame voxel"], bvalues: Float[np.ndarray, " frame"], kind: Mean = "mean"
) -> Averaged:
    """Means over frames whose b-values differ by 2 % at most; measurements that are not finite are left out.

    The geometric mean of three orthogonal directions measures the trace of the diffusion tensor, and what scanners call
    trace-weighted; it takes noise badly, for it is 0 where one frame is. The mean of magnitudes is steadier.

    Raises:
        ConfigError: no such mean.
    """
    if kind not in ("mean", "geometric"):
        raise ConfigError(f"average '{kind}'; expected mean or geometric")
    order = np.argsort(bvalues, kind="stable")
    rising = bvalues[order]
    starts = [0]
    for k in range(1, len(rising)):
        if rising[k] - rising[starts[-1]] > CLOSE * rising[k]:
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
    return Averaged(np.stack(means).astype(np.float32), shells, np.array(counts, np.float32))
