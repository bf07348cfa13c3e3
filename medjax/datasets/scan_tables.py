"""Scans of a table: CSV files of demographics and diagnoses and a folder of NIfTI files, columns as arguments.

    races = read_table(race, ("subject_id", "PTRACCAT"))
    rows = join(read_table(report, ("Subject",)), "Subject", races, "subject_id", ("PTRACCAT",))
    read_scans(report, rows, folder, "**/{Image Data ID}_*.nii*", id="Image Data ID", subject="Subject",
               label=by_value("Group", {"CN": 0, "AD": 1}), attribute=by_value("Sex", {"F": 0, "M": 1}))

`adni`, `oasis3` and `hcp` name the published columns; any other data set is read by `read_scans` in the same way.
"""

import fnmatch
import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medjax.datasets.image_list import CodedColumn, ImageList, Row, number, plain, to_list
from medjax.errors import DataError
from medjax.io.tables import is_missing

COLUMN = re.compile(r"\{([^{}]*)\}")  # in a pattern of files
Cells = Mapping[str, str]  # of a row, by column
REASONS = (  # for which a row is left out
    "without a subject", "without a class", "of subjects that change", "outside the ages", "without a file",
    "of a visit twice",
)  # fmt: skip


def join(
    rows: Sequence[Cells], key: str, others: Iterable[Cells], other_key: str, columns: tuple[str, ...]
) -> list[dict[str, str]]:
    """Rows with `columns` of another table of one or more rows a subject, found by its column `other_key`.

    A subject that it does not have, or has with different values (two races, say), gets an empty one; cells without a
    value say nothing.
    """
    known: dict[str, dict[str, set[str]]] = {}
    for row in _stripped(others):
        own = known.setdefault(row[other_key], {column: set() for column in columns})
        for column in columns:
            if not is_missing(row[column]):
                own[column].add(plain(row[column]))
    unique = {
        subject: {column: min(values) if len(values) == 1 else "" for column, values in own.items()}
        for subject, own in known.items()
    }
    nothing = dict.fromkeys(columns, "")
    return [{**row, **unique.get(row[key], nothing)} for row in _stripped(rows)]


def read_scans(
    table: Path,
    rows: Sequence[Cells],
    folder: Path,
    file: str,
    *,
    id: str,
    subject: str,
    label: CodedColumn,
    attribute: CodedColumn,
    visit: str | None = None,
    age: str | None = None,
    ages: tuple[float | int, float | int] = (0, float("inf")),
    stable: CodedColumn | None = None,
) -> ImageList:
    """Scans of a table that have a label, an attribute and a file.

    Args:
        table: file of the table, for messages.
        rows: its rows.
        folder: folder of the NIfTI files.
        file: pattern of a row's file below it, columns in braces: "{Subject}/T1w/T1w.nii.gz", "**/{Image ID}_*.nii*".
        id: column of the scan's id.
        subject: column of the subject.
        label: column and codes of the label.
        attribute: column and codes of the attribute.
        visit: column of the visit, of which the first scan with a file is taken; default: all scans.
        age: column of the age in years.
        ages: youngest and oldest age, both included.
        stable: column and codes of which a subject has one class only in all rows of the table: else it is left out;
            a value without a class counts as one of its own.

    Raises:
        DataError: no such column, several files for a row, or nothing left.
    """
    needed = [one for one in (id, subject, label.column, attribute.column, visit, age) if one is not None]
    missing = [name for name in needed if not rows or name not in rows[0]]
    if missing:
        known = ", ".join(rows[0]) if rows else "no row"
        raise DataError(f"{table}: no column {', '.join(missing)}; found {known}")
    rows = _stripped(rows)
    changing = set() if stable is None else _changing(rows, subject, stable)
    files, seen = _files(folder), set[tuple[str, str]]()
    dropped = dict.fromkeys(REASONS, 0)
    found: list[Row] = []
    for row in rows:
        name, years = row[subject], number(row[age]) if age is not None else float("nan")
        y, a = label.code(row[label.column]), attribute.code(row[attribute.column])
        path = None
        if is_missing(name):
            dropped["without a subject"] += 1
        elif y is None or a is None:
            dropped["without a class"] += 1
        elif name in changing:
            dropped["of subjects that change"] += 1
        elif age is not None and not ages[0] <= years <= ages[1]:
            dropped["outside the ages"] += 1
        elif (path := _file_of(row, file, folder, files)) is None:
            dropped["without a file"] += 1
        elif visit is not None and (name, row[visit]) in seen:
            dropped["of a visit twice"] += 1
        else:
            seen.add((name, row[visit] if visit is not None else ""))
            found.append((row[id], name, y, a, path, years))
    return to_list(found, dropped, table)


def _stripped(rows: Iterable[Cells]) -> list[dict[str, str]]:
    """Rows without blanks around values."""
    return [{name: value.strip() for name, value in row.items()} for row in rows]


def _changing(rows: Iterable[Cells], subject: str, column: CodedColumn) -> set[str]:
    """Subjects of more than one class; cells without a value say nothing."""
    classes: dict[str, set[int | None]] = {}
    for row in rows:
        if not is_missing(row[column.column]):
            classes.setdefault(row[subject], set()).add(column.code(row[column.column]))
    return {name for name, own in classes.items() if len(own) > 1}


def _files(folder: Path) -> dict[str, list[Path]]:
    """NIfTI files in and below a folder, by name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one of NIfTI files")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii*")):
        files.setdefault(path.name, []).append(path)
    return files


def _file_of(row: Cells, pattern: str, folder: Path, files: Mapping[str, Sequence[Path]]) -> Path | None:
    if unknown := [column for column in COLUMN.findall(pattern) if column not in row]:
        raise DataError(f"file '{pattern}': no column '{unknown[0]}'; expected columns of the table in braces")
    wanted = COLUMN.sub(lambda found: glob.escape(row[found[1]]), pattern)
    name = wanted.removeprefix("**/")
    if name == wanted or "/" in name:
        matching = sorted(folder.glob(wanted))
    else:  # without a walk through all folders for each row
        matching = [path for one in fnmatch.filter(files, name) for path in files[one]]
    if len(matching) > 1:
        two = " and ".join(str(path.relative_to(folder)) for path in matching[:2])
        raise DataError(f"{folder}: {two} both match {wanted}; expected one file for each scan")
    return matching[0] if matching else None
