"""Run experiments: modules with a docstring and `run(config, work, **parts) -> Result`.

Parts are a user's own network, denoiser, scores of labels …, keyword arguments of `run` that are None by default.
"""

import math
import runpy
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from medjax.errors import MedjaxError, WorkdirError
from medjax.report.html import Report, Table, write_report
from medjax.report.terminal import print_table
from medjax.running.checkout import announce_run, default_workdirs, experiment_file, find_root, in_installed_package
from medjax.running.config import config_hash, flatten, load_config
from medjax.running.modules import load_module
from medjax.running.parts import Part, check_parts, load_parts
from medjax.running.workdir import WorkDir, open_workdir, read_json, record_timings, write_json

Parts = Mapping[str, Part]
REPEATABILITY = (  # of every report
    "Equal runs on the same device, versions and number of CPU cores give equal numbers. Another device or number of "
    "cores adds up in another order, and training enlarges such rounding: compare runs that were made on the same."
)
TINY_NOTICE = "Preset tiny is a smoke test: it shows that the code runs. Its numbers and figures mean nothing."


class Result(NamedTuple):
    """Result of an experiment: metrics (NaN where undefined), report, and a table to print."""

    metrics: Mapping[str, float]  # flat, stable names; equal runs have equal metrics
    report: Report
    table: Table | None = None  # printed instead of the metrics


class RunSpec(NamedTuple):
    """Specification of a run: its work directory, its config, the command that repeats it, and its preset."""

    work: WorkDir
    config: ConfigDict
    command: str
    preset: str


def run_module(module_file: str) -> None:
    """Run an experiment file as a script, `run_module(__file__)`: the same as `medjax run` of it."""
    file = Path(module_file).resolve()
    sys.argv[:] = ["medjax", "run", file.stem, "--experiments", str(file.parent), *sys.argv[1:]]
    runpy.run_module("medjax", run_name="__main__")  # the command as a user starts it: this room knows none


def results_or_errors(study: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result | MedjaxError]:
    """Result of `study(…)` for each member of a population, or the error that ended it; the others go on.

    If an argument of a member is an error already, such as that of its training, it is the result.
    """

    def attempt(*own: Any) -> Result | MedjaxError:
        if errors := [one for one in own if isinstance(one, MedjaxError)]:
            return errors[0]
        try:
            return study(*own)
        except MedjaxError as error:
            return error

    return [attempt(*own) for own in zip(*arguments, strict=True)]


def single_result(results: Sequence[Result | MedjaxError]) -> Result:
    """Result of a population of one member; its error is raised."""
    [result] = results
    if isinstance(result, MedjaxError):
        raise result
    return result


def run_experiment(
    name: str,
    preset: str = "small",
    overrides: Sequence[str] = (),
    workdir: Path | None = None,
    root: Path | None = None,
    config_file: Path | None = None,
    parts: Sequence[str] = (),
) -> Path:
    """Run an experiment, resume it, or do nothing if it is finished; returns its work directory.

    Args:
        name: name of the experiment.
        preset: tiny, small or paper.
        overrides: config values such as "model.width=32".
        workdir: work directory; by default runs/NAME-PRESET-HASH (`default_workdirs`).
        root: folder of experiments/ and configs/; by default the current directory, or what came with medjax.
        config_file: config file; by default configs/NAME.py beside experiments/.
        parts: parts such as "network=mine.py:net".

    Raises:
        MedjaxError: no such experiment, preset, key or part; a directory in use or of another config or other parts; an
            infinite metric.
        OSError: the disk is full, or a file cannot be read or written.
    """
    given, root = root, find_root(root, name)
    file = experiment_file(root, name)
    config = load_config(config_file or root / "configs" / f"{name}.py", preset, overrides)
    loaded = load_parts(parts)
    content = run_identity(name, config, loaded)
    path = workdir or default_workdirs(root, given) / f"{name}-{preset}-{config_hash(content if parts else config)}"
    module = None
    if parts or not path.exists():  # before a directory is claimed
        announce_run(root, name, config_file)
        module = load_module(file, f"experiments.{name}")
        check_parts(module, loaded, name)
    with open_workdir(path, content) as work:
        if has_result(work):
            print(f"finished already: {relative_path(work.path)}/report.html")
            return path
        if module is None:
            announce_run(root, name, config_file)
            module = load_module(file, f"experiments.{name}")
        command = run_command(name, preset, overrides, config_file, parts, workdir, given)
        run = RunSpec(work, config, command, preset)
        [result] = execute_runs(module, [run], root, loaded)
        if isinstance(result, MedjaxError):
            raise result
        print_table(result.table or Table(("metric", "value"), [*result.metrics.items()]))
        print(f"\nreport: {relative_path(work.path)}/report.html")
        if preset == "tiny":
            print(TINY_NOTICE)
    return path


def has_result(work: WorkDir) -> bool:
    """Whether a run is finished: its metrics.json, written last, and its report.html are there and whole.

    Of files that are there and not whole a line is printed; the run then goes on from what its stages kept.
    """
    report = work.path / "report.html"
    if not (work.path / "metrics.json").is_file():
        return False
    try:
        values = read_json(work, "metrics.json").values()
        whole = all(value is None or isinstance(value, int | float) for value in values)
    except WorkdirError:
        whole = False
    if whole and report.is_file() and report.read_text(errors="replace").rstrip().endswith("</html>"):
        return True
    print(f"medjax: {work.path}: metrics.json or report.html is damaged; making them again", file=sys.stderr)
    return False


def run_identity(name: str, config: Mapping | ConfigDict, parts: Parts) -> dict[str, Any]:
    """Identity of a run: the experiment, its config, and of each part its name and the digest of its file."""
    content: dict[str, Any] = {"experiment": name, "config": config}
    return content | ({"parts": {keyword: part.identity for keyword, part in parts.items()}} if parts else {})


def execute_runs(
    module: ModuleType, runs: Sequence[RunSpec], root: Path, parts: Parts | None = None
) -> list[Result | MedjaxError]:
    """Execute runs and write their outputs: one by the module's `run`, several at once by its `population`.

    Of a run that failed or has an infinite metric, the result is its error; the others are kept.

    Raises:
        MedjaxError: the module has no such function, or it returns no Result.
    """
    from medjax.running.environment import peak_memory, prepare_process

    prepare_process()
    environments = [_record_environment(run.work, root) for run in runs]
    start = time.perf_counter()
    results = [_checked(result) for result in _called(module, runs, parts or {})]
    timings = {"run.seconds": round(time.perf_counter() - start, 3), **peak_memory()}
    for run, result, environment in zip(runs, results, environments, strict=True):
        if isinstance(result, MedjaxError):
            continue
        record_timings(run.work, timings | ({"run.members": len(runs)} if len(runs) > 1 else {}))
        details = {
            "Command": run.command,
            "Repeatability": REPEATABILITY,
            "Configuration": flatten(run.config),
            "Environment": flatten(environment),
            "Timings": read_json(run.work, "timings.json"),
        }
        report = result.report._replace(notice=TINY_NOTICE) if run.preset == "tiny" else result.report
        write_report(run.work.path / "report.html", report, details)
        write_json(run.work, "metrics.json", result.metrics)
    return results


def run_command(
    name: str,
    preset: str,
    overrides: Sequence[str],
    config_file: Path | None = None,
    parts: Sequence[str] = (),
    workdir: Path | None = None,
    root: Path | None = None,
) -> str:
    """Command line of `medjax run` that repeats a run from the same folder; arguments as of `run_experiment`."""
    start = [f"{name}:{preset}"] if config_file is None else [name, f"--config={config_file}:{preset}"]
    options = [*(f"--config.{override}" for override in overrides), *(f"--part={part}" for part in parts)]
    folders = {"--experiments": root, "--workdir": workdir}
    options += [f"{option}={folder}" for option, folder in folders.items() if folder is not None]
    return shlex.join(["medjax", "run", *start, *options])


def relative_path(path: Path) -> Path:
    """A path relative to the current directory, where it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _called(module: ModuleType, runs: Sequence[RunSpec], parts: Parts) -> list[Result | MedjaxError]:
    name, arguments, kind = "run", "config, work", "Result"
    if len(runs) > 1:
        name, arguments, kind = "population", "configs, works", f"list of {len(runs)} Results"
    if not hasattr(module, name):
        raise MedjaxError(f"{module.__name__} has no {name}; expected {name}({arguments}) -> {kind}")
    own = {keyword: part.value for keyword, part in parts.items()}
    if len(runs) == 1:
        results = [module.run(runs[0].config, runs[0].work, **own)]
    else:
        results = list(module.population([run.config for run in runs], [run.work for run in runs], **own))
    kinds = [type(result).__name__ for result in results]
    if len(kinds) != len(runs) or not all(isinstance(result, Result | MedjaxError) for result in results):
        raise MedjaxError(f"{name} of {module.__name__} returned {', '.join(kinds) or 'nothing'}; expected a {kind}")
    return results


def _checked(result: Result | MedjaxError) -> Result | MedjaxError:
    """The result with metrics as plain floats, sorted by name; an error if one is infinite."""
    if isinstance(result, MedjaxError):
        return result
    checked = {name: float(result.metrics[name]) for name in sorted(result.metrics)}
    for name, value in checked.items():
        if math.isinf(value):
            return MedjaxError(f"metric {name} is {value}; expected a finite number, or NaN where it is undefined")
    return result._replace(metrics=checked)


def _record_environment(work: WorkDir, root: Path) -> dict[str, Any]:
    """Write environment.json; a run continued elsewhere keeps under `earlier` what was different before."""
    from medjax.running.environment import describe_environment, environment_changes

    before, now = (
        read_json(work, "environment.json"),
        describe_environment(None if in_installed_package(root) else root),
    )
    earlier, changed = before.get("earlier", []), environment_changes(before, now)
    if not isinstance(earlier, list):
        found = f"{work.path / 'environment.json'}: 'earlier' is a JSON {type(earlier).__name__}"
        raise WorkdirError(f"{found}; expected a list, as medjax wrote it: delete the file")
    if changed:
        print(f"medjax: this run began with another {', '.join(changed)}; what it kept is used", file=sys.stderr)
    now["earlier"] = [*earlier, *([changed] if changed else [])]
    write_json(work, "environment.json", now)
    return now
