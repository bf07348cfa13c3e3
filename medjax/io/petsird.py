"""PETSIRD list mode (ETSI's standard of PET raw data), binary or as lines of JSON, a time block at a time.

The package `petsird` (extra `petsird`) defines the format: a header, which describes the scanner, and time blocks with
the coincidences of each few milliseconds. A file carries the definition that it was written by, which is compared.
"""

import importlib
import importlib.metadata
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Integer

from medjax.atomic import replacing
from medjax.errors import DataError, type_and_message
from medjax.io.files import check_file
from medjax.io.petsird_arrays import limit_reads, with_arrays
from medjax.memory import check_memory

SUPPORTED = "0.12"  # of the package, which goes by the version of the format
MAGIC = b"yardl"
JSON_SUFFIX = ".ndjson"
EXPECTED = f"PETSIRD list mode of version {SUPPORTED}"
_LARGEST_DEFINITION = 2**20  # bytes of the definition of the format in a file; that of 0.12 has 13,000

Coincidences = Integer[np.ndarray, "event 3"]  # first and second detection bin, time-of-flight bin
TypePair = tuple[int, int]  # types of the modules of the first and the second detection bin, first ≥ second


class TimeBlock(NamedTuple):
    """Coincidences between two times, by pair of types of modules."""

    start_ms: int
    stop_ms: int
    prompts: dict[TypePair, Coincidences]
    delayeds: dict[TypePair, Coincidences]


class OtherBlock(NamedTuple):
    """A block of another kind than coincidences, as the package has it: a movement, dead times, signals, singles."""

    kind: str
    value: Any


def petsird_package() -> ModuleType:
    """The package `petsird`.

    Raises:
        DataError: it is not installed, or in another version.
    """
    try:
        version = importlib.metadata.version("petsird")
        package = importlib.import_module("petsird")
        for module in ("_binary", "binary"):
            importlib.import_module(f"petsird.{module}")
    except ImportError as error:
        raise DataError(
            "PETSIRD: the package petsird, which reads and writes it, is missing; pip install 'medjax[petsird]'"
        ) from error
    if version.rsplit(".", 1)[0] != SUPPORTED:
        raise DataError(f"PETSIRD: version {version} of the package petsird; expected {SUPPORTED}")
    return package


def is_petsird(path: str | Path) -> bool:
    """Whether a file begins as PETSIRD does, in its binary form or as lines of JSON."""
    path = Path(path)
    check_file(path, EXPECTED)
    with path.open("rb") as file:
        begin = file.read(64)
    return begin.startswith(MAGIC) or (begin.lstrip().startswith(b"{") and b'"yardl"' in begin)


def read_petsird(path: str | Path) -> tuple[Any, Iterator[TimeBlock | OtherBlock]]:
    """Header (`petsird.Header`, long lists of numbers as arrays) and, as they are asked for, the time blocks of a file.

    Raises:
        DataError: no PETSIRD or one of an unsupported version; damaged or truncated, in the time blocks as the iterator
            gets there.
    """
    path = Path(path)
    package = petsird_package()
    check_file(path, EXPECTED)
    size = path.stat().st_size
    with path.open("rb") as file:
        binary = file.read(5) == MAGIC
        file.seek(0)
        _check_version(path, package, _definition(path, file) if binary else _json_definition(path, file))
    steps = _steps(path, package, binary, size)
    try:
        header = next(steps)
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the package
        raise DataError(f"{path}: its header is damaged or truncated ({type_and_message(error)})") from error
    return header, _blocks(path, steps)


def _steps(path: Path, package: ModuleType, binary: bool, size: int) -> Iterator[Any]:
    """The header, then the time blocks, and a check that the file ends with them."""
    if not binary:
        check_memory(str(path), size)  # a line may be all of it
        with path.open(encoding="utf-8") as text, package.NDJsonPETSIRDReader(text) as reader:
            yield reader.read_header()
            yield from reader.read_time_blocks()
        return
    with path.open("rb") as file:
        reader = package.BinaryPETSIRDReader(file, skip_completed_check=True)
        with closing(reader):
            limit_reads(reader._stream, size)
            yield _serializer(package, package.binary.HeaderSerializer()).read(reader._stream)
            yield from _time_blocks(package).read(reader._stream)
            rest = reader._stream._last_read_count - reader._stream._offset + len(file.read(1))
            if rest:
                raise ValueError(f"{rest} bytes or more after the last one")


def _blocks(path: Path, steps: Iterator[Any]) -> Iterator[TimeBlock | OtherBlock]:
    number = 0
    while True:
        try:
            block = next(steps, None)
            if block is None:
                return
            block = _block(block)
        except Exception as error:  # as above
            raise DataError(
                f"{path}: damaged or truncated after {number} time blocks ({type_and_message(error)})"
            ) from error
        yield block
        number += 1


def _block(block: Any) -> TimeBlock | OtherBlock:
    if block.tag != "EventTimeBlock":
        return OtherBlock(block.tag, block.value)
    interval = block.value.time_interval
    prompts, delayeds = (_by_pair(lists) for lists in (block.value.prompt_events, block.value.delayed_events))
    return TimeBlock(int(interval.start), int(interval.stop), prompts, delayeds)


def _by_pair(lists: Any) -> dict[TypePair, np.ndarray]:
    """Coincidences by pair of types; the lists of JSON hold the package's objects."""
    return {
        (first, second): events
        if isinstance(events, np.ndarray)
        else np.array([[*e.detection_bins, e.tof_idx] for e in events], np.uint32).reshape(-1, 3)
        for first, row in enumerate(lists)
        for second, events in enumerate(row)
    }


def write_petsird(path: str | Path, header: Any, blocks: Iterable[TimeBlock | OtherBlock]) -> None:
    """Write list mode as lines of JSON where the file's name ends in .ndjson, else in the binary form.

    Args:
        path: the file; it appears when it is complete.
        header: `petsird.Header`.
        blocks: time blocks in their order; they may come from an iterator.

    Raises:
        DataError: the package is missing, or cannot write the header.
    """
    path = Path(path)
    package = petsird_package()
    with replacing(path) as file:
        if path.suffix == JSON_SUFFIX:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
            with package.NDJsonPETSIRDWriter(text) as writer:
                writer.write_header(_plain_header(package, header))
                writer.write_time_blocks(_package_block(package, block, as_arrays=False) for block in blocks)
            text.flush()
            text.detach()
            return
        stream = package.BinaryPETSIRDWriter(file)._stream
        _serializer(package, package.binary.HeaderSerializer()).write(stream, header)
        written = _time_blocks(package)
        for block in blocks:
            written.write(stream, [_package_block(package, block, as_arrays=True)])
        stream.write_unsigned_varint(0)  # no more blocks
        stream.flush()


def _package_block(package: ModuleType, block: TimeBlock | OtherBlock, *, as_arrays: bool) -> Any:
    if isinstance(block, OtherBlock):
        return getattr(package.TimeBlock, block.kind)(block.value)

    def lists(events: dict[TypePair, np.ndarray]) -> list[list[Any]]:
        types = max((first for first, _ in events), default=-1) + 1
        empty = np.zeros((0, 3), np.uint32)
        rows = [[events.get((first, second), empty) for second in range(first + 1)] for first in range(types)]
        return rows if as_arrays else [[_events(package, own) for own in row] for row in rows]

    interval = package.TimeInterval(start=block.start_ms, stop=block.stop_ms)
    own = package.EventTimeBlock(
        time_interval=interval, prompt_events=lists(block.prompts), delayed_events=lists(block.delayeds)
    )
    return package.TimeBlock.EventTimeBlock(own)


def _events(package: ModuleType, events: np.ndarray) -> list[Any]:
    return [package.CoincidenceEvent(detection_bins=[a, b], tof_idx=tof) for a, b, tof in events.tolist()]


def _plain_header(package: ModuleType, header: Any) -> Any:
    """The header with lists where `read_petsird` has arrays, which JSON cannot hold."""
    memory = io.BytesIO()
    with package.BinaryPETSIRDWriter(memory) as writer:
        _serializer(package, package.binary.HeaderSerializer()).write(writer._stream, header)
        writer._state = 4
    memory.seek(0)
    return package.BinaryPETSIRDReader(memory, skip_completed_check=True).read_header()


def _serializer(package: ModuleType, serializer: Any) -> Any:
    return with_arrays(package._binary, package.binary.CoincidenceEventSerializer, serializer)


def _time_blocks(package: ModuleType) -> Any:
    """Serializer of the stream of time blocks."""
    kinds = sorted(package.TimeBlock.__annotations__, key=lambda kind: getattr(package.TimeBlock, kind).index)
    cases = [(getattr(package.TimeBlock, kind), getattr(package.binary, f"{kind}Serializer")()) for kind in kinds]
    return _serializer(
        package, package._binary.StreamSerializer(package._binary.UnionSerializer(package.TimeBlock, cases))
    )


def _definition(path: Path, file: BinaryIO) -> Any:
    """Definition of the format at the beginning of a binary file."""
    begin = file.read(14)
    version, length, shift, used = int.from_bytes(begin[5:9], "little"), 0, 0, 9
    if version != 1:
        raise DataError(f"{path}: version {version} of yardl's binary form; expected 1, which {EXPECTED} has")
    for byte in begin[9:]:
        length, shift, used = length | (byte & 0x7F) << shift, shift + 7, used + 1
        if byte < 0x80:
            break
    file.seek(used)
    if length > _LARGEST_DEFINITION:
        raise DataError(f"{path}: {length} bytes of definition; expected {EXPECTED}, so it is damaged")
    return _parsed(path, file.read(length))


def _json_definition(path: Path, file: BinaryIO) -> Any:
    """Definition of the format in the first line of a file of JSON."""
    line = file.readline(_LARGEST_DEFINITION)
    if not line.lstrip().startswith(b"{"):
        raise DataError(f"{path}: begins with {line[:8]!r}; expected {EXPECTED}")
    yardl = _parsed(path, line)
    yardl = yardl.get("yardl") if isinstance(yardl, dict) else None
    if not isinstance(yardl, dict) or yardl.get("version") != 1:
        raise DataError(f"{path}: no list mode in its first line; expected {EXPECTED}")
    return yardl.get("schema")


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the definition of its format is damaged or truncated; expected {EXPECTED}") from error


def _check_version(path: Path, package: ModuleType, found: Any) -> None:
    expected = json.loads(package.PETSIRDReaderBase.schema)
    if found == expected:
        return
    protocol = found.get("protocol") if isinstance(found, dict) else None
    name = protocol.get("name") if isinstance(protocol, dict) else None
    if name != "PETSIRD":
        raise DataError(f"{path}: protocol {str(name)[:40]!r}; expected {EXPECTED}")
    types = found.get("types")
    known = {str(own.get("name")): own for own in types if isinstance(own, dict)} if isinstance(types, list) else {}
    names = [own["name"] for own in expected["types"] if known.get(own["name"]) != own]
    differ = ", ".join(names[:3]) + ("" if len(names) < 4 else f" and {len(names) - 3} more") or "its definition"
    raise DataError(f"{path}: PETSIRD of another version, whose {differ} differ; expected version {SUPPORTED}")
