"""Progress bars: there on a terminal, silent elsewhere, and never a change to what is iterated."""

import io
import sys

from medjax.running.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_is_silent_where_stderr_is_no_terminal(capsys):
    assert list(track(3, "sampling")) == [0, 1, 2]
    assert list(track("ab", "sampling")) == ["a", "b"]
    assert list(track(iter("ab"), "sampling")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


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
