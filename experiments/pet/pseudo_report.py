"""Metrics, tables and figures of the pseudo-PET study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.pet.cohort_registration import Fields
from experiments.pet.contrast_noise import CURVES, MEASURES
from experiments.pet.methods import METHODS
from experiments.pet.multi_subject import People
from experiments.pet.pseudo_sets import MEASURES as SET_MEASURES
from medjax.io.nifti import grid_affine
from medjax.metrics.summary import cell, confidence_interval, mean_sd
from medjax.pet.grid import Grid
from medjax.phantoms.head_anatomies import CENTER_MM
from medjax.phantoms.multi_subject import LABELS
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Section, Table
from medjax.report.points import Curve, points
from medjax.report.slices import MR
from medjax.running.workdir import WorkDir, save_figure

START, REAL = "prior_start", "prior_real"  # the prior before fine-tuning, and after it on PETs as they are
Rows = Mapping[str, np.ndarray]  # measure → (plane,) over all targets


def pseudo(size: int) -> str:
    """Name of the prior of pseudo-PETs of so many people."""
    return f"prior_pseudo_{size}"


def name_of(method: str) -> str:
    """Name of a method in tables."""
    if method in METHODS:
        return METHODS[method][0]
    known = {START: "prior as it comes", REAL: "prior of real PET"}
    return known.get(method, f"prior of pseudo-PET, |S| = {method.rsplit('_', 1)[-1]}")


def registration_metrics(fields: Mapping[str, Sequence[Fields]]) -> dict[str, float]:
    """Dice by tissue and fraction of folds, of each kind of registration (mr, pet_fdg, …), over people and targets."""
    out: dict[str, float] = {}
    for kind, every in fields.items():
        for column, label in enumerate(LABELS):
            for key in ("dice", "dice_before"):
                values = np.concatenate([getattr(one, key)[:, column] for one in every])
                out[f"{key}/{kind}/{label}"], out[f"{key}_sd/{kind}/{label}"] = mean_sd(values)
        out[f"folds/{kind}"] = float(np.mean([one.folds.mean() for one in every]))
    return out


def set_metrics(rows: Mapping[int, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Means over targets of the measures of pseudo-PETs, `pseudo_MEASURE/SIZE`."""
    return {
        f"pseudo_{measure}/{size}": float(np.mean([row[measure] for row in every]))
        for size, every in rows.items()
        for measure in SET_MEASURES
    }


def curve_metrics(points: Mapping[str, Rows], where: str) -> dict[str, float]:
    """Metrics of the curves, `curve_MEASURE/METHOD/SCANNER/VALUE`, over planes."""
    return {
        f"curve_{measure}/{method}/{where}/{value:g}": float(np.mean(found[measure][row]))
        for method, found in points.items()
        for row, value in enumerate(found["values"])
        for measure in MEASURES
    }


def noise_at_contrast(points: Mapping[str, Rows], contrast: float, where: str) -> dict[str, float]:
    """Normalised white-matter SD of each curve where its contrast is the given one; NaN where it never is."""
    out = {}
    for method, found in points.items():
        level, noise = (found[measure].mean(axis=1) for measure in ("contrast", "background_sd"))
        order = np.argsort(level)
        out[f"background_sd_at_equal_contrast/{method}/{where}"] = float(
            np.interp(contrast, level[order], noise[order], np.nan, np.nan)
        )
    return out


def tuned_metrics(tuned: Mapping[str, Rows], where: str) -> dict[str, float]:
    """Metrics `MEASURE/METHOD/SCANNER` and their SD over planes, at tuned hyper-parameters; paired differences.

    `nrmse_difference/PRIOR/OTHER/SCANNER` is the mean over planes of all targets, realisations averaged, with its 95 %
    interval.
    """
    out: dict[str, float] = {}
    for method, found in tuned.items():
        for measure in MEASURES:
            out[f"{measure}/{method}/{where}"], out[f"{measure}_sd/{method}/{where}"] = mean_sd(found[measure])
    for method in (one for one in tuned if one.startswith("prior_pseudo")):
        for other in (one for one in tuned if not one.startswith("prior_pseudo")):
            key, difference = f"{method}/{other}/{where}", tuned[method]["nrmse"] - tuned[other]["nrmse"]
            low, high = confidence_interval(difference)
            out |= {
                f"nrmse_difference/{key}": float(difference.mean()),
                f"nrmse_difference_low/{key}": low,
                f"nrmse_difference_high/{key}": high,
            }
    return out


def registration_table(metrics: Mapping[str, float], kinds: Sequence[str]) -> Table:
    """Dice before and after each kind of registration."""
    rows = []
    for kind in kinds:
        for label in LABELS:
            keys = [(f"{key}/{kind}/{label}", f"{key}_sd/{kind}/{label}") for key in ("dice_before", "dice")]
            rows.append([kind, label, *(cell(metrics, key, sd=sd) for key, sd in keys)])
    return Table(["registered by", "tissue", "Dice before", "Dice after"], rows, "Mean ± SD over people and targets.")


def set_table(metrics: Mapping[str, float], sizes: Sequence[int]) -> Table:
    """Measures of pseudo-PETs by |S|."""
    rows = [[size, *(cell(metrics, f"pseudo_{measure}/{size}") for measure in SET_MEASURES)] for size in sizes]
    header = ["noise (SD / mean)", "gradient energy / truth", "NRMSE to truth", "NRMSE to sources", "diversity"]
    return Table(["|S|", *header], rows, "Means over targets.")


def tuned_table(metrics: Mapping[str, float], methods: Sequence[str], scanners: Mapping[str, str]) -> Table:
    """Measures at tuned hyper-parameters, a row for each scanner and method."""
    rows = list[list[Any]]()
    for where, title in scanners.items():
        for method in methods:
            keys = [(f"{one}/{method}/{where}", f"{one}_sd/{method}/{where}") for one in MEASURES]
            rows.append([title, name_of(method), *(cell(metrics, key, sd=sd) for key, sd in keys)])
    header = ["contrast", "white-matter SD", "SD over realisations", "NRMSE", "SSIM"]
    return Table(["scanner", "method", *header], rows, "Mean ± SD over planes; tuned on a validation head.")


def paired_table(metrics: Mapping[str, float], methods: Sequence[str], scanners: Mapping[str, str]) -> Table:
    """Paired differences of NRMSE."""
    rows = []
    for where, title in scanners.items():
        for one in methods:
            for other in methods:
                key = f"{one}/{other}/{where}"
                if f"nrmse_difference/{key}" in metrics:
                    ends = (metrics[f"nrmse_difference{end}/{key}"] for end in ("", "_low", "_high"))
                    rows.append([title, name_of(one), name_of(other), "{:+.4f} ({:+.4f} to {:+.4f})".format(*ends)])
    return Table(["scanner", "method", "against", "difference of NRMSE (95 % interval)"], rows)


def curve_figure(work: WorkDir, rows: Mapping[str, Rows], where: str, title: str) -> Figure:
    """Contrast against normalised white-matter SD: a point for each value, in their order."""
    groups = dict[str, tuple[np.ndarray, np.ndarray]]()
    for name, one in rows.items():
        noise, contrast = one["background_sd"].mean(axis=1), one["contrast"].mean(axis=1)
        order = np.argsort(noise)
        groups[name_of(name)] = noise[order], contrast[order]
    lines = {name: Curve(*one) for name, one in groups.items()}
    drawn = points(groups, "SD / mean in white matter", "grey–white contrast", curves=lines)
    steps = ", ".join(f"{name_of(name)}: {CURVES[name][0]}" for name in rows if name in CURVES)
    return Figure(save_figure(work, f"contrast_noise_{where}", drawn), f"{title}. Along {steps}; priors: variance.")


def noise_figure(work: WorkDir, metrics: Mapping[str, float], sizes: Sequence[int]) -> Figure:
    """Noise of pseudo-PETs against |S|, with 1 / √|S|."""
    noise = np.array([metrics[f"pseudo_noise/{size}"] for size in sizes])
    expected = noise[0] * np.sqrt(sizes[0] / np.asarray(sizes))
    drawn = curves(np.asarray(sizes, float), {"measured": noise, "1 / √|S|": expected}, "|S|", "noise / mean")
    return Figure(save_figure(work, "noise", drawn), "White matter; from two scans of everyone.")


def cohort_figure(
    work: WorkDir, cohort: People, targets: People, carried: np.ndarray, sets: Mapping[int, np.ndarray], grid: Grid
) -> Figure:
    """The first target, the first person before and after carrying, and a pseudo-PET of each |S|."""
    mr = {"target, MR": targets.mr[0], "person, MR": cohort.mr[0]}
    pets = {"target, truth": targets.activity[0], "person, PET": cohort.pet[0]}
    means = {name: image / image[targets.mask[0]].mean() for name, image in pets.items()}
    images = mr | means | {"person, carried": carried[0]} | {f"|S| = {size}": image for size, image in sets.items()}
    images = {name: np.asarray(image, np.float32) for name, image in images.items()}
    affine = grid_affine(grid.shape, grid.voxel_mm, CENTER_MM)
    drawn = montage(images, affine, other_scales=dict.fromkeys(mr, MR), note="Simulated")
    return Figure(save_figure(work, "cohort", drawn), "PETs over their mean in the target's brain.")


def reconstruction_figure(
    work: WorkDir, images: Mapping[str, np.ndarray], grid: Grid, where: str, title: str
) -> Figure:
    """The first plane of the first target by every method, truth first."""
    shown = {name if name == "truth" else name_of(name): np.asarray(image) for name, image in images.items()}
    drawn = montage(shown, np.diag([*grid.voxel_mm, 1.0]), note=f"Simulated, {title}")
    return Figure(save_figure(work, f"images_{where}", drawn), title)


def sections_of(
    metrics: Mapping[str, float], figures: Mapping[str, Sequence[Figure]], kinds: Sequence[str], sizes: Sequence[int],
    methods: Sequence[str], scanners: Mapping[str, str],
) -> list[Section]:  # fmt: skip
    """Sections of the report."""
    return [
        Section("Cohort", "MR-driven registration carries everyone to the target.", figures["cohort"]),
        Section("Registration", "Overlap of tissues.", table=registration_table(metrics, kinds)),
        Section("Pseudo-PET", "Means of subsets S.", figures["noise"], set_table(metrics, sizes)),
        Section("Contrast and noise", "Along each method's hyper-parameter.", figures["curves"]),
        Section("Reconstructions", "", figures["images"], tuned_table(metrics, methods, scanners)),
        Section("Paired differences", "Below 0: less error.", table=paired_table(metrics, methods, scanners)),
    ]
