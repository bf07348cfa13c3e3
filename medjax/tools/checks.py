"""What commands check of their options before any work is done, and how they count in words."""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medjax.errors import ConfigError, DataError, MedjaxError, type_and_message
from medjax.io.nifti import Volume, read_nifti


def as_paths(*given: Any) -> tuple[Any, ...]:
    """What was given, texts as paths: a notebook may name files and folders either way."""
    return tuple(Path(one) if isinstance(one, str) else one for one in given)


def counted(number: int, thing: str) -> str:
    """`1 plane`, `2 planes`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def at_least(name: str, value: int | float, least: int | float) -> None:
    """Pass a finite number that is not below `least`.

    Raises:
        ConfigError: it is.
    """
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{name} {value:g}; expected {least:g} or more")


def whole_numbers(
    option: str, text: str | None, expected: str, good: Callable[[list[int]], bool] = bool
) -> list[int] | None:
    """The numbers of an option's text such as "0,1,2"; None for None.

    Raises:
        ConfigError: not whole numbers, or not `good` ones: `expected` says what is.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal()]
    if len(numbers) < len(parts) or not good(numbers):
        raise ConfigError(f"{option} {text}; expected {expected}")
    return numbers


def choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Pass a value that is known.

    Raises:
        ConfigError: it is not.
    """
    if value not in known:
        raise ConfigError(f"{option} {value}; expected {', '.join(known[:-1])} or {known[-1]}")


def check_output(path: Path, suffixes: tuple[str, ...]) -> None:
    """See that a file can be written there, before any work is done for it.

    Raises:
        DataError: another suffix, a folder of that name, or no folder to write to.
        OSError: the folder cannot be written to.
    """
    if not path.name.endswith(suffixes):
        raise DataError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        found = "is a folder" if path.is_dir() else f"no folder {path.parent}"
        raise DataError(f"{path}: {found}; expected a file to write in a folder that exists")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def checked_volume(given: Path | Volume, name: str, check: Callable[[Any], None] | None = None) -> tuple[Volume, str]:
    """The volume, of a NIfTI file where a path is given, and what messages call it: the path, or `name`.

    Raises:
        DataError: it cannot be read, or `check` refuses its values.
    """
    volume, name = (read_nifti(given), str(given)) if isinstance(given, Path) else (given, name)
    try:
        if check is not None:
            check(volume.array)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return volume, name


@contextmanager
def errors_of(what: str, expected: str) -> Iterator[None]:
    """Say in one line what a user's part raises within; `what` names it, `expected` says what it is to be.

    Raises:
        ConfigError: anything but medjax's own errors was raised.
    """
    try:
        yield
    except MedjaxError:
        raise
    except Exception as error:  # whatever a user's part raises
        raise ConfigError(f"{what}: {type_and_message(error)}; expected {expected}") from error
