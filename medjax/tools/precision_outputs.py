"""Files of `medjax precision`: every figure of the cohort, every subject, a report, and its figures.

precision.csv    biomarker, figure, estimate, low, high, subjects, samples
subjects.csv     a row for each biomarker and subject
report.html, bland_altman_NAME.png, violins_NAME.png, curves_*.png, agreement.png
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medjax.atomic import replacing_together, write_csv
from medjax.report.figures import png
from medjax.report.html import write_report
from medjax.tools.biomarker_precision import BiomarkerPrecision, CohortPrecision
from medjax.tools.biomarker_truth import Accuracy
from medjax.tools.precision_report import plots, report
from medjax.uncertainty.sample_intervals import intervals
from medjax.uncertainty.sample_tests import ADJUST

TABLES = ("precision.csv", "subjects.csv", "report.html")
PER_BIOMARKER = ("bland_altman", "violins")
OVERVIEW = ("agreement.png", "curves_overlap.png", "curves_significant.png", "curves_coverage.png")
COLUMNS = ("biomarker", "figure", "estimate", "low", "high", "subjects", "samples")

Row = tuple[str, tuple[float, ...], int]  # figure; estimate and ends of its interval; number of subjects


def output_files(folder: Path, biomarkers: Iterable[str]) -> list[Path]:
    """All files that may be written."""
    figures = [f"{kind}_{name}.png" for name in file_names(biomarkers).values() for kind in PER_BIOMARKER]
    return [folder / name for name in (*TABLES, *OVERVIEW, *figures)]


def file_names(biomarkers: Iterable[str]) -> dict[str, str]:
    """Each biomarker's name as a part of a file name; numbered where two would be the same."""
    names = dict[str, str]()
    for biomarker in biomarkers:
        name = re.sub(r"[^\w.-]+", "_", biomarker)
        while name.lower() in {one.lower() for one in names.values()}:
            name += "_2"
        names[biomarker] = name
    return names


def cohort_rows(one: BiomarkerPrecision) -> list[Row]:
    """Figures of a biomarker: agreement of points, of distributions, coverage, and against the truth.

    Intervals of bias, limits, ICC and SDC are exact for normal differences, those of coverage Wilson's, the others
    bootstrap intervals over subjects.
    """
    points = one.precision.points
    limits, own = points.limits, points.repeatability
    rows: dict[str, tuple[float, ...]] = {
        "bias": (limits.bias, *limits.bias_interval),
        "loa/low": (limits.lower, *limits.lower_interval),
        "loa/high": (limits.upper, *limits.upper_interval),
        "icc": (points.icc.value, points.icc.low, points.icc.high),
        "sdc": (own.sdc, *own.sdc_interval),
        "rc": (own.rc, *own.rc_interval),
    }
    rows |= {name: value[:3] for name, value in one.intervals.items() if name not in rows}
    if (explained := one.precision.explained) is not None:
        rows |= {f"explained/{name}": (value, math.nan, math.nan) for name, value in explained._asdict().items()}
    if one.rescan_coverage is not None:
        rows["coverage/rescan_mean"] = one.rescan_coverage[:3]
    found: list[Row] = [(name, values, len(one.subjects)) for name, values in rows.items()]
    for which, accuracy in one.truth.items():
        found += [(name, values, int(accuracy.known.sum())) for name, values in _truth_rows(which, accuracy).items()]
    return found


def _truth_rows(which: str, accuracy: Accuracy) -> dict[str, tuple[float, ...]]:
    rows: dict[str, tuple[float, ...]] = {}
    if (error := accuracy.error) is not None:
        rows[f"error/{which}/bias"] = error.bias, *error.bias_interval
        rows[f"error/{which}/sd"] = error.sd, math.nan, math.nan
    if accuracy.coverage is not None:
        rows[f"coverage/{which}"] = accuracy.coverage[:3]
        rows[f"width/{which}"] = accuracy.coverage.width, math.nan, math.nan
    rows |= {f"{name}/{which}": value[:3] for name, value in accuracy.means.items()}
    if (conformal := accuracy.conformal) is not None:
        rows[f"coverage/{which}/conformal"] = conformal.after[:3]
        rows[f"width/{which}/conformal"] = conformal.after.width, math.nan, math.nan
    return rows


def subject_columns(one: BiomarkerPrecision, result: CohortPrecision) -> dict[str, np.ndarray]:
    """Columns of subjects.csv of one biomarker."""
    settings, table = result.settings, one.precision.table
    columns = {"scan": table["scan"], "rescan": table["rescan"], "difference": table["rescan"] - table["scan"]}
    if result.samples > 1:
        for which, samples in (("scan", one.scan), ("rescan", one.rescan)):
            columns[f"low/{which}"], columns[f"high/{which}"] = intervals(samples, settings.interval, settings.level)
    columns |= {name: values for name, values in table.items() if name not in columns}
    adjust = ADJUST[settings.correction]
    columns |= {
        f"p_{settings.correction}/{name.removeprefix('p/')}": adjust(values)
        for name, values in table.items()
        if name.startswith("p/") and settings.correction != "none"
    }
    for which, accuracy in one.truth.items():
        columns[f"truth/{which}"] = accuracy.truth
        known = {f"{name}/{which}": values for name, values in accuracy.scores.items()}
        if (conformal := accuracy.conformal) is not None:
            known |= {f"low/{which}/conformal": conformal.low, f"high/{which}/conformal": conformal.high}
        for name, values in known.items():
            columns[name] = np.full(len(one.subjects), np.nan)
            columns[name][accuracy.known] = values
    return columns


def write_outputs(folder: Path, result: CohortPrecision, inputs: Mapping[str, Path | None], command: str = "") -> None:
    """Write all files to a folder, created if need be, together or not at all.

    Figures of an earlier call that this one has not are removed.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = [*folder.glob("bland_altman_*.png"), *folder.glob("violins_*.png")]
    files = list(dict.fromkeys([*output_files(folder, result.biomarkers), *earlier]))
    with replacing_together(*files) as parts:
        there = {part.name: part for part in parts}
        write_csv(there["precision.csv"], COLUMNS, _precision_csv(result))
        write_csv(there["subjects.csv"], *_subjects_csv(result))
        names = file_names(result.biomarkers)
        figures = plots(result, names)
        for name, figure in figures.items():
            there[name].write_bytes(png(figure))
        details = {name: str(path) for name, path in inputs.items() if path is not None}
        settings = {name: str(value) for name, value in result.settings._asdict().items()}
        page = report(result, {name: there[name] for name in figures}, names)
        write_report(there["report.html"], page, {"Command": command, **details, "Settings": settings})


def _precision_csv(result: CohortPrecision) -> list[list[Any]]:
    return [
        [name, figure, *map(_cell, values), subjects, result.samples]
        for name, one in result.biomarkers.items()
        for figure, values, subjects in cohort_rows(one)
    ]


def _subjects_csv(result: CohortPrecision) -> tuple[list[str], list[list[Any]]]:
    columns = {name: subject_columns(one, result) for name, one in result.biomarkers.items()}
    header = list(dict.fromkeys(column for each in columns.values() for column in each))
    rows = [
        [name, subject, result.samples, *(_cell(each[column][k]) if column in each else "" for column in header)]
        for name, each in columns.items()
        for k, subject in enumerate(result.biomarkers[name].subjects)
    ]
    return ["biomarker", "subject", "samples", *header], rows


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
