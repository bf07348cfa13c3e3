"""Tables, figures and report of `medjax precision`; every table says how many samples and subjects it rests on."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.report.curve_panels import plot_curve_panels
from medjax.report.html import Cell, Figure, Report, Section, Table
from medjax.report.interval_panels import Estimate, plot_intervals
from medjax.report.points import plot_bland_altman
from medjax.report.violins import plot_paired_violins
from medjax.tools.biomarker_precision import BiomarkerPrecision, CohortPrecision
from medjax.uncertainty.sample_intervals import KINDS, OVERLAPS

TESTS = {"ks": "Kolmogorov–Smirnov", "mann_whitney": "Mann–Whitney", "welch": "Welch t", "paired": "paired t"}
DEFINITIONS = {"iou": "IoU", "shorter": "over the shorter", "dice": "Dice"}
CORRECTED = {"holm": "Holm", "bh": "Benjamini–Hochberg", "none": "not corrected"}
NARROW = 0.1  # of the range over subjects: violins of smaller ranges are drawn as deviations from the mean

DEPENDS_ON_N = (
    "Overlaps, significant fractions and coverage depend on the number of samples N: compare methods and studies at "
    "equal N only (--samples). Samples are draws of a model, not independent measurements of a patient: with enough "
    "draws every pair of scans is significantly different, so that p-values need the effect sizes beside them."
)
ABOUT = (
    "Differences are rescan − scan. Point estimates are means of the samples. Limits of agreement are Bland and "
    "Altman's; CoV: within-subject coefficient of variation; ICC(2,1): absolute agreement; SDC: smallest detectable "
    "change of one subject. A dash: undefined."
)


def tables(result: CohortPrecision) -> list[Table]:
    """Tables of a result, for the terminal or a report: point estimates, distributions, truth."""
    every = [_points_table(result)]
    if result.samples > 1:
        every.append(_distribution_table(result))
    if any(one.truth for one in result.biomarkers.values()):
        every.append(_truth_table(result))
    return every


def plots(result: CohortPrecision, names: Mapping[str, str]) -> dict[str, Any]:
    """Figures by file name; `names` are the biomarkers' parts of those."""
    found = {"agreement.png": _plot_agreement(result)}
    if result.samples > 1:
        labels = {f"overlap/{kind}": name for kind, name in DEFINITIONS.items()}
        found["curves_overlap.png"] = _plot_curves(
            result, labels, f"Overlap of {result.settings.interval} intervals above one half"
        )
        labels = {f"significant/{test}": name for test, name in TESTS.items()}
        found["curves_significant.png"] = _plot_curves(
            result, labels, f"Scan and rescan significantly different ({CORRECTED[result.settings.correction]})"
        )
        labels = {"coverage/rescan_mean": "rescan's mean", "coverage/scan": "truth"}
        found["curves_coverage.png"] = _plot_curves(
            result, labels, f"Held by the scan's {result.settings.interval} interval", result.settings.level
        )
    for name, one in result.biomarkers.items():
        limits, table = one.precision.points.limits, one.precision.table
        found[f"bland_altman_{names[name]}.png"] = plot_bland_altman(
            {"all": (table["rescan"], table["scan"])},
            (limits.lower, limits.bias, limits.upper),
            name,
            "rescan − scan",
            intervals=[tuple(ends) for ends in (limits.lower_interval, limits.bias_interval, limits.upper_interval)],
            title=name,
        )
        if result.samples > 1:
            found[f"violins_{names[name]}.png"] = _plot_violins(name, one, result.samples)
    return found


def report(result: CohortPrecision, files: Mapping[str, Path], names: Mapping[str, str]) -> Report:
    """Report with the tables and the figures in `files`, by file name, of which `names` are the biomarkers' parts."""
    several = result.samples > 1
    first, *rest = tables(result)
    sections = [Section("Point estimates", ABOUT, _figures(files, "agreement", _agreement_caption(result)), first)]
    sections += [Section(table.header[0].capitalize(), table=table) for table in rest]
    if several:
        sections.append(Section("Definition of the overlap", table=_definition_table(result)))
    if several:
        text = (
            "Means and standard deviations over random subsets of n of the samples, the same subset for all subjects."
        )
        sections.append(Section("Number of samples", text, _figures(files, "curves")))
    captions = {"bland_altman": _bland_altman_caption(result), "violins": _violin_caption(result)}
    for name, part in names.items():
        own = {f"{kind}_{part}.png": caption for kind, caption in captions.items()}
        shown = [Figure(files[file], caption) for file, caption in own.items() if file in files]
        sections.append(Section(name, figures=shown))
    summary = [_about(result), *([DEPENDS_ON_N] if several else []), *result.warnings]
    return Report("Precision of biomarkers", summary, sections)


def _about(result: CohortPrecision) -> str:
    subjects = sorted({len(one.subjects) for one in result.biomarkers.values()})
    number = "–".join(str(k) for k in dict.fromkeys((subjects[0], subjects[-1])))
    return f"{number} subjects with scan and rescan, N = {result.samples} sample{'s' * (result.samples > 1)} of each."


def _caption(result: CohortPrecision, text: str) -> str:
    return f"N = {result.samples}. {text} In brackets: {100 * result.settings.level:g} % intervals."


def _points_table(result: CohortPrecision) -> Table:
    header = ["point estimates", "subjects", "bias", "limits of agreement", "CoV %", "ICC(2,1)", "SDC"]
    rows = list[list[Cell]]()
    for name, one in result.biomarkers.items():
        points = one.precision.points
        limits, own = points.limits, points.repeatability
        rows.append(
            [
                name,
                len(one.subjects),
                _bracketed(limits.bias, *limits.bias_interval),
                f"{_short(limits.lower)} to {_short(limits.upper)}",
                100 * own.cov,
                _bracketed(points.icc.value, points.icc.low, points.icc.high, "{:.3f}"),
                own.sdc,
            ]
        )
    return Table(header, rows, _caption(result, "Rescan − scan."))


def _distribution_table(result: CohortPrecision) -> Table:
    kind, overlap, correction = result.settings.interval, result.settings.overlap, result.settings.correction
    tests = [
        test for test in TESTS if f"significant/{test}/{correction}" in next(iter(result.biomarkers.values())).intervals
    ]
    short = {"ks": "KS", "mann_whitney": "MWU", "welch": "Welch", "paired": "paired"}
    header = [
        "distributions",
        "N",
        "overlap > ½",
        *(short[test] for test in tests),
        "|g|",
        "OVL",
        "W₁",
        "ratio",
        "held",
    ]
    rows = list[list[Cell]]()
    for name, one in result.biomarkers.items():
        figures, explained, held = one.precision.figures, one.precision.explained, one.rescan_coverage
        assert explained is not None and held is not None
        row: list[Cell] = [name, result.samples, _bracketed(*one.intervals[f"overlap/{kind}/{overlap}"][:3], "{:.2f}")]
        row += [_fixed(figures[f"significant/{test}/{correction}"]) for test in tests]
        row += [_fixed(figures["hedges_g"]), _fixed(figures["ovl/normal"]), figures["wasserstein"]]
        rows.append([*row, _fixed(explained.ratio), _fixed(held.value)])
    text = (
        f"Fractions of subjects: {kind} intervals overlap by more than half ({DEFINITIONS[overlap]}); scan and rescan "
        f"significantly different at {result.settings.alpha:g} ({CORRECTED[correction]}), by each test; rescan's mean "
        "held by the scan's interval. |g|: median size of Hedges' g; OVL: mean overlap of normal densities; W₁: mean "
        "Wasserstein distance; ratio: variance that the samples predict over squared difference found, 1 if honest."
    )
    return Table(header, rows, _caption(result, text))


def _definition_table(result: CohortPrecision) -> Table:
    header = ["overlap > ½", *(f"{kind}, {DEFINITIONS[name]}" for kind in KINDS for name in OVERLAPS)]
    rows: list[list[Cell]] = [
        [name, *(_fixed(one.precision.figures[f"overlap/{kind}/{which}"]) for kind in KINDS for which in OVERLAPS)]
        for name, one in result.biomarkers.items()
    ]
    text = "The same samples: fraction of subjects by the kind of interval and the definition of the overlap."
    return Table(header, rows, f"N = {result.samples}. {text}")


def _truth_table(result: CohortPrecision) -> Table:
    header = ["truth", "of", "subjects", "bias", "coverage", "width", "IS", "CRPS", "recalibrated", "width"]
    rows = list[list[Cell]]()
    for name, one in result.biomarkers.items():
        for which, its in one.truth.items():
            before, after = its.coverage, None if its.conformal is None else its.conformal.after
            row: list[Cell] = [name, which, int(its.known.sum()), None if its.error is None else its.error.bias]
            row += [None, None] if before is None else [_bracketed(*before[:3], "{:.2f}"), before.width]
            row += [its.means[score].estimate if score in its.means else None for score in ("interval_score", "crps")]
            rows.append(row + ([None, None] if after is None else [_fixed(after.value), after.width]))
    text = (
        f"Bias: mean error of the point estimate; coverage: fraction of subjects whose {result.settings.interval} "
        "interval holds the truth, beside its mean width; IS, CRPS: mean interval score and continuous ranked "
        "probability score, best small; recalibrated: coverage of conformal intervals, of either half of the subjects "
        "by the other one."
    )
    return Table(header, rows, _caption(result, text))


def _plot_agreement(result: CohortPrecision) -> Any:
    kind, overlap, correction = result.settings.interval, result.settings.overlap, result.settings.correction
    panels: dict[str, Callable[[BiomarkerPrecision], Sequence[float]]] = {
        "ICC(2,1)": lambda one: one.precision.points.icc[:3],
        "CoV": lambda one: one.intervals["cov"][:3],
    }
    if result.samples > 1:
        panels[f"overlap > ½ ({DEFINITIONS[overlap]})"] = lambda one: one.intervals[f"overlap/{kind}/{overlap}"][:3]
        panels[f"significant, KS ({CORRECTED[correction]})"] = lambda one: one.intervals[
            f"significant/ks/{correction}"
        ][:3]
    estimates = {
        title: {name: Estimate(*map(float, ends(one))) for name, one in result.biomarkers.items()}
        for title, ends in panels.items()
    }
    return plot_intervals(estimates, title=f"Agreement of scan and rescan, N = {result.samples}")


def _plot_curves(result: CohortPrecision, labels: Mapping[str, str], title: str, reference: float | None = None) -> Any:
    every = list(result.biomarkers.values())
    known = {key: label for key, label in labels.items() if any(key in one.curves for one in every)}
    x = next(iter(every[0].curves.values())).samples
    blank = np.full(len(x), np.nan)
    panels, sd = (
        {
            name: {
                label: getattr(one.curves[key], field) if key in one.curves else blank for key, label in known.items()
            }
            for name, one in result.biomarkers.items()
        }
        for field in ("mean", "sd")
    )
    return plot_curve_panels(
        x, panels, "number of samples n", "fraction", sd=sd, limits=(-0.03, 1.03), reference=reference, title=title
    )


def _plot_violins(name: str, one: BiomarkerPrecision, samples: int) -> Any:
    ranges = np.ptp(np.concatenate([one.scan, one.rescan], 1), 1)
    truth = None
    if one.truth:
        columns = [one.truth[which].truth for which in ("scan", "rescan") if which in one.truth]
        truth = np.stack([columns[0], columns[-1]], 1)
    return plot_paired_violins(
        one.scan, one.rescan, name, one.subjects, truth=truth,
        centered=bool(np.median(ranges) < NARROW * np.ptp(one.precision.table["scan"])),
        title=f"{name}: N = {samples} samples of each scan",
    )  # fmt: skip


def _figures(files: Mapping[str, Path], start: str, caption: str = "") -> list[Figure]:
    return [Figure(path, caption) for name, path in files.items() if name.startswith(start)]


def _agreement_caption(result: CohortPrecision) -> str:
    return f"Estimates with {100 * result.settings.level:g} % intervals over subjects."


def _bland_altman_caption(result: CohortPrecision) -> str:
    return f"Bland–Altman plot of the point estimates; shaded: {100 * result.settings.level:g} % intervals."


def _violin_caption(result: CohortPrecision) -> str:
    return f"Samples of every subject (N = {result.samples}), scan at the left, rescan at the right; subjects by mean."


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _fixed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _bracketed(value: float, low: float, high: float, form: str = "{:.3g}") -> str:
    if math.isnan(value):
        return "–"
    return f"{form} ({form}, {form})".format(value, low, high).replace("-", "−")
