"""Fairness of a classifier from a table of its predictions, as in `medjax shortcuts fairness`.

found = fairness_of_table("test.csv", ["sex"], score="p", subject="patient")
found.attributes["sex"].summary["auroc_gap"]                 Interval(estimate, low, high, undefined)
found.attributes["sex"].groups["auroc"].estimate             of found.attributes["sex"].names
"""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.shortcuts import fairness, group_metrics
from medjax.shortcuts.group_bootstrap import bootstrap
from medjax.shortcuts.group_metrics import GroupedPredictions, cases
from medjax.tools.checks import (
    MAX_RESAMPLES,
    as_paths,
    check_no_overwrite,
    check_output_files,
    check_output_folder,
    check_range,
    check_seed,
)
from medjax.tools.fairness_report import OUTPUTS, AttributeFairness, Fairness, write
from medjax.tools.fairness_table import Columns, Predictions, read_baseline, read_predictions

MAX_UNDEFINED = 0.05  # fraction of resamples without a value, above which an interval is not to be trusted


def fairness_of_table(
    table: Path | str,
    attributes: Sequence[str],
    output: Path | str | None = None,
    *,
    label: str = "label",
    score: str | None = None,
    prediction: str | None = None,
    subject: str | None = None,
    id: str | None = None,
    positive: str | None = None,
    compare: Path | str | None = None,
    threshold: float | None = None,
    tnr: float = 0.9,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    command: str = "",
) -> Fairness:
    """Group metrics, gaps and their bootstrap intervals from a CSV of one row a case.

    Args:
        table: the CSV.
        attributes: columns of the attributes' groups.
        output: folder for `OUTPUTS`, created if need be; None: nothing is written.
        label: column of the label.
        score: column of the score of the positive class.
        prediction: column of the predicted class; default: the score at the threshold.
        subject: column of the subject, who may have several cases; default: each case is a subject.
        id: column of the case's id.
        positive: value of label and prediction that is the positive class; default: 1 of 0 and 1.
        compare: CSV of another model's predictions of the same cases, matched by id: differences table − compare.
        threshold: threshold of the score; default: 0.5 of probabilities; not with `prediction`.
        tnr: true-negative rate of `tpr_at_tnr`.
        resamples: number of bootstrap resamples.
        level: probability of the intervals.
        seed: random seed of the bootstrap.
        command: command line that repeats this call, for the report.

    Raises:
        ConfigError: a setting out of its range, a threshold beside predicted classes, or scores that are no
            probabilities without a threshold.
        DataError: a table that cannot be used, see `read_predictions`, or an output that is an input.
    """
    table, output, compare = as_paths(table, output, compare)
    _check(tnr, resamples, level, seed)
    if output is not None:
        check_output_folder(output)
        check_output_files(output / name for name in OUTPUTS)
        check_no_overwrite([output / name for name in OUTPUTS], [table, compare])
    columns = Columns(label, attributes, score, prediction, subject, id, positive)
    own = read_predictions(table, columns)
    other = None if compare is None else read_baseline(compare, columns, own)
    threshold, warnings = _threshold(own, other, threshold, table)
    found: dict[str, AttributeFairness] = {}
    overall: tuple[dict, dict | None] = {}, None
    for name in own.attributes:
        data, baseline = (None if one is None else _cases(one, name, threshold) for one in (own, other))
        assert data is not None
        metric = static_partial(fairness.metrics, tnr=tnr)
        settings = {"subject": own.subject, "resamples": resamples, "level": level}
        values = bootstrap(jax.random.key(seed), metric, data, **settings)
        change = None if baseline is None else bootstrap(jax.random.key(seed), metric, data, baseline, **settings)
        overall = values.overall, None if change is None else change.overall
        groups, counts = own.attributes[name].groups, np.asarray(group_metrics.count(data)).round().astype(int)
        summary = values.summary, None if change is None else change.summary
        found[name] = AttributeFairness(groups, counts, values.groups, *summary)
        warnings += _warnings(name, found[name])
    subjects = len(own.label) if own.subject is None else len({*own.subject})
    result = Fairness(len(own.label), subjects, threshold, *overall, found, warnings)
    if output is not None:
        write(output, result, level, table, compare, command)
    return result


def _check(tnr: float, resamples: int, level: float, seed: int) -> None:
    check_seed(seed)
    check_range("--resamples", resamples, 1, MAX_RESAMPLES)
    for name, value in (("--tnr", tnr), ("--level", level)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} {value:g}; expected a number between 0 and 1")


def _threshold(
    own: Predictions, other: Predictions | None, threshold: float | None, table: Path
) -> tuple[float | None, list[str]]:
    """Threshold of the score, None where classes are predicted; and what to say of scores that are no probabilities."""
    if threshold is not None and own.prediction is not None:
        raise ConfigError("--threshold, --prediction: both; expected one of them: predicted classes have no threshold")
    if own.score is None:
        return None, []
    scores = np.concatenate([one.score for one in (own, other) if one is not None and one.score is not None])
    if threshold is not None and not math.isfinite(threshold):
        raise ConfigError(f"--threshold {threshold}; expected a finite number")
    warnings: list[str] = []
    if scores.min() < 0 or scores.max() > 1:
        found = f"scores from {scores.min():.4g} to {scores.max():.4g} are no probabilities"
        if threshold is None and own.prediction is None:
            raise ConfigError(f"{table}: {found}; expected --threshold, or --prediction")
        warnings.append(f"{found}: no calibration error (ECE)")
    return (None if own.prediction is not None else 0.5 if threshold is None else threshold), warnings


def _cases(predictions: Predictions, attribute: str, threshold: float | None) -> GroupedPredictions:
    groups, index = predictions.attributes[attribute]
    return cases(
        predictions.label, index, predictions.score, predictions.prediction,
        threshold=0.5 if threshold is None else threshold, attributes=len(groups),
    )  # fmt: skip


def _warnings(name: str, found: AttributeFairness) -> list[str]:
    """Groups without a class, and intervals of few resamples."""
    warnings = [
        f"{name} {group}: no case of label {label}; what needs one is undefined"
        for label, row in enumerate(found.counts.tolist())
        for group, number in zip(found.names, row, strict=True)
        if not number
    ]
    defined = {metric: one for metric, one in found.summary.items() if np.isfinite(one.estimate)}
    outside = [metric for metric, one in defined.items() if not one.low <= one.estimate <= one.high]
    if outside:
        warnings.append(f"{name}: {', '.join(outside)} outside the interval: mostly noise, in so few cases")
    worst = max((float(one.undefined) for one in defined.values()), default=0.0)
    if worst > MAX_UNDEFINED:
        warnings.append(
            f"{name}: a metric is undefined in {worst:.0%} of the resamples, since groups are small: "
            "its interval is not to be trusted"
        )
    return warnings
