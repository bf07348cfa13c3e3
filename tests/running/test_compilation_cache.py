"""The compilation cache on disk: damaged entries are replaced without a word; no cache is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import jax, jax.numpy as jnp
from medjax.running.environment import command_process, prepare_process
{prepare}
    print(float(jax.jit(lambda x: jnp.sin(x) + 1)(0.0)))
"""
IN_A_COMMAND = PROGRAM.format(prepare="with command_process():")
IN_AN_EXPERIMENT = PROGRAM.format(prepare="prepare_process()\nif True:")


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    own = kept | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=own, check=False)


@pytest.mark.parametrize("program", [IN_A_COMMAND, IN_AN_EXPERIMENT])
def test_damaged_entries_are_replaced_without_a_word(tmp_path: Path, program: str) -> None:
    """A killed process left them, and every later one warned and compiled anew."""
    entries = lambda: {file.name: file.stat().st_size for file in tmp_path.rglob("*-cache")}  # noqa: E731
    assert run(program, XDG_CACHE_HOME=str(tmp_path)).stdout == "1.0\n"
    whole = entries()
    assert whole
    for file in tmp_path.rglob("*-cache"):
        file.write_bytes(file.read_bytes()[:50])
    again = run(program, XDG_CACHE_HOME=str(tmp_path))
    assert (again.stdout, again.stderr) == ("1.0\n", "")
    assert run(program, XDG_CACHE_HOME=str(tmp_path)).stderr == ""
    now = entries()
    assert now.keys() == whole.keys() and all(size > 50 for size in now.values())


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "medjax").write_text("a file\n")
    found = run(IN_A_COMMAND, XDG_CACHE_HOME=str(tmp_path))
    assert found.stdout == "1.0\n"
    [line] = found.stderr.splitlines()
    assert line.startswith("medjax: no compilation cache (") and line.endswith("programs are compiled anew")
