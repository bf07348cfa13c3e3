"""Tables and figures of `cmr_precision`."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import FrozenConfigDict

from experiments.cmr.readout import FRACTIONS, RESCAN, SCAN, Cohort, number_curves
from experiments.cmr.sampling import METHODS
from experiments.cmr.scans import BIOMARKERS
from medjax.errors import pluralize
from medjax.metrics.agreement import bland_altman
from medjax.metrics.summary import cell
from medjax.report.curve_panels import plot_curve_panels
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Table
from medjax.report.points import plot_bland_altman
from medjax.report.violins import plot_paired_violins
from medjax.running.workdir import WorkDir, save_figure
from medjax.uncertainty.biomarkers import UNITS
from medjax.uncertainty.sample_intervals import KINDS, OVERLAPS
from medjax.uncertainty.sample_tests import min_p

Metrics = Mapping[str, float]
CASES = "A case is one biomarker of one subject; mean ± sd over seeds, [bootstrap interval of seeds and subjects]."


def table_of_dice(metrics: Metrics, config: FrozenConfigDict) -> Table:
    """Dice and pixel-wise calibration error, by set, method and N."""
    rows = [
        [
            name, METHODS[method], str(n),
            *(cell(metrics, f"dice/{name}/{method}/{n}/{one}") for one in ("mean", "LV", "MYO", "RV")),
            cell(metrics, f"ece/{name}/{method}/{n}"), cell(metrics, f"brier/{name}/{method}/{n}"),
        ]
        for name in sets(config) for method in config.methods for n in config.numbers
    ]  # fmt: skip
    header = ["set", "method", "N", "Dice", "LV", "myocardium", "RV", "ECE near contours", "Brier score"]
    return Table(header, rows, "Of the mean probabilities of the first N samples; mean ± sd over seeds.")


def table_of_precision(metrics: Metrics, config: FrozenConfigDict) -> Table:
    """The paper's table: overlap and significant fraction, and what it did not have, coverage; over all biomarkers."""
    rows = []
    for name, method, n in settings(config):
        place = f"{name}/{method}/{n}/all"
        fractions = [_with_interval(metrics, one, place) for one in FRACTIONS]
        more = [cell(metrics, f"{one}/{place}", 2) for one in ("significant/mann_whitney/holm", "hedges_g")]
        failed = cell(metrics, f"failed_draws/{name}/{method}/{n}", 1)
        last = [fractions[-1], cell(metrics, f"expected_coverage/{place}", 2), failed]
        rows.append([name, METHODS[method], str(n), *fractions[:-1], *more, *last])
    header = [
        "cohort", "method", "N", "overlap > 50 %", "p ≤ α, Mann–Whitney", "p ≤ α, KS", "p ≤ α, paired t",
        "Mann–Whitney, Holm", "median size of Hedges' g", "truth covered", "expected for N", "draws left out",
    ]  # fmt: skip
    least = {n: min_p(n, n)["mann_whitney"] for n in config.numbers}
    texts = ", ".join(f"{p:.2g} with N = {n}" for n, p in least.items())
    note = (
        f"Fractions of cases. {CASES} Sample k of both scans is one draw: Mann–Whitney and KS are conservative, "
        f"the paired test is not. Smallest p of the rank test: {texts}: few samples cannot be significant after "
        "Holm's correction over the subjects. Draws left out: of N, those without a ventricle in most scans."
    )
    return Table(header, rows, note)


def table_of_calibration(metrics: Metrics, config: FrozenConfigDict) -> Table:
    """What the intervals hold, recalibration, and how much of a difference without a true change they explain."""
    columns = {
        "truth covered": "coverage", "labels on the slices": "coverage_labels", "rescan": "coverage_rescan",
        "relative width": "relative_width", "recalibrated: truth covered": "recalibrated/coverage",
        "recalibrated: relative width": "recalibrated/relative_width", "no change: variance explained": "still/ratio",
        "no change: differences inside": "still/inside", "risk ranked by sd": "aurc_normalized",
        "subjects left out": "left_out",
    }  # fmt: skip
    note = (
        "Means over biomarkers; of the variance explained, the median. Relative width: of the interval, divided by the "
        "biomarker's mean. Recalibrated: on held-out halves of the cohort. No change: scan and rescan of a heart that "
        "has not changed; variance explained of 1 is calibrated, below 1 too certain. Risk ranked by sd: 0 perfect, 1 "
        "random."
    )
    return Table(["cohort", "method", "N", *columns], _rows(metrics, config, list(columns.values())), note)


def table_of_biomarkers(metrics: Metrics, config: FrozenConfigDict) -> Table:
    """Agreement of points beside agreement of distributions, by biomarker."""
    rows = list[list[str]]()
    for name, method, n in settings(config):
        for one in BIOMARKERS:
            place = f"{name}/{method}/{n}/{one}"
            limits = " to ".join(cell(metrics, f"loa/{end}/{place}", 1).split(" ±")[0] for end in ("low", "high"))
            rows.append(
                [
                    name, METHODS[method], str(n), f"{one} ({UNITS[one]})", cell(metrics, f"bias/{place}", 1), limits,
                    cell(metrics, f"icc/{place}"), cell(metrics, f"cov/{place}", 1, percent=True),
                    cell(metrics, f"sdc/{place}", 1),
                    *(cell(metrics, f"{figure}/{place}", 2) for figure in FRACTIONS),
                    cell(metrics, f"error/{place}", 1), cell(metrics, f"still/ratio/{place}", 2),
                    cell(metrics, f"left_out/{place}", 0),
                ]
            )  # fmt: skip
    header = [
        "cohort", "method", "N", "biomarker", "bias", "limits of agreement", "ICC", "CoV", "SDC", "overlap > 50 %",
        "p ≤ α, Mann–Whitney", "p ≤ α, KS", "p ≤ α, paired t", "truth covered", "error",
        "no change: variance explained", "subjects left out",
    ]  # fmt: skip
    return Table(
        header, rows, "Bias: rescan − scan; error: scan − truth; SDC: smallest detectable change; ± sd over seeds."
    )


def table_of_definitions(metrics: Metrics, config: FrozenConfigDict) -> Table:
    """Fraction of cases with overlap > 50 % by kind of interval and definition of overlap."""
    names = [f"overlap/{kind}/{overlap}" for kind in KINDS for overlap in OVERLAPS]
    header = ["cohort", "method", "N", *(one.removeprefix("overlap/") for one in names)]
    return Table(header, _rows(metrics, config, names), "Kind of interval / definition of overlap.")


def settings(config: FrozenConfigDict) -> list[tuple[str, str, int]]:
    """Every cohort, method and number of samples."""
    return [(name, method, n) for name in config.data.cohorts for n in config.numbers for method in config.methods]


def sets(config: FrozenConfigDict) -> tuple[str, ...]:
    """Sets of test subjects: that of the training's scanner, and the cohorts."""
    return ("A", *config.data.cohorts)


def figure_of_segmentations(work: WorkDir, cohorts: Mapping[str, Cohort]) -> Figure:
    """Slices near the base and of the middle at ED and ES of a scan of each set: its labels, and what was predicted."""
    images, labels, names = list[np.ndarray](), list[np.ndarray](), list[str]()
    for name, cohort in cohorts.items():
        one = cohort.example
        slices = len(one["image"]) // 2
        for start, phase in ((0, "ED"), (slices, "ES")):
            inside = np.flatnonzero(one["label"][start : start + slices].any((1, 2)))
            for position in (len(inside) // 5, len(inside) // 2):
                k = start + int(inside[position])
                for which in ("label", "predicted"):
                    images.append(one["image"][k].T - one["image"][k].min())
                    labels.append(one[which][k].T)
                    names.append(f"{name}, {phase}, {'true' if which == 'label' else which}")
    plot = gallery(np.stack(images), np.stack(labels), names, 8)
    return Figure(
        save_figure(work, "segmentations", plot),
        "RV, myocardium and LV on the scanners of training and of the cohorts.",
    )


def figures_of_cohort(work: WorkDir, config: FrozenConfigDict, cohort: Cohort, name: str) -> list[Figure]:
    """Bland–Altman plot, paired violins and N-curves of the left ventricle's ejection fraction, first seed."""
    k, method = BIOMARKERS.index("LVEF"), config.methods[0]
    quantity, label = f"LVEF, {UNITS['LVEF']}", f"cohort {name}, {METHODS[method]}, N = {max(config.numbers)}"
    x = cohort.samples[method][k]
    whole = np.isfinite(x).all((1, 2))
    scan, rescan = x[whole, SCAN], x[whole, RESCAN]
    found = bland_altman(rescan.mean(1), scan.mean(1))
    points = plot_bland_altman(
        {"subjects": (rescan.mean(1), scan.mean(1))}, (found.lower, found.bias, found.upper), quantity, "rescan − scan",
        intervals=(found.lower_interval, found.bias_interval, found.upper_interval), title=label,
    )  # fmt: skip
    some = slice(config.figures.subjects)
    names = [str(number + 1) for number in np.flatnonzero(whole)[some]]
    truth = cohort.known.truth[whole][some][:, [SCAN, RESCAN], k]
    violins = plot_paired_violins(scan[some], rescan[some], quantity, names, truth=truth, centered=True, title=label)
    curves = {METHODS[one]: number_curves(config, cohort, one, "LVEF") for one in config.methods}
    titles = {
        "overlap": "overlap > 50 %",
        "significant/mann_whitney": "p ≤ α, Mann–Whitney",
        "significant/paired": "p ≤ α, paired t",
        "coverage": "truth covered",
    }
    means, sds = (
        {title: {one: found[figure][row] for one, found in curves.items()} for figure, title in titles.items()}
        for row in range(2)
    )
    numbers = plot_curve_panels(
        list(config.curve), means, "number of samples", "fraction of subjects", sd=sds, limits=(0.0, 1.0),
        title=f"LVEF, cohort {name}",
    )  # fmt: skip
    captions = {
        "bland_altman": (points, "Means of the samples of scan and rescan, with limits of agreement."),
        "violins": (violins, "Samples of scan (left) and rescan (right); diamonds: the truth."),
        "samples": (numbers, "Random subsets of the samples, of the ensemble members × transforms; ± sd over subsets."),
    }
    return [Figure(save_figure(work, f"{one}_{name}", plot), text) for one, (plot, text) in captions.items()]


def summary(config: FrozenConfigDict, weights: int) -> list[str]:
    """Summary of the study's data, and of the published results."""
    d, t = config.data, config.training
    simulated = d.layout == "simulated"
    again = f", and in {' and '.join(d.still)} once more without any" if d.still else ""
    source = (
        f"Simulated short-axis cines: {d.train} training subjects on scanner A, {d.test} test subjects, and "
        f"{d.subjects} subjects in each of cohorts {' and '.join(d.cohorts)}, on scanners that differ in contrast, "
        "voxels, gap and noise, scanned twice with a small true change"
        f"{again}."
        if simulated
        else f"Training set {d.training}; cohorts {', '.join(d.cohorts)}."
    )
    return [
        f"{source} {pluralize(config.seeds, 'seed')} of hearts, scans and networks; ensembles of {config.members} "
        f"2-D U-Nets of {weights} weights by nnU-Net's recipe, {t.epochs * t.iterations} steps of {t.batch} slices.",
        f"Intervals: {config.interval.kind}, {config.interval.level:g}; overlap: {config.interval.overlap}; "
        f"tests at {config.alpha:g}. Samples are draws of a model, no independent measurements: overlap, significance "
        "and coverage depend on their number N, so methods are compared at equal N.",
        "Published (other data: two scan–rescan sets, mean Dice 0.87): overlap of more than half in fewer than 45 % of "
        "cases, significantly different distributions in over 65 %; N, kind of interval and tests are not known.",
    ]


def _rows(metrics: Metrics, config: FrozenConfigDict, names: Sequence[str]) -> list[list[str]]:
    """Rows of cohort, method, N, and these figures over all biomarkers."""
    return [
        [one, METHODS[method], str(n), *(cell(metrics, f"{name}/{one}/{method}/{n}/all", 2) for name in names)]
        for one, method, n in settings(config)
    ]


def _with_interval(metrics: Metrics, share: str, place: str) -> str:
    """0.41 ± 0.02 [0.37, 0.45]."""
    low, high = (metrics.get(f"{end}/{share}/{place}", np.nan) for end in ("low", "high"))
    own = cell(metrics, f"{share}/{place}", 2)
    return own if np.isnan(low) else f"{own} [{low:.2f}, {high:.2f}]"
