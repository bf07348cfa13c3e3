"""Interfile headers: `key := value` lines, their numbers, and the check of every key against the table of keys."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from medjax.errors import DataError
from medjax.io.files import check_file, encoding_by_mark
from medjax.io.interfile_keys import CHECKED, HARMLESS, SPARED_BY_ROLE, USED, Role

MAX_HEADER_BYTES = 1 << 20  # a header is a few kB, the raw data beside it may be many GB


def read_header(path: str | Path) -> dict[str, str]:
    """Read the keys and values of an Interfile header, up to `END OF INTERFILE`.

    Keys are lower case, without a leading ! or %, single-spaced, with one space before an index: `matrix size [1]`.
    Values keep their case. Lines that start with ; are comments, others without := are skipped; of equal keys the last
    one counts.

    Raises:
        DataError: missing, no regular file, its first line is not `!INTERFILE :=`, or its end is not in the first MiB.
    """
    path = Path(path)
    check_file(path, "an Interfile header")
    with path.open("rb") as file:
        content = file.read(MAX_HEADER_BYTES)
    if encoding := encoding_by_mark(content):
        raise DataError(f"{path}: text in {encoding}; expected an Interfile header in ASCII or UTF-8")
    text = content.decode("utf-8-sig", errors="replace")
    pairs = [_key_and_value(line) for line in text.splitlines() if ":=" in line and not line.lstrip().startswith(";")]
    if not pairs or pairs[0][0] != "interfile":
        raise DataError(f"{path}: not an Interfile header; expected its first line to be !INTERFILE :=")
    keys = [key for key, _ in pairs]
    if len(content) == MAX_HEADER_BYTES and "end of interfile" not in keys:
        raise DataError(f"{path}: no END OF INTERFILE in its first {MAX_HEADER_BYTES:,} bytes; expected a header alone")
    return dict(pairs[1 : keys.index("end of interfile") if "end of interfile" in keys else None])


def check_data_file(path: Path, keys: Mapping[str, str]) -> None:
    """Check that the data file which a header names is a regular file, and not the header itself.

    Raises:
        DataError: it is not.
    """
    name = keys.get("name of data file", "")
    if not name:
        raise DataError(f"{path}: no 'name of data file'; expected the name of the file of its data, beside it")
    try:
        check_file(path.parent / name, "the data of a header")
    except DataError as error:
        found = str(error).removeprefix(f"{path.parent / name}: ").partition(";")[0]
        raise DataError(f"{path}: its data file {_short(name)}: {found}; expected a file beside it") from error
    if (path.parent / name).samefile(path):
        raise DataError(f"{path}: names itself as its data file; expected the file of its data")


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
        listed = ", ".join(_short(key, quote="") for key in unknown[:8]) + f" and {len(unknown) - 8} more" * (
            len(unknown) > 8
        )
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
        raise DataError(f"{path}: {key} is {_short(text)}; expected one number")
    return float(text)


def whole(path: str | Path, keys: Mapping[str, str], key: str, default: int | None = None) -> int:
    """The whole number, from 0 to 2⁶³ − 1, of `key`.

    Raises:
        DataError: absent without a default, or another number.
    """
    value = number(path, keys, key, default)
    if value != int(value) or not 0 <= value < 2**63:
        raise DataError(f"{path}: {key} is {_short(keys.get(key, str(value)))}; expected a whole number from 0")
    return int(value)


def integers(path: str | Path, keys: Mapping[str, str], key: str) -> list[int]:
    """The whole numbers of a list like `{ 62,63,64}`, or of one number.

    Raises:
        DataError: no such list, or a size in it that is not above 0.
    """
    text = keys.get(key, "")
    if not re.fullmatch(r"\{?\s*-?\d{1,9}(\s*,\s*-?\d{1,9})*\s*\}?", text) or (
        "size" in key and re.search(r"\b0\b|-", text)
    ):
        raise DataError(f"{path}: {key} is {_short(text)}; expected whole numbers below 10⁹, sizes above 0")
    return [int(number) for number in text.strip("{} \t").split(",")]


def _check_value(path: str | Path, key: str, value: str, accepted: Sequence[str], remedy: str) -> None:
    entries = words(value)
    if all(any(_equal(entry, one) for one in accepted) for entry in entries):
        return
    if "unknown" in entries:
        warnings.warn(f"{path}: {key} is {_short(value)}; taken as {accepted[0]}", stacklevel=4)
        return
    raise DataError(f"{path}: {key} is {_short(value)}; expected {' or '.join(accepted[:2])}{remedy and f': {remedy}'}")


def _short(text: str, quote: str = "'") -> str:
    """A text of a header for a message: quoted, control characters escaped, not more than 60 characters of it."""
    return f"{quote}{repr(text[:60])[1:-1]}{'…' if len(text) > 60 else ''}{quote}"


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
