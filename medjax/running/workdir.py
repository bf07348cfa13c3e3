"""Work directories: locked by one process at a time, consistent after any interruption, resumed by the same command.

It contains config.json, metrics.jsonl, timings.json, figures/, checkpoints/ and what the runner adds at the end.
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from medjax.atomic import remove_leftovers, removed_if_empty, write_text
from medjax.errors import DataError, MedjaxError, WorkdirError, type_and_message
from medjax.io import files
from medjax.report.figures import write_png
from medjax.running.config import flatten, to_dict
from medjax.running.lock import lock_folder
from medjax.running.progress import report_stage

PyTree = Any  # jaxtyping's would import JAX, and a finished run needs none

INITIAL_FILES = (
    ".lock",
    "config.json",
    "environment.json",
    "checkpoints",
    "figures",
)  # of a run without any result yet
ENDINGS = (".json", ".jsonl", ".html")  # of files that a run writes beside checkpoints and figures


@dataclass(frozen=True)
class WorkDir:
    """A work directory that this process has locked; see `open_workdir`."""

    path: Path
    stages: set[str] = field(default_factory=set)  # names used in this process, so that none is used twice

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints and stages."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.path / "figures"


@contextmanager
def open_workdir(path: Path, config: Mapping | ConfigDict) -> Generator[WorkDir, None, None]:
    """Open and lock a work directory (made if absent) for a run with `config`, until the block or the process ends.

    A new directory is removed again if the block fails before any result: another config, or a corrected part, can
    take its place.

    Raises:
        WorkdirError: another process has locked it, it belongs to another config, a pipe or a device is in it, or its
            name is no UTF-8, which the checkpoints need.
        OSError: it cannot be made or written.
    """
    if (name := str(path.absolute())) != name.encode(errors="ignore").decode():
        raise WorkdirError(f"{path}: a name that is not UTF-8; expected a work directory whose whole path is")
    new = not path.exists()
    for file in path.iterdir() if path.is_dir() else ():
        if file.suffix in ENDINGS and file.exists() and not (file.is_file() or file.is_dir()):
            raise WorkdirError(f"{file}: is a pipe or a device; expected one that medjax wrote (delete it)")
    for folder in (path, path / "checkpoints", path / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(path), removed_if_empty(path, new, INITIAL_FILES):
        work = WorkDir(path)
        remove_leftovers(path)
        for log in path.glob("*.jsonl"):
            _drop_half_line(log)
        _claim(work, config)
        yield work


def stage(work: WorkDir, name: str, compute: Callable[[], PyTree], like: PyTree | None = None) -> PyTree:
    """Stage of a run: `compute()`, or its result if it was computed before; kept in `checkpoints/NAME.npz`.

    The result is a nested dict of arrays and numbers; with `like` (arrays or shapes), any pytree of that structure. It
    comes back as NumPy arrays, the same ones whether computed or kept. Its wall time goes to timings.json.

    Raises:
        TypeError: the result cannot be kept without `like`, or a leaf is no array.
        ValueError: `name` was used before in this run, or is no plain name.
        WorkdirError: the kept result has another structure than `like`.
    """
    file = _claimed(work, name)
    kept = load_kept(file, like)
    return kept if kept is not None else _compute(work, name, file, compute, like)


def stages(
    stage_names: Sequence[tuple[WorkDir, str]],
    compute: Callable[[list[int]], Iterable[tuple[int, PyTree]]],
    like: PyTree | None = None,
) -> list[PyTree]:
    """Stages that are computed together, such as the members of a population; otherwise as `stage`.

    An error in place of a result, such as that of a member that diverged, is returned and not kept.

    Args:
        stage_names: (work directory, name) of each stage.
        compute: numbers of the stages not kept yet → (number, result) of each when it is finished, kept at once.
        like: structure of the results, if they are no nested dicts.

    Raises:
        TypeError, ValueError, WorkdirError: as `stage`.
        RuntimeError: `compute` did not yield all of these stages.
    """
    files = [_claimed(work, name) for work, name in stage_names]
    found = {number: tree for number, file in enumerate(files) if (tree := load_kept(file, like)) is not None}
    missing = [number for number in range(len(stage_names)) if number not in found]
    start = time.perf_counter()
    for number, tree in compute(missing) if missing else ():
        work, name = stage_names[number]
        failed = isinstance(tree, MedjaxError)
        found[number] = tree if failed else _keep(work, name, files[number], tree, like, start)
        start = time.perf_counter()
    if lacking := [stage_names[number][1] for number in missing if number not in found]:
        raise RuntimeError(f"stages: {', '.join(lacking)} were not computed")
    return [found[number] for number in range(len(stage_names))]


def write_json(work: WorkDir, name: str, content: Mapping[str, Any]) -> Path:
    """Write a JSON file to a work directory, keys sorted, NaN and infinity as null; whole or not at all."""
    path = work.path / name
    write_text(path, json.dumps(_jsonable(content), indent=2, sort_keys=True, allow_nan=False) + "\n")
    return path


def read_json(work: WorkDir, name: str) -> dict[str, Any]:
    """Read a JSON file of a work directory; empty if there is none.

    Raises:
        WorkdirError: it is no JSON object, or no file.
    """
    path = work.path / name
    if not os.path.lexists(path):
        return {}
    try:
        return files.read_json_object(path, "one that medjax wrote (delete it)")
    except DataError as error:
        raise WorkdirError(str(error)) from error


def append_jsonl(work: WorkDir, record: Mapping[str, Any], name: str = "metrics.jsonl") -> None:
    """Append one record to a JSON-lines file; after an interruption an incomplete line is dropped on reopening."""
    line = (json.dumps(_jsonable(record), allow_nan=False) + "\n").encode()
    with (work.path / name).open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while line:
                line = line[os.write(file.fileno(), line) :]
        except OSError as error:
            file.truncate(end)
            raise OSError(error.errno, error.strerror, str(work.path / name)) from error


def filter_jsonl(work: WorkDir, wanted: Callable[[dict[str, Any]], bool], name: str = "metrics.jsonl") -> None:
    """Drop records that are not `wanted` from a JSON-lines file: those written after the last checkpoint.

    Raises:
        WorkdirError: it holds something else than such records.
    """
    path = work.path / name
    if not os.path.lexists(path):
        return
    expected = "records that medjax wrote (delete it: they are for looking at only)"
    try:
        lines = files.read_text(path, expected).splitlines(keepends=True)
        records = [files.parse_json(line, f"{path}: line {number}", expected) for number, line in enumerate(lines, 1)]
        kept = [line for line, record in zip(lines, records, strict=True) if wanted(record)]
    except DataError as error:
        raise WorkdirError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:  # of `wanted`
        raise WorkdirError(f"{path}: no such records ({type_and_message(error)}); expected {expected}") from error
    write_text(path, "".join(kept))


def record_timings(work: WorkDir, timings: Mapping[str, float]) -> None:
    """Add timings such as "fit.seconds" to timings.json, which is kept when a run resumes."""
    write_json(work, "timings.json", read_json(work, "timings.json") | dict(timings))


def save_figure(work: WorkDir, name: str, figure: Any) -> Path:
    """Save a Matplotlib figure as figures/NAME.png; equal figures give equal bytes. The caller closes it."""
    path = work.figures / f"{_plain_name(name)}.png"
    write_png(path, figure)
    return path


def _claim(work: WorkDir, config: Mapping | ConfigDict) -> None:
    """Write config.json, or compare with the one that is there."""
    wanted = flatten(json.loads(json.dumps(_jsonable(to_dict(config)))))
    there = flatten(read_json(work, "config.json"))
    if not there:
        write_json(work, "config.json", to_dict(config))
        return
    absent = "absent"
    for key in sorted(there | wanted):
        old, new = (json.dumps(values[key]) if key in values else absent for values in (there, wanted))
        if old != new:
            edited = ", since its file was edited" if key.endswith(".sha256") and absent not in (old, new) else ""
            raise WorkdirError(
                f"{work.path} belongs to another config: {key} is {old} there and {new} here{edited}; choose another "
                "folder"
            )


def load_kept(file: Path, like: PyTree | None = None) -> PyTree | None:
    """Tree of arrays that a run kept in an npz file; None if there is none, or, with a line on stderr, it is damaged.

    Raises:
        WorkdirError: it has another structure than `like`.
    """
    from medjax.running.arrays import load_arrays

    try:
        return load_arrays(file, like)
    except FileNotFoundError:
        return None
    except WorkdirError:
        raise
    except DataError as error:
        reason = str(error).removeprefix(f"{file}: ").partition("; expected")[0]
        print(f"medjax: {file} is damaged ({reason}); computing it again", file=sys.stderr)
        return None


def _claimed(work: WorkDir, name: str) -> Path:
    """The file of a stage, which this run asks for once."""
    if name in work.stages:
        raise ValueError(f"stage '{name}' exists already in this run; give every stage its own name")
    file = work.checkpoints / f"{_plain_name(name)}.npz"
    work.stages.add(name)
    return file


def _compute(work: WorkDir, name: str, file: Path, compute: Callable[[], PyTree], like: PyTree | None) -> PyTree:
    start = time.perf_counter()
    return _keep(work, name, file, compute(), like, start)


def _keep(work: WorkDir, name: str, file: Path, tree: PyTree, like: PyTree | None, start: float) -> PyTree:
    import jax

    from medjax.running.arrays import is_nested_dict, load_arrays, save_arrays

    tree = jax.block_until_ready(tree)
    if like is None and not is_nested_dict(tree):
        raise TypeError(f"stage '{name}' gave {type(tree).__name__}; expected nested dicts of arrays, or pass like=")
    seconds = time.perf_counter() - start
    record_timings(work, {f"{name}.seconds": round(seconds, 3)})
    report_stage(name, seconds)
    save_arrays(file, tree)
    return load_arrays(file, like)  # as a resumed run will see it


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"'{name}' is no plain name; expected letters, digits, '_', '-' and '.'")
    return name


def _drop_half_line(path: Path) -> None:
    content = files.read_bytes(path, "records that medjax wrote (delete it)")
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _jsonable(value: Any) -> Any:
    """`value` as JSON has it: NumPy and JAX scalars and arrays as numbers and lists, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    return value
