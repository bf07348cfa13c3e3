"""Axes of a sweep, such as "seed=0..7" or "training.rate=1e-3,3e-3", with a plan of their number before any is made."""

import math
import re
from collections.abc import Sequence

from medjax.errors import ConfigError

MAX_MEMBERS = 10_000  # a folder and a row for each
MAX_DIGITS = 1000  # of a range


def parse_axes(over: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Keys and values of the axes of a grid.

    Raises:
        ConfigError: no axes, one without values, or more than `MAX_MEMBERS` members.
    """
    if not over:
        raise ConfigError("a sweep needs values to sweep over; write --over KEY=VALUE,VALUE or --over KEY=FIRST..LAST")
    split = [(one, *_split(one)) for one in over]
    number = math.prod(sum(_count(one, part) for part in parts) for one, _, parts in split)
    if number > MAX_MEMBERS:
        shown = " ".join(f"--over {one}" for one in over)
        raise ConfigError(f"{_shorten(shown)}: {_large(number)} runs; expected {MAX_MEMBERS:,} or fewer")
    return [(key, [value for part in parts for value in _values(part)]) for _, key, parts in split]


def _split(over: str) -> tuple[str, list[str]]:
    """The key and the parts between the commas of "KEY=a,b,c" or "KEY=0..7"; commas inside brackets belong to a value.

    Raises:
        ConfigError: no values.
    """
    key, equals, text = over.partition("=")
    if not equals or not text:
        raise ConfigError(f"--over {over} has no values; write --over {key}=VALUE,VALUE or --over {key}=FIRST..LAST")
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return key, parts


def _count(over: str, part: str) -> int:
    """Number of values of a part: a value, or a range with both ends."""
    ends = _ends(part)
    number = 1 if part and ends is None else ends[1] - ends[0] + 1 if ends else 0
    if number < 1:
        raise ConfigError(f"--over {over} has an empty value; expected values, or FIRST..LAST with FIRST ≤ LAST")
    return number


def _values(part: str) -> list[str]:
    ends = _ends(part)
    return [part] if ends is None else [str(n) for n in range(ends[0], ends[1] + 1)]


def _ends(part: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", part)
    if found and len(part) > MAX_DIGITS:
        raise ConfigError(f"--over {_shorten(part)} has {len(part):,} digits; expected numbers of a few")
    return (int(found[1]), int(found[2])) if found else None


def _large(number: int) -> str:
    return f"{number:,}" if number < 10**15 else "over 10^15"


def _shorten(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}…"
