"""Tables in CSV files: text in UTF-8, cells between commas.

    read_table(Path("scores.csv"), ("name", "score"))       [{"name": "case_1", "score": "0.5"}, …]
    write_csv(path, header, rows)                           in `medjax.atomic`

Spreadsheets take a cell that begins with one of `= + - @`, a tab or a line end for a formula. Such text, of a name say,
is written with an apostrophe before it, which they do not show, and which reading takes off again; numbers stay as they
are.
"""

import csv
import io
from collections import Counter
from pathlib import Path

from medjax.atomic import CONTROLS, text_of_cell
from medjax.errors import DataError
from medjax.io.files import read_text

MISSING = ("", "nan", "na", "n/a", "<na>", "nat", "none", "null")
MAX_COLUMNS = 100_000
SHORT = 60  # characters of a column's name in a message


def read_table(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the rows of a CSV file (UTF-8, with or without a byte-order mark), each a dict by column; at least one row.

    Raises:
        DataError: no such file, not text in UTF-8, no row, not all of these columns, a column that occurs twice, rows
            with fewer or more cells than columns, control characters, or cells that are separated by something else
            than commas.
    """
    expected = f"a CSV with columns {', '.join(columns)}" if columns else "a CSV"
    numbered = _rows(file, expected)
    header = numbered.pop(0)[1] if numbered else []
    if len(header) == 1 and (separators := [mark for mark in ";\t" if mark in header[0]]):
        raise DataError(f"{file}: cells separated by {separators[0]!r}; expected commas")
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{file}: {len(header):,} columns; expected {MAX_COLUMNS:,} at most: {expected}")
    if twice := [name for name, number in Counter(header).items() if name and number > 1]:
        raise DataError(f"{file}: column '{twice[0][:SHORT]}' occurs more than once; expected one of each name")
    if missing := [name for name in columns if not numbered or name not in header]:
        raise DataError(f"{file}: {len(numbered)} rows, no column {', '.join(missing)}; expected {expected}")
    if wrong := [(line, len(row)) for line, row in numbered if len(row) != len(header)]:
        line, cells = wrong[0]
        raise DataError(f"{file}: {cells} cells in line {line}; expected {len(header)}, one for each column")
    return [dict(zip(header, row, strict=True)) for _, row in numbered]


def read_rows(file: Path, expected: str) -> list[list[str]]:
    """Read the rows of a CSV file, its header the first of them; without empty ones.

    Raises:
        DataError: no such file, not text in UTF-8, a cell of more than 2¹⁷ characters, or control characters;
            `expected` describes the file.
    """
    return [row for _, row in _rows(file, expected)]


def _rows(file: Path, expected: str) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, and the numbers of their lines."""
    reader = csv.reader(io.StringIO(read_text(file, expected), newline=""))
    rows = list[tuple[int, list[str]]]()
    try:
        for row in filter(None, reader):
            if odd := [cell for cell in row if CONTROLS.search(cell)]:
                found = f"control characters in line {reader.line_num}, {odd[0][:SHORT]!r}"
                raise DataError(f"{file}: {found}; expected {expected}")
            rows.append((reader.line_num, [text_of_cell(cell) for cell in row]))
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: {error}; expected {expected}") from error
    return rows


def is_missing(cell: str) -> bool:
    """Whether a cell has no value: it is blank, or what programs write for that, such as nan, NA, None or null."""
    return cell.strip().lower() in MISSING
