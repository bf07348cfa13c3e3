"""Predicted files of a folder of cases: computed one by one, published together, recognised by their contents.

    missing = publish(output, {"case_1": "sha256 of model and image"}, {"case_1": ["case_1.nii.gz"]}, write)

OUTPUT/predictions.json      for each case what it was predicted from, and the SHA-256 of each file
OUTPUT/.predicting/SHA-256/  files of an interrupted run, with which the same command goes on; removed at its end
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medjax.atomic import remove_leftovers, removed_if_empty, replacing, replacing_together, write_text
from medjax.errors import DataError
from medjax.io.digest import file_digest
from medjax.io.files import read_json_object
from medjax.running.lock import lock_folder
from medjax.running.progress import track

RECORD, UNFINISHED = "predictions.json", ".predicting"


def publish(
    output: Path, sources: Mapping[str, str], files: Mapping[str, Sequence[str]], write: Callable[[str, Path], None]
) -> list[str]:
    """Write the files of every case to `output` that are not there yet; returns the cases that were missing.

    A case is there if the record says that it came from the same source and its files are as they were written. The
    missing ones are written into a hidden folder first, where a stopped run left some of them perhaps, and take their
    places together at the end: no old files stand beside new ones. The hidden ones stay until that has succeeded.

    Args:
        output: folder, made if absent.
        sources: for each case a digest of all that its files depend on.
        files: names of the files of each case.
        write: writes the files of a case into a folder, each whole or not at all.

    Raises:
        WorkdirError: another process works there.
        OSError: a file cannot be written.

    A new folder that has no file yet when `write` fails is removed.
    """
    new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    with lock_folder(output), removed_if_empty(output, new):
        remove_leftovers(output)
        record = _read_record(output)
        missing = [case for case in sources if not _is_there(output, record.get(case), sources[case], files[case])]
        parts = {case: output / UNFINISHED / sources[case] for case in missing}
        _remove_others(output / UNFINISHED, parts.values())
        for case in track(missing, "predicting"):
            parts[case].mkdir(parents=True, exist_ok=True)
            if not all((parts[case] / name).is_file() for name in files[case]):
                write(case, parts[case])
        if missing:
            _exchange(output, record, parts, sources, files)
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)
        return missing


def _exchange(
    output: Path,
    record: dict[str, Any],
    parts: Mapping[str, Path],
    sources: Mapping[str, str],
    files: Mapping[str, Sequence[str]],
) -> None:
    """Put files and record into their places; files of these cases that are no longer asked for leave."""
    new = [(case, name) for case in parts for name in files[case]]
    old = [(case, name) for case in parts for name in _names(record.get(case)) if name not in files[case]]
    entries = {
        case: {"source": sources[case], "files": {name: file_digest(folder / name) for name in files[case]}}
        for case, folder in parts.items()
    }
    with replacing_together(*(output / name for _, name in new + old), output / RECORD) as temporary:
        for (case, name), place in zip(new, temporary, strict=False):
            _link(parts[case] / name, place)
        write_text(temporary[-1], json.dumps(record | entries, indent=2, sort_keys=True) + "\n")


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no links, copy it."""
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as content, replacing(target) as file:
            shutil.copyfileobj(content, file)


def _read_record(output: Path) -> dict[str, Any]:
    try:
        return read_json_object(output / RECORD, "a record of predictions")
    except DataError:
        return {}  # nothing is known about what is there: it is computed again


def _names(entry: Any) -> list[str]:
    files = entry.get("files") if isinstance(entry, dict) else None
    return [name for name in files if Path(name).name == name] if isinstance(files, dict) else []


def _is_there(output: Path, entry: Any, source: str, names: Sequence[str]) -> bool:
    if sorted(_names(entry)) != sorted(names) or entry.get("source") != source:
        return False
    return all((output / name).is_file() and file_digest(output / name) == entry["files"][name] for name in names)


def _remove_others(folder: Path, wanted: Iterable[Path]) -> None:
    """Remove what a run of another model, or of other images, left."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in {*wanted}:
            shutil.rmtree(path)
