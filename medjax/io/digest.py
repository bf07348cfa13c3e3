"""SHA-256 of the contents of files: whether they are what they were."""

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from medjax.errors import DataError


def file_digest(path: Path) -> str:
    """SHA-256 of a file as it is on disk, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files in their order, decompressed where a name ends in .gz: how is not what.

    Raises:
        DataError: one is missing or its compression is damaged.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()
