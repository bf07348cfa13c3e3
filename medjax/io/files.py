"""Files as they are opened: regular ones only, of a size that fits, as text in UTF-8, JSON, or arrays of an npz.

Everything that is read of a user goes through here, so that a pipe, a device, a wrong encoding or a compressed bomb is
one line and not a hang, a traceback or all of the memory.
"""

import errno
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from medjax.errors import DataError, type_and_message
from medjax.memory import check_memory

MAX_TEXT = 256 * 2**20  # bytes of a text file: tables of millions of rows
MAX_EXPANSION = 2**30  # bytes that an archive may declare beyond 100 times its own size
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # where a name leads to no file
MAX_NESTING = 100  # levels of JSON
ENCODINGS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def check_file(path: Path, expected: str) -> None:
    """Check that a path, links followed, is a regular file; `expected` describes the file in messages.

    Raises:
        DataError: nothing is there, or a folder, a pipe or a device.
        OSError: it cannot be looked at (no permission).
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in its name
        if isinstance(error, OSError) and error.errno not in NOWHERE:
            raise
        raise DataError(f"{path}: no such file; expected {expected}") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder; expected {expected}")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is a pipe or a device; expected {expected}, a regular file")


def real_path(path: Path) -> Path:
    """Absolute path with links followed, also of a file that is not there; a loop of links stays as it is."""
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError where links make a loop


def read_bytes(path: Path, expected: str, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file whole.

    Raises:
        DataError: there is none, or it is larger than `max_bytes` or the memory.
    """
    check_file(path, expected)
    if max_bytes is not None and (size := path.stat().st_size) > max_bytes:
        raise DataError(f"{path}: {size:,} bytes; expected {expected} of {max_bytes:,} at most")
    check_memory(str(path), path.stat().st_size)
    return path.read_bytes()


def read_text(path: Path, expected: str, *, max_bytes: int = MAX_TEXT) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark; line ends as they are.

    Raises:
        DataError: there is none, it is too large, binary, or in another encoding.
    """
    check_file(path, expected)
    if (size := path.stat().st_size) > max_bytes:
        raise DataError(
            f"{path}: {size / 2**20:,.0f} MiB of text; expected {expected} of {max_bytes / 2**20:g} at most"
        )
    content = path.read_bytes()
    if encoding := encoding_by_mark(content):
        raise DataError(f"{path}: text in {encoding}; expected {expected} in UTF-8")
    if b"\0" in content:
        raise DataError(f"{path}: binary (byte {content.index(0)} is 0); expected {expected} as text in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line} is not UTF-8; expected {expected} as text in UTF-8") from error


def encoding_by_mark(content: bytes) -> str | None:
    """The encoding other than UTF-8 that a text's byte-order mark tells; None without one."""
    return next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), None)


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: there is none, or it is not JSON in UTF-8.
    """
    return parse_json(read_text(path, expected), str(path), expected)


def read_json_object(path: Path, expected: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataError: there is none, or it holds something else.
    """
    content = read_json(path, expected)
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON {type(content).__name__}; expected {expected}, a JSON object")
    return content


def parse_json(text: str | bytes, name: str, expected: str) -> Any:
    """Parse JSON; `name` is where it comes from in messages.

    Raises:
        DataError: it is not JSON, or nested too deep.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{name}: not JSON ({error}); expected {expected}") from error
    except RecursionError as error:
        raise DataError(f"{name}: JSON nested too deep; expected {expected}") from error
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_NESTING):  # who reads it may call itself at each level
        inner = (value for one in level for value in (one.values() if isinstance(one, dict) else one))
        level = [value for value in inner if isinstance(value, dict | list)]
    if level:
        raise DataError(f"{name}: JSON nested too deep; expected {expected}")
    return content


def read_npy(path: Path, expected: str) -> np.ndarray:
    """Read the array of an npy file, without pickle.

    Raises:
        DataError: there is none, it is damaged, or its shape is not its content's.
    """
    check_file(path, expected)
    check_memory(str(path), path.stat().st_size)
    try:
        # a map is refused where the header declares more than the file has, before anything is allocated
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a damaged file can fail anywhere inside NumPy
        reason = "it holds Python objects" if "pickle" in str(error) else type_and_message(error)
        raise DataError(f"{path}: cannot be read as npy ({reason}); expected {expected}") from error


def read_npz(path: Path, expected: str) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file, without pickle.

    Raises:
        DataError: there is none, it is damaged, it expands to more than 100 times its size and 1 GiB or than the
            memory, or the shape of an array is not its content's.
    """
    check_file(path, expected)
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
            size = path.stat().st_size
            if declared > 100 * size + MAX_EXPANSION:
                raise DataError(f"{path}: {size:,} bytes that expand to {declared:,}; expected {expected}")
            check_memory(str(path), declared)
            return {entry.filename.removesuffix(".npy"): _member(archive, entry) for entry in archive.infolist()}
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside NumPy, zipfile and zlib
        raise DataError(f"{path}: cannot be read as npz ({type_and_message(error)}); expected {expected}") from error


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array, its header compared with the size of its content before anything of that shape is allocated."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"version {version} of npy in {entry.filename}")
        shape, _, dtype = read[version](file)
        if dtype.hasobject:
            raise ValueError(f"{entry.filename} holds Python objects")
        declared = dtype.itemsize * np.prod(shape, dtype=object)
        if min(shape, default=0) < 0 or declared > entry.file_size:
            raise ValueError(f"{entry.filename} of shape {shape} in {entry.file_size} bytes")
    with archive.open(entry) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        while file.read(2**20):  # to its end, where its checksum is compared
            pass
    return array
