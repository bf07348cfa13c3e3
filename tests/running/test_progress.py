"""Progress: bars on a terminal, a line now and then elsewhere, and never a change to what is iterated."""

import io
import sys
import time

from medjax.running.progress import report_stage, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_work_is_silent_where_stderr_is_no_terminal(capsys):
    assert list(track(3, "sampling")) == [0, 1, 2]
    assert list(track("ab", "sampling")) == ["a", "b"]
    assert list(track(iter("ab"), "sampling")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_long_work_has_lines_in_a_log(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    assert list(track(6, "sampling")) == [0, 1, 2, 3, 4, 5]
    out, lines = capsys.readouterr()
    assert out == ""
    assert lines.splitlines() == [
        "sampling: 2 of 6, 20 s each, 80 s left",
        "sampling: 4 of 6, 20 s each, 40 s left",
        "sampling: 6 of 6, 20 s each, 0 s left",
    ]
    assert list(track(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "reading: 2, 20 s each\n"
    report_stage("scan", 5.0)
    report_stage("scan", 300.0)
    assert capsys.readouterr() == ("", "scan: finished in 5 min\n")


def test_on_a_terminal_it_names_the_work_and_nests(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert [(a, b) for a in track(2, "epochs") for b in track(iter("xy"), "steps")] == [
        (0, "x"),
        (0, "y"),
        (1, "x"),
        (1, "y"),
    ]
    assert "epochs" in terminal.getvalue() and "0/2" in terminal.getvalue()
    assert capsys.readouterr().out == ""
