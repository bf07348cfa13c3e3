"""Identity of a user's part (a network, a score): is it still the one that an output was made with?

    identity(part)      eight hex digits: other settings or an edited file give others
    as_part(part)       the same in the form of a part that was named FILE.py:NAME, which is passed as it is

A part is described by what it is made of: containers, partials, methods, wrappers such as `jit`, fields, attributes and
slots are followed, and the files that its functions and classes are written in are read. What a function closes over,
and what its file imports, are not in it.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import jax
import numpy as np

from medjax.running.parts import Part

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def as_part(part: Any) -> Part:
    """Convert an object to a Part of its own name or its type's, with its `identity`; a Part stays as it is."""
    if isinstance(part, Part):
        return part
    return Part(getattr(part, "__name__", type(part).__name__), identity(part), part)


def identity(part: Any) -> str:
    """Identity of a part: eight hex digits of its printed form, without addresses in memory, and its source files."""
    texts: list[str] = []
    files: set[Path] = set()
    _describe(part, texts, files, {})
    text = "\n".join([*texts, *(file.read_text(encoding="utf-8") for file in sorted(files))])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _describe(part: Any, texts: list[str], files: set[Path], seen: dict[int, Any]) -> None:
    """Add the texts and source files of a part and of all that it holds; `seen` keeps parts, so that ids are theirs."""
    if isinstance(part, np.ndarray | jax.Array) and not jax.dtypes.issubdtype(part.dtype, jax.dtypes.extended):
        texts.append(f"{part.dtype} {part.shape} {hashlib.sha256(np.asarray(part).tobytes()).hexdigest()}")
        return
    held = () if id(part) in seen else _held(part)
    name = f"{type(part).__qualname__} {getattr(part, '__qualname__', '')}"
    texts.append(name if held else re.sub(r" at 0x[0-9a-f]+", "", repr(part)))
    seen[id(part)] = part
    kind = part if isinstance(part, type) else type(part)
    for one in (part, kind, *filter(inspect.isfunction, vars(kind).values())):
        with contextlib.suppress(TypeError, OSError):  # of an object, or built in: no source
            if (file := inspect.getsourcefile(one)) and Path(file).is_file() and not _came_with_python(Path(file)):
                files.add(Path(file))
    for each in held:
        _describe(each, texts, files, seen)


def _held(part: Any) -> Sequence[Any]:
    """What a part is made of."""
    if isinstance(part, Mapping):
        return [*part.keys(), *part.values()]
    if isinstance(part, set | frozenset):
        return sorted(part, key=repr)
    if isinstance(part, tuple | list):
        return list(part)
    if isinstance(part, partial):
        return [part.func, part.args, part.keywords]
    if isinstance(part, MethodType):
        return [part.__func__, part.__self__]
    if isinstance(part, type) or (_of_python(type(part)) and not isinstance(part, FunctionType)):
        return []
    if dataclasses.is_dataclass(part):
        names = [field.name for field in dataclasses.fields(part)]
    else:
        slots = [vars(kind).get("__slots__", ()) for kind in type(part).__mro__]
        names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
        names = ["__wrapped__", *names, *getattr(part, "__dict__", {})]
    return [getattr(part, name) for name in dict.fromkeys(names) if name != "__dict__" and hasattr(part, name)]


def _of_python(kind: type) -> bool:
    """Whether it is a type of Python's own, whose objects print what they are."""
    return kind.__module__.split(".")[0] in sys.stdlib_module_names


def _came_with_python(file: Path) -> bool:
    return file.is_relative_to(LIBRARY) and "site-packages" not in file.parts
