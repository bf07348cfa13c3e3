"""Tables in CSV files."""

import csv
from pathlib import Path

from medjax.errors import DataError


def read_table(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the rows of a CSV file, each a dict by column; at least one row.

    Raises:
        DataError: no such file, no row, or not all of these columns.
    """
    expected = f"expected a CSV with columns {', '.join(columns)}"
    if not file.is_file():
        raise DataError(f"{file}: no such file; {expected}")
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    missing = [name for name in columns if not rows or rows[0].get(name) is None]
    if missing:
        raise DataError(f"{file}: {len(rows)} rows, no column {', '.join(missing)}; {expected}")
    return rows
