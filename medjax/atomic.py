"""Atomic file writing: files are written under a temporary name, synced, then renamed."""

import csv
import io
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY_SUFFIX = ".medjax-part"  # name ending of a file until it is complete


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO, None, None]:
    """Atomically replace a file: yields a binary file that becomes `path` when the block succeeds.

    Otherwise `path` is as it was and nothing is left over.

    Raises:
        OSError: it cannot be written (disk full, no permission); it names `path`.
    """
    part = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105 (named so that a test can make it fail)
        _sync_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno and str(error.filename) in ("None", str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all. Raises OSError as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all. Raises OSError as `replacing` does."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of interrupted writers. Call it only while no other process writes in `folder`."""
    for part in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        part.unlink(missing_ok=True)


def _sync_directory(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
