"""Tables of biomarkers: read in the order of the first, paired by subject and sample; each mistake is one line."""

from pathlib import Path

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.tools.precision_outputs import file_names
from medjax.tools.sample_tables import pair, parse_names, read_samples, read_truth

TABLE = """\
subject,sample,site,EF
b,10,x,6
b,9,x,5
a,9,y,1
a,10,y,2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def table(text, name="t.csv"):
    Path(name).write_text(text)
    return Path(name)


def test_samples_are_in_the_order_of_their_numbers():
    found = read_samples(table(TABLE))
    assert found.subjects == ["b", "a"] and found.samples == ["9", "10"]
    assert list(found.values) == ["EF"]  # the site has no number
    np.testing.assert_array_equal(found.values["EF"], [[5, 6], [1, 2]])
    np.testing.assert_array_equal(read_samples(table(TABLE), number=1).values["EF"], [[5], [1]])


def test_pairs_are_matched_by_subject_and_sample():
    other = table("subject,sample,EF\na,9,10\na,10,20\nb,9,50\nb,10,60\n", "u.csv")
    found = pair(read_samples(table(TABLE)), read_samples(other))
    assert found.subjects == ["b", "a"] and not found.warnings
    np.testing.assert_array_equal(found.rescan["EF"], 10 * found.scan["EF"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,sample\na,1\n", r"columns subject, sample, none with numbers; expected biomarkers"),
        ("name,EF\na,1\n", r"no column subject"),
        ("subject,sample,EF\n", r"0 rows, no column subject"),
        ("subject,sample,EF\n,1,2\n", r"subject is empty in row 1"),
        ("subject,sample,EF\na,,2\n", r"sample is empty in row 1"),
        ("subject,sample,EF\na,1,2\na,1,3\n", r"sample '1' of subject 'a' occurs 2 times; expected one row"),
        ("subject,EF\na,1\na,2\n", r"subject 'a' in 2 rows; expected one row, or a column 'sample'"),
        (
            "subject,sample,EF\na,1,2\na,2,3\nb,1,2\n",
            r"1 sample of subject 'b', 2 of 'a'; expected equal .* --samples 1",
        ),
        (
            "subject,sample,EF\na,1,2\na,2,3\nb,1,2\nb,3,2\n",
            r"subject 'b' has a sample '3', 'a' not",
        ),
        ("subject,sample,EF\na,1,2\na,2,high\n", r"EF 'high' in row 2; expected a finite number"),
        ("subject,sample,EF\na,1,2\na,2,inf\n", r"EF 'inf' in row 2; expected a finite number"),
    ],
)
def test_wrong_tables(text, message):
    with pytest.raises(DataError, match=rf"t\.csv: .*{message}"):
        read_samples(table(text))


def test_columns_and_numbers_that_are_not_there():
    with pytest.raises(DataError, match="no column 'EFF'; did you mean 'EF'"):
        read_samples(table(TABLE), ["EFF"])
    with pytest.raises(DataError, match="site 'x' in row 1; expected a finite number"):
        read_samples(table(TABLE), ["site"])
    with pytest.raises(DataError, match="2 samples of subject 'b'; expected 3 "):
        read_samples(table(TABLE), number=3)
    assert parse_names("--biomarkers", " a, b") == ["a", "b"] and parse_names("--biomarkers", None) is None
    for text in ("a,,b", "a,a"):
        with pytest.raises(ConfigError, match="expected different names of columns"):
            parse_names("--biomarkers", text)


ONE = "subject,sample,EF\na,1,5\na,2,6\nb,1,7\nb,2,8\n"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ONE.replace("b,", "c,"), "subject 'b' only in t.csv, subject 'c' only in u.csv; expected the same subjects"),
        (
            "subject,EF\na,5\nb,6\n",
            "u.csv: no column 'sample', which t.csv has; expected two tables of samples, or two",
        ),
        ("subject,sample,EF\na,1,5\nb,1,6\n", "2 and 1 sample a subject; expected equal .* or --samples 1"),
        (ONE.replace(",2,", ",3,"), "samples '2' and '3'; expected the same names, by which they are paired"),
        (ONE.replace("EF", "MASS"), "biomarkers EF and MASS; expected common ones"),
        (
            ONE.replace("b,2,8", "b,2,"),
            "u.csv: EF: missing values of subject 'b'; expected numbers, or --drop-incomplete",
        ),
        (ONE.replace("b,2,8", "b,2,NaN"), "u.csv: EF: missing values of subject 'b'"),
    ],
)
def test_tables_that_are_no_pair(other, message):
    with pytest.raises(DataError, match=message):
        pair(read_samples(table(ONE)), read_samples(table(other, "u.csv")))


def test_a_biomarker_of_one_table_only():
    wide = table("subject,sample,EF,MASS\na,1,5,1\na,2,6,1\nb,1,7,1\nb,2,8,1\n", "u.csv")
    with pytest.raises(DataError, match=r"t\.csv: no numbers in a column 'MASS', which u\.csv has; .* --biomarkers EF"):
        pair(read_samples(table(ONE)), read_samples(wide))
    assert list(pair(read_samples(table(ONE)), read_samples(wide, ["EF"])).scan) == ["EF"]


def test_no_common_subject_is_refused_in_any_case():
    other = read_samples(table(ONE.replace("a,", "x,").replace("b,", "y,"), "u.csv"))
    with pytest.raises(DataError, match=r"subjects 'a', 'b' only in t\.csv"):
        pair(read_samples(table(ONE)), other, drop_incomplete=True)


def test_true_values():
    found = read_truth(table("subject,EF,MASS\nb,2,\nz,3,1\na,1,9\n"), ["a", "b"], ["EF", "MASS", "SV"])
    np.testing.assert_array_equal(found["EF"], [1, 2])
    np.testing.assert_array_equal(found["MASS"], [9, np.nan])
    assert "SV" not in found
    for text, message in (
        (ONE, "a column 'sample'; expected one row of true values"),
        ("subject,EF\na,1\n", "lacks subject 'b'; expected the true values of every subject"),
        ("subject,MASS\na,1\nb,1\n", "true values of MASS; expected some of EF"),
    ):
        with pytest.raises(DataError, match=message):
            read_truth(table(text), ["a", "b"], ["EF"])


def test_names_of_files_are_different():
    assert file_names(["LVM_g/m²", "LVM g/m²", "EF", "ef"]) == {
        "LVM_g/m²": "LVM_g_m²", "LVM g/m²": "LVM_g_m²_2", "EF": "EF", "ef": "ef_2"
    }  # fmt: skip
