"""Metrics, tables and figures of the comparison of priors for one person's PET (paper 7)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.pet.personalised import PRIORS, TITLES, ScanDesign
from experiments.pet.targets import MEASURES, Target
from medjax.metrics.summary import cell, confidence_interval
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Table
from medjax.report.points import points
from medjax.running.workdir import WorkDir, save_figure

COLUMNS = {
    "nrmse": "NRMSE", "ssim": "SSIM", "pet_lesion_recovery": "recovery, PET-unique lesions",
    "matched_lesion_recovery": "recovery, matched lesions", "mr_lesion_leakage": "leakage, MR-unique lesions",
}  # fmt: skip
NOTE = (
    "Mean over targets ± SD over realisations. Recovery: contrast recovery coefficient, 1 is perfect. Leakage: "
    "contrast in PET where only the MR has lesions, less that of an image made with an MR without them, in units of "
    "the contrast of the others: 0 is perfect, and methods that are not told of the MR have 0."
)
TRADED = ("mr_lesion_leakage", "pet_lesion_recovery")  # against each other
PAIRED_NOTE = "Personalised prior minus the other, paired over targets (realisations averaged); t interval."
MeasuredImages = Mapping[
    str, Sequence[Mapping[str, np.ndarray]]
]  # of each method and target: measures (level, realisation)


def comparison_metrics(measured: MeasuredImages, levels: Sequence[float]) -> dict[str, float]:
    """Metrics `MEASURE/METHOD/COUNTS` and their intervals.

    The mean is over targets and realisations; `MEASURE_low`, `_high` are its 95 % interval over realisations of the
    mean over targets, `_sd` the SD over realisations, `_target_sd` that over targets.
    """
    out: dict[str, float] = {}
    for method, targets in measured.items():
        for measure in MEASURES:
            values = _values(targets, measure)  # (target, level, realisation)
            for k, level in enumerate(levels):
                own, key = values[:, k], f"{method}/{level:g}"
                low, high = confidence_interval(own.mean(axis=0))
                spread = {"sd": _pooled_sd(own), "target_sd": _sd(own.mean(axis=1)), "low": low, "high": high}
                out[f"{measure}/{key}"] = float(own.mean())
                out |= {f"{measure}_{end}/{key}": float(value) for end, value in spread.items()}
    return out


def paired_metrics(measured: MeasuredImages, levels: Sequence[float]) -> dict[str, float]:
    """Differences `MEASURE_difference/personalised/OTHER/COUNTS` and their 95 % intervals over targets."""
    out: dict[str, float] = {}
    for method in (one for one in measured if one != "personalised"):
        for measure in MEASURES:
            pairs = [_values(measured[name], measure).mean(axis=2) for name in ("personalised", method)]
            for k, level in enumerate(levels):
                difference, key = (pairs[0] - pairs[1])[:, k], f"personalised/{method}/{level:g}"
                low, high = confidence_interval(difference)
                out[f"{measure}_difference/{key}"] = float(difference.mean())
                out |= {f"{measure}_difference_low/{key}": low, f"{measure}_difference_high/{key}": high}
    return out


def comparison_table(metrics: Mapping[str, float], methods: Sequence[str], levels: Sequence[float]) -> Table:
    """Table of the measures: a row for each count level and method."""
    rows: list[list[Any]] = []
    for level in levels:
        for name in methods:
            keys = [(f"{m}/{name}/{level:g}", f"{m}_sd/{name}/{level:g}") for m in COLUMNS]
            rows.append([f"{level:g}", TITLES[name], *(cell(metrics, key, 3, sd=sd) for key, sd in keys)])
    return Table(["trues/mm³", "method", *COLUMNS.values()], rows, NOTE)


def paired_table(metrics: Mapping[str, float], methods: Sequence[str], levels: Sequence[float]) -> Table:
    """Table of the paired differences: a row for each count level and other method."""
    rows: list[list[Any]] = []
    for level in levels:
        for name in (one for one in methods if one != "personalised"):
            cells = []
            for measure in COLUMNS:
                keys = (f"{measure}_difference{end}/personalised/{name}/{level:g}" for end in ("", "_low", "_high"))
                cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*(metrics[key] for key in keys)))
            rows.append([f"{level:g}", TITLES[name], *cells])
    return Table(["trues/mm³", "against", *COLUMNS.values()], rows, PAIRED_NOTE)


def plot_trade_off(work: WorkDir, measured: MeasuredImages, design: ScanDesign) -> list[Figure]:
    """Figures of recovery of PET-unique lesions against leakage of MR-unique ones: a point for every scan."""
    figures = []
    for k, level in enumerate(design.levels):
        groups = dict[str, tuple[np.ndarray, np.ndarray]]()
        for name, targets in measured.items():
            leakage, recovery = (_values(targets, one)[:, k].ravel() for one in TRADED)
            groups[TITLES[name]] = leakage, recovery
        drawn = points(groups, "leakage of MR-unique lesions", "recovery of PET-unique lesions", levels=(1.0,))
        note = f"Each point is a scan at {level:g} trues per mm³. Upper left is better."
        figures.append(Figure(save_figure(work, f"trade_off_{level:g}", drawn), note))
    return figures


def plot_errors(work: WorkDir, metrics: Mapping[str, float], methods: Sequence[str], design: ScanDesign) -> Figure:
    """Figure of the NRMSE of every method against counts."""
    series = {TITLES[name]: np.array([metrics[f"nrmse/{name}/{one:g}"] for one in design.levels]) for name in methods}
    drawn = curves(np.asarray(design.levels), series, "trues per mm³", "NRMSE in the brain")
    return Figure(save_figure(work, "nrmse", drawn), "Mean over targets and realisations.")


def plot_images(work: WorkDir, measured: MeasuredImages, design: ScanDesign, target: Target) -> list[Figure]:
    """Figures of the first scan of the first target at each count level, where PET alone shows a lesion."""
    grid, truth = design.setup.grid, target.subject.truth
    voxels = np.argwhere(target.lesions("pet"))
    affine, figures = np.diag([*grid.voxel_mm, 1.0]), list[Figure]()
    middle = np.median(voxels, axis=0) if len(voxels) else (np.array(grid.shape) - 1) / 2
    for k, level in enumerate(design.levels):
        shown = {"Truth": np.maximum(truth.activity, 0)}
        shown |= {TITLES[name]: targets[0]["images"][k] for name, targets in measured.items()}
        at_mm = (middle * np.asarray(grid.voxel_mm)).tolist()
        drawn = montage(shown, affine, at_mm=at_mm, note=f"Simulated, {level:g} trues/mm³")
        figures.append(Figure(save_figure(work, f"images_{level:g}", drawn), f"{level:g} trues per mm³."))
    return figures


def method_order(measured: Mapping[str, Any]) -> list[str]:
    """Methods in the order of the tables: conventional ones first."""
    return [name for name in TITLES if name in measured and name not in PRIORS] + [
        one for one in PRIORS if one in measured
    ]


def _values(targets: Sequence[Mapping[str, np.ndarray]], measure: str) -> np.ndarray:
    return np.stack([np.asarray(one[measure]) for one in targets])


def _pooled_sd(values: np.ndarray) -> float:
    """SD over realisations (the last axis), pooled over targets."""
    return float(np.sqrt(values.var(axis=-1, ddof=1).mean())) if values.shape[-1] > 1 else float("nan")


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
