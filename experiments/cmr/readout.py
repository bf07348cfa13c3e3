"""Statistics of `cmr_precision`: agreement and calibration of every method's samples, at equal numbers of samples.

Metrics are called FIGURE/COHORT/METHOD/N/BIOMARKER, or …/all: the mean over the biomarkers that have the figure, so of
"cases", each of which is one biomarker of one subject (of the ratio of variances, the median).

A sample without any voxel of a structure at ED or ES has no biomarkers: it is a failure, and no volume of 0 ml. A draw
(a dropout mask, say) that fails in most scans is left out everywhere, and counted: N of the largest tables is then
smaller. A subject with a failure in another draw is left out, and counted.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from ml_collections import FrozenConfigDict

from experiments.cmr.sampling import PIXELS, Known, biomarker_samples
from experiments.cmr.scans import BIOMARKERS
from medjax.errors import DataError
from medjax.uncertainty.calibration import calibration_figures, recalibration_figures
from medjax.uncertainty.cohort_bootstrap import hierarchical_bootstrap
from medjax.uncertainty.conformal import calibrate
from medjax.uncertainty.explained_difference import explained_difference
from medjax.uncertainty.interval_coverage import coverage, interval_score
from medjax.uncertainty.precision import Precision, assess, point_figures
from medjax.uncertainty.risk_coverage import aurc
from medjax.uncertainty.sample_distance import standardized_difference, wasserstein
from medjax.uncertainty.sample_intervals import Kind, Overlap, interval_overlap, intervals
from medjax.uncertainty.sample_size import curve_over_n
from medjax.uncertainty.sample_tests import scan_rescan_tests

SCAN, RESCAN, STILL = range(3)  # sessions; STILL: a rescan of a heart that has not changed
EACH = (  # figures that are metrics of every biomarker; of the others only the means are
    "bias", "loa/low", "loa/high", "icc", "cov", "sdc", "overlap", "significant/ks", "significant/mann_whitney",
    "significant/paired", "hedges_g", "coverage", "width", "coverage_labels", "coverage_rescan", "error", "crps_fair",
    "recalibrated/coverage", "recalibrated/width", "still/ratio", "still/inside", "left_out",
)  # fmt: skip
TESTS = ("mann_whitney", "ks", "paired")
FRACTIONS = ("overlap", *(f"significant/{test}" for test in TESTS), "coverage")  # with bootstrap intervals
RECALIBRATION = "normalized"
CURVES = (*FRACTIONS, "interval_score", "width", "wasserstein", "hedges_g")  # figures over the number of samples
FAILED = 0.5  # fraction of scans without a structure above which a draw is left out


class Cohort(NamedTuple):
    """One seed's cohort: what is known, samples of every method's biomarkers, Dice and pixel-wise calibration."""

    known: Known
    samples: Mapping[str, Float[np.ndarray, "biomarker subject session sample"]]
    dice: Mapping[str, Float[np.ndarray, "subject session number phase structure"]]
    pixels: Mapping[str, Float[np.ndarray, "number figure"]]
    failed: Mapping[str, Bool[np.ndarray, " sample"]]  # draws that are left out
    example: Mapping[str, Shaped[np.ndarray, "image x y"]]  # one scan: image, label, and what the first method predicts


def as_cohort(known: Known, stages: Mapping[str, Mapping[str, np.ndarray]]) -> Cohort:
    """Cohort of its stages."""
    samples, failed = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for method, one in stages.items():
        lacking = (one["counts"][..., 1:] == 0).any((-2, -1))  # a structure, at ED or ES
        failed[method] = lacking.mean((0, 1)) > FAILED
        every = np.where(lacking, np.nan, biomarker_samples(one["counts"], known.voxel_ml))
        samples[method] = every[..., ~failed[method]]
    dice, pixels = ({method: one[name] for method, one in stages.items()} for name in ("dice", "pixels"))
    first = next(iter(stages.values()))
    example = {name: first[name] for name in ("image", "label", "predicted")}
    return Cohort(known, samples, dice, pixels, failed, example)


def segmentation_metrics(cohort: Cohort, name: str, numbers: Sequence[int]) -> dict[str, float]:
    """Dice of the mean probabilities of all sessions, and pixel-wise calibration of scans near contours."""
    out = dict[str, float]()
    for method, dice in cohort.dice.items():
        for k, n in enumerate(numbers):
            place = f"{name}/{method}/{n}"
            structures = np.nanmean(dice[:, :, k], axis=(0, 1, 2)).tolist()
            out |= {f"dice/{place}/{one}": value for one, value in zip(("RV", "MYO", "LV"), structures, strict=True)}
            out[f"dice/{place}/mean"] = float(np.mean(structures))
            out |= {f"{one}/{place}": float(cohort.pixels[method][k, i]) for i, one in enumerate(PIXELS)}
    return out


def cohort_metrics(config: FrozenConfigDict, cohort: Cohort, name: str, seed: int) -> dict[str, float]:
    """All metrics of a cohort that was scanned twice."""
    out = segmentation_metrics(cohort, name, config.numbers)
    for method, samples in cohort.samples.items():
        for n in config.numbers:
            rows = [figures(config, cohort.known, samples[..., :n], k, seed) for k in range(len(BIOMARKERS))]
            place = f"{name}/{method}/{n}"
            out[f"failed_draws/{place}"] = float(np.sum(cohort.failed[method][:n]))
            for figure in dict.fromkeys(name for row in rows for name in row):
                middle = np.median if figure == "still/ratio" else np.mean
                out[f"{figure}/{place}/all"] = _of_known(middle, [row.get(figure, np.nan) for row in rows])
            for biomarker, row in zip(BIOMARKERS, rows, strict=True):
                out |= {f"{figure}/{place}/{biomarker}": row.get(figure, np.nan) for figure in EACH}
    return out


def test_metrics(config: FrozenConfigDict, cohort: Cohort, name: str) -> dict[str, float]:
    """Metrics of a set that was scanned once: Dice, and whether intervals hold the truth."""
    out = segmentation_metrics(cohort, name, config.numbers)
    for method, samples in cohort.samples.items():
        for n in config.numbers:
            held = list[bool]()
            for k in range(len(BIOMARKERS)):
                x, truth = samples[k, :, SCAN, :n], cohort.known.truth[:, SCAN, k]
                whole = np.isfinite(x).all(1)
                if x.shape[1] > 1:
                    held += _covered(config, x[whole], truth[whole]).tolist()
            out[f"coverage/{name}/{method}/{n}/all"] = _of_known(np.mean, held)
    return out


def figures(
    config: FrozenConfigDict,
    known: Known,
    samples: Float[np.ndarray, "biomarker subject session sample"],
    which: int,
    seed: int,
) -> dict[str, float]:
    """Figures of one biomarker of a cohort; subjects in whom a ventricle was not found are left out, and counted.

    With fewer than two subjects left, only their number.
    """
    x = samples[which]
    whole = np.isfinite(x).all((1, 2)) & np.isfinite(known.labels[..., which]).all(1)
    if whole.sum() < 2 or x.shape[-1] < 2:
        return {"left_out": float(np.sum(~whole)), "samples": float(x.shape[-1])}
    x, truth, labels = x[whole], known.truth[whole, :, which], known.labels[whole, :, which]
    kind, level = config.interval.kind, config.interval.level
    found = assess(x[:, SCAN], x[:, RESCAN], level, config.alpha)
    held = intervals(x[:, SCAN], kind, level)
    own = calibration_figures(x[:, SCAN], truth[:, SCAN], level)
    return {
        **point_figures(found.points),
        **_distribution_figures(found, kind, config.interval.overlap),
        "coverage": own[f"coverage/{kind}"],
        "expected_coverage": own.get(f"expected_coverage/{kind}", np.nan),
        "width": own[f"width/{kind}"],
        "relative_width": own[f"width/{kind}"] / float(truth[:, SCAN].mean()),
        "samples": float(x.shape[-1]),
        "interval_score": own[f"interval_score/{kind}"],
        **{one: own[one] for one in ("error", "absolute_error", "crps_fair")},
        "coverage_labels": coverage(*held, labels[:, SCAN]).value,
        "coverage_rescan": coverage(*held, x[:, RESCAN].mean(1)).value,
        "aurc_normalized": aurc(x[:, SCAN].std(1, ddof=1), np.abs(x[:, SCAN].mean(1) - truth[:, SCAN])).normalized,
        **_recalibrated(seed, x[:, SCAN], truth[:, SCAN], level),
        **_still(x, labels, level),
        "left_out": float(np.sum(~whole)),
    }


def fraction_intervals(config: FrozenConfigDict, cohorts: Sequence[Cohort], method: str, n: int) -> dict[str, float]:
    """Bootstrap intervals of the fractions in `FRACTIONS` of one cohort, seeds and subjects resampled."""
    cases = [_cases(config, one, method, n) for one in cohorts]  # of each seed
    arrays = [np.stack([one[name] for one in cases]) for name in FRACTIONS]
    crossed = () if config.data.layout == "simulated" else (1,)  # scans on disk are the same for all seeds
    found = hierarchical_bootstrap(
        config.seed, _fractions, *arrays, levels=2, crossed=crossed, resamples=config.resamples
    )
    return {f"{end}/{name}": getattr(one, end) for name, one in found.items() for end in ("low", "high")}


def number_curves(
    config: FrozenConfigDict, cohort: Cohort, method: str, biomarker: str
) -> dict[str, Float[np.ndarray, "2 number"]]:
    """Mean and deviation over subsets of each figure, at each number of samples of the config's `curve`."""
    k = BIOMARKERS.index(biomarker)
    x = cohort.samples[method][k]
    whole = np.isfinite(x).all((1, 2))
    numbers = [n for n in config.curve if n <= x.shape[-1]]
    if whole.sum() < 2 or not numbers:
        return {name: np.full((2, len(config.curve)), np.nan) for name in CURVES}
    measure = partial(_number_figures, config, cohort.known.truth[whole, SCAN, k])
    found = curve_over_n(config.seed, x[whole, SCAN], x[whole, RESCAN], measure, numbers)
    unknown = np.full((2, len(config.curve) - len(numbers)), np.nan)  # more samples than draws that did not fail
    return {name: np.concatenate([np.stack([one.mean, one.sd]), unknown], 1) for name, one in found.items()}


def _of_known(middle: Callable[..., Any], values: Sequence[float] | np.ndarray) -> float:
    """`middle` of the values that are not NaN; NaN without any."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(middle(known)) if known.size else np.nan


def _distribution_figures(found: Precision, kind: Kind, overlap: Overlap) -> dict[str, float]:
    """Those of the samples' distributions; `overlap` and `significant/TEST` are the config's, not adjusted."""
    out = {name: value for name, value in found.figures.items() if not name.startswith("width/")}
    out["overlap"] = found.figures[f"overlap/{kind}/{overlap}"]
    out |= {f"significant/{test}": found.figures[f"significant/{test}/none"] for test in found.min_p}
    return out


def _still(samples: np.ndarray, labels: np.ndarray, level: float) -> dict[str, float]:
    """How far two scans of an unchanged heart differ, and how much of it the samples explain; NaN without such a scan.

    `label_difference_sd` is the difference of perfect labels on the two scans' slices.
    """
    names = ("ratio", "inside", "difference_sd", "predicted_sd", "label_difference_sd")
    if samples.shape[1] <= STILL:
        return {f"still/{name}": np.nan for name in names}
    own = explained_difference(samples[:, SCAN], samples[:, STILL], level)
    of_labels = float(np.sqrt(np.mean((labels[:, STILL] - labels[:, SCAN]) ** 2)))
    values = (own.ratio, own.inside, own.difference_sd, own.predicted_sd, of_labels)
    return {f"still/{name}": value for name, value in zip(names, values, strict=True)}


def _recalibrated(seed: int, samples: np.ndarray, truth: np.ndarray, level: float) -> dict[str, float]:
    """Coverage and width on held-out halves; NaN where a half is too small for the level."""
    names = ("coverage", "width", "interval_score", "relative_width")
    try:
        calibrate(samples[: len(samples) // 2], truth[: len(samples) // 2], RECALIBRATION, level)
    except DataError:
        return {f"recalibrated/{name}": np.nan for name in names}
    own = recalibration_figures(seed, samples, truth, level, (RECALIBRATION,))
    own[f"relative_width/{RECALIBRATION}"] = own[f"width/{RECALIBRATION}"] / float(truth.mean())
    return {f"recalibrated/{name}": own[f"{name}/{RECALIBRATION}"] for name in names}


def _cases(
    config: FrozenConfigDict, cohort: Cohort, method: str, n: int
) -> dict[str, Float[np.ndarray, "subject biomarker"]]:
    """Of each subject and biomarker whether it counts towards a fraction; NaN where a ventricle was not found."""
    kind, level = config.interval.kind, config.interval.level
    columns = {name: list[np.ndarray]() for name in FRACTIONS}
    for k in range(len(BIOMARKERS)):
        x, truth = cohort.samples[method][k, ..., :n], cohort.known.truth[:, SCAN, k]
        whole = np.asarray(np.isfinite(x).all((1, 2)))
        if not whole.any() or x.shape[-1] < 2:
            for own in columns.values():
                own.append(np.full(len(x), np.nan))
            continue
        scan, rescan = x[whole, SCAN], x[whole, RESCAN]
        p = scan_rescan_tests(scan, rescan)
        overlap = interval_overlap(
            intervals(scan, kind, level), intervals(rescan, kind, level), config.interval.overlap
        )
        values = {
            "overlap": overlap > 0.5,
            **{f"significant/{test}": p[test] <= config.alpha for test in TESTS},
            "coverage": _covered(config, scan, truth[whole]),
        }
        for name, own in values.items():
            columns[name].append(_with_gaps(own, whole))
    return {name: np.stack(own, 1) for name, own in columns.items()}


def _with_gaps(
    values: Bool[np.ndarray, " known"], whole: Bool[np.ndarray, " subject"]
) -> Float[np.ndarray, " subject"]:
    out = np.full(len(whole), np.nan)
    out[whole] = values
    return out


def _fractions(*arrays: np.ndarray) -> dict[str, float]:
    return {name: _of_known(np.mean, one) for name, one in zip(FRACTIONS, arrays, strict=True)}


def _covered(config: FrozenConfigDict, samples: np.ndarray, truth: np.ndarray) -> Bool[np.ndarray, " subject"]:
    low, high = intervals(samples, config.interval.kind, config.interval.level)
    return (low <= truth) & (truth <= high)


def _number_figures(
    config: FrozenConfigDict, truth: np.ndarray, scan: np.ndarray, rescan: np.ndarray
) -> dict[str, float]:
    kind, level = config.interval.kind, config.interval.level
    a, b = intervals(scan, kind, level), intervals(rescan, kind, level)
    p = scan_rescan_tests(scan, rescan)
    values = (
        np.mean(interval_overlap(a, b, config.interval.overlap) > 0.5),
        *(np.mean(p[test] <= config.alpha) for test in TESTS),
        coverage(*a, truth).value,
        np.mean(interval_score(*a, truth, level)),
        np.mean(a.high - a.low),
        np.mean(wasserstein(scan, rescan)),
        np.median(np.abs(standardized_difference(scan, rescan))),
    )
    return dict(zip(CURVES, map(float, values), strict=True))
