"""Result of `medjax shortcuts fairness`: its tables, and the files of its folder."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from medjax.atomic import replacing_together, write_csv, write_text
from medjax.report.figures import write_png
from medjax.report.html import Figure, Report, Section, Table, write_report
from medjax.report.interval_panels import Estimate, plot_intervals
from medjax.shortcuts.group_bootstrap import Interval

OUTPUTS = ("fairness.csv", "fairness.json", "fairness.png", "report.html")
NAMES = {  # of metrics, in the order of the tables; those of a figure's panels first
    "auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "tpr": "TPR", "fpr": "FPR",
    "selection_rate": "predicted positive", "tpr_at_tnr": "TPR at one TNR", "ece": "ECE", "accuracy": "accuracy",
    "worst_group_accuracy": "worst-group accuracy", "adjusted_accuracy": "adjusted accuracy",
    "equalized_odds_difference": "equalized odds", "equal_opportunity_difference": "equal opportunity",
    "demographic_parity_difference": "demographic parity", "balanced_accuracy_min": "balanced accuracy, min",
    "auroc_min": "AUROC, min", "ece_max": "ECE, max", "accuracy_gap": "accuracy, gap",
    "balanced_accuracy_gap": "balanced accuracy, gap", "auroc_gap": "AUROC, gap",
    "tpr_at_tnr_gap": "TPR at one TNR, gap", "ece_gap": "ECE, gap",
}  # fmt: skip
PANELS = 7  # of these names are panels of the figure

ABOUT = (
    "A gap is the largest minus the smallest value over the groups; it is never negative, and on average too large "
    "where groups are small. A dash: undefined, since a group lacks cases of a label."
)


class AttributeFairness(NamedTuple):
    """Metrics of the groups of one attribute."""

    names: list[str]  # names of the groups
    counts: Int[np.ndarray, "label group"]  # number of cases
    groups: dict[str, Interval]  # of each group, by metric
    summary: dict[str, Interval]  # see `fairness.summary`
    difference: dict[str, Interval] | None  # of the summary, this model minus the compared one


class Fairness(NamedTuple):
    """Fairness of a classifier: metrics of all cases and of each attribute, with bootstrap intervals."""

    cases: int
    subjects: int
    threshold: float | None  # None: classes were predicted
    overall: dict[str, Interval]  # of all cases
    overall_difference: dict[str, Interval] | None
    attributes: dict[str, AttributeFairness]
    warnings: list[str]


def tables(result: Fairness, level: float = 0.95, compared: str = "the compared model") -> list[Table]:
    """Tables of a result, for the terminal or a report: all cases, then groups and summary of each attribute."""
    note = f"{result.cases} cases of {result.subjects} subjects; in brackets: {100 * level:g} % bootstrap intervals"
    change = [f"minus {Path(compared).name}"] if result.overall_difference else []
    every = [Table(["all cases", "estimate", *change], _rows(result.overall, result.overall_difference), note)]
    for name, one in result.attributes.items():
        rows = [[f"cases of label {label}", *counts] for label, counts in enumerate(one.counts.tolist())]
        for metric in _ordered(one.groups):
            values = one.groups[metric]
            rows.append([NAMES[metric], *(_with_interval(group_interval(values, k)) for k in range(len(one.names)))])
        every.append(Table([name, *one.names], rows))
        every.append(Table([f"over {name}", "estimate", *change], _rows(one.summary, one.difference)))
    return every


def group_interval(interval: Interval, k: int) -> Interval:
    """The interval of the k-th group."""
    return Interval(*(np.asarray(values)[k] for values in interval))


def _with_interval(one: Interval) -> str:
    value, low, high, _ = (float(number) for number in one)
    return "–" if math.isnan(value) else f"{value:.3f} ({low:.3f}, {high:.3f})"


def _ordered(values: Mapping[str, Interval]) -> list[str]:
    """Names of the metrics that are shown, in the order of `NAMES`."""
    return [name for name in NAMES if name in values]


def _rows(values: Mapping[str, Interval], change: Mapping[str, Interval] | None) -> list[list[str]]:
    columns = [values] if change is None else [values, change]
    return [[NAMES[name], *(_with_interval(one[name]) for one in columns)] for name in _ordered(values)]


def _flat(result: Fairness) -> list[tuple[str, str, str, str, Interval]]:
    """(quantity, attribute, group, metric, interval) of all numbers; quantity is value or difference."""
    found = [("value", "", "", name, one) for name, one in result.overall.items()]
    found += [("difference", "", "", name, one) for name, one in (result.overall_difference or {}).items()]
    for attribute, one in result.attributes.items():
        for metric, values in one.groups.items():
            found += [
                ("value", attribute, group, metric, group_interval(values, k)) for k, group in enumerate(one.names)
            ]
        found += [("value", attribute, "", name, interval) for name, interval in one.summary.items()]
        found += [("difference", attribute, "", name, interval) for name, interval in (one.difference or {}).items()]
    return found


def write(output: Path, result: Fairness, level: float, table: Path, compare: Path | None, command: str = "") -> None:
    """Write `OUTPUTS` to a folder, which is created if need be."""
    output.mkdir(parents=True, exist_ok=True)
    with replacing_together(*(output / name for name in OUTPUTS)) as (csv_file, json_file, figure, report):
        flat = _flat(result)
        rows = [[*names, *("" if math.isnan(float(x)) else f"{float(x):.6g}" for x in one)] for *names, one in flat]
        write_csv(csv_file, ["quantity", "attribute", "group", "metric", *Interval._fields], rows)
        write_text(json_file, json.dumps(_json(result, level, flat), indent=1, allow_nan=False) + "\n")
        write_png(figure, _figure(result))
        write_report(report, _report(result, level, compare, figure), {"Command": command, "Table": str(table)})


def _json(result: Fairness, level: float, flat: Sequence[tuple]) -> dict:
    numbers = [
        dict(zip(("quantity", "attribute", "group", "metric"), names, strict=True))
        | {field: None if math.isnan(float(x)) else float(x) for field, x in zip(Interval._fields, one, strict=True)}
        for *names, one in flat
    ]
    counts = {name: dict(zip(one.names, one.counts.T.tolist(), strict=True)) for name, one in result.attributes.items()}
    about = {"cases": result.cases, "subjects": result.subjects, "threshold": result.threshold, "level": level}
    return {**about, "counts": counts, "warnings": result.warnings, "metrics": numbers}


def _figure(result: Fairness) -> Any:
    panels = list(NAMES)[:PANELS]
    shown = [metric for metric in panels if not _all_undefined(result, metric)]
    estimates = {
        NAMES[metric]: {
            f"{name} {group}": Estimate(*(float(x) for x in group_interval(one.groups[metric], k)[:3]))
            for name, one in result.attributes.items()
            for k, group in enumerate(one.names)
        }
        for metric in shown
    }
    colors = {f"{name} {group}": k for k, (name, one) in enumerate(result.attributes.items()) for group in one.names}
    return plot_intervals(estimates, colors=colors, title="Metrics of each group")


def _all_undefined(result: Fairness, metric: str) -> bool:
    return all(np.isnan(np.asarray(one.groups[metric].estimate)).all() for one in result.attributes.values())


def _report(result: Fairness, level: float, compare: Path | None, figure: Path) -> Report:
    first, *rest = tables(result, level, str(compare))
    sections = [Section("All cases", table=first), Section("Groups", figures=[Figure(figure, _caption(level))])]
    sections += [Section(table.header[0].capitalize(), table=table) for table in rest]
    return Report("Fairness", [*result.warnings, ABOUT], sections)


def _caption(level: float) -> str:
    return f"Estimates and {100 * level:g} % bootstrap intervals, subjects resampled."
