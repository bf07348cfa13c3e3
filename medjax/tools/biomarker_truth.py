"""Samples of a biomarker against the truth of each subject: coverage, scores, and coverage after recalibration."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from medjax.metrics.agreement import BlandAltman, bland_altman
from medjax.uncertainty.cohort_bootstrap import CohortInterval, hierarchical_bootstrap
from medjax.uncertainty.conformal import CrossConformal, cross_conformal
from medjax.uncertainty.ensemble_scores import crps
from medjax.uncertainty.interval_coverage import Coverage, coverage, interval_score
from medjax.uncertainty.sample_intervals import Kind, intervals

ROUNDING = 1e-9  # 0.95/0.05 is 19


class Accuracy(NamedTuple):
    """One scan's samples against the truth of the subjects for which it is known; with one sample only the error."""

    known: Bool[np.ndarray, " subject"]
    truth: Float[np.ndarray, " subject"]  # NaN where it is not known
    error: BlandAltman | None  # mean of the samples − truth; None for one subject
    coverage: Coverage | None
    scores: dict[str, Float[np.ndarray, " known"]]  # interval score and CRPS of each subject
    means: dict[str, CohortInterval]  # of the scores
    conformal: CrossConformal | None  # None: too few subjects


def assess_accuracy(
    samples: Float[np.ndarray, "subject sample"],
    truth: Float[np.ndarray, " subject"],
    kind: Kind,
    level: float,
    seed: int,
    resamples: int,
) -> Accuracy:
    """Accuracy of samples where the truth is known, of at least one subject.

    `means` are the mean scores with bootstrap intervals over subjects: `interval_score`, `crps` (which few samples
    raise) and `crps/fair` (which they do not). Recalibration is cross-conformal: either half of the subjects by the
    other one, normalized by the samples' deviation.
    """
    known = np.isfinite(truth)
    x, y = samples[known], truth[known]
    error = bland_altman(x.mean(1), y, level) if len(y) > 1 else None
    if samples.shape[1] < 2:
        return Accuracy(known, truth, error, None, {"absolute_error": np.abs(x[:, 0] - y)}, {}, None)
    ends = intervals(x, kind, level)
    scores = {
        "interval_score": interval_score(*ends, y, level),
        "crps": crps(x, y),
        "crps/fair": crps(x, y, "fair"),
    }
    means = hierarchical_bootstrap(seed, _means, *scores.values(), resamples=resamples, level=level)
    named = dict(zip(scores, means.values(), strict=True))
    enough = len(y) // 2 >= subjects_to_calibrate(level)
    conformal = cross_conformal(seed, x, y, "normalized", level) if enough else None
    return Accuracy(known, truth, error, coverage(*ends, y), scores, named, conformal)


def subjects_to_calibrate(level: float) -> int:
    """Smallest number of calibration subjects with finite conformal intervals, level/(1 − level): 19 for 0.95."""
    return math.ceil(level / (1 - level) - ROUNDING)


def _means(*scores: np.ndarray) -> dict[str, float]:
    return {str(k): float(one.mean()) for k, one in enumerate(scores)}
