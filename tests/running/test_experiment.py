"""Experiments: run once, continued after any kill to the same metrics, refused or explained in one line.

Longer than 300 lines because one experiment, written here, serves all of them.
"""

import html
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medjax.atomic import TEMPORARY_SUFFIX
from medjax.errors import ConfigError, DataError, MedjaxError, WorkdirError
from medjax.report.html import Report
from medjax.running.environment import describe_environment, environment_changes
from medjax.running.experiment import TINY_NOTICE, Result, results_or_errors, run_experiment, single_result

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    return ConfigDict(dict(steps={"tiny": 3, "small": 4, "paper": 9}[preset], rate=0.5, pause=0.0, model=dict(width=4)))
"""
EXPERIMENT = '''
"""A toy whose stages depend on one another.

It draws figures and writes a log."""
import time
import numpy as np
from matplotlib.figure import Figure as Drawing
from medjax.report.html import Figure, Report, Section
from medjax.running.experiment import Result, run_module
from medjax.running.workdir import append_jsonl, save_figure, stage

def run(config, work):
    state = {"x": np.zeros(config.model.width)}
    for step in range(config.steps):
        def compute():
            time.sleep(config.pause)
            return {"x": np.cos(state["x"] + config.rate * step + np.arange(config.model.width)), "calls": step}
        state = stage(work, f"step_{step}", compute)
        append_jsonl(work, {"step": step})
    drawing = Drawing(figsize=(1, 1))
    drawing.subplots().plot(state["x"])
    section = Section("State", "", [Figure(save_figure(work, "state", drawing), "x")])
    metrics = {"mean": state["x"].mean(), "calls": state["calls"], "undefined": np.float32("nan")}
    return Result(metrics, Report("Toy", ["It works."], [section]))

if __name__ == "__main__":
    run_module(__file__)
'''


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    for folder, text in (("configs", CONFIG), ("experiments", EXPERIMENT)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
        (tmp_path / folder / "toy.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def rewrite(root: Path, old: str, new: str, folder: str = "experiments") -> None:
    file = root / folder / "toy.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_run_leaves_everything_it_promises(root, capsys):
    work = run_experiment("toy", "tiny", ["rate=0.25"], root=root)
    assert work.parent == root / "runs"
    assert work.name.startswith("toy-tiny-")
    assert json.loads((work / "config.json").read_text())["config"]["rate"] == 0.25
    x = np.zeros(4)
    for step in range(3):
        x = np.cos(x + 0.25 * step + np.arange(4))
    text = f'{{\n  "calls": 2.0,\n  "mean": {float(x.mean())!r},\n  "undefined": null\n}}\n'
    assert (work / "metrics.json").read_text() == text
    assert json.loads((work / "timings.json").read_text()).keys() >= {
        "step_0.seconds",
        "run.seconds",
        "run.peak_memory_mib",
    }
    assert (work / "metrics.jsonl").read_text().splitlines() == [f'{{"step": {step}}}' for step in range(3)]
    page = (work / "report.html").read_text()
    assert f"<code>medjax run toy:tiny --config.rate=0.25 --experiments={root}</code>" in page
    page = page.replace(f"--experiments={root}", "")  # as it was given
    assert "model.width" in page
    assert str(root) not in page + (work / "environment.json").read_text()
    out = capsys.readouterr().out
    assert "mean" in out and f"{x.mean():.4g}" in out and "report.html" in out


def test_a_finished_run_does_nothing(root, capsys):
    work = run_experiment("toy", "tiny", root=root)
    before = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.name != ".lock"}
    rewrite(root, '"""A toy', 'raise SystemExit("it ran")')
    capsys.readouterr()
    assert run_experiment("toy", "tiny", root=root) == work
    assert {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.name != ".lock"} == before
    assert capsys.readouterr().out == f"finished already: {work}/report.html\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [("metrics.json", ""), ("metrics.json", "[1]"), ("metrics.json", '{"mean": "x"}'), ("report.html", "<html>")],
)
def test_a_run_whose_result_is_damaged_is_not_finished(root, capsys, name, text):
    work = run_experiment("toy", "tiny", root=root)
    whole = {file: (work / file).read_bytes() for file in ("metrics.json", "report.html")}
    (work / name).write_text(text)
    run_experiment("toy", "tiny", root=root)
    assert "is damaged; making them again" in capsys.readouterr().err
    assert (work / "metrics.json").read_bytes() == whole["metrics.json"]
    assert (work / "report.html").read_bytes().endswith(whole["report.html"][-8:])


def test_every_config_has_its_own_directory_and_no_other(root):
    one = run_experiment("toy", "tiny", root=root)
    assert run_experiment("toy", "tiny", ["steps=2"], root=root) != one
    with pytest.raises(WorkdirError, match=r"config\.steps is 3 there and 2 here"):
        run_experiment("toy", "tiny", ["steps=2"], workdir=one, root=root)


def test_another_config_file_and_directory(root, tmp_path):
    other = root / "mine.py"
    other.write_text(CONFIG.replace("0.5", "0.125"))
    work = run_experiment("toy", "tiny", workdir=root / "here", root=root, config_file=other)
    assert work == root / "here"
    assert json.loads((work / "config.json").read_text())["config"]["rate"] == 0.125
    command = f"medjax run toy --config={other}:tiny --experiments={root} --workdir={work}"
    assert f"<code>{command}</code>" in (work / "report.html").read_text()


def test_a_tiny_run_says_that_its_numbers_mean_nothing(root, capsys):
    tiny, small = (run_experiment("toy", preset, root=root) for preset in ("tiny", "small"))
    pages = [(work / "report.html").read_text() for work in (tiny, small)]
    assert [f'<p class="notice">{TINY_NOTICE}</p>' in page for page in pages] == [True, False]
    assert capsys.readouterr().out.splitlines().count(TINY_NOTICE) == 1


def test_the_command_of_a_report_repeats_the_run(root, monkeypatch):
    from medjax.cli import main

    monkeypatch.chdir(root)
    (root / "mine of.py").write_text(CONFIG)
    typed = ["run", "toy", "--config=mine of.py:tiny", "--config.rate=0.25", "--experiments=.", "--workdir=here"]
    with pytest.raises(SystemExit, match="0"):
        main(typed)
    [shown] = re.findall("<code>(.*?)</code>", (root / "here" / "report.html").read_text())[:1]
    assert shlex.split(html.unescape(shown)) == ["medjax", *typed]


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "medjax", "run", "toy:small", "--experiments", str(root), *arguments]


def test_killed_at_random_moments_it_ends_with_the_same_metrics(root):
    undisturbed = run_experiment("toy", "small", root=root, workdir=root / "undisturbed") / "metrics.json"
    rewrite(root, "time.sleep(config.pause)", "time.sleep(0.12)")
    work, chance, kept, kills = root / "disturbed", random.Random(0), 0, 0
    while not (work / "metrics.json").exists():
        process = subprocess.Popen(command(root, "--workdir", str(work)), stdout=subprocess.DEVNULL)
        while process.poll() is None and kills < 2 and len([*work.glob("checkpoints/*.npz")]) <= kept:
            time.sleep(0.01)
        if kills < 2:
            time.sleep(chance.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait(60) in (0, -signal.SIGKILL)
        kept = len([*work.glob("checkpoints/*.npz")])
    assert kills == 2
    assert (work / "metrics.json").read_bytes() == undisturbed.read_bytes()


KILLED_AT = """
import io, os, signal, sys
from pathlib import Path
import matplotlib.figure
import medjax.running.arrays
from medjax.running import environment
from medjax.running.experiment import Result, results_or_errors, single_result, run_experiment

matplotlib.figure.Figure().savefig(io.BytesIO())  # the slow first time, once
environment.describe_environment, environment.peak_memory = lambda root: {"here": 1}, dict  # no JAX backend in forks

def attempt(moment, root, work):
    count, replace = [0], os.replace
    def dying(*arguments):
        if count[0] == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1
        replace(*arguments)
    if moment is not None:
        os.replace = dying
    run_experiment("toy", "tiny", root=root, workdir=work)

def in_a_child(*arguments):
    child = os.fork()
    if child == 0:
        try:
            attempt(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

root, moment = Path(sys.argv[1]), 0
while in_a_child(moment, root, root / f"work{moment}") == -signal.SIGKILL:
    assert in_a_child(None, root, root / f"work{moment}") == 0, moment
    moment += 1
print(moment)
"""


def test_killed_before_any_file_gets_its_name_it_ends_with_the_same_metrics(root):
    done = subprocess.run([sys.executable, "-c", KILLED_AT, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    moments = int(done.stdout.splitlines()[-1])
    assert moments == 12  # config, environment, 3 stages × (timings, npz), figure, timings, report, metrics
    results = {(root / f"work{moment}" / "metrics.json").read_bytes() for moment in range(moments + 1)}
    assert len(results) == 1
    assert len([*root.glob("work*/report.html")]) == moments + 1
    assert not [*root.rglob(f"*{TEMPORARY_SUFFIX}")]


def test_the_module_itself_is_the_same_command(root):
    work = run_experiment("toy", "tiny", ["rate=2"], root=root)
    module = [sys.executable, "-m", "experiments.toy", "--config=configs/toy.py:tiny", "--config.rate=2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(module, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"finished already: {work.relative_to(root)}/report.html\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('state["x"].mean()', 'float("inf")', "metric mean is inf; expected a finite number, or NaN"),
        ("return Result(metrics, Report(", "return dict(a=Report(", "returned dict; expected a Result"),
        ("def run(config, work)", "def walk(config, work)", r"has no run; expected run\(config, work\)"),
    ],
)
def test_what_is_no_result_is_refused_and_never_counts_as_finished(root, old, new, message):
    rewrite(root, old, new.replace(', ["It works."], [section]))', ""))
    with pytest.raises(MedjaxError, match=message):
        run_experiment("toy", "tiny", root=root, workdir=root / "work")
    assert not (root / "work" / "metrics.json").exists()


def test_an_experiment_may_print_a_table_of_its_own(root, capsys):
    rewrite(root, "[section]))", '[section]), Table(("method", "Dice"), [("plain", 0.123456)]))')
    rewrite(root, "import Figure, Report", "import Figure, Table, Report")
    run_experiment("toy", "tiny", root=root)
    out = capsys.readouterr().out
    assert "plain" in out and "0.1235" in out and "undefined" not in out


def test_a_run_continued_elsewhere_says_so_and_keeps_what_was(root, capsys):
    rewrite(root, "drawing = ", "raise KeyboardInterrupt\n    drawing = ")
    with pytest.raises(KeyboardInterrupt):
        run_experiment("toy", "tiny", root=root, workdir=root / "work")
    file = root / "work" / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"jax": "0.9.9", "threads": 64}))
    rewrite(root, "raise KeyboardInterrupt\n", "")
    run_experiment("toy", "tiny", root=root, workdir=root / "work")
    assert "began with another jax, threads" in capsys.readouterr().err
    assert json.loads(file.read_text())["earlier"] == [{"jax": "0.9.9", "threads": 64}]


def test_members_that_fail_give_their_error_and_the_others_go_on():
    def study(seed: int, name: str) -> Result:
        if seed == 1:
            raise DataError("no counts")
        return Result({"seed": float(seed)}, Report(name))

    first, failed, last = results_or_errors(study, [0, 1, 2], ["a", "b", "c"])
    assert single_result([first]).metrics == {"seed": 0.0} and single_result([last]).report.title == "c"
    with pytest.raises(DataError, match="no counts"):
        single_result([failed])
    assert results_or_errors(study, [0, 2], ["a", untrained := DataError("no network")])[1] is untrained
    with pytest.raises(ValueError, match="shorter"):
        results_or_errors(study, [0, 1], ["a"])


def test_the_environment_names_versions_but_no_machine(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/scratch/dump --xla_cpu_use_thunk_runtime=true")
    environment = describe_environment()
    assert environment.keys() >= {"python", "jax", "jaxlib", "numpy", "medjax", "devices", "cpus", "threads", "flags"}
    assert environment["flags"]["XLA_FLAGS"] == "--xla_dump_to=(path) --xla_cpu_use_thunk_runtime=true"
    assert environment_changes(environment, environment) == {}


def test_the_commit_and_whether_it_has_changes(root):
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "experiments"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert describe_environment(root)["dirty"] is True  # configs/ is not committed
    subprocess.run([*git, "add", "configs"], check=True)
    subprocess.run([*git, "commit", "-qm", "y"], check=True)
    now = describe_environment(root)
    assert now["dirty"] is False
    assert now["commit"] != commit


def test_unknown_names_are_one_line_with_the_nearest(root):
    with pytest.raises(MedjaxError, match=r"no experiment 'tooy'.*did you mean 'toy'\?"):
        run_experiment("tooy", "tiny", root=root)
    with pytest.raises(ConfigError, match=r"did you mean 'tiny'\?"):
        run_experiment("toy", "tinny", root=root)
    with pytest.raises(MedjaxError, match="no experiment"):
        run_experiment("../experiments/toy", "tiny", root=root)
