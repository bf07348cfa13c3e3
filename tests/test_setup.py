"""`scripts/setup`: which environment an accelerator gets, and what is asked of pip; nothing is installed here."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def environment(monkeypatch, accelerator=None):
    """scripts/environment.py as it is read under MEDJAX_ACCELERATOR."""
    monkeypatch.delenv("MEDJAX_ACCELERATOR", raising=False)
    if accelerator is not None:
        monkeypatch.setenv("MEDJAX_ACCELERATOR", accelerator)
    spec = importlib.util.spec_from_file_location("environment", ROOT / "scripts/environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("unset", [None, ""])
def test_without_an_accelerator_it_is_the_cpus(monkeypatch, unset):
    module = environment(monkeypatch, unset)
    assert module.ENVIRONMENT == ROOT / ".venv" / MINOR
    assert module.packages(Path("a.lock"), module.ACCELERATOR) == ["--requirement", "a.lock"]
    assert module.packages(None, module.ACCELERATOR) == ["--editable", ".[data,dev,docs,petsird]"]


@pytest.mark.parametrize("accelerator", ["cuda12", "cuda13", "tpu"])
def test_an_accelerator_has_an_environment_of_its_own(monkeypatch, accelerator):
    cpu, module = environment(monkeypatch), environment(monkeypatch, accelerator)
    assert ROOT / ".venv" / f"{MINOR}-{accelerator}" == module.ENVIRONMENT
    assert {cpu.STAMP, cpu.LOG, cpu.ENVIRONMENT}.isdisjoint({module.STAMP, module.LOG, module.ENVIRONMENT})
    assert cpu.wanted() != module.wanted()  # neither takes the other for its own
    assert module.packages(Path("a.lock"), accelerator) == ["--requirement", "a.lock", f"jax[{accelerator}]"]
    assert module.packages(None, accelerator) == ["--editable", f".[data,dev,docs,petsird,{accelerator}]"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert len(extras[accelerator]) == 1 and extras[accelerator][0].startswith(f"jax[{accelerator}]>=")


@pytest.mark.parametrize("start", [["scripts/setup"], [sys.executable, "scripts/environment.py"]])
def test_another_accelerator_is_refused_in_one_line(start, monkeypatch):
    monkeypatch.setenv("MEDJAX_ACCELERATOR", "gpu")
    monkeypatch.setenv("PYTHON", sys.executable)
    before = set((ROOT / ".venv").glob("*"))
    done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(
        r"setup: MEDJAX_ACCELERATOR=gpu; expected cuda12, cuda13, tpu, or none for the CPU\n", done.stderr
    )
    assert set((ROOT / ".venv").glob("*")) == before
