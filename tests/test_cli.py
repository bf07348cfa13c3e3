"""The command line: quick help, one-line errors, exit codes, tools loaded late."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medjax
from medjax import cli

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    return ConfigDict(dict(steps={"tiny": 1, "small": 2, "paper": 3}[preset], levels=(0.1,), model=dict(width=4)))
"""
EXPERIMENT = '''
"""A toy."""
from medjax.report.html import Report
from medjax.running.experiment import Result
from medjax.running.workdir import stage

def run(config, work):
    kept = stage(work, "sum", lambda: {"sum": config.steps * config.model.width * config.levels[0]})
    return Result({"sum": float(kept["sum"])}, Report("Toy"))
'''


@pytest.fixture
def root(make_checkout) -> Path:
    return make_checkout(CONFIG, EXPERIMENT)


def medjax_command(*arguments: str):
    return CliRunner().invoke(cli.app, arguments, prog_name="medjax")


def test_a_plan_takes_no_work_directory(root):
    said = medjax_command("run", "toy:tiny", "--plan", "--workdir", "here")
    assert said.exit_code == 2 and "--plan runs nothing and needs no --workdir" in said.stderr
    assert not (root / "here").exists()


def test_a_run_by_name_preset_and_overrides(root):
    done = medjax_command("run", "--config.model.width=5", "toy:tiny", "--workdir", "here", "--config.levels=(0.5, 1)")
    assert (done.exit_code, done.stderr) == (0, "")
    assert (root / "here" / "metrics.json").read_text() == '{\n  "sum": 2.5\n}\n'
    again = medjax_command("run", "toy:tiny", "--config.model.width=5", "--config.levels=(0.5, 1)", "--workdir=here")
    assert (again.exit_code, again.stdout) == (0, "finished already: here/report.html\n")


def test_the_preset_is_small_unless_said_and_config_names_it_too(root):
    for arguments in (
        ["toy"],
        ["toy:small"],
        ["toy", "--config=configs/toy.py"],
        ["toy", "--config=configs/toy.py:small"],
    ):
        assert medjax_command("run", *arguments).exit_code == 0
    assert [path.name.rpartition("-")[0] for path in (root / "runs").iterdir()] == ["toy-small"]
    clash = medjax_command("run", "toy:tiny", "--config=configs/toy.py:small")
    assert (clash.exit_code, clash.stderr[:20]) == (2, "medjax: two presets:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "toi"], "no experiment 'toi'.*did you mean 'toy'"),
        (["run", "toy:tinny"], "no preset 'tinny'.*did you mean 'tiny'"),
        (["run", "toy:tiny", "--config.model.widht=3"], "did you mean 'model.width'"),
        (["run", "toy:tiny", "--config.steps=x"], "--config.steps=x is no int"),
        (["run", "toy:tiny", "--config.steps", "3"], "write --config.steps=VALUE"),
        (["run", "toy:tiny", "--config=absent.py"], "no config file absent.py"),
        (["run", "--config.steps=1"], "run: Missing argument 'NAME"),
        (["run", "toy", "--workdri=x"], "run: no option --workdri; did you mean '--workdir'"),
        (["experimants"], "no command 'experimants'; .*did you mean 'experiments'"),
        (["pet", "recon"], "pet: no command 'recon'; .*did you mean 'reconstruct'"),
        (["pet", "reconstruct", "--overide"], "pet reconstruct: no option --overide \\(see"),
        (["pet", "reconstruct", "a", "--size", "1e3"], "--size 1e3; expected a whole number"),
        (["pet", "reconstruct", "a", "--beta=x"], "--beta x; expected a number"),
        (
            ["sweep", "toy", "--over", "seed=0..100000000"],
            "seed=0..100000000: 100,000,001 runs; expected 10,000",
        ),
        (["sweep", "toy", "--over", "a=0..200", "--over", "b=0..200"], "40,401 runs; expected 10,000 or fewer"),
        (["sweep", "toy", "--over", "seed=0..1" + 5000 * "0"], "--over .*…? has 5,004 digits"),
        (["run", "toy:tiny", "--experiments=absent"], "no experiments in absent: .*--experiments DIR"),
        (["run", "toy:tiny", "--workdir=configs/toy.py"], "configs/toy.py"),
        (["experiments", "--experiments=configs"], "no experiments in configs"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(root, arguments, message):
    done = medjax_command(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(rf"medjax: .*{message}.*\n", done.stderr), done.stderr


def test_a_full_disk_is_one_line_and_leaves_no_result(root, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda part, path: full() if path.suffix == ".npz" else replace(part, path))
    done = medjax_command("run", "toy:tiny", "--workdir=here")
    assert (done.exit_code, done.stdout) == (2, f"running experiments/toy.py and configs/toy.py of {root}\n")
    assert done.stderr == "medjax: No space left on device: here/checkpoints/sum.npz\n"
    left = {file.name for file in (root / "here").rglob("*") if file.is_file()}
    assert left == {".lock", "config.json", "environment.json", "timings.json"}
    monkeypatch.undo()
    assert medjax_command("run", "toy:tiny", f"--experiments={root}", f"--workdir={root}/here").exit_code == 0


def test_a_really_full_disk(root):
    """A file system of 200 kB, where mounting one is permitted."""
    disk = root / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        (root / "experiments" / "toy.py").write_text(
            EXPERIMENT.replace('{"sum": ', '{"large": np.ones(100_000), "sum": ')
        )
        with (root / "experiments" / "toy.py").open("a") as file:
            file.write("\nimport numpy as np\n")
        done = medjax_command("run", "toy:tiny", f"--workdir={disk}/here")
        assert (done.exit_code, done.stderr) == (
            2,
            f"medjax: No space left on device: {disk}/here/checkpoints/sum.npz\n",
        )
        left = {file.name for file in disk.rglob("*") if file.is_file()}
        assert left == {".lock", "config.json", "environment.json", "timings.json"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("KeyboardInterrupt", 130, "medjax: stopped; the same command continues\n"),
        (
            'FileNotFoundError(2, "No such file or directory", "scan.nii")',
            2,
            "medjax: No such file or directory: scan.nii\n",
        ),
        ('medjax.errors.DataError("two\\nlines")', 2, "medjax: two lines\n"),
        ("MemoryError", 2, "medjax: out of memory; use smaller images or batches, or fewer at a time\n"),
        (
            'RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")',
            2,
            "medjax: out of memory; use smaller images or batches, or fewer at a time\n",
        ),
    ],
)
def test_what_an_experiment_raises(root, raised, code, message):
    (root / "experiments" / "toy.py").write_text(f"import medjax.errors\ndef run(config, work): raise {raised}")
    done = medjax_command("run", "toy:tiny")
    assert (done.exit_code, done.stderr) == (code, message)


def test_an_address_space_that_jax_cannot_start_in_is_refused(root, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (2**30, 2**30))
    (root / "experiments" / "toy.py").write_text("def run(config, work): raise AssertionError")
    done = medjax_command("run", "toy:tiny")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("medjax: the address space is limited to 1.0 GiB (ulimit -v)")
    assert medjax_command("experiments").exit_code == 0


def test_a_bug_keeps_its_traceback_and_traceback_shows_any(root):
    (root / "experiments" / "toy.py").write_text("def run(config, work): raise ZeroDivisionError('mine')")
    assert isinstance(medjax_command("run", "toy:tiny").exception, ZeroDivisionError)
    (root / "experiments" / "toy.py").write_text("def run(config, work): open('absent')")
    assert isinstance(medjax_command("--traceback", "run", "toy:tiny").exception, FileNotFoundError)


def test_the_list_of_experiments(root, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    (root / "experiments" / "__init__.py").write_text('PAPERS = {"later": ("A title [1]", "Somebody", "0000.00000")}')
    done = medjax_command("experiments")
    assert done.exit_code == 0
    assert re.search(r"later +A title \[1\] +planned", done.stdout)
    assert "Somebody, arXiv 0000.00000" in done.stdout
    assert re.search(r"toy +A toy\. +ready tiny small paper", done.stdout)


def test_the_version():
    assert medjax_command("--version").stdout == f"medjax {medjax.__version__}\n"


def test_the_help_of_run_explains_presets_and_overrides():
    text = medjax_command("run", "--help").stdout
    for word in (
        "tiny",
        "small",
        "paper",
        "--config.scan.trues_per_mm3=10.0",
        "configs/NAME.py",
        "--workdir",
        "--experiments",
    ):
        assert word in text


@pytest.fixture
def tool(tmp_path, monkeypatch) -> str:
    """A tool of medjax, here one that only this test has."""
    folder = tmp_path
    (folder / "spare.py").write_text(
        "import typer\nfrom medjax.errors import DataError\napp = typer.Typer()\n"
        "@app.command()\ndef work(n: int):\n    print(n + 1)\n"
        "@app.command()\ndef fail():\n    raise DataError('bad scan')\n"
        "@app.command()\ndef stop():\n    raise KeyboardInterrupt\n"
    )
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(cli, "TOOLS", {"spare": "A spare tool.", "absent": "Not written yet."})
    monkeypatch.setattr(cli, "__path__", [str(folder)])
    monkeypatch.delitem(sys.modules, "medjax.cli.spare", raising=False)
    return "medjax.cli.spare"


def test_a_tool_is_listed_without_being_loaded_and_loaded_when_used(tool):
    text = medjax_command("--help").stdout
    assert "A spare tool." in text and "Not written yet." not in text
    assert tool not in sys.modules
    assert medjax_command("spare", "work", "2").stdout == "3\n"
    assert tool in sys.modules
    assert (medjax_command("spare", "fail").exit_code, medjax_command("spare", "fail").stderr) == (
        2,
        "medjax: bad scan\n",
    )
    assert (medjax_command("spare", "stop").exit_code, medjax_command("spare", "stop").stderr) == (
        130,
        "medjax: stopped\n",
    )
    assert medjax_command("spare", "wrok").exit_code == 2
    assert "no command 'absent'" in medjax_command("absent").stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["experiments"]])
def test_help_and_lists_answer_without_the_heavy_imports(arguments):
    script = f"""
import sys
from medjax.cli import main
try:
    main({arguments!r})
except SystemExit as done:
    heavy = sorted({{"jax", "numpy", "matplotlib", "nibabel", "flax", "orbax", "scipy"}} & set(sys.modules))
    print(done.code, heavy, file=sys.stderr)
"""
    here = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=False)
    assert done.stderr == "0 []\n"
    assert done.stdout
