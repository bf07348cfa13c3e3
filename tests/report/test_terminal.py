"""The terminal shows what it can, whatever its encoding and whatever a name holds."""

import io
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from medjax.cli import main
from medjax.report.html import Table
from medjax.report.terminal import accept_any_text, print_table, to_ascii

ODD = ("±", "caf\udce9", "名前", "[b]x[/b]", "ρ ≤ 1", "{0}", "$x$", "m²", "\x1b[31mred")


@contextmanager
def terminal(encoding, monkeypatch):
    """Stdout of that encoding; what was written to it afterwards."""
    written, stream = list[str](), io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", stream)
        context.setenv("COLUMNS", "60")
        yield written
    stream.flush()
    written.append(stream.buffer.getvalue().decode(encoding, "replace"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_table_is_printed_in_any_encoding_and_keeps_its_columns(encoding, monkeypatch):
    with terminal(encoding, monkeypatch) as written:
        accept_any_text()
        print_table(Table(["ρ, name", "value", "next"], [[name, k, "x"] for k, name in enumerate(ODD)], "Σ ± caption"))
        print(*ODD)
    lines = written[0].splitlines()
    rows = [line for line in lines if line.rstrip().endswith(" x")]
    assert len(rows) == len(ODD)
    if encoding != "utf-8":
        assert len({line.rstrip().rindex("x") for line in rows}) == 1
        assert "+/-" in rows[0] and "rho <= 1" in rows[4]
    assert "caf\\xe9" in rows[1] and "[b]x[/b]" in rows[3] and "\\x1b[31mred" in rows[8]


def test_symbols_have_words_and_letters_lose_accents():
    assert to_ascii("ρ ± é m² – 名") == "rho +/- e m2 - \\u540d"


def test_help_needs_no_utf8(monkeypatch):
    with terminal("ascii", monkeypatch) as written, pytest.raises(SystemExit, match="0"):
        main(["precision", "--help"])
    assert "alpha" in written[0]


@pytest.mark.parametrize("encoding", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}], ids=str)
def test_the_command_prints_names_in_a_process_of_another_encoding(encoding, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL", "PYTHONIOENCODING")}
    name = os.fsdecode(b"caf\xff \xc3\xa9")
    for arguments in (["experiments"], ["biomarkers", name, "-o", "out"]):
        done = subprocess.run(
            [sys.executable, "-m", "medjax", *arguments], env=environment | encoding, capture_output=True, cwd=tmp_path
        )
        assert b"UnicodeEncodeError" not in done.stderr and b"Traceback" not in done.stderr
        assert done.returncode == (0 if arguments == ["experiments"] else 2), done.stderr
    assert b"caf" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("columns", [20, 40, 60, 80])
def test_a_value_with_its_sd_never_breaks(columns, monkeypatch):
    values = ["0.456 ± 0.030", "0.41 ± 0.02 [0.37, 0.45]", "12.5 ± 1.25", "0.5 ± 0.1"]
    header = ["method of the paper", "foreground flip", "IoU gap, common - rare", "miss", "Dice of all labels"]
    rows = [[name, *values] for name in ("empirical risk minimisation", "group DRO")]
    with terminal("utf-8", monkeypatch) as written:
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(Table(header, rows))
    lines = written[0].splitlines()
    for whole in ("0.456 ± 0.030", "0.41 ± 0.02", "[0.37, 0.45]", "12.5 ± 1.25", "0.5 ± 0.1"):
        assert sum(line.count(whole) for line in lines) == 2, whole
    assert max(map(len, lines)) <= max(columns, 78)
    assert all(word in written[0] for name in header for word in name.split())
