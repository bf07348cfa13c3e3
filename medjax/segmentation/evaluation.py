"""nnU-Net's evaluation of predicted labels: counts, Dice and IoU of each label or region, and their means over cases.

    labels = parse_labels(path, content)                               of dataset.json, in io.nnunet_labels
    cases = [case_overlap(prediction, reference, labels.foreground.values(), labels.ignore) for …]
    mean, foreground_mean = mean_metrics(cases)

A structure is a class number, or a region, the tuple of the class numbers that it joins. Surface distances, which
nnU-Net does not give, have their convention in their names: see `medjax.metrics.surface`.

Source: nnU-Net v2 (2.8.1), evaluate_predictions.py.
"""

import json
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Int

from medjax.errors import DataError
from medjax.io.nnunet_labels import Structure
from medjax.metrics.surface import surface_metrics

Metrics = dict[str, float | int]
CaseMetrics = dict[Structure, Metrics]

STEP = 32  # voxels: sides of cropped masks are multiples, so that cases of other sizes are not each compiled anew


def label_numbers(structures: Collection[Structure]) -> set[int]:
    """All labels of some structures."""
    return {number for one in structures for number in (one if isinstance(one, tuple) else (one,))}


def structure_mask(labels: Int[np.ndarray, "*space"], structure: Structure) -> Bool[np.ndarray, "*space"]:
    """Voxels of a label, or of any label of a region."""
    return np.isin(labels, structure) if isinstance(structure, tuple) else labels == structure


def case_overlap(
    prediction: Int[np.ndarray, "*space"],
    reference: Int[np.ndarray, "*space"],
    structures: Collection[Structure],
    ignore: int | None = None,
) -> CaseMetrics:
    """Numbers of voxels TP, FP, FN, TN, n_pred = TP + FP and n_ref = TP + FN; Dice and IoU of each structure.

    Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN), NaN where neither has the structure. Voxels where the
    reference is `ignore` count for nothing.

    Raises:
        DataError: shapes differ.
    """
    if prediction.shape != reference.shape:
        raise DataError(f"prediction: shape {prediction.shape}; the reference has {reference.shape}")
    if ignore is not None:
        prediction, reference = (one[reference != ignore] for one in (prediction, reference))
    out = CaseMetrics()
    for structure in structures:
        predicted, true = structure_mask(prediction, structure), structure_mask(reference, structure)
        tp, p, r = (int(np.count_nonzero(one)) for one in (predicted & true, predicted, true))
        fp, fn = p - tp, r - tp
        dice, iou = (2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)) if p or r else (np.nan, np.nan)
        counts = {"TP": tp, "FP": fp, "FN": fn, "TN": reference.size - tp - fp - fn, "n_pred": p, "n_ref": r}
        out[structure] = {"Dice": dice, "IoU": iou, **counts}
    return out


def case_surface(
    prediction: Int[np.ndarray, "*space"],
    reference: Int[np.ndarray, "*space"],
    structures: Collection[Structure],
    spacing: Sequence[float],
    *,
    tolerance: float,
    ignore: int | None = None,
) -> CaseMetrics:
    """All surface metrics of each structure, distances in mm: hd_mm, hd95_max_mm, …, and nsd_2mm at a tolerance of 2.

    NaN where neither has the structure, infinite distances where one has it, as `surface_metrics`; and all NaN where
    the reference has `ignore`d voxels, at whose border no surface is known.

    Args:
        spacing: voxel size, mm.
        tolerance: tolerance of the normalized surface Dice, mm.
    """
    unknown = ignore is not None and bool((reference == ignore).any())
    out = CaseMetrics()
    for structure in structures:
        one, other = _cropped(structure_mask(prediction, structure), structure_mask(reference, structure), unknown)
        metrics = jax.device_get(surface_metrics(one, other, spacing, tolerance=tolerance))._asdict()
        nsd = metrics.pop("nsd")
        values = {**{f"{name}_mm": value for name, value in metrics.items()}, f"nsd_{tolerance:g}mm": nsd}
        out[structure] = {name: float(value) for name, value in values.items()}
    return out


def mean_metrics(cases: Sequence[CaseMetrics]) -> tuple[CaseMetrics, Metrics]:
    """Mean of each metric over the cases where it is no NaN, of each structure; and the mean of those over structures.

    As in nnU-Net's summary the latter, the foreground mean, is NaN if a structure is in no case.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a structure in no case
        mean = {
            structure: {name: float(np.nanmean([case[structure][name] for case in cases])) for name in metrics}
            for structure, metrics in cases[0].items()
        }
        names = next(iter(mean.values()))
        foreground = {name: float(np.mean([mean[one][name] for one in mean if one != 0])) for name in names}
    return mean, foreground


def summary_text(files: Sequence[tuple[Path, Path | None]], cases: Sequence[CaseMetrics]) -> str:
    """Content of nnU-Net's summary.json, of the files (prediction, reference) and the metrics of each case.

    A structure's key is its number, a region's `(1, 2)`; undefined metrics are `NaN`.
    """

    def keyed(metrics: CaseMetrics) -> dict[str, Metrics]:
        return {str(structure): values for structure, values in metrics.items()}

    mean, foreground_mean = mean_metrics(cases)
    per_case = [
        {"metrics": keyed(case), "prediction_file": str(prediction), "reference_file": str(reference)}
        for (prediction, reference), case in zip(files, cases, strict=True)
    ]
    content = {"foreground_mean": foreground_mean, "mean": keyed(mean), "metric_per_case": per_case}
    return json.dumps(content, indent=4, sort_keys=True)


def _cropped(one: np.ndarray, other: np.ndarray, empty: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both masks in the box of their voxels, padded to a multiple of `STEP`: no surface distance is another there."""
    either = one | other
    if empty or not either.any():
        return (np.zeros((STEP,) * one.ndim, bool),) * 2
    ranges = [np.flatnonzero(either.any(tuple({*range(one.ndim)} - {axis})))[[0, -1]] for axis in range(one.ndim)]
    box = tuple(slice(low, high + 1) for low, high in ranges)
    pad = [(0, -(high + 1 - low) % STEP) for low, high in ranges]
    return np.pad(one[box], pad), np.pad(other[box], pad)
