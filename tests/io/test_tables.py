"""Tables from CSV files: rows by column, and what is no such table."""

import pytest

from medjax.errors import DataError
from medjax.io.tables import read_table


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
        ("image,group\na\n", "a.csv: 1 rows, no column group; expected"),
    ],
)
def test_what_is_no_such_table_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.csv", ("image", "group"))
