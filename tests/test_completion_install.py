"""`medjax --install-completion` writes what bash, zsh and fish read, and the shells that are here complete by it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {  # what is written, and the user's file that reads it
    "bash": (".bash_completions/medjax.sh", ".bashrc"),
    "zsh": (".zfunc/_medjax", ".zshrc"),
    "fish": (".config/fish/completions/medjax.fish", None),
}
QUESTION = {  # how each shell asks for the rest of `medjax ivi`
    "bash": {"COMP_WORDS": "medjax ivi", "COMP_CWORD": "1"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "medjax ivi"},
    "fish": {"_TYPER_COMPLETE_ARGS": "medjax ivi", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}
TYPED = {  # what a shell does at Tab after `medjax ivi`
    "bash": "source ~/.bashrc; COMP_WORDS=(medjax ivi); COMP_CWORD=1; _medjax_completion medjax; echo ${COMPREPLY[@]}",
    "zsh": "compdef() { }; _arguments() { print -r -- $@ }; words=(medjax ivi); CURRENT=2; source ~/.zfunc/_medjax; "
    "_medjax_completion",  # as its completion does, which has no session to type in
    "fish": "source ~/.config/fish/completions/medjax.fish; complete -C 'medjax ivi'",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own, with `medjax` on the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "medjax").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m medjax "$@"\n')
    (tmp_path / "bin" / "medjax").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ZDOTDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def process(*command, **variables):
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=120)


def install(shell):
    """As that shell does, whose name is otherwise that of the parent process."""
    done = process("medjax", "--install-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("shell", FILES)
def test_the_script_of_each_shell_is_installed_and_asks_what_is_answered(home, shell):
    script, reader = FILES[shell]
    assert f"{shell} completion installed in {home / script}" in install(shell).stdout
    text = (home / script).read_text()
    assert f"_MEDJAX_COMPLETE=complete_{shell}" in text and "medjax" in text
    if reader:
        before = (home / reader).read_text()
        assert Path(script).parent.name in before
        install(shell)
        assert (home / reader).read_text().split() == before.split()  # once
    found = process("medjax", _MEDJAX_COMPLETE=f"complete_{shell}", **QUESTION[shell])
    assert "ivim" in found.stdout and "pet" not in found.stdout and found.stderr == ""


@pytest.mark.parametrize("shell", FILES)
def test_the_shell_itself_completes(home, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    install(shell)
    done = process(shell, "-c", TYPED[shell], TERM="dumb")
    assert "ivim" in done.stdout, done.stdout + done.stderr
