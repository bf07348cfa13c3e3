"""Siemens 32-bit list mode (PETLINK bin address): one word an event, an address into a span-1 sinogram.

Words are little-endian. Bit 31 marks a tag word: of time where bits 30 and 29 are 0, the lower 29 bits being ms since
the start of the scan, else of gating and the like, skipped here. Without it bit 30 tells a prompt (1) from a delayed
coincidence (0), and the lower 30 bits are an address, (sinogram · views + view) · bins + bin. Sinograms go by ring
difference: 0 first, then 1 and −1, 2 and −2, …, each ring by ring.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax import defaults
from medjax.errors import DataError
from medjax.io.files import check_file
from medjax.io.frames import Frames, frame_edges_ms
from medjax.io.interfile_header import check_keys, number, whole
from medjax.io.interfile_header import read_header as read_interfile_header
from medjax.memory import check_memory

CHUNK = 1 << 22  # words read at a time: 16 MiB
MAX_RINGS = 10_000
TAG, PROMPT, ADDRESS = np.uint32(1 << 31), np.uint32(1 << 30), np.uint32((1 << 30) - 1)
_ONE = np.float32(1)  # a Python number takes np.add.at sixteen times as long
TIME = np.uint32((1 << 29) - 1)  # ms of a time tag
SUPPORTED = {"lm event and tag words format (bits)": 32, "axial compression": 1}


@dataclass(frozen=True)
class ListmodeHeader:
    """Header of a list-mode scan; the file may hold fewer words."""

    bins: int
    views: int
    rings: int
    max_ring_difference: int
    words: int  # number of words of the whole scan, tags included
    duration_s: float  # duration of the whole scan
    path: Path  # the header
    data: Path  # the list-mode file
    offset: int  # number of bytes before its first word

    @property
    def sinograms(self) -> int:
        """Number of span-1 sinograms."""
        return self.rings + self.max_ring_difference * (2 * self.rings - self.max_ring_difference - 1)


class Events(NamedTuple):
    """Coincidence events in the order of detection."""

    address: Int[np.ndarray, " event"]  # int32, into (sinogram, view, bin)
    prompt: Bool[np.ndarray, " event"]  # False: a delayed coincidence


def read_header(path: str | Path) -> ListmodeHeader:
    """Read the Interfile header (.l.hdr) of a list-mode file.

    Raises:
        DataError: no list-mode header, keys missing, words not of 32 bits, axial compression or time of flight.
    """
    path = Path(path)
    keys = read_interfile_header(path)
    if keys.get("data format", "").lower() != "coincidencelist":
        raise DataError(f"{path}: data format {keys.get('data format', '')!r}; expected CoincidenceList (list mode)")
    for key, expected in SUPPORTED.items():
        if whole(path, keys, key) != expected:
            raise DataError(f"{path}: {key} is {keys[key]}; expected {expected}")
    for key in ("image data byte order", "imagedata byte order"):
        if keys.get(key, "littleendian").lower() != "littleendian":
            raise DataError(f"{path}: {key} is {keys[key]}; expected LITTLEENDIAN")
    header = ListmodeHeader(
        bins=whole(path, keys, "number of projections"),
        views=whole(path, keys, "number of views"),
        rings=whole(path, keys, "number of rings"),
        max_ring_difference=whole(path, keys, "maximum ring difference"),
        words=whole(path, keys, "total listmode word counts"),
        duration_s=number(path, keys, "image duration (sec)"),
        path=path,
        data=path.parent / keys.get("name of data file", ""),
        offset=whole(path, keys, "data offset in bytes", 0),
    )
    if not 0 <= header.max_ring_difference < header.rings or min(header.bins, header.views) < 1:
        raise DataError(
            f"{path}: maximum ring difference {header.max_ring_difference} of {header.rings} rings; expected less"
        )
    if header.rings > MAX_RINGS or header.sinograms * header.views * header.bins > ADDRESS:
        raise DataError(
            f"{path}: {header.sinograms} sinograms of {header.views} views and {header.bins} bins; expected "
            f"{MAX_RINGS} rings or less, and {ADDRESS} bins or less in all, as addresses of 30 bits have"
        )
    check_keys(path, keys, "list mode")
    return header


def header_of(path: str | Path) -> ListmodeHeader:
    """Header of a list-mode file (.l), which lies beside it, or of the header's file (.l.hdr) itself.

    Raises:
        DataError: there is none, or it is none of list mode: see `read_header`.
    """
    path = Path(path)
    return read_header(_header_of(path) if path.suffix == ".l" else path)


def read_events(path: str | Path) -> tuple[ListmodeHeader, Events]:
    """Read the events of a list-mode file (.l), or of its header (.l.hdr), in the order of detection.

    The file is read a few MiB at a time; 5 bytes an event stay in memory. A truncated file, shorter than its header
    says, is read to its end, with a warning.

    Raises:
        DataError: no header or no data file, one that ends inside a word, or an address beyond the last sinogram.
    """
    header = header_of(path)
    words = _words(header)
    check_memory(str(header.data), 5 * len(words))
    number = sum(int(np.sum(chunk < TAG)) for _, chunk in _chunks(words))
    events = Events(np.empty(number, np.int32), np.empty(number, bool))
    filled = 0
    for position, chunk in _chunks(words):
        own = _events(header, position, chunk)
        for all_events, part in zip(events, own, strict=True):
            all_events[filled : filled + part.size] = part
        filled += own.prompt.size
    return header, events


class EventChunk(NamedTuple):
    """Events of one frame that follow each other in the file."""

    frame: int  # number of the frame, from 0
    events: Events


def read_event_chunks(path: str | Path, frames: Frames | None = None) -> tuple[ListmodeHeader, Iterator[EventChunk]]:
    """Read a list-mode file once from its start to its end, a few MiB at a time, however large it is.

    An event belongs to the time of the last tag before it, in whole ms. One in no frame is skipped; frames that cover
    the scan hold all of its events.

    Args:
        path: the list-mode file (.l), or its header (.l.hdr).
        frames: start and end in seconds of each time frame, in their order; None: one frame, all of the scan.

    Raises:
        ConfigError: frames overlap or lie outside the scan that the header describes.
        DataError: as `read_events`, and, with frames, where time runs backwards; the latter and an address beyond the
            last sinogram as the iterator gets there.
    """
    header = header_of(path)
    edges = None if frames is None else frame_edges_ms(frames, header.duration_s)
    return header, _frame_chunks(header, _words(header), edges)


class DirectPlanes(NamedTuple):
    """Prompts and delayeds of a scan after single-slice rebinning, planes in the file's order."""

    header: ListmodeHeader
    prompts: Float[np.ndarray, "view bin plane"]
    delayeds: Float[np.ndarray, "view bin plane"]
    ring_pairs: Float[np.ndarray, " plane"]  # relative number of ring pairs in each plane
    events: tuple[int, int]  # prompts and delayeds of any ring difference


def read_direct_planes(path: str | Path, max_ring_difference: int) -> DirectPlanes:
    """Read a list-mode file and rebin it to direct planes: see `read_events` and `rebin`.

    Raises:
        DataError: as `read_events` and `rebin`.
    """
    header, events = read_events(path)
    prompts, delayeds = rebin(header, events, max_ring_difference)
    number = int(events.prompt.sum())
    pairs = ring_pairs(header.rings, max_ring_difference)
    return DirectPlanes(header, prompts, delayeds, pairs, (number, events.prompt.size - number))


def sinogram_rings(
    rings: int, max_ring_difference: int
) -> tuple[Int[np.ndarray, " sinogram"], Int[np.ndarray, " sinogram"]]:
    """Rings of each span-1 sinogram, in file order: the sum of its two rings, and |ring difference|."""
    sums, distances = [np.arange(rings) * 2], [np.zeros(rings, int)]
    for difference in range(1, max_ring_difference + 1):
        first = np.arange(rings - difference)
        sums += [2 * first + difference] * 2
        distances += [np.full(first.size, difference)] * 2
    return np.concatenate(sums), np.concatenate(distances)


def ring_pairs(rings: int, max_ring_difference: int) -> Float[np.ndarray, " plane"]:
    """Number of ring pairs in each single-slice rebinned plane, relative to the plane with the most."""
    pairs = np.bincount(sinogram_rings(rings, min(max_ring_difference, rings - 1))[0], minlength=2 * rings - 1)
    return pairs / pairs.max()


def rebin(
    header: ListmodeHeader, events: Events, max_ring_difference: int = defaults.PET_MAX_RING_DIFFERENCE
) -> tuple[Float[np.ndarray, "view bin plane"], Float[np.ndarray, "view bin plane"]]:
    """Single-slice rebinned prompts and delayeds, in counts: plane = ring + ring, 2 rings − 1 planes half a ring apart.

    Events of a larger ring difference are left out.

    Raises:
        DataError: `max_ring_difference` is negative or more than the scan has.

    Source: Daube-Witherspoon & Muehllehner, Journal of Nuclear Medicine 28(11), 1987.
    """
    if not 0 <= max_ring_difference <= header.max_ring_difference:
        raise DataError(f"max_ring_difference: {max_ring_difference}; expected 0 to {header.max_ring_difference}")
    plane, distance = sinogram_rings(header.rings, header.max_ring_difference)
    shape = (2, header.views, header.bins, 2 * header.rings - 1)  # prompts, delayeds
    counts = np.zeros(shape, np.float32)
    for start in range(0, events.address.size, CHUNK):
        sinogram, index = np.divmod(events.address[start : start + CHUNK], header.views * header.bins)
        kept = distance[sinogram] <= max_ring_difference
        delayed = ~events.prompt[start : start + CHUNK][kept]
        view, bin_ = np.divmod(index[kept], header.bins)
        np.add.at(counts.reshape(-1), np.ravel_multi_index((delayed, view, bin_, plane[sinogram[kept]]), shape), _ONE)
    return counts[0], counts[1]


def _header_of(data: Path) -> Path:
    """The header beside a list-mode file: the one that names it."""
    check_file(data, "a list-mode file (.l) or its header (.l.hdr)")
    for header in sorted(data.parent.glob("*.hdr")):
        try:
            if read_interfile_header(header).get("name of data file") == data.name:
                return header
        except DataError:
            continue  # some other program's .hdr
    raise DataError(f"{data}: no header (.hdr) beside it names it; give the header's path")


def _words(header: ListmodeHeader) -> np.ndarray:
    """The file's words, mapped and not read."""
    check_file(header.data, f"the list-mode data that {header.path.name} names")
    size = header.data.stat().st_size - header.offset
    if size % 4 or size < 4:
        raise DataError(
            f"{header.data}: {size} bytes; expected whole words of 4 bytes, so it is truncated or is no list mode"
        )
    if size // 4 < header.words:
        warnings.warn(f"{header.data}: {size // 4} of the {header.words} words in its header", stacklevel=3)
    return np.memmap(header.data, "<u4", mode="r", offset=header.offset)


def _chunks(words: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Position and words of each chunk of the file."""
    for start in range(0, len(words), CHUNK):
        yield start, np.asarray(words[start : start + CHUNK])


def _events(header: ListmodeHeader, position: int, words: np.ndarray) -> Events:
    """Events among these words, which begin at this position."""
    words = words[words < TAG]
    address, limit = (words & ADDRESS).view(np.int32), header.sinograms * header.views * header.bins
    if address.size and (largest := int(address.max())) >= limit:
        raise DataError(f"{header.data}: address {largest} after word {position}; its header has {limit} bins")
    return Events(address, (words & PROMPT) != 0)


def _frame_chunks(
    header: ListmodeHeader, words: np.ndarray, edges: list[tuple[float, float]] | None
) -> Iterator[EventChunk]:
    """Events by frame, given the first time tag of each and the first after it; without edges, all in one frame."""
    now = 0  # events before the first tag belong to the first ms
    for position, chunk in _chunks(words):
        if edges is None:
            yield EventChunk(0, _events(header, position, chunk))
            continue
        (tags,) = np.nonzero(chunk >> np.uint32(29) == TAG >> np.uint32(29))
        times = np.concatenate([[now], (chunk[tags] & TIME).astype(int)])
        if np.any(backwards := np.diff(times) < 0):
            k = int(np.argmax(backwards))
            raise DataError(
                f"{header.data}: time tag of {times[k + 1]} ms at word {position + tags[k]}, after one of {times[k]} "
                "ms; expected times that grow, so it is damaged"
            )
        begins = np.concatenate([[0], tags, [len(chunk)]])
        for frame, (first, after) in enumerate(edges):
            start, stop = begins[np.searchsorted(times, [first, after])]
            events = _events(header, position + int(start), chunk[start:stop])
            if events.prompt.size:
                yield EventChunk(frame, events)
        now = int(times[-1])
