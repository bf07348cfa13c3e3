"""Settings as a file holds them, from JSON: their types, ranges and sizes are checked before a network is made of them.

read_settings("p.npz", PriorSettings, {"widths": [8, 16]}, {"size": (1, 4096)})     PriorSettings(widths=(8, 16), …)
"""

import math
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from medjax.errors import ConfigError, DataError

MAX_DEPTH = 4  # lists in lists
S = TypeVar("S")
Range = tuple[int | float, int | float]  # least and greatest value
LARGEST = 2**16  # of a whole number in a network's settings: channels, classes, layers, voxels


def read_settings(name: str, kind: type[S], values: Mapping[str, Any], ranges: Mapping[str, Range]) -> S:
    """Settings of the NamedTuple `kind`, by whose annotations values are checked; absent ones have its defaults.

    Args:
        name: where they come from, in messages.
        kind: type of the settings.
        values: settings from JSON: lists become tuples, and whole numbers floats where those are expected.
        ranges: least and greatest value of a setting, or of each of its elements; of other whole numbers 0 and
            `LARGEST`, and other floats are finite.

    Raises:
        DataError: an unknown setting, or one of another type or out of range.
    """
    kinds = {key: one for key, one in get_type_hints(kind).items() if key in getattr(kind, "_fields", ())}
    if unknown := sorted(values.keys() - kinds.keys()):
        raise DataError(f"{name}: unknown setting {shown(unknown[0])}; expected {', '.join(kinds)}")
    checked = dict[str, Any]()
    for key, value in values.items():
        checked[key] = _checked(f"{name}: {key}", value, kinds[key])
        low, high = ranges.get(key, (0, LARGEST) if _elements(checked[key], int) else (-math.inf, math.inf))
        if not all(low <= one <= high and math.isfinite(one) for one in _numbers(checked[key])):
            raise DataError(f"{name}: {key} {shown(value)}; expected {_range(low, high)}")
    return kind(**checked)


def check_layers(name: str, settings: Mapping[str, Any], arrays: int) -> None:
    """Check that a network of these settings has no more layers than there are arrays for.

    Raises:
        DataError: it has: making it could take hours.
    """
    levels = max((len(value) for value in settings.values() if isinstance(value, list | tuple)), default=1)
    layers = [levels]
    for key in ("blocks", "convolutions", "depth", "depths"):
        value = settings.get(key, 1)
        layers += [value * (1 if key == "depth" else levels)] if isinstance(value, int) else [sum(value)]
    if max(layers) > arrays:
        raise DataError(f"{name}: settings of a network of {max(layers):,} layers or more; it has {arrays:,} arrays")


def parse_setting(value: Any, kind: Any) -> Any:
    """Value from JSON as the annotated type: lists as tuples, a whole number as a float where that is expected.

    Raises:
        ConfigError: it is of another type; the message is only that, such as `8; expected a list of int`.
    """
    expected = f"{shown(value)}; expected {type_name(kind)}"
    if kind is float and _is(value, int) and abs(value) < 2**1000:
        return float(value)
    parsed = _hashable(value, MAX_DEPTH)
    if parsed is None or not _is(parsed, kind):
        raise ConfigError(expected)
    return parsed


def shown(value: Any) -> str:
    """Printed form of a value for a message of one line, a long one shortened."""
    return reprlib.repr(value)


def type_name(kind: Any) -> str:
    """Name of an annotated type in a message, such as `a list of 3 int`."""
    if get_origin(kind) is None:
        return kind.__name__
    kinds = _kinds(kind, 1)
    return f"a list of {f'{len(kinds)} ' if len(kinds) > 1 else ''}{type_name(kinds[0])}"


def _checked(name: str, value: Any, kind: Any) -> Any:
    try:
        return parse_setting(value, kind)
    except ConfigError as error:
        raise DataError(f"{name} {error}") from error


def _hashable(value: Any, depth: int) -> Any:
    """Lists as tuples; None where they are nested deeper than `depth`."""
    if not isinstance(value, list | tuple):
        return value
    elements = tuple(_hashable(one, depth - 1) for one in value) if depth else (None,)
    return None if None in elements else elements


def _is(value: Any, kind: Any) -> bool:
    """Whether the value, lists as tuples, is of the annotated type. True is not an integer here."""
    if get_origin(kind) is None:
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    kinds = _kinds(kind, len(value)) if isinstance(value, tuple) else None
    return kinds is not None and len(kinds) == len(value) and all(map(_is, value, kinds))


def _kinds(kind: Any, number: int) -> tuple[Any, ...]:
    """Type of each element; `tuple[int, int, int]` fixes their number, `Sequence[int]` and `tuple[int, ...]` do not."""
    kinds = get_args(kind)
    return kinds if get_origin(kind) is tuple and kinds[-1] is not ... else kinds[:1] * number


def _numbers(value: Any) -> list[int | float]:
    """Numbers of a setting, those in tuples too; no booleans."""
    if isinstance(value, tuple):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _elements(value: Any, kind: type) -> bool:
    numbers = _numbers(value)
    return bool(numbers) and all(isinstance(number, kind) for number in numbers)


def _range(low: int | float, high: int | float) -> str:
    if math.isinf(low):
        return "a finite number" if math.isinf(high) else f"{high:g} or less"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
