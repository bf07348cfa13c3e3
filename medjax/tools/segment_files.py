"""Files of a model folder that are read again: what is damaged is one line that says what to delete.

read_arrays(folder / "fold_0" / "params.npz")      nested dicts of arrays
read_keep(folder / "keep.json", labels)            components to keep of each class or region
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, PyTree

from medjax.errors import DataError, MedjaxError, WorkdirError
from medjax.io.files import read_json_object
from medjax.io.nnunet_labels import DatasetLabels, Structure, structure_text
from medjax.io.nnunet_raw import RawDataset
from medjax.io.tables import read_rows, read_table
from medjax.models.saved_settings import short_repr
from medjax.models.weights import fit_weights
from medjax.running.arrays import load_arrays

EXPECTED = "a file that `medjax segment train` wrote"
DELETE_FOLD = "; delete its fold's folder to train the fold again"


def read_arrays(file: Path) -> PyTree:
    """Arrays of a fold, as nested dicts.

    Raises:
        WorkdirError: the file is missing or damaged; the message tells what to do.
    """
    try:
        return load_arrays(file)
    except MedjaxError as error:
        raise WorkdirError(f"{error}{DELETE_FOLD}") from error


def fit_params(file: Path, params: PyTree, like: PyTree) -> PyTree:
    """Parameters of a fold as `like`: those of the network, and finite.

    Raises:
        WorkdirError: they are others; the message tells what to do.
    """
    try:
        return fit_weights(file, params, like)
    except DataError as error:
        raise WorkdirError(f"{error}{DELETE_FOLD}") from error


def read_older_labels(file: Path) -> Int[np.ndarray, "x y z"]:
    """Predicted labels in an npz file, as older versions wrote them. Raises WorkdirError where it is damaged."""
    labels = read_arrays(file).get("labels")
    if not isinstance(labels, np.ndarray) or labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise WorkdirError(f"{file}: no labels (x, y, z); expected predicted labels{DELETE_FOLD}")
    return labels.astype(np.int32)


def read_progress(file: Path, columns: tuple[str, ...], step: int) -> list[dict[str, Any]]:
    """Rows of a fold's progress.csv up to a step. Raises WorkdirError, which tells what to do, where it is damaged."""
    try:
        rows = read_table(file, columns)
        [float(row[name]) for row in rows for name in columns]
        return [row for row in rows if int(row["step"]) <= step]
    except ValueError as error:
        reason = str(error) if isinstance(error, DataError) else f"{file}: {error}; expected numbers"
        raise WorkdirError(f"{reason}{DELETE_FOLD}") from error


def read_keep(file: Path, labels: DatasetLabels) -> dict[Structure, int] | None:
    """Components to keep; None where there is no such file yet.

    Raises:
        DataError: no object of numbers from 1, by class or region.
    """
    if not file.exists():
        return None
    known, expected = {structure_text(one): one for one in labels.structures.values()}, f"{EXPECTED}: {{class: 1}}"
    content = read_json_object(file, expected)
    for name, count in content.items():
        if name not in known or type(count) is not int or count < 1:
            raise DataError(f"{file}: {short_repr(name)}: {short_repr(count)}; expected a class and a number from 1")
    return {known[name]: count for name, count in content.items()}


def prediction_file(fold: Path, data: RawDataset, number: int) -> Path:
    """File of the prediction of a validation case; folds of older versions have an .npz."""
    file = fold / "validation" / f"{data.training[number].name}{data.ending}"
    older = file.with_name(f"{data.training[number].name}.npz")
    return older if older.is_file() and not file.is_file() else file


def validation_file(folder: Path, fold: int) -> Path:
    """File of the Dice of each validation case of a fold."""
    return folder / f"fold_{fold}" / "validation.csv"


def has_results(folder: Path, fold: int, validation: Sequence[int], data: RawDataset) -> bool:
    """Whether a fold has its parameters, and Dice and prediction of each of its validation cases."""
    file, own = validation_file(folder, fold), folder / f"fold_{fold}"
    needed = [own / "params.npz", own / "best.npz", *(prediction_file(own, data, number) for number in validation)]
    if not (file.is_file() and all(path.is_file() and path.stat().st_size for path in needed)):
        return False
    try:
        header, *rows = read_rows(file, "Dice of each validation case") or [[]]
    except DataError:
        return False  # damaged: they are computed again
    whole = all(len(row) == len(header) for row in rows)
    names = [data.training[number].name for number in validation]
    return whole and header == ["case", *list(data.labels)[1:]] and [row[0] for row in rows] == names


def read_dice(file: Path) -> dict[str, Float[np.ndarray, " structure"]]:
    """Dice of each structure, by case. Raises WorkdirError, which tells what to do, where the file is damaged."""
    rows = read_rows(file, "Dice of each validation case")[1:]
    try:
        return {name: np.array(values, float) for name, *values in rows}
    except ValueError as error:
        raise WorkdirError(f"{file}: {error}; expected numbers{DELETE_FOLD}") from error
