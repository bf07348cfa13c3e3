"""Folders of simulated data sets: written whole under a temporary name, then renamed; never into what is there."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medjax.atomic import TEMPORARY_SUFFIX
from medjax.errors import ConfigError, DataError
from medjax.tools.checks import check_output_folder, short_number

SLICES, SLICE_MM, FIELD_MM = 20, 5.0, 144.0  # of a fetal scan; the field of view along x and y


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a folder: yields a temporary one, which becomes `path` when the block succeeds; else nothing is left.

    Raises:
        DataError: `path` is a file, or a folder with files.
        OSError: it cannot be written; it names `path`.
    """
    check_output_folder(path)
    if path.exists() and any(path.iterdir()):
        raise DataError(f"{path}: is not empty; expected a new folder")
    parent = path.absolute().parent
    made = [one for one in (parent, *parent.parents) if not one.exists()]
    part = parent / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(path)
    except BaseException as error:
        shutil.rmtree(made[-1] if made else part, ignore_errors=True)
        if isinstance(error, OSError) and error.errno and str(error.filename).startswith(str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def check_interval(name: str, value: int | float, low: int | float, high: int | float) -> None:
    """Check a number of what is simulated: more than `high` would take more time or memory than a small data set has.

    Raises:
        ConfigError: it is not from `low` to `high`.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} {short_number(value)}; expected {low:g} to {high:g}")


def fetal_grid(size: int) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape, and spacing in mm, of a simulated fetal scan of `size` voxels along x and y."""
    return (size, size, SLICES), (FIELD_MM / size, FIELD_MM / size, SLICE_MM)
