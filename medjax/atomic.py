"""Atomic file writing: files are written under a temporary name, synced, then renamed.

A temporary name is random and its file is opened exclusively, so that two processes may write one file: the last one's
is kept whole. It is locked while its writer lives, so that only what a dead one left is ever removed. Where a file
system has no locks, nothing is removed.
"""

import csv
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from medjax.errors import MedjaxError

TEMPORARY_SUFFIX = ".medjax-part"  # name ending of a file, or a folder of files, until it is complete
FORMULA = ("=", "+", "-", "@", "\t", "\n")  # beginnings of what a spreadsheet takes for a formula
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tabs and line ends
COMPLETE_SUFFIX = ".medjax-complete"  # name ending of a folder of complete files that are taking their places


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO, None, None]:
    """Atomically replace a file: yields a binary file that becomes `path` when the block succeeds.

    Otherwise `path` is as it was and nothing is left over.

    Raises:
        OSError: it cannot be written (disk full, no permission); it names `path`.
    """
    part = path.parent
    try:
        _check_replaceable(path)
        part, descriptor = _new_file(path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            os.replace(part, path)  # noqa: PTH105 (named so that a test can make it fail)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno and _is_temporary(error.filename):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def replacing_together(*paths: Path) -> Generator[list[Path], None, None]:
    """Replace several files together: yields a temporary path for each, which the block writes, of the same file name.

    When the block succeeds all of them take their places; otherwise every file is as it was. At no moment do old and
    new files stand side by side: old ones leave first. A process that is killed while they do leaves some of them
    absent; the next writer there, or `remove_leftovers`, puts the new ones into place, and removes what a killed one
    had not completed. What the block does not write stays away, also if it was there.

    Raises:
        OSError: one cannot be written; it names that one of `paths`.
    """
    parents = dict.fromkeys(path.parent for path in paths)
    folders, locks = dict[Path, Path](), list[int]()
    try:
        for parent in parents:
            _recover(parent.glob(f".*{COMPLETE_SUFFIX}"))
            _discard(parent.glob(f".*{TEMPORARY_SUFFIX}"))
            folders[parent], lock = _new_folder(parent)
            locks.append(lock)
        parts = [folders[path.parent] / path.name for path in paths]
        with _named(parts, paths):
            yield parts
            for part in parts:
                _sync(part)
        for parent, folder in folders.items():
            folders[parent] = folder.rename(folder.with_suffix(COMPLETE_SUFFIX))
        parts = [folders[path.parent] / path.name for path in paths]
        with _named(parts, paths):
            _exchange(parts, paths)
        for parent in folders:
            _sync(parent)
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        for lock in locks:
            os.close(lock)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all. Raises OSError as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # surrogates, of file names: JSON's own escape


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all; texts as `cell_text` has them. Raises OSError as `replacing` does."""
    text = io.StringIO()
    cells = ([cell_text(cell) if isinstance(cell, str) else cell for cell in row] for row in [header, *rows])
    csv.writer(text, lineterminator="\n").writerows(cells)
    with replacing(path) as file:
        file.write(text.getvalue().encode(errors="backslashreplace"))  # surrogates, of file names


def cell_text(text: str) -> str:
    """Text as a cell of a CSV: an apostrophe before what a spreadsheet takes for a formula, control characters escaped.

    That is text that begins with one of `= + - @`, a tab or a line end and is no number. `text_of_cell` takes the
    apostrophe off.
    """
    escaped = CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r", "\\x0d"))
    bare = escaped.lstrip("'")
    return f"'{escaped}" if bare.startswith(FORMULA) and not (bare == escaped and _is_number(bare)) else escaped


def text_of_cell(cell: str) -> str:
    """Text of a cell that `cell_text` made, without its apostrophe."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"  # no value
    return True


@contextmanager
def removed_if_empty(folder: Path, new: bool, worthless: Collection[str] = (".lock",)) -> Generator[None, None, None]:
    """If the block raises, remove a `new` folder that holds no other files than those with `worthless` names."""
    try:
        yield
    except BaseException:
        if new and {one.name for one in folder.rglob("*") if not one.is_dir()} <= {*worthless}:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files and folders of dead writers in and below `folder`; those of living ones stay.

    Files that a dead writer was just putting into their places (`replacing_together`) take them.
    """
    _recover(folder.rglob(f".*{COMPLETE_SUFFIX}"))
    _discard(folder.rglob(f".*{TEMPORARY_SUFFIX}"))


def _recover(ready: Iterable[Path]) -> None:
    """Put what dead writers had ready into its place."""
    for folder in [*ready]:
        with suppress(OSError), _locked(folder):
            for part in folder.iterdir():
                if not part.name.endswith(".old"):
                    part.replace(folder.parent / part.name)
            shutil.rmtree(folder)


def _discard(parts: Iterable[Path]) -> None:
    """Delete what dead writers had not completed."""
    for part in [*parts]:
        with suppress(OSError), _locked(part):
            shutil.rmtree(part) if part.is_dir() else part.unlink()


@contextmanager
def _locked(part: Path) -> Generator[None, None, None]:
    """Context with the lock of a temporary file or folder. Raises OSError if its writer lives, or it is gone."""
    descriptor = os.open(part, (os.O_RDONLY if part.is_dir() else os.O_RDWR) | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _new_file(folder: Path) -> tuple[Path, int]:
    """A new temporary file in `folder`, locked, and its descriptor."""
    while True:
        part = folder / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:  # else somebody removed it before it was locked
            return part, descriptor
        os.close(descriptor)


def _new_folder(folder: Path) -> tuple[Path, int]:
    """A new temporary folder in `folder`, locked, and its descriptor. Raises OSError, which names `folder`."""
    while True:
        part = folder / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        try:
            part.mkdir()
            descriptor = os.open(part, os.O_RDONLY)
        except FileNotFoundError as error:
            if not folder.is_dir():
                raise OSError(error.errno, error.strerror, str(folder)) from error
            continue  # somebody removed it before it was locked
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        _lock(descriptor)
        if part.is_dir():
            return part, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_temporary(name: Any) -> bool:
    return name is None or str(name).endswith(TEMPORARY_SUFFIX)


def _check_replaceable(path: Path) -> None:
    """Raise OSError where a folder, a pipe or a device is: a renamed file would take the place of `/dev/null` too."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Is a pipe or a device", str(path))


def _exchange(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Move old files away, then new ones into their places; if that fails, put the old ones back."""
    away = [part.with_name(f"{part.name}.old") for part in parts]
    left, placed = list[int](), list[int]()
    try:
        for number, path in enumerate(paths):
            _check_replaceable(path)
            if os.path.lexists(path):
                path.rename(away[number])
                left.append(number)
        for number, part in enumerate(parts):
            if part.exists():
                os.replace(part, paths[number])  # noqa: PTH105 (named so that a test can make it fail)
                placed.append(number)
    except BaseException:
        for number in placed:
            paths[number].unlink()
        for number in left:
            away[number].rename(paths[number])
        raise


@contextmanager
def _named(parts: Sequence[Path], paths: Sequence[Path]) -> Generator[None, None, None]:
    """Context whose errors name files as they are to be called in place of their temporary names."""
    names = {str(part): str(path) for part, path in zip(parts, paths, strict=True)}
    try:
        yield
    except OSError as error:
        if str(error.filename) in names and error.errno:
            raise OSError(error.errno, error.strerror, names[str(error.filename)]) from error
        raise
    except MedjaxError as error:
        text = str(error)
        for part, path in names.items():
            text = text.replace(part, path)
        raise type(error)(text) from error


def _sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, survive a power cut."""
    if path.exists():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
