"""Intervals of samples of a biomarker, and how much the intervals of scan and rescan overlap.

    a, b = intervals(scan), intervals(rescan)                the middle 95 % of each subject's samples
    np.mean(interval_overlap(a, b, "iou") > 0.5)             fraction of subjects whose intervals overlap by half

"95 % interval" and "overlap" have several meanings, and figures of a paper that names neither cannot be compared: for
two scans whose samples have the same distribution, the fraction above is 0.54 with 5 samples and 1.0 with 50, and 0.92
with 5 samples if the overlap is divided by the shorter interval. Report kind, definition and number of samples.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.biomarker_samples import check_samples, mean_and_sd

AnyArray = Array | np.ndarray
Kind = Literal["percentile", "normal", "mean"]
Overlap = Literal["iou", "shorter", "dice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


class Interval(NamedTuple):
    """Lower and upper ends of intervals, in the unit of the samples."""

    low: Float[np.ndarray, "*batch"]
    high: Float[np.ndarray, "*batch"]


def intervals(
    samples: Real[AnyArray, "*batch sample"], kind: Kind = "percentile", level: float | int = 0.95
) -> Interval:
    """Interval of the samples of each subject, with N samples of mean x̄ and standard deviation s (N − 1).

        percentile   quantiles (1 ± level)/2 of the samples, linear between them; the same as N grows, but with few
                     samples too short: N = 5 samples of a normal distribution are within about ±1.1 s
        normal       x̄ ± z s, z the standard normal quantile; the same as N grows
        mean         x̄ ± t s/√N, Student's confidence interval of the *mean* of the draws: its width goes to 0 as more
                     samples are drawn, so it is not where a rescan should lie

    Samples that are all equal give an interval of width 0.

    Raises:
        ConfigError: no such kind.
        DataError: fewer than two samples, one that is not finite, or a level outside 0–1.
    """
    x = check_samples("samples", samples)
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    if kind == "percentile":
        return Interval(*np.quantile(x, [(1 - level) / 2, (1 + level) / 2], axis=-1))
    mean, sd = mean_and_sd(x)
    if kind == "normal":
        half = stats.norm.ppf((1 + level) / 2) * sd
    elif kind == "mean":
        half = stats.t.ppf((1 + level) / 2, x.shape[-1] - 1) * sd / x.shape[-1] ** 0.5
    else:
        raise ConfigError(f"kind: '{kind}'; expected one of {', '.join(KINDS)}")
    return Interval(mean - half, mean + half)


def interval_overlap(a: Interval, b: Interval, kind: Overlap = "iou") -> Float[np.ndarray, "*batch"]:
    """Overlap of two intervals, from 0 (disjoint or touching) to 1, with I the length of their intersection:

        iou       I / length of the union (of disjoint intervals: the sum of both)
        shorter   I / length of the shorter one: 1 if it lies within the other
        dice      2 I / (sum of both lengths)

    An interval of width 0 is a point. Two points: 1 if they are equal, else 0. A point and an interval: `shorter` is 1
    if the point lies within it, ends included, else 0; `iou` and `dice` are 0, as their limits are. NaN stays NaN.

    Raises:
        ConfigError: no such kind.
        DataError: other shapes, or an interval whose lower end is above its upper end.
    """
    if kind not in OVERLAPS:
        raise ConfigError(f"kind: '{kind}'; expected one of {', '.join(OVERLAPS)}")
    (a_low, a_high), (b_low, b_high) = (tuple(np.asarray(end, np.float64) for end in pair) for pair in (a, b))
    if not a_low.shape == a_high.shape == b_low.shape == b_high.shape:
        raise DataError(f"a, b: shapes {a_low.shape}, {b_low.shape}; expected intervals of the same subjects")
    if (a_low > a_high).any() or (b_low > b_high).any():
        raise DataError("a, b: a lower end is above its upper end; expected low ≤ high")
    both = np.minimum(a_high, b_high) - np.maximum(a_low, b_low)  # below 0 where they are disjoint
    shared, first, second = np.maximum(both, 0), a_high - a_low, b_high - b_low
    over = {
        "iou": (shared, first + second - shared),
        "shorter": (shared, np.minimum(first, second)),
        "dice": (2 * shared, first + second),
    }[kind]
    touching = np.where(np.isnan(both), np.nan, both >= 0)  # where the length is 0: do they have a point in common
    return np.divide(*over, out=touching, where=over[1] > 0)
