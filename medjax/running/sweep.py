"""Parameter sweeps: an experiment for every combination of some config values, and their metrics in one table.

    medjax sweep demo:tiny --over training.rate=1e-3,3e-3 --over seed=0..7

Each member is a run in a directory of its own, so an interrupted sweep resumes and a larger one reuses members.
Members run one after the other in one process. An experiment that has

    TRACED = ("training.rate", "seed")
    def population(configs, works, **parts) -> list[Result]: …

gets those that differ only in TRACED keys at once: structural keys make groups of populations. An array of jobs has one
task a group.

sweep.csv has one row a member; columns are the swept keys, then the metrics, as pandas' groupby and R's lm take them.
"""

import itertools
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import FrozenConfigDict

from medjax.atomic import write_csv, write_text
from medjax.errors import ConfigError, MedjaxError, one_line
from medjax.report.html import Table
from medjax.report.terminal import print_table
from medjax.running.checkout import announce_run, default_workdirs, experiment_file, find_root
from medjax.running.config import Value, config_hash, did_you_mean, flatten, load_config, load_configs, to_dict
from medjax.running.experiment import (
    TINY_NOTICE,
    RunSpec,
    execute_runs,
    has_result,
    relative_path,
    run_command,
    run_identity,
)
from medjax.running.lock import lock_folder
from medjax.running.modules import load_module
from medjax.running.parts import Part, check_parts, load_parts
from medjax.running.progress import track
from medjax.running.sweep_axes import parse_axes
from medjax.running.workdir import WorkDir, open_workdir, read_json

PRINTED_METRICS = 4  # metrics printed; the file has all


class SweepMember(NamedTuple):
    """One run of a sweep: its values of the swept keys, and its config."""

    name: str  # name of its directory, such as "training.rate=0.001,seed=0"
    values: dict[str, Value]  # values of the swept keys
    overrides: tuple[str, ...]  # all overrides of its config
    config: FrozenConfigDict


class Sweep(NamedTuple):
    """A checked sweep: the experiment, its members and parts, and its folder."""

    experiment: str
    preset: str
    config_file: Path | None  # None: the experiment's own
    root: Path  # folder of experiments/ and configs/
    folder: Path  # folder of the sweep
    members: list[SweepMember]
    over: tuple[str, ...]  # as on the command line, like `overrides` and `part_references`
    overrides: tuple[str, ...]
    part_references: tuple[str, ...]
    parts: dict[str, Part]
    max_concurrent: int | None  # maximum number of members that run at once; None: all that can
    requested_root: Path | None  # `root`, if it was given


def plan_sweep(
    name: str,
    over: Sequence[str],
    preset: str = "small",
    overrides: Sequence[str] = (),
    workdir: Path | None = None,
    root: Path | None = None,
    config_file: Path | None = None,
    parts: Sequence[str] = (),
    max_concurrent: int | None = None,
) -> Sweep:
    """Plan the sweep of an experiment over a grid of config values.

    Args:
        name: name of the experiment.
        over: swept keys and values, such as "rate=0.1,0.2" and "seed=0..7".
        preset: tiny, small or paper.
        overrides: config values of all members, such as "model.width=32".
        workdir: folder of the members; by default runs/NAME-PRESET-sweep-HASH (`default_workdirs`).
        root: folder of experiments/ and configs/; by default the current directory, or what came with medjax.
        config_file: config file; by default configs/NAME.py beside experiments/.
        parts: parts such as "network=mine.py:net".
        max_concurrent: maximum number of members that run at once.

    Raises:
        MedjaxError: no such experiment, preset, key or part, a value of another type, or nothing to sweep over,
            or more than `sweep_axes.MAX_MEMBERS` members.
    """
    given, root = root, find_root(root, name)
    experiment_file(root, name)
    file = config_file or root / "configs" / f"{name}.py"
    if max_concurrent is not None and max_concurrent < 1:
        raise ConfigError(f"--together {max_concurrent}; expected 1 or more members")
    axes = parse_axes(over)
    keys = [key for key, _ in axes]
    members: dict[str, SweepMember] = {}
    grid = [
        (*overrides, *(f"{key}={value}" for key, value in zip(keys, values, strict=True)))
        for values in itertools.product(*(values for _, values in axes))
    ]
    for settings, config in zip(grid, load_configs(file, preset, grid), strict=True):
        member = _member(keys, settings, config)
        members.setdefault(member.name, member)
    loaded = load_parts(parts)
    base = {"over": tuple(keys), "config": to_dict(load_config(file, preset, overrides))}
    base |= {"parts": {keyword: part.identity for keyword, part in loaded.items()}} if loaded else {}
    folder = workdir or default_workdirs(root, given) / f"{name}-{preset}-sweep-{config_hash(base)}"
    return Sweep(
        name, preset, config_file, root, folder, list(members.values()), tuple(over), tuple(overrides), tuple(parts),
        loaded, max_concurrent, given,
    )  # fmt: skip


def run_sweep(sweep: Sweep, task: int | None = None) -> Path:
    """Run the unfinished members of a sweep, print and write the table; returns sweep.csv.

    With a `task` only the members of that group (see `group_members`) are run, and no table is written.
    A member that fails is reported, has empty cells in the table, and the rest go on; if all fail, there is no table.
    Tasks may run at the same time; a sweep of all members has its folder to itself.

    Raises:
        WorkdirError: another process runs this sweep, or one of its tasks.
        MedjaxError: members failed (after all have run), the experiment's TRACED is wrong or it takes no such part, or
            there is no such task.
    """
    announce_run(sweep.root, sweep.experiment, sweep.config_file)
    module = _module(sweep)
    groups = group_members(sweep.members, module, sweep.max_concurrent)
    if task is not None:
        if not 0 <= task < len(groups):
            raise ConfigError(f"--task {task}; expected 0 to {len(groups) - 1}, the groups of this sweep")
        groups = [groups[task]]
    failed: list[str] = []
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(sweep.folder, shared=task is not None):
        for group in track(groups, "members"):
            failed += _make(sweep, module, group)
        number = sum(map(len, groups))
        if task is None and len(failed) < number:  # where all failed, a table that is there may be of better days
            _collect(sweep, failed)
    if failed:
        raise MedjaxError(f"{len(failed)} of {number} members failed; the same command tries them again")
    return sweep.folder / "sweep.csv"


def group_members(
    members: Sequence[SweepMember], module: ModuleType, max_concurrent: int | None = None
) -> list[list[SweepMember]]:
    """Group members that can run at once, those that differ in TRACED keys only; without `population`, each alone.

    Groups are of at most `max_concurrent` members.

    Raises:
        MedjaxError: TRACED holds what is no key of the config.
    """
    if not hasattr(module, "population"):
        return [[member] for member in members]
    traced = getattr(module, "TRACED", ())
    groups: dict[tuple, list[SweepMember]] = {}
    for member in members:
        flat = flatten(member.config)
        for key in traced:
            if key not in flat:
                raise MedjaxError(f"TRACED of {module.__name__} has '{key}', no config key{did_you_mean(key, flat)}")
        groups.setdefault(tuple((key, value) for key, value in flat.items() if key not in traced), []).append(member)
    return [
        group[first : first + (max_concurrent or len(group))]
        for group in groups.values()
        for first in range(0, len(group), max_concurrent or len(group))
    ]


def write_job_array(sweep: Sweep) -> Path:
    """Write a Slurm job array, sweep.sh, with one task for each group of members that run at once (`group_members`).

    It can be submitted again: what is finished stays. The same `medjax sweep` without --slurm then collects.
    """
    groups = group_members(sweep.members, _module(sweep), sweep.max_concurrent)
    file = sweep.config_file or sweep.root / "configs" / f"{sweep.experiment}.py"
    command = ["medjax", "sweep", sweep.experiment, f"--config={file.resolve()}:{sweep.preset}"]
    command += [f"--over={one}" for one in sweep.over] + [f"--config.{one}" for one in sweep.overrides]
    command += [f"--part={_resolved(one)}" for one in sweep.part_references]
    command += [f"--workdir={sweep.folder.resolve()}", f"--experiments={sweep.root}"]
    command += [f"--together={sweep.max_concurrent}"] if sweep.max_concurrent else []
    lines = [
        "#!/bin/sh",
        f"#SBATCH --array=0-{len(groups) - 1}",
        f'{shlex.join(command)} --task "$SLURM_ARRAY_TASK_ID"',
    ]
    sweep.folder.mkdir(parents=True, exist_ok=True)
    write_text(sweep.folder / "sweep.sh", "\n".join([*lines, ""]))
    return sweep.folder / "sweep.sh"


def _resolved(part: str) -> str:
    """KEYWORD=FILE.py:NAME with the whole path, since a job runs in another folder."""
    keyword, _, where = part.partition("=")
    path, _, name = where.rpartition(":")
    return f"{keyword}={Path(path).resolve()}:{name}"


def _module(sweep: Sweep) -> ModuleType:
    """The experiment, which takes the parts that are given."""
    module = load_module(experiment_file(sweep.root, sweep.experiment), f"experiments.{sweep.experiment}")
    if sweep.parts:
        check_parts(module, sweep.parts, sweep.experiment)
    return module


def _member(keys: Sequence[str], overrides: tuple[str, ...], config: FrozenConfigDict) -> SweepMember:
    flat = flatten(config)
    values = {key: flat[key] for key in keys}
    raw = ",".join(f"{key}={value}" for key, value in values.items())
    name = re.sub(r"[^\w.=,+-]+", "_", raw)[:100]
    return SweepMember(name if name == raw else f"{name}-{config_hash(config)}", values, overrides, config)


def _make(sweep: Sweep, module: ModuleType, group: Sequence[SweepMember]) -> list[str]:
    """Run what is not finished of a group; its directories are held until all of it is. Gives those that failed."""
    failed, runs = list[str](), dict[str, RunSpec]()
    try:
        with ExitStack() as held:
            for member in group:
                content = run_identity(sweep.experiment, member.config, sweep.parts)
                try:
                    work = held.enter_context(open_workdir(sweep.folder / member.name, content))
                except (MedjaxError, OSError) as error:  # it is in use, or of another config: the others are not
                    failed += _report_failed([member.name], error)
                    continue
                if not has_result(work):
                    options = (member.overrides, sweep.config_file, sweep.part_references)
                    command = run_command(sweep.experiment, sweep.preset, *options, root=sweep.requested_root)
                    runs[member.name] = RunSpec(work, member.config, command, sweep.preset)
            results = execute_runs(module, [*runs.values()], sweep.root, sweep.parts) if runs else []
    except Exception as error:  # the other groups need not meet it
        return failed + _report_failed([*runs], error)
    for name, result in zip(runs, results, strict=True):
        failed += _report_failed([name], result) if isinstance(result, MedjaxError) else []
    return failed


def _report_failed(names: list[str], error: Exception) -> list[str]:
    """Say why these members failed, of a bug also where; gives their names."""
    expected = isinstance(error, MedjaxError | OSError)
    why = f" {one_line(error)}" if expected else "\n" + "".join(traceback.format_exception(error))
    print(f"medjax: {' '.join(names)}:{why}", file=sys.stderr)
    return names


def _collect(sweep: Sweep, failed: Sequence[str]) -> None:
    """Write sweep.csv and print the start of it."""
    rows: list[dict[str, Any]] = []
    for member in sweep.members:
        swept = {"member": member.name, **member.values}
        found: dict[str, Any] = (
            {} if member.name in failed else read_json(WorkDir(sweep.folder / member.name), "metrics.json")
        )
        rows.append(swept | {f"metric.{name}" if name in swept else name: value for name, value in found.items()})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = sweep.folder / "sweep.csv"
    write_csv(file, columns, [[row.get(name, "") for name in columns] for row in rows])
    some = columns[1 : 1 + len(sweep.members[0].values) + PRINTED_METRICS]
    print_table(Table(some, [[row.get(name, "") for name in some] for row in rows]))
    more = len(columns) - 1 - len(some)
    print(f"\ntable: {relative_path(file)}{f' ({more} more metrics)' if more else ''}")
    if sweep.preset == "tiny":
        print(TINY_NOTICE)
