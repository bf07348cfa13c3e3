"""Tables in CSV files."""

import csv
from collections import Counter
from pathlib import Path

from medjax.errors import DataError

MISSING = ("", "nan", "na", "n/a", "<na>", "nat", "none", "null")


def read_table(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the rows of a CSV file (UTF-8, with or without a byte-order mark), each a dict by column; at least one row.

    Raises:
        DataError: no such file, not text in UTF-8, no row, not all of these columns, a column that occurs twice, rows
            with fewer or more cells than columns, or cells that are separated by something else than commas.
    """
    expected = f"expected a CSV with columns {', '.join(columns)}" if columns else "expected a CSV"
    if not file.is_file():
        raise DataError(f"{file}: no such file; {expected}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            header = next(reader, list[str]())
            numbered = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as text in UTF-8 ({error}); {expected}") from error
    if len(header) == 1 and (separators := [mark for mark in ";\t" if mark in header[0]]):
        raise DataError(f"{file}: cells separated by {separators[0]!r}; expected commas")
    if twice := [name for name, number in Counter(header).items() if name and number > 1]:
        raise DataError(f"{file}: column '{twice[0]}' occurs more than once; expected one of each name")
    if missing := [name for name in columns if not numbered or name not in header]:
        raise DataError(f"{file}: {len(numbered)} rows, no column {', '.join(missing)}; {expected}")
    if wrong := [(line, len(row)) for line, row in numbered if len(row) != len(header)]:
        line, cells = wrong[0]
        raise DataError(f"{file}: {cells} cells in line {line}; expected {len(header)}, one for each column")
    return [dict(zip(header, row, strict=True)) for _, row in numbered]


def is_missing(cell: str) -> bool:
    """Whether a cell has no value: it is blank, or what programs write for that, such as nan, NA, None or null."""
    return cell.strip().lower() in MISSING
