"""Evaluation of predicted label images on files, as in `medjax segment evaluate`: nnU-Net's summary.json.

    result = evaluate(Path("predicted"), Path("labelsTs"), Path("summary.json"), dataset=Path("dataset.json"))
    result.foreground_mean["Dice"]
    for one in tables(result):
        print_table(one)

The file equals that of nnUNetv2_evaluate_folder byte for byte; with surface metrics they are more keys in it.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from medjax import defaults
from medjax.atomic import write_text
from medjax.errors import DataError
from medjax.io.files import real_path
from medjax.io.grids import check_same_grid
from medjax.io.label_images import list_files, read_labels
from medjax.io.nifti import voxel_mm
from medjax.io.nnunet_labels import Structure
from medjax.report.html import Table
from medjax.running.progress import say, track
from medjax.segmentation.evaluation import (
    CaseMetrics,
    Metrics,
    case_overlap,
    case_surface,
    label_numbers,
    mean_metrics,
    summary_text,
)
from medjax.tools.checks import as_paths, check_no_overwrite, check_output, check_range
from medjax.tools.segment_labels import Labels, choose_labels, find_description
from medjax.tools.segment_outputs import RECORD

MAX_LABEL = 2**16 - 1


class Evaluation(NamedTuple):
    """Metrics of every case, and their means as in nnU-Net's summary."""

    structures: dict[str, Structure]  # labels and regions by name
    files: list[tuple[Path, Path]]  # prediction and reference of each case
    metrics: list[CaseMetrics]  # of each case
    mean: CaseMetrics  # over the cases that have the structure
    foreground_mean: Metrics  # over the structures, of their means


def evaluate(
    predictions: Path | str,
    references: Path | str,
    output: Path | str | None = None,
    *,
    dataset: Path | str | None = None,
    labels: Sequence[str] | None = None,
    ignore: int | None = None,
    chill: bool = False,
    surface: bool = False,
    tolerance: float = defaults.SEGMENT_TOLERANCE_MM,
) -> Evaluation:
    """Metrics of the label images of one folder against those of the same names in another.

    Args:
        predictions: folder of predicted label images, NIfTI or PNG.
        references: folder of reference label images, such as labelsTr.
        output: nnU-Net's summary.json to write; None: nothing is written.
        dataset: dataset.json (or its folder) that names labels and regions; default: that beside `references`.
        labels: labels and regions to evaluate, by name or number; default: all of dataset.json, without which any are.
        ignore: label of the reference whose voxels count for nothing; default: "ignore" of dataset.json.
        chill: leave out references without a prediction, as nnU-Net's --chill.
        surface: also surface metrics, in mm.
        tolerance: tolerance of the normalized surface Dice, mm.

    Raises:
        ConfigError, DataError: an option cannot be used; a case without its other image; grids that differ; an image
            that cannot be read, or has a label that dataset.json lacks; an output that is an input.
    """
    predictions, references, output, dataset = as_paths(predictions, references, output, dataset)
    check_range("--tolerance", tolerance, 0, 1000)
    if ignore is not None:
        check_range("--ignore", ignore, 0, MAX_LABEL)
    description = find_description(references, dataset)
    chosen = choose_labels(description, labels, ignore)
    if dataset is None and description is not None:
        say(f"labels of {description}")
    files = _pair(predictions, references, chosen.endings, chill)
    if output is not None:
        check_output(output, (".json",))
        read = [file for pair in files for file in pair]
        check_no_overwrite([output], [predictions / RECORD, description, *read])
    cases, others = list[CaseMetrics](), set[int]()
    for prediction, reference in track(files, "evaluating"):
        predicted, true, spacing = _read(prediction, reference, surface)
        others |= _other_labels(prediction, reference, predicted, true, chosen)
        of = predicted, true, chosen.structures.values()
        case = case_overlap(*of, chosen.ignore)
        more = case_surface(*of, spacing, tolerance=tolerance, ignore=chosen.ignore) if surface else CaseMetrics()
        cases.append({structure: {**values, **more.get(structure, {})} for structure, values in case.items()})
    result = Evaluation(chosen.structures, files, cases, *mean_metrics(cases))
    _warn(result, others)
    if output is not None:
        write_text(output, summary_text(files, cases))
    return result


def tables(result: Evaluation) -> list[Table]:
    """Tables of an evaluation: means of Dice and IoU; and medians of surface metrics, infinite ones counted, if any."""
    rows = list[list[Any]]()
    for name, structure in result.structures.items():
        mean = result.mean[structure]
        rows.append([name, str(structure), _values(result, structure, "Dice").size, mean["Dice"], mean["IoU"]])
    foreground = result.foreground_mean
    rows.append(["foreground mean", "", len(result.files), foreground["Dice"], foreground["IoU"]])
    overlap = Table(["structure", "label", "cases", "Dice", "IoU"], rows)
    if not (surface := [name for name in foreground if name.startswith(("hd", "assd", "nsd"))]):
        return [overlap]
    medians = [
        [name, *(_median(_values(result, structure, metric)) for metric in surface)]
        for name, structure in result.structures.items()
    ]
    header = ["structure", *(name.removesuffix("_mm").replace("_", " ") for name in surface)]
    return [overlap, Table(header, medians, "Surface metrics: medians over cases, distances in mm")]


def _median(values: Float[np.ndarray, " case"]) -> float:
    return float(np.median(values)) if values.size else np.nan


def _values(result: Evaluation, structure: Structure, metric: str) -> Float[np.ndarray, " case"]:
    """Values of a metric that are no NaN."""
    values = np.array([case[structure][metric] for case in result.metrics], float)
    return values[~np.isnan(values)]


def _pair(predictions: Path, references: Path, endings: tuple[str, ...], chill: bool) -> list[tuple[Path, Path]]:
    """Prediction and reference of each case, in the order of the files' names."""
    for folder in (predictions, references):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one of label images")
    if real_path(predictions) == real_path(references):
        raise DataError(f"{predictions}: predictions and labels are one folder; expected two")
    predicted, true = list_files(predictions, endings), list_files(references, endings)
    if odd := [name for name in predicted if name not in true]:
        raise DataError(f"{references}: no {odd[0]}, which {predictions} has; expected the labels of every prediction")
    if left := [name for name in true if name not in predicted]:
        if not chill:
            raise DataError(
                f"{predictions}: no {left[0]}, which {references} has; expected all {len(true)}, or --chill for the "
                f"{len(predicted)} that are there"
            )
        warnings.warn(f"{len(left)} of {len(true)} cases have no prediction and are left out, {left[0]}", stacklevel=3)
    return [(file, true[name]) for name, file in predicted.items()]


def _read(prediction: Path, reference: Path, surface: bool) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Prediction, reference, and voxel size in mm."""
    (predicted, affine), (true, true_affine) = read_labels(prediction), read_labels(reference)
    check_same_grid(prediction, predicted.shape, affine, reference, true.shape, true_affine)
    if surface and true_affine is None:
        raise DataError(f"--surface: {reference} has no voxel size; expected NIfTI, for distances in mm")
    return predicted, true, () if true_affine is None else voxel_mm(true_affine)[: true.ndim]


def _other_labels(
    prediction: Path, reference: Path, predicted: np.ndarray, true: np.ndarray, chosen: Labels
) -> set[int]:
    """Labels of a case that are not evaluated, which are background then.

    Raises:
        DataError: one is not in dataset.json; an ignored voxel may have any.
    """
    counted = slice(None) if chosen.ignore is None else true != chosen.ignore
    others = set[int]()
    for file, labels in ((prediction, predicted), (reference, true)):
        there = set(np.unique(labels[counted]).tolist())
        if chosen.known is not None and (odd := sorted(there - chosen.known)):
            raise DataError(f"{file}: label {odd[0]}; expected {_listed(chosen.known)}, of dataset.json")
        others |= there - label_numbers(chosen.structures.values()) - {0}
    return others


def _warn(result: Evaluation, others: set[int]) -> None:
    """Warn of what the numbers do not show."""
    if others:
        warnings.warn(f"labels that are not evaluated count as background: {_listed(others)}", stacklevel=3)
    rows = [[one for one in case.values() if one["n_pred"] or one["n_ref"]] for case in result.metrics]
    if unseen := sum(any(np.isnan(one.get("hd_mm", 0)) for one in row) for row in rows):
        warnings.warn(
            f"{unseen} of {len(rows)} cases have ignored voxels, at whose border no surface is known: their surface "
            "metrics are NaN",
            stacklevel=3,
        )
    absent = [name for name, one in result.structures.items() if np.isnan(result.mean[one]["Dice"])]
    rest = [result.mean[one]["Dice"] for name, one in result.structures.items() if name not in absent]
    if absent and rest:
        warnings.warn(
            f"{', '.join(absent)}: in no case, so that the foreground mean is NaN, as nnU-Net's; without: Dice "
            f"{np.mean(rest):.4f}",
            stacklevel=3,
        )


def _listed(labels: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(labels)))
