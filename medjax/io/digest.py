"""SHA-256 of the contents of files: whether they are what they were."""

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from medjax.errors import DataError
from medjax.io.files import check_file


def file_digest(path: Path) -> str:
    """SHA-256 of a file as it is on disk, in hexadecimal digits. Raises DataError where it is no regular file."""
    check_file(path, "a file to compare")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files in their order, decompressed where a name ends in .gz: how is not what.

    Raises:
        DataError: one is missing or its compression is damaged.
    """
    digest = hashlib.sha256()
    for path in paths:
        check_file(path, "a file to compare")
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()
