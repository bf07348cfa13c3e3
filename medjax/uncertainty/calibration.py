"""Calibration of one biomarker's samples on one screen: are the intervals honest, and what does recalibration cost?

    calibration_figures(samples, truth)["coverage/percentile"]             beside "expected_coverage/percentile"
    recalibration_figures(0, samples, truth)["coverage/normalized"]        on held-out halves; also "width/normalized"

Names that a report can print; the functions behind them are in `interval_coverage`, `ensemble_scores`, `conformal`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Real

from medjax.errors import DataError
from medjax.uncertainty.conformal import KINDS as CONFORMAL_KINDS
from medjax.uncertainty.conformal import Kind as ConformalKind
from medjax.uncertainty.conformal import cross_conformal
from medjax.uncertainty.ensemble_scores import check_truth, crps, rank_histogram
from medjax.uncertainty.interval_coverage import (
    coverage,
    coverage_curve,
    expected_coverage,
    interval_score,
    mean_absolute_calibration_error,
)
from medjax.uncertainty.sample_intervals import KINDS, intervals

AnyArray = Array | np.ndarray
Number = float | int


def calibration_figures(
    samples: Real[AnyArray, "subject sample"], truth: Real[AnyArray, " subject_truth"], level: Number = 0.95
) -> dict[str, float]:
    """Calibration of the samples of a biomarker as name → number; means over subjects.

    `subjects`, `samples`: their numbers, which belong to every figure; `error`: mean of point estimate − truth, and
    `absolute_error`; `crps`, `crps_fair`; `calibration_error`: mean |empirical − nominal| coverage of
    percentile intervals; `rank_p`: p-value of uniform ranks; and of every KIND of interval `coverage/KIND`,
    `coverage/KIND/low` and `/high` (its confidence interval), `width/KIND`, `interval_score/KIND`, and
    `expected_coverage/KIND`: that of samples which the truth is one more of, for so few of them.

    With one sample of each subject only the numbers, the errors and `crps`.

    Raises:
        DataError: other subjects, a value that is not finite, or a level outside 0–1.
    """
    x, y = check_truth(samples, truth)
    error = x.mean(1) - y
    figures = {
        "subjects": float(len(y)),
        "samples": float(x.shape[1]),
        "error": float(error.mean()),
        "absolute_error": float(np.abs(error).mean()),
        "crps": float(crps(x, y).mean()),
    }
    if x.shape[1] < 2:
        return figures
    figures |= {
        "crps_fair": float(crps(x, y, "fair").mean()),
        "calibration_error": mean_absolute_calibration_error(coverage_curve(x, y)),
        "rank_p": rank_histogram(x, y).p,
    }
    for kind in KINDS:
        own = intervals(x, kind, level)
        held = coverage(*own, y)
        figures |= {
            f"coverage/{kind}": held.value,
            f"coverage/{kind}/low": held.low,
            f"coverage/{kind}/high": held.high,
        }
        figures |= {f"width/{kind}": held.width, f"interval_score/{kind}": float(interval_score(*own, y, level).mean())}
        figures[f"expected_coverage/{kind}"] = expected_coverage(x.shape[1], level, kind)
    return figures


def recalibration_figures(
    seed: int,
    samples: Real[AnyArray, "subject sample"],
    truth: Real[AnyArray, " subject_truth"],
    level: Number = 0.95,
    kinds: Sequence[ConformalKind] = CONFORMAL_KINDS,
    splits: int = 20,
) -> dict[str, float]:
    """Coverage, width and interval score before (`before`) and after split-conformal recalibration of each kind.

    `coverage/KIND`, `width/KIND`, `interval_score/KIND`, mean over subjects and over random splits in halves, either
    half calibrated by the other; `before`: percentile intervals of the samples.

    Args:
        seed: random seed of the splits.
        samples: samples of each subject.
        truth: truth of each subject.
        level: coverage to be reached, 1 − α.
        kinds: conformity scores.
        splits: number of splits; one split of few subjects is a matter of luck.

    Raises:
        DataError: no split, or as `cross_conformal`: `level` 0.95 needs 38 subjects.
    """
    if splits < 1:
        raise DataError(f"splits: {splits}; expected at least 1")
    x, y = check_truth(samples, truth)
    plain = intervals(x, "percentile", level) if x.shape[1] > 1 else (x[:, 0], x[:, 0])
    ends = {"before": [plain]}
    for kind in kinds:
        ends[kind] = [cross_conformal(seed + k, x, y, kind, level)[:2] for k in range(splits)]
    figures = dict[str, float]()
    for kind, every in ends.items():
        held = [coverage(*one, y) for one in every]
        figures[f"coverage/{kind}"] = float(np.mean([one.value for one in held]))
        figures[f"width/{kind}"] = float(np.mean([one.width for one in held]))
        figures[f"interval_score/{kind}"] = float(np.mean([interval_score(*one, y, level) for one in every]))
    return figures
