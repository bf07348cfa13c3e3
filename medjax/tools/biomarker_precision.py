"""Precision of one biomarker from arrays of scan and rescan: all that `medjax precision` reports of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.tools.biomarker_truth import Accuracy, assess_accuracy
from medjax.uncertainty.cohort_bootstrap import CohortInterval
from medjax.uncertainty.interval_coverage import Coverage, coverage
from medjax.uncertainty.precision import Precision, assess, cohort_intervals
from medjax.uncertainty.sample_intervals import OVERLAPS, Kind, Overlap, interval_overlap, intervals
from medjax.uncertainty.sample_size import Curve, curve_over_n
from medjax.uncertainty.sample_tests import Correction, scan_rescan_tests, significant_fraction

NUMBERS = (3, 5, 10, 20, 50, 100, 200, 500)  # of samples, of the curves over N
DRAWS = 10  # subsets of each number


class Settings(NamedTuple):
    """Definitions that the figures depend on."""

    interval: Kind = "percentile"  # of the samples
    overlap: Overlap = "iou"  # of two intervals, in the tables
    level: float = 0.95  # probability of all intervals
    alpha: float = 0.05  # significance level of the tests
    correction: Correction = "holm"  # for multiple tests over subjects
    paired: bool = True  # whether sample k of scan and rescan is the same draw of the model
    seed: int = 0
    resamples: int = 1000


class BiomarkerPrecision(NamedTuple):
    """Precision of one biomarker; with one sample a scan, of point estimates only."""

    subjects: list[str]
    scan: Float[np.ndarray, "subject sample"]
    rescan: Float[np.ndarray, "subject sample"]
    precision: Precision
    intervals: dict[str, CohortInterval]  # bootstrap intervals of its figures
    curves: dict[str, Curve]  # over the number of samples
    rescan_coverage: Coverage | None  # of the rescan's point estimate by the scan's interval
    truth: dict[str, Accuracy]  # of `scan` and `rescan`, where it is known


class CohortPrecision(NamedTuple):
    """Precision of every biomarker of a cohort."""

    biomarkers: dict[str, BiomarkerPrecision]
    samples: int  # of each scan
    settings: Settings
    warnings: list[str]


def assess_biomarker(
    subjects: list[str],
    scan: Float[np.ndarray, "subject sample"],
    rescan: Float[np.ndarray, "subject sample"],
    truth: Sequence[Float[np.ndarray, " subject"]],
    settings: Settings,
) -> BiomarkerPrecision:
    """Precision of a biomarker.

    Args:
        subjects: names of two or more subjects.
        scan: samples of the scan, all finite.
        rescan: samples of the rescan.
        truth: true values at the scan and at the rescan, NaN where unknown; or none.
        settings: definitions.
    """
    level, several = settings.level, scan.shape[1] > 1
    found = assess(scan, rescan, level, settings.alpha, paired=settings.paired)
    accuracies = {
        which: assess_accuracy(samples, values, settings.interval, level, settings.seed, settings.resamples)
        for which, samples, values in zip(("scan", "rescan"), (scan, rescan), truth, strict=False)
        if np.isfinite(values).any()
    }
    return BiomarkerPrecision(
        subjects=subjects,
        scan=scan,
        rescan=rescan,
        precision=found,
        intervals=cohort_intervals(settings.seed, found, settings.alpha, settings.resamples, level),
        curves=_curves(scan, rescan, truth[0] if truth else np.full(len(scan), np.nan), settings) if several else {},
        rescan_coverage=coverage(*intervals(scan, settings.interval, level), rescan.mean(1)) if several else None,
        truth=accuracies,
    )


def _curves(scan: np.ndarray, rescan: np.ndarray, truth: np.ndarray, settings: Settings) -> dict[str, Curve]:
    """Overlap by each definition, significance by each test, and coverage by the scan's interval, over the number."""
    known = np.isfinite(truth)

    def figures(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        a, b = (intervals(one, settings.interval, settings.level) for one in (x, y))
        found = {f"overlap/{kind}": float(np.mean(interval_overlap(a, b, kind) > 0.5)) for kind in OVERLAPS}
        for test, p in scan_rescan_tests(x, y, settings.paired).items():
            found[f"significant/{test}"] = significant_fraction(p, settings.alpha, settings.correction)
        mean = y.mean(1)
        found["coverage/rescan_mean"] = float(np.mean((a.low <= mean) & (mean <= a.high)))
        if known.any():
            found["coverage/scan"] = float(np.mean(((a.low <= truth) & (truth <= a.high))[known]))
        return found

    largest = scan.shape[1]
    return curve_over_n(settings.seed, scan, rescan, figures, [*(n for n in NUMBERS if n < largest), largest], DRAWS)
