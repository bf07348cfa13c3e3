"""Tables from CSV files: rows by column, and what is no such table."""

import pytest

from medjax.errors import DataError
from medjax.io.tables import is_missing, read_table


def test_rows_by_column(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('image,group,more\na,"1, 2",x\nb,3,y\n')
    rows = read_table(file, ("image", "group"))
    assert [(row["image"], row["group"]) for row in rows] == [("a", "1, 2"), ("b", "3")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.csv: no such file; expected a CSV with columns image, group"),
        ("image,group\n", "a.csv: 0 rows, no column image, group; expected a CSV with columns image, group"),
        ("name,group\na,1\n", "a.csv: 1 rows, no column image; expected"),
        ("image,group\na,1\n\na\n", "a.csv: 1 cells in line 4; expected 2, one for each column"),
        ("image,group\na,1,2\n", "a.csv: 3 cells in line 2; expected 2"),
        ("image,group,more,group\na,1,2,3\n", "a.csv: column 'group' occurs more than once"),
        ("image;group\na;1\n", "a.csv: cells separated by ';'; expected commas"),
        ("image\tgroup\na\t1\n", r"a.csv: cells separated by '\\t'; expected commas"),
        ("image,group\na,é\n".encode("latin-1"), "a.csv: cannot be read as text in UTF-8"),
        ("image,group\na,1\n".encode("utf-16"), "a.csv: cannot be read as text in UTF-8"),
    ],
)
def test_what_is_no_such_table_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.csv", ("image", "group"))


def test_cells_without_a_value():
    assert all(is_missing(cell) for cell in ("", "  ", "nan", "NaN", "NA", "N/A", "None", "null", "<NA>", " NaT"))
    assert not any(is_missing(cell) for cell in ("0", "n", "Nan-Ning", "no", "-"))
