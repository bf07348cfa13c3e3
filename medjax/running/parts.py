"""Parts of a user (network, prior, penalty, label score …), passed to a command as `FILE.py:NAME`.

    part = load_part("mine.py:net", "--network")
    part.value                    the object NAME of that file
    part.name, part.sha256        "mine.py:net" and the digest of the file: which a work directory keeps

The file is run, as Python runs any script. So nothing else runs a part's file: a folder that was made with a part
remembers its name and digest, and asks for it again. What the file itself imports is not in the digest.
"""

import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from medjax.errors import ConfigError, type_and_message
from medjax.running.config import did_you_mean
from medjax.running.modules import load_file


class Part(NamedTuple):
    """A user's part: its name, the digest of its file, and its value."""

    name: str  # FILE.py:NAME, without the folder
    sha256: str  # SHA-256 of the file's content
    value: Any

    @property
    def identity(self) -> dict[str, str]:
        """Name and digest, which a work directory or a model's folder keeps."""
        return {"name": self.name, "sha256": self.sha256}


def is_part_reference(text: str) -> bool:
    """Whether `text` has the form FILE.py:NAME."""
    return re.fullmatch(r".+\.py:\w+", text) is not None


def load_part(text: str, option: str = "--part") -> Part:
    """Load the part FILE.py:NAME; `option` is its option in messages.

    Raises:
        ConfigError: not of that form, no such file, one that cannot be run, or no such name in it.
    """
    gap = "" if option.endswith("=") else " "
    called = f"{option}{gap}{text}"
    if not is_part_reference(text):
        raise ConfigError(f"{called}; expected FILE.py:NAME, as in {option}{gap}mine.py:net")
    path, _, name = text.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{called}: no file {path}; expected FILE.py:NAME")
    content = file.read_bytes()
    try:
        module = _run(file, hashlib.sha256(os.fsencode(os.path.realpath(file)) + content).hexdigest())
    except Exception as error:  # whatever a user's file raises
        raise ConfigError(f"{called}: {path} cannot be run: {type_and_message(error)}") from error
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError(f"{called}: {path} has no {name}{did_you_mean(name, known)}")
    return Part(f"{file.name}:{name}", hashlib.sha256(content).hexdigest(), getattr(module, name))


def _run(file: Path, digest: str) -> ModuleType:
    """The file as a module; the one there is where it was run before, so that its classes are the same ones."""
    name = f"medjax_part_{digest[:16]}"
    try:
        return sys.modules.get(name) or load_file(file, name)
    except BaseException:
        sys.modules.pop(name, None)
        raise


def load_parts(references: Sequence[str]) -> dict[str, Part]:
    """Load parts `KEYWORD=FILE.py:NAME`, such as "network=mine.py:net", by keyword.

    Raises:
        ConfigError: not of that form, two parts for one keyword, or a part that cannot be loaded.
    """
    parts: dict[str, Part] = {}
    for text in references:
        keyword, equals, where = text.partition("=")
        if not equals or not keyword.isidentifier():
            raise ConfigError(f"--part {text}; expected KEYWORD=FILE.py:NAME, as in --part network=mine.py:net")
        if keyword in parts:
            raise ConfigError(f"--part {keyword} is given twice; expected once")
        parts[keyword] = load_part(where, f"--part {keyword}=")
    return parts


def check_parts(module: ModuleType, parts: Mapping[str, Any], name: str) -> None:
    """Check that the experiment `name` takes these parts: keywords of its `run`, and of `population` if it has one.

    Raises:
        ConfigError: it takes no such part.
    """
    for function in (getattr(module, "run", None), getattr(module, "population", None)):
        if function is None:
            continue
        parameters = list(signature(function).parameters.values())[2:]
        known = [one.name for one in parameters]
        for part in parts:
            if part not in known and not any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
                expected = f"expected {' or '.join(known)}" if known else "it takes none"
                raise ConfigError(f"--part {part}: no part of {name}; {expected}{did_you_mean(part, known)}")
