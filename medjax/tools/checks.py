"""Checks of the options and inputs of commands, made before any work is done."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medjax.errors import ConfigError, DataError, MedjaxError, type_and_message
from medjax.io.files import real_path
from medjax.io.grids import MAX_POSITION_MM
from medjax.io.nifti import Volume, read_nifti

# Limits of options: far more than is of use, and far less than what exhausts memory before the first step
MAX_STEPS = 10**8  # of a training or an iterative method
MAX_BATCH = 2**16
MAX_DIGITS = 10  # of a whole number
MAX_WIDTH = 2**13  # channels
MAX_SIDE = 4096  # voxels along an axis
MAX_SAMPLES = 10**4  # posterior samples
MAX_RESAMPLES = 10**6
MAX_RATE = 1000.0  # learning rate: with a larger one no network learns anything
MAX_FWHM_MM = 200.0
MIN_VOXEL_MM, MAX_VOXEL_MM = 0.01, 1000.0


def as_paths(*values: Any) -> tuple[Any, ...]:
    """Convert texts to paths; other values stay. A notebook may name files and folders either way.

    Raises:
        DataError: a path leads to a pipe or a device, which reading might never end and writing would replace.
    """
    paths = tuple(Path(one) if isinstance(one, str) else one for one in values)
    for path in paths:
        if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: is a pipe or a device; expected a regular file")
    return paths


def check_range(name: str, value: int | float, minimum: int | float, maximum: int | float) -> None:
    """Check that a number lies from `minimum` to `maximum`, both included.

    Raises:
        ConfigError: it does not, or is not a number.
    """
    if not minimum <= value:
        raise ConfigError(f"{name} {short_number(value)}; expected {minimum:g} or more")
    if value > maximum:
        raise ConfigError(f"{name} {short_number(value)}; expected {maximum:,.12g} or less")


def check_positive(name: str, value: int | float, maximum: int | float) -> None:
    """Check that a number is above 0 and not above `maximum`.

    Raises:
        ConfigError: it is not.
    """
    if not value > 0:
        raise ConfigError(f"{name} {short_number(value)}; expected more than 0")
    check_range(name, value, 0, maximum)


def short_number(value: int | float) -> str:
    """A number in a few characters, also one that no float holds."""
    return f"{value:g}" if abs(value) < 10**300 or not isinstance(value, int) else "of more than 300 digits"


def check_seed(seed: Any, name: str = "--seed") -> None:
    """Check a random seed: JAX keeps its lower 32 bits only, so that others would be the same as one of these.

    Raises:
        ConfigError: it is not a whole number from 0 to 2³² − 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ConfigError(f"{name} {str(seed)[:40]}; expected a whole number from 0 to {2**32 - 1}")


def check_position(position_mm: tuple[float, float, float], name: str) -> None:
    """Check that a position lies within 100 m of the origin; beyond, float32 affines lose millimetres.

    Raises:
        ConfigError: it does not, or is not finite.
    """
    if not all(abs(value) <= MAX_POSITION_MM for value in position_mm):
        where = ",".join(f"{value:g}" for value in position_mm)
        raise ConfigError(f"{name} {where}; expected mm, finite numbers within ±{MAX_POSITION_MM:g}")


def parse_integers(
    option: str, text: str | None, expected: str, valid: Callable[[list[int]], bool] = bool
) -> list[int] | None:
    """Parse an option such as "0,1,2" to integers; None for None.

    Raises:
        ConfigError: not whole numbers, or not `valid` ones; `expected` describes those.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal() and len(part) < MAX_DIGITS]
    if len(numbers) < len(parts) or not valid(numbers):
        raise ConfigError(f"{option} {text}; expected {expected}")
    return numbers


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that the value of an option is one of the `choices`.

    Raises:
        ConfigError: it is not.
    """
    if value not in choices:
        raise ConfigError(f"{option} {value}; expected {', '.join(choices[:-1])} or {choices[-1]}")


def check_output(path: Path, suffixes: tuple[str, ...]) -> None:
    """Check that a file can be written there, before any work is done for it.

    Raises:
        DataError: another suffix, a folder of that name, or no folder to write to.
        OSError: the folder cannot be written to.
    """
    if not path.name.endswith(suffixes):
        raise DataError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        found = "is a folder" if path.is_dir() else f"no folder {path.parent}"
        raise DataError(f"{path}: {found}; expected a file to write in a folder that exists")
    _check_writable(path.parent, path)


def check_output_files(paths: Iterable[Path]) -> None:
    """Check that none of several files to write is a folder, before any work: they are written together or not at all.

    Raises:
        DataError: one is.
    """
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; expected a file to write")


def check_output_folder(path: Path) -> None:
    """Check that a folder can be written to, made with those above it where they are not there, before any work.

    Raises:
        DataError: it, or one above it, is a file.
        OSError: it cannot be written to.
    """
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise DataError(f"{path}: {existing} is a file; expected a folder to write to")
    _check_writable(existing, path)


def _check_writable(folder: Path, path: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_no_overwrite(outputs: Iterable[Path], inputs: Iterable[Path | Any]) -> None:
    """Check that no output is an input, links followed, and that no two outputs are one file.

    Inputs that are no paths (arrays, volumes, None) count for nothing. Pass every file that is written, not its folder.

    Raises:
        DataError: one is; it names the output.
    """
    read = {key: path for path in inputs if isinstance(path, Path) for key in _identities(path)}
    written: dict[Any, Path] = {}
    for path in outputs:
        keys = _identities(path)
        if same := next((read[key] for key in keys if key in read), None):
            raise DataError(f"{path}: is the input {same}; expected another name for the output")
        if any(key in written for key in keys):
            raise DataError(f"{path}: two outputs of that name; expected one name for each")
        written |= dict.fromkeys(keys, path)


def _identities(path: Path) -> list[Any]:
    """The resolved name of a file and, where it exists, its number on its device: hard links have one too."""
    try:
        status = path.stat()
    except OSError:
        return [real_path(path)]
    return [real_path(path), (status.st_dev, status.st_ino)]


def check_volume(volume: Path | Volume, name: str, check: Callable[[Any], None] | None = None) -> tuple[Volume, str]:
    """Read and check a volume, or a NIfTI file of one; also returns its name for messages: the path, or `name`.

    Raises:
        DataError: it cannot be read, or `check` refuses its values.
    """
    volume, name = (read_nifti(volume), str(volume)) if isinstance(volume, Path) else (volume, name)
    try:
        if check is not None:
            check(volume.array)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return volume, name


@contextmanager
def reraise_as_config_error(what: str, expected: str) -> Iterator[None]:
    """Context that reraises the errors of a user's part as a ConfigError of one line.

    `what` is the name of the part in the message, `expected` describes what it should be.

    Raises:
        ConfigError: any error but medjax's own was raised.
    """
    try:
        yield
    except MedjaxError:
        raise
    except Exception as error:  # whatever a user's part raises
        raise ConfigError(f"{what}: {type_and_message(error)}; expected {expected}") from error
