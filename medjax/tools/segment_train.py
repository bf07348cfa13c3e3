"""nnU-Net training on files, as in `medjax segment train`: planning, cross-validation, postprocessing.

    result = train(Path("Dataset004_Hippocampus"), Path("model"), fold=0, network=mine)
    np.nanmean(list(result.dice[0].values()), axis=0)            mean Dice of each structure

Folds of one model can be trained in parallel, by processes of their own. `segment_model` describes the folder.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, PyTree

from medjax import defaults
from medjax.atomic import write_csv, write_text
from medjax.errors import ConfigError, WorkdirError
from medjax.io.digest import content_digest
from medjax.io.nifti import read_nifti
from medjax.io.nnunet_labels import Structure, labels_content, structure_text
from medjax.io.nnunet_raw import RawDataset, read_dataset, write_label_nifti
from medjax.models.model import Network
from medjax.models.networks import settings_of
from medjax.report.figures import curves
from medjax.running.arrays import save_arrays
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, open_workdir, save_figure
from medjax.segmentation.configuration import rules_of
from medjax.segmentation.evaluation import CaseMetrics, case_overlap, summary_text
from medjax.segmentation.nnunet import FoldState, train_resumable_fold
from medjax.segmentation.nnunet_predict import determine_postprocessing, foreground_mean_dice, predict_case
from medjax.segmentation.patches import PreparedCase, prepare
from medjax.segmentation.plan import Plan
from medjax.tools.checks import as_paths, check_no_overwrite
from medjax.tools.segment_files import (
    DELETE_FOLD,
    has_results,
    prediction_file,
    read_dice,
    read_older_labels,
    read_progress,
    validation_file,
)
from medjax.tools.segment_model import NetworkSource, plan_and_network, prefix_errors
from medjax.tools.segment_planning import axes_text, check_numbers, mirror_setting, plan_dataset, read_training_case
from medjax.tools.segment_splits import check_splits, choose_splits, cross_validation_text, write_splits
from medjax.training.parallel import mesh_for_batches

COLUMNS = ("epoch", "step", "loss", "pseudo_dice", "ema")


class Training(NamedTuple):
    """Trained folds of a model folder, and their cross-validation."""

    folder: Path
    plan: Plan
    network: Network
    labels: Mapping[str, Structure]  # class numbers by name, of a region a tuple
    dice: dict[int, dict[str, Float[np.ndarray, " structure"]]]  # Dice of each validation case, by finished fold
    keep: dict[Structure, int] | None  # components to keep of each class or region; None before all folds are there


def train(
    dataset: Path | str,
    output: Path | str,
    *,
    fold: int | str = "all",
    splits: Path | str | None = None,
    epochs: int = defaults.SEGMENT_EPOCHS,
    iterations: int = defaults.SEGMENT_ITERATIONS,
    rate: float = defaults.SEGMENT_RATE,
    base_width: int = defaults.SEGMENT_WIDTH,
    memory_gb: float = defaults.SEGMENT_MEMORY_GB,
    patch: tuple[int, ...] | None = None,
    mirror: Sequence[int] | None = None,
    configuration: str = defaults.SEGMENT_CONFIGURATION,
    seed: int = 0,
    network: NetworkSource = defaults.SEGMENT_NETWORK,
    devices: int = 1,
) -> Training:
    """Training of one fold or all into the model folder `output`, resumed if it was stopped.

    Args:
        dataset: folder in nnU-Net's raw layout.
        fold: number, or "all", one after the other.
        splits: nnU-Net's splits_final.json; default: that of the data set, else five folds drawn from the seed.
        epochs: number of epochs of each fold.
        iterations: steps in an epoch.
        rate: learning rate of the first epoch.
        base_width: channels of the finest level.
        memory_gb: accelerator memory to plan for, GB.
        patch: voxels of a patch, overruling the plan; of 2-D the two sides in the plane are enough.
        mirror: voxel axes that training and prediction mirror; default: all, but for those from left to right if names
            of labels say a side.
        configuration: nnU-Net's "3d_fullres", or "2d": a network of slices.
        seed: random seed of folds, network weights, patches and augmentation.
        network: name of a built-in one, a Model, or a function of the Plan that makes one.
        devices: number of devices that each batch is divided among.

    Raises:
        ConfigError, DataError: an option or the data cannot be used, or a loss is not finite.
        WorkdirError: `output` holds a model of other settings, data or network, or another process trains that fold.
    """
    dataset, output, splits = as_paths(dataset, output, splits)
    check_numbers(epochs, iterations, rate, base_width, memory_gb, patch)
    _check_network(network, configuration)
    mesh_for_batches(devices, devices)  # there are so many
    data = read_dataset(dataset)
    _check_outputs(output, data)
    chosen = choose_splits(data, splits, seed)
    if not (output / "plan.json").is_file():  # else what the model is of is compared first
        check_splits(output, chosen, data)
    parts = chosen.folds
    folds = {"all": range(len(parts)), **{str(number): [number] for number in range(len(parts))}}
    if (wanted := folds.get(str(fold))) is None:
        raise ConfigError(f"--fold {fold}; expected 0 to {len(parts) - 1}, or all")
    training: dict[str, Any] = {"seed": seed, "epochs": epochs, "iterations": iterations, "rate": rate}
    planning = {"base_width": base_width, "memory_gb": memory_gb, "patch": patch}
    settings = {**planning, "patch": ",".join(map(str, patch or ())), **training}
    axes = mirror_setting(list(data.labels), mirror)
    own = {"configuration": configuration, "mirror": axes, "splits": chosen.setting}  # not in folds of older versions
    description = _dataset_description(data, {**settings, **own})
    make_plan = partial(_plan, data, devices, mirror=mirror, configuration=configuration, **planning)
    own_plan, model = plan_and_network(output, description, network, make_plan)
    training["mesh"] = mesh_for_batches(devices, own_plan.batch)
    write_splits(output, chosen, data)
    say(_plan_line(own_plan))
    pending = [number for number in wanted if not has_results(output, number, parts[number][1].tolist(), data)]
    for number in sorted(set(wanted) - set(pending)):
        say(f"fold {number}: finished already")
    prepared = [_prepare(data, k, own_plan) for k in track(len(data.training), "preparing")] if pending else []
    for number in pending:
        with open_workdir(output / f"fold_{number}", settings) as work:
            own_seed = seed * chosen.seeds + number  # no fold of another seed has this one
            _train_fold(work, model, data, prepared, parts[number], own_plan, number, {**training, "seed": own_seed})
    finished = [number for number in range(len(parts)) if has_results(output, number, parts[number][1].tolist(), data)]
    dice = {number: read_dice(validation_file(output, number)) for number in finished}
    keep = None
    if len(finished) == len(parts):
        keep = _postprocessing(output, data, own_plan, parts)
        say(cross_validation_text(dice, len(data.training)))
    return Training(output, own_plan, model, data.labels, dice, keep)


def _plan(data: RawDataset, devices: int, **settings: Any) -> Plan:
    """Plan of a data set, whose batches can be split over the devices: checked before anything is written."""
    made = plan_dataset(data, **settings)
    mesh_for_batches(devices, made.batch)
    return made


def _check_network(network: NetworkSource, configuration: str) -> None:
    """Check names before all data are read. Raises ConfigError, DataError."""
    if isinstance(network, str):
        settings_of(network, {})
    rules_of(configuration)


def _check_outputs(output: Path, data: RawDataset) -> None:
    """Check that no file of the model folder is one of the data set: both have a dataset.json.

    Raises:
        DataError: one is.
    """
    inputs = [path for case in data.training + data.test for path in (*case.images, case.labels)]
    written = [output / name for name in ("plan.json", "dataset.json", "keep.json")]
    check_no_overwrite(written, [data.folder / "dataset.json", *inputs])


def _dataset_description(data: RawDataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Content of dataset.json: what the model is of, down to the contents of its images and labels."""
    files = {case.name: (*case.images, *([case.labels] if case.labels else [])) for case in data.training}
    return {
        "channel_names": list(data.channels), **labels_content(data.naming), "file_ending": data.ending,
        "cases": sorted(files), "settings": dict(settings),
        "digests": {name: content_digest(files[name]) for name in track(sorted(files), "comparing")},
    }  # fmt: skip


def _prepare(data: RawDataset, number: int, own_plan: Plan) -> PreparedCase:
    case, _ = read_training_case(data, number)
    with prefix_errors(data.training[number].images[0]):
        return prepare(case, own_plan)


def _train_fold(
    work: WorkDir,
    model: Network,
    data: RawDataset,
    prepared: Sequence[PreparedCase],
    parts: tuple[np.ndarray, np.ndarray],
    own_plan: Plan,
    number: int,
    settings: dict[str, Any],
) -> None:
    """Train a fold, resumed if it was stopped, and predict its validation cases."""
    training, validation = parts
    folder = work.path
    rows: list[dict[str, Any]] = []

    def resume(step: int) -> None:
        rows.extend(read_progress(folder / "progress.csv", COLUMNS, step))
        say(f"fold {number}: continuing after epoch {len(rows)}")

    def report(fold: FoldState, values: dict[str, float | int]) -> None:
        rows.append(values)
        write_csv(folder / "progress.csv", COLUMNS, [[row[name] for name in COLUMNS] for row in rows])

    try:
        last = train_resumable_fold(
            work.checkpoints, model, [prepared[k] for k in training], [prepared[k] for k in validation], own_plan,
            resume=resume, report=report, progress=lambda steps: track(steps, f"fold {number}"), **settings,
        )  # fmt: skip
    except WorkdirError as error:
        raise WorkdirError(f"{error}{DELETE_FOLD}") from error
    save_arrays(folder / "params.npz", last.state.params)
    save_arrays(folder / "best.npz", last.best)
    save_figure(work, "progress", _progress_figure(rows))
    scores, metrics = list[list[Any]](), list[CaseMetrics]()
    for k in track(validation.tolist(), "validating"):
        predicted, true = _validate(folder, model, last.state.params, data, k, own_plan)
        metrics.append(case_overlap(predicted, true, data.naming.foreground.values(), own_plan.ignore))
        scores.append([data.training[k].name, *(float(one["Dice"]) for one in metrics[-1].values())])
    files = [(prediction_file(folder, data, k), data.training[k].labels) for k in validation.tolist()]
    write_text(folder / "validation" / "summary.json", summary_text(files, metrics))
    write_csv(folder / "validation.csv", ("case", *list(data.labels)[1:]), scores)
    mean = foreground_mean_dice(np.array([row[1:] for row in scores], float))
    say(f"fold {number}: Dice {mean:.4f} of {len(scores)} cases, average pseudo-Dice {float(last.ema):.4f}")


def _validate(
    folder: Path, model: Network, params: PyTree, data: RawDataset, number: int, own_plan: Plan
) -> tuple[Int[np.ndarray, "x y z"], Int[np.ndarray, "x y z"]]:
    """Predicted and reference labels of a validation case; the prediction is written as nnU-Net's, as NIfTI."""
    case, affine = read_training_case(data, number)
    with prefix_errors(data.training[number].images[0]):
        prediction = predict_case(model, [params], case.image, case.spacing, own_plan)
    (folder / "validation").mkdir(exist_ok=True)
    file = folder / "validation" / f"{data.training[number].name}{data.ending}"
    write_label_nifti(file, prediction.labels, affine, own_plan.classes)
    return prediction.labels, case.labels


def _postprocessing(
    folder: Path, data: RawDataset, own_plan: Plan, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[Structure, int]:
    """Postprocessing by cross-validation: structures whose Dice rises if only the largest component is kept.

    Before it, nnU-Net's summary of all folds is written.
    """
    predictions, references, files = list[np.ndarray](), list[np.ndarray](), list[tuple[Path, Path]]()
    for fold, (_, validation) in enumerate(parts):
        for number in validation.tolist():
            file = prediction_file(folder / f"fold_{fold}", data, number)
            labels = read_older_labels(file) if file.suffix == ".npz" else read_nifti(file).array
            predictions.append(labels.astype(np.int32))
            references.append(read_training_case(data, number)[0].labels)
            known = data.training[number].labels
            assert known is not None  # it was read
            files.append((file, known))
    structures, pairs = [*data.naming.foreground.values()], zip(predictions, references, strict=True)
    metrics = [case_overlap(one, true, structures, own_plan.ignore) for one, true in pairs]
    write_text(folder / "summary.json", summary_text(files, metrics))
    chosen = determine_postprocessing(
        predictions, references, own_plan.classes, structures=structures, ignore=own_plan.ignore
    )
    content = {structure_text(kind): count for kind, count in chosen.items()}
    write_text(folder / "keep.json", json.dumps(content) + "\n")
    return chosen


def _plan_line(own_plan: Plan) -> str:
    mm = " × ".join(f"{side:g}" for side in own_plan.spacing)
    voxels = " × ".join(map(str, own_plan.patch))
    widths = ", ".join(map(str, own_plan.widths))
    mirror = axes_text(own_plan.mirror)
    return f"patches of {voxels} voxels of {mm} mm, {own_plan.batch} a batch; widths {widths}; mirrored along {mirror}"


def _progress_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    column = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}
    series = {"loss": column["loss"], "pseudo-Dice": column["pseudo_dice"], "average pseudo-Dice": column["ema"]}
    return curves(column["epoch"], series, "epoch", "loss, Dice", title="Training")
