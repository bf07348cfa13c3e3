"""Tables of predictions, labels and attributes, as `medjax shortcuts fairness` reads them: checked, and as arrays."""

import math
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from medjax.errors import ConfigError, DataError
from medjax.io.tables import is_missing, read_table
from medjax.running.config import did_you_mean

MAX_GROUPS = 20


class Columns(NamedTuple):
    """Names of the columns of a table; None for those that it lacks."""

    label: str
    attributes: Sequence[str]
    score: str | None = None
    prediction: str | None = None
    subject: str | None = None
    id: str | None = None
    positive: str | None = None  # value of the label and the prediction that is the positive class; None: 1 of 0 and 1


class Attribute(NamedTuple):
    """Groups of an attribute, and the number of each case's."""

    groups: list[str]
    index: Int[np.ndarray, " case"]


class Predictions(NamedTuple):
    """Content of a table."""

    label: Int[np.ndarray, " case"]  # 0 or 1
    score: Float[np.ndarray, " case"] | None
    prediction: Int[np.ndarray, " case"] | None  # 0 or 1
    attributes: dict[str, Attribute]
    subject: Shaped[np.ndarray, " case"] | None
    ids: list[str] | None
    classes: frozenset[str]  # the values of label and prediction


def read_predictions(file: Path, columns: Columns) -> Predictions:
    """Read and check a table.

    Raises:
        ConfigError: neither a score nor a prediction, or no attribute is named.
        DataError: no such file or column (the nearest one is suggested), no row, a missing value, a score that is no
            finite number, labels and predictions that are not two classes, ids that occur twice, or an attribute
            of one group or of more than `MAX_GROUPS`.
    """
    if columns.score is None and columns.prediction is None:
        raise ConfigError("--score, --prediction: neither; expected a column of scores or of predicted classes")
    if not columns.attributes:
        raise ConfigError("--attribute: none; expected a column of groups, such as --attribute sex")
    rows = _rows(file)
    cells = {name: _column(file, rows, name) for name in _names(columns)}
    _check_ids(file, columns.id, cells)
    label = _classes(file, columns.label, cells[columns.label], columns.positive)
    known = {*cells[columns.label]}
    prediction = None
    if (name := columns.prediction) is not None:
        prediction = _classes(file, name, cells[name], columns.positive, known)
        known |= {*cells[name]}
    return Predictions(
        label,
        None if columns.score is None else _scores(file, columns.score, cells[columns.score]),
        prediction,
        {name: _attribute(file, name, cells[name]) for name in columns.attributes},
        None if columns.subject is None else np.array(cells[columns.subject]),
        None if columns.id is None else cells[columns.id],
        frozenset(known),
    )


def read_baseline(file: Path, columns: Columns, of: Predictions) -> Predictions:
    """Read the predictions of another model, in the order of the cases `of` the first one, matched by id.

    Labels, attributes and subjects are the first table's; where the file has them too they must agree.

    Raises:
        ConfigError: there is no column of ids.
        DataError: as `read_predictions`; ids that only one table has, or labels, attributes or subjects that differ.
    """
    if columns.id is None or of.ids is None:
        raise ConfigError("--compare: no column of ids; expected --id, by which the rows of both tables are matched")
    rows = _rows(file)
    needed = [name for name in (columns.id, columns.score, columns.prediction) if name is not None]
    cells = {name: _column(file, rows, name) for name in needed}
    _check_ids(file, columns.id, cells)
    row_of = {one: k for k, one in enumerate(cells[columns.id])}
    for what, these, those in (("lacks", of.ids, row_of), ("has also", row_of, {*of.ids})):
        if alone := [one for one in these if one not in those]:
            raise DataError(f"{file}: {what} {len(alone)} ids, such as '{alone[0]}'; expected the same cases")
    order = [row_of[one] for one in of.ids]
    for name in (columns.label, *columns.attributes, columns.subject):
        if name is not None and name in rows[0]:
            values = _column(file, rows, name)
            found = _classes(file, name, values, columns.positive) if name == columns.label else np.array(values)
            if not (same := found[order] == _expected(of, columns, name)).all():
                first = of.ids[int(np.argmin(same))]
                raise DataError(f"{file}: another {name} for id '{first}'; expected the same cases")
    score = None if (name := columns.score) is None else _scores(file, name, cells[name])[order]
    prediction = (
        None
        if (name := columns.prediction) is None
        else _classes(file, name, cells[name], columns.positive, of.classes)[order]
    )
    return of._replace(score=score, prediction=prediction)


def _expected(of: Predictions, columns: Columns, name: str) -> np.ndarray | None:
    """Values of a column of the first table: classes of the label, else text."""
    if name == columns.label:
        return of.label
    if name not in of.attributes:
        return of.subject
    groups, index = of.attributes[name]
    return np.array(groups)[index]


def _names(columns: Columns) -> list[str]:
    several = (columns.label, columns.score, columns.prediction, columns.subject, columns.id, *columns.attributes)
    return [name for name in several if name is not None]


def _rows(file: Path) -> list[dict[str, str]]:
    rows = read_table(file, ())
    if not rows:
        raise DataError(f"{file}: no row; expected a CSV with one row for each case")
    return rows


def _column(file: Path, rows: list[dict[str, str]], name: str) -> list[str]:
    if name not in rows[0]:
        hint = did_you_mean(name, list(rows[0])) or f"; expected one of {', '.join(rows[0])}"
        raise DataError(f"{file}: no column '{name}'{hint}")
    values = [row[name].strip() for row in rows]
    if empty := [k for k, value in enumerate(values) if is_missing(value)]:
        found = f"{name} is {values[empty[0]] or 'empty'} in {len(empty)} rows, first in line {empty[0] + 2}"
        raise DataError(f"{file}: {found}; expected a value")
    return values


def _check_ids(file: Path, name: str | None, cells: dict[str, list[str]]) -> None:
    if name is not None and len({*cells[name]}) < len(cells[name]):
        twice = Counter(cells[name]).most_common(1)[0][0]
        raise DataError(f"{file}: {name} '{twice}' occurs more than once; expected one row for each case")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _scores(file: Path, name: str, values: list[str]) -> Float[np.ndarray, " case"]:
    numbers = np.array([_number(value) for value in values])
    if not np.isfinite(numbers).all():
        first = int(np.argmin(np.isfinite(numbers)))
        raise DataError(f"{file}: {name} '{values[first]}' in line {first + 2}; expected a finite number")
    return numbers


def _classes(
    file: Path, name: str, values: list[str], positive: str | None, others: Set[str] = frozenset()
) -> Int[np.ndarray, " case"]:
    """1 where a cell is the positive class, else 0; by name, cells and `others`, the values of the label, are two."""
    if positive is not None:
        known = sorted({*values} | others)
        if positive not in known or len(known) > 2:
            found = ", ".join(known[:6]) + (", …" if len(known) > 6 else "")
            source = f"{name} and the label have" if others else f"{name} has"
            raise DataError(f"{file}: {source} the values {found}; expected {positive} (--positive) and one other")
        return np.array([value == positive for value in values]).astype(int)
    numbers = np.array([_number(value) for value in values])
    if not (binary := np.isin(numbers, (0, 1))).all():
        first = int(np.argmin(binary))
        found = f"{name} '{values[first]}' in line {first + 2}"
        raise DataError(f"{file}: {found}; expected 0 and 1, or --positive VALUE for the name of the positive class")
    return numbers.astype(int)


def _attribute(file: Path, name: str, values: list[str]) -> Attribute:
    groups = sorted({*values}, key=lambda value: (_number(value) if math.isfinite(_number(value)) else math.inf, value))
    if not 2 <= len(groups) <= MAX_GROUPS:
        found = f"{len(groups)} different values ({', '.join(groups[:3])}{', …' if len(groups) > 3 else ''})"
        raise DataError(f"{file}: {name} has {found}; expected 2 to {MAX_GROUPS} groups, such as bins of a number")
    number = {group: k for k, group in enumerate(groups)}
    return Attribute(groups, np.array([number[value] for value in values]))
