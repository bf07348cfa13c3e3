"""Interfile headers: `key := value` lines, their numbers, and the check of every key against the table of keys."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from medjax.errors import DataError
from medjax.io.interfile_keys import CHECKED, HARMLESS, SPARED_BY_ROLE, USED, Role

MAX_HEADER_BYTES = 1 << 20  # a header is a few kB, the raw data beside it may be many GB


def read_header(path: str | Path) -> dict[str, str]:
    """Read the keys and values of an Interfile header, up to `END OF INTERFILE`.

    Keys are lower case, without a leading ! or %, single-spaced, with one space before an index: `matrix size [1]`.
    Values keep their case. Lines that start with ; are comments, others without := are skipped; of equal keys the last
    one counts.

    Raises:
        DataError: missing, or its first line is not `!INTERFILE :=`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an Interfile header")
    with path.open("rb") as file:
        text = file.read(MAX_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    pairs = [_key_and_value(line) for line in text.splitlines() if ":=" in line and not line.lstrip().startswith(";")]
    if not pairs or pairs[0][0] != "interfile":
        raise DataError(f"{path}: not an Interfile header; expected its first line to be !INTERFILE :=")
    keys = [key for key, _ in pairs]
    return dict(pairs[1 : keys.index("end of interfile") if "end of interfile" in keys else None])


def check_keys(path: str | Path, keys: Mapping[str, str], role: Role) -> None:
    """Check each key of a header: used, of an accepted value, or harmless; of the others a warning of one line tells.

    Args:
        path: the header, for messages.
        keys: keys and values, as of `read_header`.
        role: what the file is read as.

    Raises:
        DataError: a value changes the meaning of the data in a way that is not supported.
    """
    unknown = []
    if role in ("counts", "list mode") and not _position_is_stated(keys):
        warnings.warn(f"{path}: no patient orientation and rotation; taken as head first, supine", stacklevel=3)
    for key, value in keys.items():
        name = re.sub(r" \[\d+\]$", "", key)
        if name in CHECKED:
            if name not in SPARED_BY_ROLE[role]:
                _check_value(path, key, value, CHECKED[name].accepted, CHECKED[name].remedy)
        elif value and name not in USED[role] and not any(re.fullmatch(pattern, name) for pattern in HARMLESS):
            unknown.append(key)
    if unknown:
        listed = ", ".join(unknown[:8]) + f" and {len(unknown) - 8} more" * (len(unknown) > 8)
        warnings.warn(f"{path}: unknown keys, ignored: {listed}; check that none changes the meaning", stacklevel=3)


def words(value: str) -> list[str]:
    """The entries of a value such as `{arc correction, decay}`, lower case, single-spaced; none for `{}`."""
    return [" ".join(part.lower().split()) for part in value.strip("{} \t").split(",") if part.strip()]


def number(path: str | Path, keys: Mapping[str, str], key: str, default: int | float | None = None) -> float:
    """The number of `key` or, as STIR writes some, of `key [1]`.

    Raises:
        DataError: absent without a default, or no finite number.
    """
    text = keys.get(key, keys.get(f"{key} [1]", "")) or ("" if default is None else str(default))
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) or abs(float(text)) == float("inf"):
        raise DataError(f"{path}: {key} is {text!r}; expected one number")
    return float(text)


def whole(path: str | Path, keys: Mapping[str, str], key: str, default: int | None = None) -> int:
    """The whole number, 0 or more, of `key`.

    Raises:
        DataError: absent without a default, or another number.
    """
    value = number(path, keys, key, default)
    if value != int(value) or value < 0:
        raise DataError(f"{path}: {key} is {keys.get(key, value)!r}; expected a whole number that is not negative")
    return int(value)


def integers(path: str | Path, keys: Mapping[str, str], key: str) -> list[int]:
    """The whole numbers of a list like `{ 62,63,64}`, or of one number.

    Raises:
        DataError: no such list, or a size in it that is not above 0.
    """
    text = keys.get(key, "")
    if not re.fullmatch(r"\{?\s*-?\d+(\s*,\s*-?\d+)*\s*\}?", text) or ("size" in key and re.search(r"\b0\b|-", text)):
        raise DataError(f"{path}: {key} is {text!r}; expected whole numbers, sizes above 0")
    return [int(number) for number in text.strip("{} \t").split(",")]


def _check_value(path: str | Path, key: str, value: str, accepted: Sequence[str], remedy: str) -> None:
    entries = words(value)
    if all(any(_equal(entry, one) for one in accepted) for entry in entries):
        return
    if "unknown" in entries:
        warnings.warn(f"{path}: {key} is {value!r}; taken as {accepted[0]}", stacklevel=4)
        return
    raise DataError(f"{path}: {key} is {value!r}; expected {' or '.join(accepted[:2])}{remedy and f': {remedy}'}")


def _position_is_stated(keys: Mapping[str, str]) -> bool:
    orientation = keys.get("patient orientation", "")
    return bool(orientation) and (orientation.lower() == "hfs" or bool(keys.get("patient rotation")))


def _equal(text: str, accepted: str) -> bool:
    try:
        return abs(float(text) - float(accepted)) < 1e-3
    except ValueError:
        return text == accepted


def _key_and_value(line: str) -> tuple[str, str]:
    key, value = line.split(":=", 1)
    key = " ".join(key.replace("[", " [").split()).lstrip("!%").strip().lower()
    return re.sub(r"\[\s*(\d+)\s*\]", r"[\1]", key), value.strip()
