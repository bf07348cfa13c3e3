"""b-values as FSL and as scanners write them."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.bvalues import read_bvalues


@pytest.mark.parametrize("text", ["0 10 200\n", "0\n10\n200", "0,10,200", "\ufeff0\r\n10\r\n200\n\n", " 0 10 200"])
def test_one_row_or_one_a_line(tmp_path, text):
    file = tmp_path / "dwi.bval"
    file.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_bvalues(str(file)), [0, 10, 200])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("0 ten 20", "cannot be read as numbers"),
        ("1 0 0\n0 1 0\n0 0 1", "3 rows of 3; expected one row or one b-value a line"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    file = tmp_path / "dwi.bval"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_bvalues(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no.bval: no such file"):
        read_bvalues(tmp_path / "no.bval")
