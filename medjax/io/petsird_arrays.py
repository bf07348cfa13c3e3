"""PETSIRD's binary form read and written as arrays: lists of coincidences and vectors of numbers at once.

The package `petsird` takes them number by number, at some 40 µs a coincidence. Here its serializers stay as they are
but for these lists, which become arrays: coincidences are (event, 3), of first and second detection bin and
time-of-flight bin.
This leans on how petsird 0.12 keeps its serializers and its buffer.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

_LONGEST = 5  # bytes of a variable-length integer of 32 bits


class ArraySerializer(NamedTuple):
    """In place of petsird's serializer of a list."""

    read: Callable[[Any], np.ndarray]
    write: Callable[[Any, Any], None]


def with_arrays(binary: ModuleType, coincidence: type, serializer: Any) -> Any:
    """The same serializer, its lists of coincidences and of 32-bit numbers as arrays.

    Args:
        binary: `petsird._binary`.
        coincidence: petsird's serializer of a coincidence.
        serializer: a new one, which is changed.
    """

    def inner(other: Any) -> Any:
        return with_arrays(binary, coincidence, other)

    if isinstance(serializer, binary.VectorSerializer):
        element = serializer._element_serializer
        if isinstance(element, coincidence):
            return ArraySerializer(_read_coincidences, _write_coincidences)
        if element is binary.float32_serializer:
            return ArraySerializer(_read_floats, _write_floats)
        if element is binary.int32_serializer:
            return ArraySerializer(_read_integers, _write_integers)
        serializer._element_serializer = inner(element)
    elif isinstance(serializer, binary.StreamSerializer):
        serializer._element_serializer = inner(serializer._element_serializer)
    elif isinstance(serializer, binary.RecordSerializer):
        serializer._field_serializers = [(name, inner(field)) for name, field in serializer._field_serializers]
    elif isinstance(serializer, binary.UnionSerializer):
        serializer._cases = [None if case is None else (case[0], inner(case[1])) for case in serializer._cases]
    return serializer


def limit_reads(stream: Any, size: int) -> None:
    """Refuse reads of more bytes than the file has before memory is allocated for them."""

    def limited(read: Callable[[int], Any]) -> Callable[[int], Any]:
        def checked(count: int) -> Any:
            if not 0 <= count <= size:
                raise EOFError(f"{count} bytes declared in a file of {size}")
            return read(count)

        return checked

    stream.read_view, stream.read_bytearray = limited(stream.read_view), limited(stream.read_bytearray)


def _read_coincidences(stream: Any) -> np.ndarray:
    return _read_varints(stream, 3 * stream.read_unsigned_varint()).reshape(-1, 3)


def _write_coincidences(stream: Any, events: Any) -> None:
    stream.write_unsigned_varint(len(events))
    stream.write_bytes_directly(_varint_bytes(np.asarray(events, np.uint32).ravel()))


def _read_floats(stream: Any) -> np.ndarray:
    return np.frombuffer(stream.read_bytearray(4 * stream.read_unsigned_varint()), "<f4")


def _write_floats(stream: Any, values: Any) -> None:
    stream.write_unsigned_varint(len(values))
    stream.write_bytes_directly(np.asarray(values, "<f4").tobytes())


def _read_integers(stream: Any) -> np.ndarray:
    zigzag = _read_varints(stream, stream.read_unsigned_varint())
    return (zigzag >> 1).astype(np.int32) ^ -(zigzag & 1).astype(np.int32)


def _write_integers(stream: Any, values: Any) -> None:
    numbers = np.asarray(values, np.int32)
    stream.write_unsigned_varint(len(numbers))
    stream.write_bytes_directly(_varint_bytes(((numbers << 1) ^ (numbers >> 31)).view(np.uint32)))


def _read_varints(stream: Any, number: int) -> np.ndarray:
    """So many variable-length integers: 7 bits a byte, lowest first, the top bit set in all bytes but the last."""
    parts: list[np.ndarray] = []
    left = number
    while left:
        data = np.frombuffer(stream._view[stream._offset : stream._last_read_count], np.uint8)
        ends = np.flatnonzero(data < 0x80)[:left]
        if ends.size:
            parts.append(_varints(data, ends))
            stream._offset += int(ends[-1]) + 1
            left -= ends.size
        elif data.size > _LONGEST:
            raise ValueError("an integer of more than 32 bits")
        else:
            stream._fill_buffer(data.size + 1)  # raises EOFError at the end of the file
    return np.concatenate([np.zeros(0, np.uint32), *parts])


def _varints(data: np.ndarray, ends: np.ndarray) -> np.ndarray:
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("an integer of more than 32 bits")
    values = np.zeros(ends.size, np.uint64)
    for k in range(int(lengths.max())):
        byte = data[np.minimum(starts + k, ends)] & 0x7F
        values |= np.where(k < lengths, byte, 0).astype(np.uint64) << np.uint64(7 * k)
    if int(values.max()) > 0xFFFF_FFFF:
        raise ValueError("an integer of more than 32 bits")
    return values.astype(np.uint32)


def _varint_bytes(values: np.ndarray) -> bytes:
    groups = values[:, None] >> np.arange(0, 7 * _LONGEST, 7, dtype=np.uint32)
    more = np.concatenate([groups[:, 1:] > 0, np.zeros((len(values), 1), bool)], axis=1)
    used = np.concatenate([np.ones((len(values), 1), bool), more[:, :-1]], axis=1)
    return ((groups & 0x7F) | (more * np.uint32(0x80)))[used].astype(np.uint8).tobytes()
