"""Each Python snippet of the README is a program of its own that prints something."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_alone_and_prints(number, tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPETS[number])
    if "runs/flips" in SNIPPETS[number]:  # what the command above it writes
        (tmp_path / "runs" / "flips").mkdir(parents=True)
        methods = ("erm", "balanced", "group_dro", "cutmix")
        metrics = ", ".join(f'"flip_rare/{name}/{rho}": 0.5' for name in methods for rho in (0.5, 0.9))
        (tmp_path / "runs" / "flips" / "metrics.json").write_text(f"{{{metrics}}}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "snippet.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
