"""Sweeps: a grid of overrides, one directory a member, one table; continued, extended, and not stopped by a failure."""

import csv
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.errors import MedjaxError
from medjax.running.experiment import TINY_NOTICE
from medjax.running.lock import lock_folder
from medjax.running.modules import load_module
from medjax.running.sweep import group_members, plan_sweep, run_sweep
from medjax.running.workdir import open_workdir

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    return ConfigDict(dict(seed=0, rate=0.5, steps=3, levels=(0.1,), name="a", model=dict(width=4)))
"""
EXPERIMENT = '''
"""A toy."""
from pathlib import Path
from medjax.errors import DataError
from medjax.report.html import Report
from medjax.running.experiment import Result

def run(config, work):
    with (Path(__file__).parents[1] / "log").open("a") as file:
        file.write(f"{work.path.name}\\n")
    if config.rate > 1:
        raise DataError(f"rate {config.rate} diverged")
    if config.rate < 0:
        raise ZeroDivisionError
    metrics = {"loss/all": config.rate * config.model.width + config.seed, "seed": 7.0, "undefined": float("nan")}
    return Result(metrics, Report("Toy"))
'''
POPULATION = """
TRACED = ("rate", "seed")

def population(configs, works):
    with (Path(__file__).parents[1] / "log").open("a") as file:
        file.write(f"{len(configs)} of width {configs[0].model.width}\\n")
    return [Result({"loss": c.rate + c.seed}, Report("Toy")) for c in configs]
"""


@pytest.fixture
def root(make_checkout) -> Path:
    return make_checkout(CONFIG, EXPERIMENT)


def command(*arguments: str):
    return CliRunner().invoke(cli.app, ["sweep", *arguments], prog_name="medjax")


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def log(root: Path) -> list[str]:
    file = root / "log"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def test_a_grid_is_one_table_and_a_larger_one_reuses_what_is_finished(root):
    arguments = ["toy:tiny", "--over", "rate=0.5,1e-1", "--config.model.width=2", "--over"]
    done = command(*arguments, "seed=0..1")
    assert (done.exit_code, done.stderr) == (0, "")
    [folder] = (root / "runs").iterdir()
    names = [f"rate={rate},seed={seed}" for rate in (0.5, 0.1) for seed in (0, 1)]
    rows = table(folder / "sweep.csv")
    assert list(rows[0]) == ["member", "rate", "seed", "loss/all", "metric.seed", "undefined"]
    assert list(rows[3].values()) == ["rate=0.1,seed=1", "0.1", "1", "1.2", "7.0", ""]
    assert [row["member"] for row in rows] == names == log(root)
    assert re.search(r"rate +seed +loss/all", done.stdout) and "sweep.csv" in done.stdout
    page = (folder / names[0] / "report.html").read_text()
    assert "width=2" in page and TINY_NOTICE in page and done.stdout.splitlines().count(TINY_NOTICE) == 1

    (folder / names[1] / "metrics.json").unlink()  # as if it had been killed there
    assert command(*arguments, "seed=0..2").exit_code == 0
    assert log(root) == ["rate=0.5,seed=1", "rate=0.5,seed=2", "rate=0.1,seed=2"]
    assert len(table(folder / "sweep.csv")) == 6


def test_a_member_that_fails_is_reported_and_the_rest_go_on(root):
    done = command("toy", "--over=rate=2.0,0.5,-1.0,0.25", "--workdir=here")
    assert done.exit_code == 2
    assert "medjax: rate=2.0: rate 2.0 diverged\n" in done.stderr
    assert "ZeroDivisionError" in done.stderr and "Traceback" in done.stderr
    assert done.stderr.endswith("medjax: 2 of 4 members failed; the same command tries them again\n")
    assert [row["loss/all"] for row in table(root / "here" / "sweep.csv")] == ["", "2.0", "", "1.0"]
    log(root)
    assert command("toy", "--over=rate=2.0,0.5,-1.0,0.25", "--workdir=here").exit_code == 2
    assert log(root) == ["rate=2.0", "rate=-1.0"]


def test_where_all_members_fail_a_table_that_is_there_stays(root):
    assert command("toy", "--over=rate=0.5,0.25", "--workdir=here").exit_code == 0
    before = (root / "here" / "sweep.csv").read_bytes()
    done = command("toy", "--over=rate=2.0,-1.0", "--workdir=here")
    assert done.exit_code == 2 and "2 of 2 members failed" in done.stderr and "table:" not in done.stdout
    assert (root / "here" / "sweep.csv").read_bytes() == before
    assert sorted(one.name for one in (root / "here").iterdir() if one.is_dir()) == ["rate=0.25", "rate=0.5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a sweep needs values"),
        (["--over=seed=0,1", "--together=0"], "--together 0; expected 1 or more members"),
        (["--over=rate"], "--over rate has no values; write --over rate=VALUE,VALUE"),
        (["--over=rate=0.5,,1"], "has an empty value"),
        (["--over=seed=3..1"], "FIRST ≤ LAST"),
        (["--over=rate=0.5,x"], "--config.rate=x is no float"),
        (["--over=seed=0,0.5"], "--config.seed=0.5 is no int"),
        (["--over=model.widht=1"], "did you mean 'model.width'"),
        (["--over=rate=0.5", "--config.rate=1.0"], "rate is given 2 times"),
        (["--over=rate=0.5", "--over=rate=0.1"], "rate is given 2 times"),
    ],
)
def test_a_users_error_is_one_line_before_any_run(root, arguments, message):
    done = command("toy", *arguments)
    assert (done.exit_code, done.stdout, log(root)) == (2, "", [])
    assert re.fullmatch(rf"medjax: .*{message}.*\n", done.stderr), done.stderr
    assert not (root / "runs").exists()


def test_values_are_lists_ranges_and_tuples_and_each_member_has_a_plain_name(root):
    def values(over):
        return [next(iter(member.values.values())) for member in plan_sweep("toy", [over], root=root).members]

    assert values("seed=-1..1,7,7") == [-1, 0, 1, 7]
    assert values("levels=(0.1,),(0.5,1)") == [(0.1,), (0.5, 1.0)]
    names = [member.name for member in plan_sweep("toy", ["name=a/b,a b,../c"], root=root).members]
    assert len(set(names)) == 3 and all(re.fullmatch(r"[\w.=,+-]+", name) for name in names)


def test_members_that_differ_in_traced_keys_run_as_one_population(root):
    with (root / "experiments" / "toy.py").open("a") as file:
        file.write(POPULATION)
    over = ["model.width=2,3", "rate=0.5,0.25", "seed=0,1"]
    sweep = plan_sweep("toy", over, root=root, workdir=root / "here")
    rows = table(run_sweep(sweep))
    assert log(root) == ["4 of width 2", "4 of width 3"]
    assert [float(row["loss"]) for row in rows] == [0.5, 1.5, 0.25, 1.25] * 2
    assert all((root / "here" / row["member"] / "report.html").is_file() for row in rows)
    for member in rows[:2]:
        (root / "here" / member["member"] / "metrics.json").unlink()
    (root / "here" / rows[7]["member"] / "metrics.json").unlink()
    run_sweep(sweep)
    assert log(root) == ["2 of width 2", rows[7]["member"]]


def test_a_population_that_is_wrong_is_said(root):
    file = root / "experiments" / "toy.py"
    sweep = plan_sweep("toy", ["seed=0..2"], root=root)
    file.write_text(EXPERIMENT + POPULATION.replace('"rate"', '"rato"'))
    with pytest.raises(MedjaxError, match=r"TRACED of experiments\.toy has 'rato', no config key; did you mean 'rate'"):
        group_members(sweep.members, load_module(file, "experiments.toy"))
    file.write_text(EXPERIMENT + POPULATION.replace("for c in configs]", "for c in configs[1:]]"))
    done = command("toy", "--over=seed=0..2")
    assert "returned Result, Result; expected a list of 3 Results" in done.stderr and "3 of 3 members" in done.stderr


def run_tasks(root: Path, tasks: int) -> None:
    """Every task of the job array, by hand."""
    script = (root / "here" / "sweep.sh").read_text()
    assert f"#SBATCH --array=0-{tasks - 1}\n" in script
    shown = f"medjax() {{ printf '%s\\n' \"$@\"; }}\n{script}"
    for task in range(tasks):
        environment = {"SLURM_ARRAY_TASK_ID": str(task)}
        ran = subprocess.run(["sh", "-c", shown], env=environment, capture_output=True, text=True, check=True)
        done = CliRunner().invoke(cli.app, ran.stdout.splitlines(), prog_name="medjax")
        assert done.exit_code == 0, done.stderr


def test_a_job_array_has_one_task_a_member_and_its_tasks_give_the_table(root):
    arguments = ["toy:tiny", "--over=seed=0..2", "--config.name=a b"]
    done = command(*arguments, "--workdir=here", "--slurm")
    assert (done.exit_code, log(root)) == (0, [])
    run_tasks(root, 3)
    assert log(root) == ["seed=0", "seed=1", "seed=2"] and not (root / "here" / "sweep.csv").exists()
    assert command(*arguments, "--workdir=here").exit_code == 0 and log(root) == []
    assert command(*arguments, "--workdir=there").exit_code == 0
    assert (root / "here" / "sweep.csv").read_text() == (root / "there" / "sweep.csv").read_text()
    done = command(*arguments, "--workdir=here", "--task=3")
    assert done.exit_code == 2 and "--task 3; expected 0 to 2, the groups of this sweep" in done.stderr


def test_a_job_array_has_one_task_a_population(root):
    with (root / "experiments" / "toy.py").open("a") as file:
        file.write(POPULATION)
    arguments = ["toy:tiny", "--over=model.width=2,3", "--over=seed=0..2"]
    assert command(*arguments, "--workdir=here", "--slurm").exit_code == 0
    run_tasks(root, 2)
    assert log(root) == ["3 of width 2", "3 of width 3"]
    assert command(*arguments, "--workdir=here").exit_code == 0 and log(root) == []
    assert [float(row["loss"]) for row in table(root / "here" / "sweep.csv")] == [0.5, 1.5, 2.5] * 2
    assert command(*arguments, "--workdir=here", "--slurm", "--together=2").exit_code == 0
    assert "--array=0-3\n" in (root / "here" / "sweep.sh").read_text()
    assert command(*arguments, "--workdir=there", "--together=2").exit_code == 0
    assert log(root) == ["2 of width 2", "model.width=2,seed=2", "2 of width 3", "model.width=3,seed=2"]


def test_a_member_of_a_population_that_fails_leaves_the_others(root):
    with (root / "experiments" / "toy.py").open("a") as file:
        file.write(
            POPULATION.replace("for c in configs]", "if c.seed else DataError('seed 0 diverged') for c in configs]")
        )
    done = command("toy", "--over=seed=0..2", "--workdir=here")
    assert done.exit_code == 2
    assert done.stderr == (
        "medjax: seed=0: seed 0 diverged\nmedjax: 1 of 3 members failed; the same command tries them again\n"
    )
    assert [row["loss"] for row in table(root / "here" / "sweep.csv")] == ["", "1.5", "2.5"]


def test_an_infinite_metric_or_a_directory_in_use_is_of_one_member(root):
    with (root / "experiments" / "toy.py").open("a") as file:
        file.write(POPULATION.replace("c.rate + c.seed", "c.rate if c.seed else float('inf')"))
    with open_workdir(root / "here" / "seed=2", {"another": 1}):
        done = command("toy", "--over=seed=0..3", "--workdir=here")
    assert done.exit_code == 2 and "2 of 4 members failed" in done.stderr
    assert "medjax: seed=0: metric loss is inf" in done.stderr and "seed=2 is in use by process" in done.stderr
    assert [row["loss"] for row in table(root / "here" / "sweep.csv")] == ["", "0.5", "", "0.5"]


def test_two_sweeps_in_one_folder_the_second_is_refused_and_tasks_go_together(root):
    arguments = ["toy", "--over=seed=0..1", "--workdir=here"]
    (root / "here").mkdir()
    with lock_folder(root / "here"):
        done = command(*arguments)
        assert done.exit_code == 2 and re.match(r"medjax: here is in use by process \d+; wait for it", done.stderr)
        assert [one.name for one in (root / "here").iterdir()] == [".lock"]
        assert command(*arguments, "--task=0").exit_code == 2
    with lock_folder(root / "here", shared=True):  # another task
        assert command(*arguments, "--task=0").exit_code == 0
        assert command(*arguments).exit_code == 2
    assert command(*arguments).exit_code == 0
    assert [row["seed"] for row in table(root / "here" / "sweep.csv")] == ["0", "1"]


def test_a_member_whose_metrics_are_damaged_is_made_again(root):
    assert command("toy", "--over=seed=0..1", "--workdir=here").exit_code == 0
    good = (root / "here" / "sweep.csv").read_text()
    (root / "here" / "seed=1" / "metrics.json").write_text("")
    assert command("toy", "--over=seed=0..1", "--workdir=here").exit_code == 0
    assert (root / "here" / "sweep.csv").read_text() == good


def test_what_is_finished_stays_in_the_table_where_a_group_fails(root):
    file = root / "experiments" / "toy.py"
    file.write_text(EXPERIMENT + POPULATION)
    assert command("toy", "--over=seed=0..1", "--workdir=here").exit_code == 0
    file.write_text(EXPERIMENT + POPULATION.replace("return [", "return 1 / 0 and ["))
    done = command("toy", "--over=seed=0..3", "--workdir=here")
    assert "medjax: seed=2 seed=3:\nTraceback" in done.stderr and "2 of 4 members failed" in done.stderr
    assert [row["loss"] for row in table(root / "here" / "sweep.csv")] == ["0.5", "1.5", "", ""]


PART = """
def run(config, work, twice=None):
    return Result({"loss": (twice or float)(config.rate), "seed": 0.0}, Report("Toy"))
"""


def test_a_part_of_ones_own_goes_into_every_member_and_its_directory(root):
    with (root / "experiments" / "toy.py").open("a") as file:
        file.write(PART)
    mine = root / "mine.py"
    mine.write_text("def double(x):\n    return 2 * x\n")
    arguments = ["toy", "--over=rate=0.5,0.25", f"--part=twice={mine}:double", "--workdir=here"]
    assert command(*arguments).exit_code == 0
    assert [float(row["loss"]) for row in table(root / "here" / "sweep.csv")] == [1.0, 0.5]
    mine.write_text("def double(x):\n    return 3 * x\n")
    done = command(*arguments)
    assert done.exit_code == 2 and "belongs to another config: parts.twice.sha256 is" in done.stderr
    done = command("toy", "--over=rate=0.5", f"--part=twise={mine}:double", "--workdir=there")
    assert done.exit_code == 2 and not (root / "there").exists()
    assert "--part twise: no part of toy; expected twice; did you mean 'twice'?" in done.stderr
