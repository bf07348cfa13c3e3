"""nnU-Net training on files, as in `medjax segment train`: planning, cross-validation, postprocessing.

    result = train(Path("Dataset004_Hippocampus"), Path("model"), fold=0, network=mine)
    np.nanmean(list(result.dice[0].values()), axis=0)            mean Dice of each structure

Folds of one model can be trained in parallel, by processes of their own. `segment_model` describes the folder.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from medjax import defaults
from medjax.atomic import replacing, write_csv, write_text
from medjax.errors import ConfigError, WorkdirError
from medjax.io.digest import content_digest
from medjax.io.nnunet_raw import RawDataset, read_dataset
from medjax.io.tables import read_table
from medjax.models.model import Network
from medjax.models.networks import settings_of
from medjax.report.figures import curves
from medjax.running.arrays import save_arrays
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, open_workdir, save_figure
from medjax.segmentation.nnunet import FOLDS, FoldState, folds, train_resumable_fold
from medjax.segmentation.nnunet_predict import case_dice, determine_postprocessing, foreground_mean_dice, predict_case
from medjax.segmentation.patches import PreparedCase, prepare
from medjax.segmentation.plan import Plan
from medjax.segmentation.resample import Shape
from medjax.tools.checks import as_paths, check_no_overwrite
from medjax.tools.segment_model import DELETE_FOLD, NetworkSource, plan_and_network, prefix_errors, read_arrays
from medjax.tools.segment_planning import axes_text, mirror_setting, plan_dataset, read_training_case

MAX_NUMBER = 3.4e38  # of single precision
MAX_SEED = 2**32 // FOLDS - 1  # seed · FOLDS + fold is below 2³²: JAX takes a larger one for another
COLUMNS = ("epoch", "step", "loss", "pseudo_dice", "ema")


class Training(NamedTuple):
    """Trained folds of a model folder, and their cross-validation."""

    folder: Path
    plan: Plan
    network: Network
    labels: Mapping[str, int]  # class numbers by name
    dice: dict[int, dict[str, Float[np.ndarray, " structure"]]]  # Dice of each validation case, by finished fold
    keep: dict[int, int] | None  # postprocessing: components to keep of each class; None before all folds are there


def train(
    dataset: Path | str,
    output: Path | str,
    *,
    fold: int | str = "all",
    epochs: int = defaults.SEGMENT_EPOCHS,
    iterations: int = defaults.SEGMENT_ITERATIONS,
    rate: float = defaults.SEGMENT_RATE,
    base_width: int = defaults.SEGMENT_WIDTH,
    memory_gb: float = defaults.SEGMENT_MEMORY_GB,
    patch: Shape | None = None,
    mirror: Sequence[int] | None = None,
    seed: int = 0,
    network: NetworkSource = defaults.SEGMENT_NETWORK,
) -> Training:
    """Training of one fold or all into the model folder `output`, resumed if it was stopped.

    Args:
        dataset: folder in nnU-Net's raw layout.
        fold: number, or "all", one after the other.
        epochs: number of epochs of each fold.
        iterations: steps in an epoch.
        rate: learning rate of the first epoch.
        base_width: channels of the finest level.
        memory_gb: accelerator memory to plan for, GB.
        patch: voxels of a patch, overruling the plan.
        mirror: voxel axes that training and prediction mirror; default: all, but for those from left to right if names
            of labels say a side.
        seed: random seed of folds, network weights, patches and augmentation.
        network: name of a built-in one, a Model, or a function of the Plan that makes one.

    Raises:
        ConfigError, DataError: an option or the data cannot be used, or a loss is not finite.
        WorkdirError: `output` holds a model of other settings, data or network, or another process trains that fold.
    """
    dataset, output = as_paths(dataset, output)
    for option, value in (("--rate", rate), ("--memory-gb", memory_gb)):
        if not 0 < value <= MAX_NUMBER:
            raise ConfigError(f"{option} {value:g}; expected a finite number above 0")
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"--seed {seed}; expected 0 to {MAX_SEED}")
    if isinstance(network, str):
        settings_of(network, {})  # an unknown name is refused before all data are read
    data = read_dataset(dataset)
    _check_outputs(output, data)
    parts = folds(len(data.training), seed, min(FOLDS, len(data.training)))
    if fold not in ("all", *range(len(parts))):
        raise ConfigError(f"--fold {fold}; expected 0 to {len(parts) - 1}, or all")
    wanted = range(len(parts)) if isinstance(fold, str) else [fold]
    training: dict[str, Any] = {"seed": seed, "epochs": epochs, "iterations": iterations, "rate": rate}
    planning = {"base_width": base_width, "memory_gb": memory_gb, "patch": patch}
    settings = {**planning, "patch": ",".join(map(str, patch or ())), **training}
    description = _dataset_description(data, {**settings, "mirror": mirror_setting(list(data.labels), mirror)})
    own_plan, model = plan_and_network(
        output, description, network, partial(plan_dataset, data, mirror=mirror, **planning)
    )
    say(_plan_line(own_plan))
    names = [[data.training[k].name for k in validation.tolist()] for _, validation in parts]
    pending = [number for number in wanted if not _is_finished(output, number, names[number], data)]
    for number in sorted(set(wanted) - set(pending)):
        say(f"fold {number}: finished already")
    prepared = [_prepare(data, k, own_plan) for k in track(len(data.training), "preparing")] if pending else []
    for number in pending:
        with open_workdir(output / f"fold_{number}", settings) as work:
            _train_fold(work, model, data, prepared, parts[number], own_plan, number, training)
    finished = [number for number in range(len(parts)) if _is_finished(output, number, names[number], data)]
    keep = _postprocessing(output, data, own_plan, parts) if len(finished) == len(parts) else None
    dice = {number: _read_dice(_validation(output, number)) for number in finished}
    return Training(output, own_plan, model, data.labels, dice, keep)


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
        "channel_names": list(data.channels), "labels": dict(data.labels), "file_ending": data.ending,
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
    own = {**settings, "seed": settings["seed"] * FOLDS + number}  # no fold of another seed is this one again
    folder = work.path
    rows: list[dict[str, Any]] = []

    def resume(step: int) -> None:
        rows.extend(row for row in read_table(folder / "progress.csv", COLUMNS) if int(row["step"]) <= step)
        say(f"fold {number}: continuing after epoch {len(rows)}")

    def report(fold: FoldState, values: dict[str, float | int]) -> None:
        rows.append(values)
        write_csv(folder / "progress.csv", COLUMNS, [[row[name] for name in COLUMNS] for row in rows])

    try:
        last = train_resumable_fold(
            work.checkpoints, model, [prepared[k] for k in training], [prepared[k] for k in validation], own_plan,
            resume=resume, report=report, progress=lambda steps: track(steps, f"fold {number}"), **own,
        )  # fmt: skip
    except WorkdirError as error:
        raise WorkdirError(f"{error}{DELETE_FOLD}") from error
    save_arrays(folder / "params.npz", last.state.params)
    save_arrays(folder / "best.npz", last.best)
    save_figure(work, "progress", _progress_figure(rows))
    scores = [
        _validate(folder, model, last.state.params, data, k, own_plan) for k in track(validation.tolist(), "validating")
    ]
    write_csv(folder / "validation.csv", ("case", *list(data.labels)[1:]), scores)
    mean = foreground_mean_dice(np.array([row[1:] for row in scores], float))
    say(f"fold {number}: Dice {mean:.4f} of {len(scores)} cases, average pseudo-Dice {float(last.ema):.4f}")


def _validate(folder: Path, model: Network, params: PyTree, data: RawDataset, number: int, own_plan: Plan) -> list[Any]:
    """Name and Dice of each structure of a validation case; its prediction is saved for the postprocessing."""
    (case, _), name = read_training_case(data, number), data.training[number].name
    with prefix_errors(data.training[number].images[0]):
        prediction = predict_case(model, [params], case.image, case.spacing, own_plan)
    (folder / "validation").mkdir(exist_ok=True)
    with replacing(folder / "validation" / f"{name}.npz") as file:
        np.savez_compressed(file, labels=prediction.labels.astype(np.min_scalar_type(own_plan.classes - 1)))
    return [name, *case_dice(prediction.labels, case.labels, own_plan.classes).tolist()]


def _postprocessing(
    folder: Path, data: RawDataset, own_plan: Plan, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[int, int]:
    """Postprocessing by cross-validation: structures whose Dice rises if only the largest component is kept."""
    predictions, references = list[np.ndarray](), list[np.ndarray]()
    for fold, (_, validation) in enumerate(parts):
        for number in validation.tolist():
            file = folder / f"fold_{fold}" / "validation" / f"{data.training[number].name}.npz"
            predictions.append(read_arrays(file)["labels"].astype(np.int32))
            references.append(read_training_case(data, number)[0].labels)
    chosen = determine_postprocessing(predictions, references, own_plan.classes)
    write_text(folder / "keep.json", json.dumps({str(kind): count for kind, count in chosen.items()}) + "\n")
    return chosen


def _validation(folder: Path, fold: int) -> Path:
    return folder / f"fold_{fold}" / "validation.csv"


def _is_finished(folder: Path, fold: int, names: Sequence[str], data: RawDataset) -> bool:
    """Whether a fold has its parameters, and Dice and prediction of each of its validation cases."""
    file, own = _validation(folder, fold), folder / f"fold_{fold}"
    needed = [own / "params.npz", own / "best.npz", *(own / "validation" / f"{name}.npz" for name in names)]
    if not (file.is_file() and all(path.is_file() and path.stat().st_size for path in needed)):
        return False
    with file.open(newline="", encoding="utf-8", errors="replace") as text:
        header, *rows = [*csv.reader(text)] or [[]]
    whole = all(len(row) == len(header) for row in rows)
    return whole and header == ["case", *list(data.labels)[1:]] and [row[0] for row in rows] == list(names)


def _read_dice(file: Path) -> dict[str, Float[np.ndarray, " structure"]]:
    with file.open(newline="", encoding="utf-8") as text:
        return {name: np.array(values, float) for name, *values in list(csv.reader(text))[1:]}


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
