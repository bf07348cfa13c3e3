"""Tables from CSV files: rows by column, and what is no such table."""

import csv
import io

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medjax.atomic import write_csv
from medjax.errors import DataError
from medjax.io.tables import is_missing, read_rows, read_table


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
        ("image,group\na,é\n".encode("latin-1"), "a.csv: line 2 is not UTF-8"),
        (
            "image,group\na,1\n".encode("utf-16"),
            "a.csv: text in UTF-16; expected a CSV with columns image, group in UTF-8",
        ),
        (b"", "a.csv: 0 rows, no column image"),
        (b"image,group\na,\0\n", "a.csv: binary"),
        (b"image,group\na,\x1b[31m\n", "a.csv: control characters in line 2"),
        ("image,group\na," + "9" * 200_000, "a.csv: line 2: field larger than field limit"),
        ('image,group\na,"' + "9\n" * 200_000, "a.csv: line .*: field larger than field limit"),
        ("image," * 1_000_000 + "group\na,1\n", "a.csv: 1,000,001 columns; expected 100,000 at most"),
    ],
)
def test_what_is_no_such_table_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.csv", ("image", "group"))


def test_line_ends_and_byte_order_marks(tmp_path):
    for end in ("\n", "\r", "\r\n"):
        (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + f"image,group{end}a,1{end}".encode())
        assert read_table(tmp_path / "a.csv", ("image", "group")) == [{"image": "a", "group": "1"}]


TEXTS = [
    "=1+1",
    "+a",
    "-a",
    "@SUM(A1)",
    "\ta",
    "\n=a",
    "'=a",
    "''=a",
    "'a",
    "a=b",
    "",
    "'",
    "a,b",
    'a"b',
    "größe",
]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=4), max_size=3).map(tuple))
@example(tuple(TEXTS))
def test_texts_are_written_so_that_spreadsheets_compute_nothing_and_read_as_they_were(tmp_path, texts):
    file = tmp_path / "a.csv"
    write_csv(file, ["text", "number"], [[text, -1.5] for text in texts])
    written = [*csv.reader(io.StringIO(file.read_bytes().decode(), newline=""))][1:]
    assert not any(row[0].startswith(("=", "@", "\t", "\r", "\n")) for row in written)
    assert read_rows(file, "texts") == [["text", "number"], *([text, "-1.5"] for text in texts)]


def test_numbers_as_text_stay_and_control_characters_are_escaped(tmp_path):
    write_csv(
        tmp_path / "a.csv", ["a"], [["-1.5"], ["+2"], ["-inf"], ["-"], ["-1e-3"], ["\x1b[31m"], ["\ra"], ["\udcff"]]
    )
    lines = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert lines == ["-1.5", "+2", "-inf", "-", "-1e-3", "\\x1b[31m", "\\x0da", "\\udcff"]


def test_cells_without_a_value():
    assert all(is_missing(cell) for cell in ("", "  ", "nan", "NaN", "NA", "N/A", "None", "null", "<NA>", " NaT"))
    assert not any(is_missing(cell) for cell in ("0", "n", "Nan-Ning", "no", "-"))
