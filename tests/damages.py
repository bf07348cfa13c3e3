"""Damages of files, for tests of their readers: each test damages a good file and expects one line that names it."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medjax.errors import MedjaxError

JSON = {  # what is no JSON object
    "empty": b"",
    "cut": b'{"a": ',
    "null": b"null",
    "list": b"[]",
    "text": b'"text"',
    "number": b"7",
    "digits": b"9" * 5000,
    "deep": b"[" * 100_000,
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "latin-1": '{"a": "größe"}'.encode("latin-1"),
    "binary": bytes(range(256)),
}
ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # what is no array of weights
    "shape": lambda array: array[None],
    "empty": lambda array: array[:0],
    "complex": lambda array: array.astype(complex),
    "integer": lambda array: np.ones(array.shape, int),
    "text": lambda array: np.full(array.shape, "a"),
    "float128": lambda array: array.astype(np.longdouble),
    "NaN": lambda array: np.full_like(array, np.nan),
    "infinite": lambda array: np.full_like(array, np.inf),
    "too large for float32": lambda array: np.full(array.shape, 1e300),
    "object": lambda array: np.full(array.shape, None),
}
ARCHIVES: dict[str, Callable[[bytes], bytes]] = {  # of an archive's bytes
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "rubbish": lambda content: b"PK" + bytes(range(200)),
    "flipped": lambda content: content[:200] + bytes(255 - byte for byte in content[200:240]) + content[240:],
    "text": lambda content: b"no archive",
}


def in_one_line(read: Callable[[], Any], file: Path | str) -> str:
    """Message of the error that a reader raises: one line, with the file's name, and no warning beside it."""
    with warnings.catch_warnings(), pytest.raises(MedjaxError) as caught:
        warnings.simplefilter("error")
        read()
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 1000, message
    assert Path(file).name in message, message
    return message


def header_of(settings: Any) -> np.ndarray:
    """Entry `settings` of a file of weights."""
    return np.frombuffer(json.dumps(settings).encode(), np.uint8)
