"""`medjax new`: copies of the experiments run anywhere, the template too, and nothing is overwritten."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.errors import ConfigError, DataError, MedjaxError
from medjax.tools.new_experiment import new_experiment

ROOT = Path(__file__).parents[1]
PAPERS = runpy.run_path(str(ROOT / "experiments" / "__init__.py"))["PAPERS"]


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


def test_a_copy_of_each_experiment_can_be_imported_and_configured_from_an_empty_folder(empty):
    """In one process of its own, whose experiments and configs are these copies only."""
    for name in PAPERS:
        new_experiment(f"my_{name}", source=name)
    new_experiment("label_flips")
    script = """
import sys
from pathlib import Path
from medjax.running.config import load_config
from medjax.running.modules import load_module
for name in sys.argv[1:]:
    load_config(Path("configs") / f"{name}.py", "tiny")
    assert callable(load_module(Path("experiments") / f"{name}.py", f"experiments.{name}").run)
files = [getattr(m, "__file__", None) for n, m in sys.modules.items() if n.split(".")[0] in ("experiments", "configs")]
assert len(files) > 30 and all(Path(file).resolve().is_relative_to(Path.cwd()) for file in files), files
"""
    names = [*(f"my_{name}" for name in PAPERS), "label_flips"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script, *names], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    copied = (empty / "experiments" / "my_pet_pseudo_prior.py").read_bytes()
    assert copied == (ROOT / "experiments" / "pet_pseudo_prior.py").read_bytes()
    assert not (empty / "experiments" / "demo.py").exists()


def test_the_template_runs(empty):
    made = CliRunner().invoke(cli.app, ["new", "mine", "there"])
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines() == [
        "wrote there/experiments/mine.py, there/configs/mine.py and 2 other files",
        "run it with: medjax run mine:tiny --experiments=there",
    ]
    done = CliRunner().invoke(cli.app, ["run", "mine:tiny", "--experiments=there", "--workdir=out"])
    assert done.exit_code == 0, done.stderr
    metrics = json.loads((empty / "out" / "metrics.json").read_text())
    assert 0 < metrics["nrmse/100"] < metrics["nrmse/10"] < 1
    refused = CliRunner().invoke(cli.app, ["run", "mine:tiny", "--experiments=there", "--config.iterations=0"])
    assert (refused.exit_code, refused.stderr) == (2, "medjax: --config.iterations=0; expected 1 to 1000\n")


def test_nothing_is_overwritten_and_equal_files_are_shared(empty):
    new_experiment("pet_likelihood_schedule")
    before = {file: file.read_bytes() for file in empty.rglob("*.py")}
    with pytest.raises(DataError, match=r"experiments/pet_likelihood_schedule\.py: is there already"):
        new_experiment("pet_likelihood_schedule")
    added = new_experiment("again", source="pet_likelihood_schedule")
    assert added.shared == ()
    shared = empty / "experiments" / "pet" / "scans.py"
    shared.write_text("mine")
    with pytest.raises(DataError, match=r"experiments/pet/scans\.py: is there already"):
        new_experiment("pet_conditional_sampling")
    assert not (empty / "configs" / "pet_conditional_sampling.py").exists()
    new_experiment("other")
    assert {file for file, text in before.items() if file.read_bytes() != text} == {shared}


@pytest.mark.parametrize("name", ["a.b", "a b", "../a", "1a", "_a", "é", ""])
def test_a_name_that_is_none(empty, name):
    with pytest.raises(ConfigError, match="expected a name of letters"):
        new_experiment(name)
    assert not any(empty.iterdir())


def test_a_source_that_is_none_and_a_folder_that_is_a_file(empty):
    with pytest.raises(MedjaxError, match=r"no experiment 'label_flip'; .*did you mean 'label_flips'\?"):
        new_experiment("mine", source="label_flip")
    (empty / "file").touch()
    with pytest.raises(DataError, match="file is a file"):
        new_experiment("mine", "file")
    assert [one.name for one in empty.iterdir()] == ["file"]
