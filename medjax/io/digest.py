"""SHA-256 of the contents of files: whether they are what they were."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from medjax.io.files import check_file
from medjax.io.nifti_file import read_content


def file_digest(path: Path) -> str:
    """SHA-256 of a file as it is on disk, in hexadecimal digits. Raises DataError where it is no regular file."""
    return _digest(path).hex()


def content_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of images in their order, of compressed NIfTI decompressed: how is not what.

    Raises:
        DataError: one is missing, or a compressed one is damaged.
    """
    digest = hashlib.sha256()
    for path in paths:
        compressed = path.suffix == ".gz"
        digest.update(hashlib.sha256(read_content(path)).digest() if compressed else _digest(path))
    return digest.hexdigest()


def _digest(path: Path) -> bytes:
    check_file(path, "a file to compare")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
