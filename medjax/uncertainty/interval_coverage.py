"""Coverage of intervals: how often they hold the truth, at what width, and over which nominal levels.

    coverage(*intervals(samples), truth)                     Coverage(value=0.71, low=0.56, high=0.83, width=9.2, …)
    interval_score(*intervals(samples), truth)               (subject,), in the biomarker's unit; smaller is better
    coverage_curve(samples, truth)                           empirical over nominal coverage

An honest 95 % interval holds the truth of 95 % of subjects. Coverage says nothing without width: wide intervals hold
everything. The interval score has both in one number.

Few samples cannot give an honest percentile interval, however good the model: with N samples of the very distribution
of the truth it covers about level · (N − 1)/(N + 1), that is 63 % for N = 5 and 86 % for N = 20 where 95 % is written
on it. `expected_coverage` has this figure, which belongs beside a measured one.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.ensemble_scores import check_truth
from medjax.uncertainty.sample_intervals import KINDS, Interval, Kind, intervals

AnyArray = Array | np.ndarray
Number = float | int
Method = Literal["wilson", "clopper-pearson"]
LEVELS = np.linspace(0.05, 0.95, 19)


class Coverage(NamedTuple):
    """Fraction of subjects whose interval holds the truth, its confidence interval, and the mean width."""

    value: float
    low: float
    high: float
    width: float  # in the unit of the biomarker
    subjects: int


class CoverageCurve(NamedTuple):
    """Empirical coverage of intervals of each nominal level, its confidence interval, and the mean width."""

    nominal: Float[np.ndarray, " level"]
    empirical: Float[np.ndarray, " level"]
    low: Float[np.ndarray, " level"]
    high: Float[np.ndarray, " level"]
    width: Float[np.ndarray, " level"]
    subjects: int


def coverage(
    low: Real[AnyArray, " subject"],
    high: Real[AnyArray, " subject"],
    truth: Real[AnyArray, " subject_truth"],
    *,
    confidence: Number = 0.95,
    method: Method = "wilson",
) -> Coverage:
    """Coverage of the intervals low ≤ truth ≤ high, one a subject, and its binomial confidence interval.

    Args:
        low: lower ends; −infinity is allowed.
        high: upper ends; infinity is allowed.
        truth: true value, or a rescan's point estimate.
        confidence: probability of the confidence interval of the coverage.
        method: its form, Wilson's score interval or Clopper and Pearson's "exact" one, which is wider.

    Raises:
        ConfigError: no such method.
        DataError: no subject, other lengths, NaN, a lower end above its upper one, or a confidence outside 0–1.

    Source: Wilson, JASA 22(158), 1927; Clopper & Pearson, Biometrika 26(4), 1934.
    """
    if method not in ("wilson", "clopper-pearson"):
        raise ConfigError(f"method: '{method}'; expected wilson or clopper-pearson")
    if not 0 < confidence < 1:
        raise DataError(f"confidence: {confidence:g}; expected between 0 and 1")
    a, b, y = _check(low, high, truth)
    hits = int(((a <= y) & (y <= b)).sum())
    form = "wilson" if method == "wilson" else "exact"
    ends = stats.binomtest(hits, len(y)).proportion_ci(confidence, form)
    return Coverage(hits / len(y), float(ends.low), float(ends.high), float((b - a).mean()), len(y))


def interval_score(
    low: Real[AnyArray, " subject"],
    high: Real[AnyArray, " subject"],
    truth: Real[AnyArray, " subject_truth"],
    level: Number = 0.95,
) -> Float[np.ndarray, " subject"]:
    """Interval (Winkler) score of each subject: width + 2/α · (distance of the truth from the interval), α = 1 − level.

    Proper: the interval between the quantiles α/2 and 1 − α/2 of the true distribution has the smallest mean.

    Raises:
        DataError: as `coverage`, or a level outside 0–1.

    Source: Winkler, JASA 67(337), 1972; Gneiting & Raftery, JASA 102(477), 2007, equation 43.
    """
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    a, b, y = _check(low, high, truth)
    return b - a + 2 / (1 - level) * (np.maximum(a - y, 0) + np.maximum(y - b, 0))


def coverage_curve(
    samples: Real[AnyArray, "subject sample"],
    truth: Real[AnyArray, " subject_truth"],
    levels: Real[AnyArray, " level"] = LEVELS,
    interval: Callable[[np.ndarray, float], Interval] | None = None,
    confidence: Number = 0.95,
) -> CoverageCurve:
    """Coverage of intervals over their nominal level: on the diagonal if the samples are calibrated.

    The levels share their subjects, so that neighbouring points of the curve are not independent.

    Args:
        samples: samples of each subject.
        truth: truth of each subject.
        levels: nominal levels, between 0 and 1.
        interval: (samples, level) → Interval; default: between quantiles (1 ± level)/2 of the samples.
        confidence: probability of the (Wilson) confidence interval of each coverage.

    Raises:
        DataError: no level, one outside 0–1, fewer than two samples, or as `coverage`.
    """
    x, y = check_truth(samples, truth, 2)
    nominal = np.asarray(levels, np.float64)
    if not nominal.size or not ((nominal > 0) & (nominal < 1)).all():
        raise DataError(f"levels: {np.array2string(nominal, threshold=8)}; expected numbers between 0 and 1")
    between = _between_quantiles if interval is None else interval
    points = [coverage(*between(x, float(level)), y, confidence=confidence) for level in nominal]
    value, low, high, width = (np.array(column) for column in list(zip(*points, strict=True))[:4])
    return CoverageCurve(nominal, value, low, high, width, len(y))


def mean_absolute_calibration_error(curve: CoverageCurve) -> float:
    """Mean |empirical − nominal| coverage over the levels; 0 is best, and chance alone gives about 0.3/√subjects."""
    return float(np.abs(curve.empirical - curve.nominal).mean())


def expected_coverage(samples: int, level: Number = 0.95, kind: Kind = "percentile") -> float:
    """Coverage of an interval from N samples if the truth is one more draw of their distribution.

        percentile   level · (N − 1)/(N + 1), since the k-th smallest sample is above a fraction k/(N + 1) of further
                     draws on average; exact for a uniform distribution
        normal       P(|t| < z/√(1 + 1/N)), t with N − 1 degrees of freedom; exact for a normal one
        mean         P(|t| < t₀/√(N + 1)), t₀ the quantile (1 + level)/2 of t; exact for a normal one

    Raises:
        ConfigError: no such kind.
        DataError: fewer than two samples, or a level outside 0–1.

    Source: order statistics: David & Nagaraja, Order Statistics, 3rd ed., 2003, section 7.3.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind: '{kind}'; expected one of {', '.join(KINDS)}")
    if samples < 2 or not 0 < level < 1:
        raise DataError(f"samples, level: {samples}, {level:g}; expected two or more, and between 0 and 1")
    if kind == "percentile":
        return float(level * (samples - 1) / (samples + 1))
    tail, freedom = (1 + level) / 2, samples - 1
    half = stats.norm.ppf(tail) if kind == "normal" else stats.t.ppf(tail, freedom) / samples**0.5  # in sd
    return float(1 - 2 * stats.t.sf(half / (1 + 1 / samples) ** 0.5, freedom))


def _between_quantiles(samples: np.ndarray, level: float) -> Interval:
    return intervals(samples, "percentile", level)


def _check(low: AnyArray, high: AnyArray, truth: AnyArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b, y = (np.asarray(values, np.float64) for values in (low, high, truth))
    if not len(y) or a.shape != y.shape or b.shape != y.shape:
        raise DataError(f"low, high, truth: {len(a)}, {len(b)}, {len(y)} subjects; expected the same ones, at least 1")
    for name, values in (("low", a), ("high", b), ("truth", y)):
        if np.isnan(values).any():
            raise DataError(f"{name}: {np.isnan(values).sum()} of {values.size} values are NaN; expected none")
    if not np.isfinite(y).all() or (a > b).any():
        raise DataError(
            f"low, high, truth: {(a > b).sum()} intervals whose lower end is above the upper one, "
            f"{(~np.isfinite(y)).sum()} infinite truths; expected none"
        )
    return a, b, y
