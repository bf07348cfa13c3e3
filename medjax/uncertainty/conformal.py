"""Split-conformal recalibration: intervals that cover a new subject with probability 1 − α, however poor the model.

    conformal = calibrate(samples, truth, "normalized", level=0.9)     of subjects that are held out for it
    conformal_interval(conformal, samples_of_others)                   Interval(low, high) of other subjects
    cross_conformal(seed, samples, truth, "normalized", level=0.9)     one half for the other, both ways

A score s says how far the truth y lies from where the samples have it, and an interval is every y with a score up to q,
the ⌈(n + 1)(1 − α)⌉-th smallest score of n calibration subjects:

    absolute     s = |y − x̄|                              x̄ ± q: one width for all; one sample a subject is enough
    normalized   s = |y − x̄|/sd                           x̄ ± q sd: wide where the samples disagree
    cqr          s = max(lower − y, y − upper)             [lower − q, upper + q], lower and upper the samples'
                                                           quantiles α/2 and 1 − α/2; q < 0 shortens the interval

Coverage of a new subject is then between 1 − α and 1 − α + 1/(n + 1) (the upper bound where scores do not tie), on
average over calibration sets and over subjects (not for each kind of patient), **if calibration and new subjects are
exchangeable**: half of a cohort for the other half of the same cohort holds; cohort A for cohort B of another scanner
does not, nor does the training data. For one calibration set see `calibrated_coverage`. What is covered is what stood
as `truth`: a rescan's point estimate, say, is covered as such, with its own noise.
"""

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float, Int, Real
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.biomarker_samples import check_samples, mean_and_sd
from medjax.uncertainty.ensemble_scores import check_truth
from medjax.uncertainty.interval_coverage import Coverage, coverage
from medjax.uncertainty.sample_intervals import Interval, intervals

AnyArray = Array | np.ndarray
Number = float | int
Kind = Literal["absolute", "normalized", "cqr"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ROUNDING = 1e-9  # 0.95 · 20 is 19 subjects, not 20


class Conformal(NamedTuple):
    """A calibration: kind of score, level 1 − α, and the conformal quantile q of the calibration subjects' scores."""

    kind: Kind
    level: float
    quantile: float
    subjects: int


class CrossConformal(NamedTuple):
    """Intervals of each subject, calibrated on the half it is not in, and coverage before and after."""

    low: Float[np.ndarray, " subject"]
    high: Float[np.ndarray, " subject"]
    half: Int[np.ndarray, " subject"]  # 0 or 1
    calibrations: tuple[Conformal, Conformal]  # that of half 0, used on half 1, and the other way round
    before: Coverage
    after: Coverage


def conformity_scores(
    samples: Real[AnyArray, "subject sample"],
    truth: Real[AnyArray, " subject_truth"],
    kind: Kind = "normalized",
    level: Number = 0.95,
) -> Float[np.ndarray, " subject"]:
    """Score of each subject's truth, as the module says; `level` is used by `cqr` only.

    A normalized score is infinite where all samples are equal to each other and not to the truth, 0 where to it too.

    Raises:
        ConfigError: no such kind.
        DataError: as `check_truth`, one sample only except for `absolute`, or a level outside 0–1.
    """
    x, y = check_truth(samples, truth, _minimum(kind))
    if kind == "cqr":
        lower, upper = intervals(x, "percentile", level)
        return np.maximum(lower - y, y - upper)
    if kind == "absolute":
        return np.abs(y - x.mean(1))
    mean, sd = mean_and_sd(x)
    error = np.abs(y - mean)
    return np.divide(error, sd, out=np.where(error > 0, np.inf, 0.0), where=sd > 0)


def conformal_quantile(scores: Real[AnyArray, " subject"], level: Number) -> float:
    """The ⌈(n + 1) level⌉-th smallest of n scores; infinite where that is beyond the n-th: too few subjects.

    Raises:
        DataError: no score, NaN, or a level outside 0–1.

    Source: Papadopoulos et al., ECML 2002; Lei et al., JASA 113(523), 2018.
    """
    values = np.sort(np.asarray(scores, np.float64))
    if not values.size or np.isnan(values).any():
        raise DataError(f"scores: {values.size}, of which {np.isnan(values).sum()} NaN; expected at least 1, none NaN")
    rank = _rank(values.size, level)
    return float(values[rank - 1]) if rank <= values.size else math.inf


def calibrate(
    samples: Real[AnyArray, "subject sample"],
    truth: Real[AnyArray, " subject_truth"],
    kind: Kind = "normalized",
    level: Number = 0.95,
) -> Conformal:
    """Conformal quantile of calibration subjects.

    Raises:
        ConfigError: no such kind.
        DataError: too few subjects for the level: only an infinite interval would do; or as `conformity_scores`.

    Source: absolute, normalized: Lei et al., JASA 113(523), 2018; cqr: Romano, Patterson & Candès, NeurIPS 2019.
    """
    scores = conformity_scores(samples, truth, kind, level)
    if _rank(len(scores), level) > len(scores):
        need = math.ceil(level / (1 - level) - ROUNDING)
        raise DataError(f"truth: {len(scores)} calibration subjects; expected at least {need} for level {level:g}")
    return Conformal(kind, float(level), conformal_quantile(scores, level), len(scores))


def conformal_interval(conformal: Conformal, samples: Real[AnyArray, "subject sample"]) -> Interval:
    """Interval of each subject that covers its truth with probability `conformal.level`, if subjects are exchangeable.

    Of `cqr`, an interval that q < 0 would turn inside out is the point in its middle. With an infinite q (a fraction α
    of calibration subjects had samples that were all equal, and wrong) every interval is infinite.

    Raises:
        DataError: a sample that is not finite, or one sample only except for `absolute`.
    """
    x = check_samples("samples", samples, _minimum(conformal.kind))
    if math.isinf(conformal.quantile):
        return Interval(np.full(len(x), -np.inf), np.full(len(x), np.inf))
    if conformal.kind == "cqr":
        lower, upper = intervals(x, "percentile", conformal.level)
        half = np.maximum((upper - lower) / 2 + conformal.quantile, 0)
        return Interval((lower + upper) / 2 - half, (lower + upper) / 2 + half)
    mean, sd = mean_and_sd(x) if conformal.kind == "normalized" else (x.mean(1), 1.0)
    return Interval(mean - conformal.quantile * sd, mean + conformal.quantile * sd)


def cross_conformal(
    seed: int,
    samples: Real[AnyArray, "subject sample"],
    truth: Real[AnyArray, " subject_truth"],
    kind: Kind = "normalized",
    level: Number = 0.95,
) -> CrossConformal:
    """Recalibrate either half of the subjects by the other one, and compare coverage and width before and after.

    Before: the samples' percentile interval of the same level (with one sample a subject: that sample). The confidence
    interval of the coverage after takes subjects as independent, although those of a half share a quantile.

    Args:
        seed: random seed of the halves.
        samples: samples of each subject.
        truth: truth of each subject.
        kind: score, as the module says.
        level: coverage to be reached, 1 − α.

    Raises:
        DataError: as `calibrate`; `level` 0.95 needs 19 subjects in either half, 0.9 needs 9.
    """
    x, y = check_truth(samples, truth, _minimum(kind))
    half = np.random.default_rng(seed).permutation(np.arange(len(y)) % 2)
    low, high = np.empty(len(y)), np.empty(len(y))
    first, second = (calibrate(x[half == k], y[half == k], kind, level) for k in (0, 1))
    for k, conformal in ((1, first), (0, second)):
        low[half == k], high[half == k] = conformal_interval(conformal, x[half == k])
    plain = intervals(x, "percentile", level) if x.shape[1] > 1 else Interval(x[:, 0], x[:, 0])
    return CrossConformal(low, high, half, (first, second), coverage(*plain, y), coverage(low, high, y))


def calibrated_coverage(subjects: int, level: Number = 0.95, probability: Number = 0.9) -> tuple[float, float]:
    """Central range that holds, with this probability, the coverage that *one* calibration set of n subjects gives.

    Over calibration sets that coverage is Beta(k, n + 1 − k), k = ⌈(n + 1) level⌉, for scores that do not tie: 0.86 to
    0.997 for 20 subjects and a level of 0.95.

    Raises:
        DataError: too few subjects for the level, or a level or probability outside 0–1.

    Source: Vovk, Asian Conference on Machine Learning, 2012.
    """
    if not 0 < probability < 1 or subjects < 1 or (rank := _rank(subjects, level)) > subjects:
        found = f"subjects, level, probability: {subjects}, {level:g}, {probability:g}"
        raise DataError(f"{found}; expected level/(1 − level) subjects or more, and a probability between 0 and 1")
    tails = [(1 - probability) / 2, (1 + probability) / 2]
    low, high = stats.beta.ppf(tails, rank, subjects + 1 - rank).tolist()
    return low, high


def _rank(subjects: int, level: Number) -> int:
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    return math.ceil((subjects + 1) * level - ROUNDING)


def _minimum(kind: Kind) -> int:
    """Samples that a subject needs."""
    if kind not in KINDS:
        raise ConfigError(f"kind: '{kind}'; expected one of {', '.join(KINDS)}")
    return 1 if kind == "absolute" else 2
