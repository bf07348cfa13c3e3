"""Settings as a file holds them, from JSON: their types, ranges and sizes are checked before a network is made of them.

read_settings("p.npz", PriorSettings, {"widths": [8, 16]}, {"size": (1, 4096)})     PriorSettings(widths=(8, 16), …)
"""

import inspect
import math
import reprlib
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from medjax.errors import ConfigError, DataError

S = TypeVar("S")
Range = tuple[int | float, int | float]  # least and greatest value
LARGEST = 2**16  # of a whole number in a network's settings: channels, classes, layers, voxels


def read_settings(name: str, kind: type[S], values: Mapping[str, Any], ranges: Mapping[str, Range]) -> S:
    """Settings of a NamedTuple or dataclass, by whose annotations values are checked; absent ones have its defaults.

    Args:
        name: where they come from, in messages.
        kind: type of the settings.
        values: settings from JSON: lists become tuples, and whole numbers floats where those are expected.
        ranges: least and greatest value of a setting, or of each of its elements; of other whole numbers 0 and
            `LARGEST`, and other floats are finite.

    Raises:
        DataError: an unknown setting, one that is missing, or one of another type or out of range.
    """
    known = inspect.signature(kind).parameters
    kinds = {key: one for key, one in get_type_hints(kind).items() if key in known}
    if unknown := sorted(values.keys() - kinds.keys()):
        raise DataError(f"{name}: unknown setting {short_repr(unknown[0])}; expected {', '.join(kinds)}")
    if missing := [key for key, one in known.items() if one.default is one.empty and key not in values]:
        raise DataError(f"{name}: no {missing[0]}; expected {', '.join(missing)}")
    checked = dict[str, Any]()
    for key, value in values.items():
        try:
            checked[key] = parse_setting(value, kinds[key])
        except ConfigError as error:
            raise DataError(f"{name}: {key} {error}") from error
        numbers = _numbers(checked[key])
        whole = numbers and all(isinstance(number, int) for number in numbers)
        low, high = ranges.get(key, (0, LARGEST) if whole else (-math.inf, math.inf))
        if not all(low <= number <= high and math.isfinite(number) for number in numbers):
            raise DataError(f"{name}: {key} {short_repr(value)}; expected {_range(low, high)}")
    return kind(**checked)


def layers(settings: Mapping[str, Any]) -> int:
    """Number of layers with weights that a network of these settings has at least."""
    levels = max((len(value) for value in settings.values() if isinstance(value, list | tuple)), default=1)
    counts = [levels]
    for key in ("blocks", "convolutions", "depth", "depths"):
        value = settings.get(key, 1)
        counts += [value * (1 if key == "depth" else levels)] if isinstance(value, int) else [sum(value)]
    return max(counts)


def check_layers(name: str, settings: Mapping[str, Any], arrays: int) -> None:
    """Check that a network of these settings has no more layers than there are arrays for.

    Raises:
        DataError: it has: making it could take hours.
    """
    if (least := layers(settings)) > arrays:
        raise DataError(f"{name}: settings of a network of {least:,} layers or more; it has {arrays:,} arrays")


def parse_setting(value: Any, kind: Any) -> Any:
    """Value from JSON as the annotated type: lists as tuples, a whole number as a float where that is expected.

    Raises:
        ConfigError: it is of another type; the message is only that, such as `8; expected a list of int`.
    """
    try:
        return _parsed(value, kind)
    except (TypeError, OverflowError) as error:
        raise ConfigError(f"{short_repr(value)}; expected {type_name(kind)}") from error


def short_repr(value: Any) -> str:
    """Printed form of a value for a message of one line, a long one shortened."""
    return reprlib.repr(value)


def type_name(kind: Any) -> str:
    """Name of an annotated type in a message, such as `a list of 3 int`."""
    if isinstance(kind, UnionType):
        return " or ".join(map(type_name, get_args(kind)))
    if get_origin(kind) is None:
        return "null" if kind is NoneType else kind.__name__
    kinds = _kinds(kind, 1)
    return f"a list of {f'{len(kinds)} ' if len(kinds) > 1 else ''}{type_name(kinds[0])}"


def _parsed(value: Any, kind: Any) -> Any:
    """Value as the annotated type. Raises TypeError where it is of another: True is not an integer here."""
    if isinstance(kind, UnionType):
        kind = NoneType if value is None else get_args(kind)[0]
    if get_origin(kind) is None:
        number = isinstance(value, int) and not isinstance(value, bool)
        if kind is float and number:
            return float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError
        return value
    kinds = _kinds(kind, len(value)) if isinstance(value, list | tuple) else ()
    if not isinstance(value, list | tuple) or len(kinds) != len(value):
        raise TypeError
    return tuple(map(_parsed, value, kinds))


def _kinds(kind: Any, number: int) -> tuple[Any, ...]:
    """Type of each element; `tuple[int, int, int]` fixes their number, `Sequence[int]` and `tuple[int, ...]` do not."""
    kinds = get_args(kind)
    return kinds if get_origin(kind) is tuple and kinds[-1] is not ... else kinds[:1] * number


def _numbers(value: Any) -> list[int | float]:
    """Numbers of a setting, those in tuples too; no booleans."""
    if isinstance(value, tuple):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _range(low: int | float, high: int | float) -> str:
    if math.isinf(low):
        return "a finite number" if math.isinf(high) else f"{high:g} or less"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
