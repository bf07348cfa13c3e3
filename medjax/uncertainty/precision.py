"""Precision of a biomarker from scan and rescan of the same subjects, on one screen: points and distributions.

    found = assess(scan, rescan)                      (subject, sample) each
    found.points.limits, found.points.icc             Bland–Altman and ICC of the point estimates
    found.figures["overlap/percentile/iou"]           fraction of subjects whose intervals overlap by more than half
    found.figures["significant/ks/holm"]              fraction of subjects, after correction
    cohort_intervals(0, found)                        bootstrap intervals of all of them, over subjects

Point estimates may agree where distributions do not: a change of the estimate that is small beside the range of the
population may be large beside the model's own variation. All figures of distributions depend on the number of samples,
`found.samples`, and are reported with it (`sample_tests`, `sample_intervals` say how much). Whether the intervals are
honest is a question of coverage, which agreement of two scans does not answer.
"""

from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from medjax.errors import ConfigError, DataError
from medjax.metrics.agreement import BlandAltman, Icc, bland_altman, icc
from medjax.metrics.repeatability import Repeatability, repeatability
from medjax.uncertainty.biomarker_samples import check_pair, mean_and_sd
from medjax.uncertainty.cohort_bootstrap import CohortInterval, hierarchical_bootstrap
from medjax.uncertainty.explained_difference import ExplainedDifference, explained_difference
from medjax.uncertainty.sample_distance import (
    bhattacharyya_coefficient,
    overlap_coefficient,
    standardized_difference,
    wasserstein,
)
from medjax.uncertainty.sample_intervals import KINDS, OVERLAPS, interval_overlap, intervals
from medjax.uncertainty.sample_tests import CORRECTIONS, min_p, scan_rescan_tests, significant_fraction

AnyArray = Array | np.ndarray
Table = dict[str, Float[np.ndarray, " subject"]]


class PointAgreement(NamedTuple):
    """Agreement of one point estimate a scan; differences are rescan − scan, in the biomarker's unit."""

    limits: BlandAltman
    icc: Icc  # form 2,1: absolute agreement; NaN where all values are equal
    repeatability: Repeatability


class Precision(NamedTuple):
    """Precision of one biomarker: what it was computed from, agreement of points and of distributions."""

    subjects: int
    samples: tuple[int, int]  # numbers of samples of a scan and of a rescan
    left_out: Int[np.ndarray, " row"]  # rows of the input left out for a sample that was not finite
    points: PointAgreement
    figures: dict[str, float]  # of distributions, by `cohort_figures`; empty with one sample only
    explained: ExplainedDifference | None  # None with one sample only
    min_p: dict[str, float]  # smallest p-value that each test can have with so many samples; empty with one
    table: Table  # per subject, by `subject_table`; with one sample only the point estimates


def assess(
    scan: Real[AnyArray, "subject sample"],
    rescan: Real[AnyArray, "subject_rescan sample_rescan"],
    level: float | int = 0.95,
    alpha: float | int = 0.05,
    *,
    paired: bool = True,
    missing: Literal["refuse", "leave_out"] = "refuse",
    point_estimates: tuple[Real[AnyArray, " subject"], Real[AnyArray, " subject"]] | None = None,
) -> Precision:
    """Precision of one biomarker.

    Tables of points are samples with N = 1: agreement of the points is complete, and there is none of distributions.

    Args:
        scan: samples of the scan.
        rescan: samples of the rescan of the same subjects in the same order; their number may differ.
        level: probability of all intervals.
        alpha: significance level of the tests.
        paired: whether sample k of both scans is one draw of the model; without it there is no paired test.
        missing: what a sample that is not finite does: `refuse` raises; `leave_out` leaves its subject out, of both
            scans, and reports its row. A model that fails on a subject is the least precise there, so what is left out
            belongs into the report.
        point_estimates: point estimates of scan and rescan; default: means of the samples.

    Raises:
        ConfigError: another `missing`.
        DataError: no sample, one that is not finite, other subjects, fewer than two of them, or a level or α outside
            0–1.
    """
    if missing not in ("refuse", "leave_out"):
        raise ConfigError(f"missing: '{missing}'; expected refuse or leave_out")
    x, y, points, left_out = _complete(scan, rescan, point_estimates, missing == "leave_out")
    if len(x) < 2:
        raise DataError(f"scan: {len(x)} subject(s), {len(left_out)} left out; expected at least two")
    agreement = _point_agreement(*points, level)
    samples = x.shape[1], y.shape[1]
    if min(samples) < 2:
        table = {"scan": points[0], "rescan": points[1]}
        return Precision(len(x), samples, left_out, agreement, {}, None, {}, table)
    table = subject_table(x, y, level, paired=paired) | {"scan": points[0], "rescan": points[1]}
    return Precision(
        subjects=len(x),
        samples=samples,
        left_out=left_out,
        points=agreement,
        figures=cohort_figures(table, alpha),
        explained=explained_difference(x, y, level),
        min_p=min_p(*samples),
        table=table,
    )


def subject_table(
    scan: Real[AnyArray, "subject sample"],
    rescan: Real[AnyArray, "subject_rescan sample_rescan"],
    level: float | int = 0.95,
    *,
    paired: bool = True,
) -> Table:
    """Agreement of the distributions of each subject, by name: columns of one value a subject.

    `scan`, `rescan`: means; `sd/scan`, `sd/rescan`; `width/KIND`: mean length of both intervals;
    `overlap/KIND/DEFINITION`; `ovl/normal`, `ovl/kde`; `bhattacharyya`: coefficient; `wasserstein`: distance;
    `hedges_g`; `p/TEST`: not adjusted.

    Raises:
        DataError: fewer than two samples, one that is not finite, another number of subjects, or a level outside 0–1.
    """
    x, y = check_pair(scan, rescan)
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    table = {"scan": mean_x, "rescan": mean_y, "sd/scan": sd_x, "sd/rescan": sd_y}
    for kind in KINDS:
        a, b = intervals(x, kind, level), intervals(y, kind, level)
        table[f"width/{kind}"] = (a.high - a.low + b.high - b.low) / 2
        table |= {f"overlap/{kind}/{name}": interval_overlap(a, b, name) for name in OVERLAPS}
    table |= {
        "ovl/normal": overlap_coefficient(x, y),
        "ovl/kde": overlap_coefficient(x, y, "kde"),
        "bhattacharyya": bhattacharyya_coefficient(x, y),
        "wasserstein": wasserstein(x, y),
        "hedges_g": standardized_difference(x, y),
    }
    return table | {f"p/{name}": p for name, p in scan_rescan_tests(x, y, paired).items()}


def cohort_figures(
    table: Mapping[str, Float[np.ndarray, " subject"]], alpha: float | int = 0.05, overlap: float | int = 0.5
) -> dict[str, float]:
    """Figures of a cohort from its table of subjects; a function of columns, so that it can be bootstrapped.

    `overlap/KIND/DEFINITION`: fraction of subjects whose intervals overlap by more than `overlap`;
    `significant/TEST/CORRECTION`: fraction with an adjusted p-value of at most α; `hedges_g`: median of its size over
    subjects; the others: mean over subjects.
    """
    found = dict[str, float]()
    for name, values in table.items():
        if name.startswith("overlap/"):
            found[name] = float(np.mean(values > overlap))
        elif name.startswith("p/"):
            test = name.removeprefix("p/")
            found |= {f"significant/{test}/{how}": significant_fraction(values, alpha, how) for how in CORRECTIONS}
        elif name == "hedges_g":
            found[name] = float(np.median(np.abs(values)))
        elif name not in ("scan", "rescan", "sd/scan", "sd/rescan"):
            found[name] = float(values.mean())
    return found


def point_figures(points: PointAgreement) -> dict[str, float]:
    """Agreement of the points as name → number: bias, limits, ICC, SEM, SDC, … ."""
    limits, own = points.limits, points.repeatability
    return {
        "bias": limits.bias,
        "loa/low": limits.lower,
        "loa/high": limits.upper,
        "icc": points.icc.value,
        "within_sd": own.within_sd,
        "rc": own.rc,
        "sem": own.sem,
        "sdc": own.sdc,
        "cov": own.cov,
    }


def cohort_intervals(
    seed: int, precision: Precision, alpha: float | int = 0.05, resamples: int = 1000, level: float | int = 0.95
) -> dict[str, CohortInterval]:
    """Bootstrap intervals, over subjects, of all figures of points and of distributions.

    P-values are adjusted anew in every resample. Samples are not resampled, which would change what they are to show.

    Raises:
        DataError: no resample, or a level outside 0–1.
    """
    names = list(precision.table)
    figures = partial(_figures_of_columns, names, alpha)
    return hierarchical_bootstrap(seed, figures, *precision.table.values(), resamples=resamples, level=level)


def _figures_of_columns(names: list[str], alpha: float | int, *columns: np.ndarray) -> dict[str, float]:
    table = dict(zip(names, columns, strict=True))
    return point_figures(_point_agreement(table["scan"], table["rescan"], 0.95)) | cohort_figures(table, alpha)


def _point_agreement(x: np.ndarray, y: np.ndarray, level: float | int) -> PointAgreement:
    nan = float("nan")
    ratings = np.stack([x, y], 1)
    agreement = icc(ratings, level=level) if np.ptp(ratings) > 0 else Icc(nan, nan, nan, nan, nan)
    return PointAgreement(bland_altman(y, x, level), agreement, repeatability(x, y, level))


def _complete(
    scan: AnyArray, rescan: AnyArray, given: tuple[AnyArray, AnyArray] | None, leave_out: bool
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Samples and point estimates of the subjects that have them all, and the rows of those that do not."""
    x, y = np.asarray(scan, np.float64), np.asarray(rescan, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise DataError(f"scan, rescan: shapes {x.shape}, {y.shape}; expected (subject, sample) of the same subjects")
    own = [np.asarray(one, np.float64) for one in given or ()]
    if any(one.shape != x.shape[:1] for one in own):
        raise DataError(f"point_estimates: {[one.shape for one in own]}; expected one of each of {len(x)} subjects")
    whole = np.ones(len(x), bool)
    if leave_out:
        whole = np.isfinite(np.concatenate([x, y, *(one[:, None] for one in own)], 1)).all(1)
    x, y = check_pair(x[whole], y[whole], minimum=1)
    first, second = [one[whole] for one in own] if own else [x.mean(1), y.mean(1)]
    return x, y, (first, second), np.flatnonzero(~whole)
