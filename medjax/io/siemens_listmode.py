"""Siemens 32-bit list mode (PETLINK bin address): one word an event, an address into a span-1 sinogram.

Words are little-endian. Bit 31 marks a tag word (time, gating), skipped here; else bit 30 tells a prompt (1) from a
delayed coincidence (0), and the lower 30 bits are an address, (sinogram · views + view) · bins + bin. Sinograms go by
ring difference: 0 first, then 1 and −1, 2 and −2, …, each ring by ring.
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
from medjax.io.interfile_header import check_keys, number, whole
from medjax.io.interfile_header import read_header as read_interfile_header
from medjax.memory import check_memory

CHUNK = 1 << 22  # words read at a time: 16 MiB
MAX_RINGS = 10_000
TAG, PROMPT, ADDRESS = np.uint32(1 << 31), np.uint32(1 << 30), np.uint32((1 << 30) - 1)
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
    limit = header.sinograms * header.views * header.bins
    events = Events(
        *(np.empty(sum(chunk.size for _, chunk in _event_chunks(words)), kind) for kind in (np.int32, bool))
    )
    filled = 0
    for position, chunk in _event_chunks(words):
        address = chunk & ADDRESS
        if address.size and (largest := int(address.max())) >= limit:
            raise DataError(f"{header.data}: address {largest} after word {position}; its header has {limit} bins")
        events.address[filled : filled + chunk.size] = address
        events.prompt[filled : filled + chunk.size] = chunk & PROMPT
        filled += chunk.size
    return header, events


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
        np.add.at(counts.reshape(-1), np.ravel_multi_index((delayed, view, bin_, plane[sinogram[kept]]), shape), 1)
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


def _event_chunks(words: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Position and event words of each chunk of the file."""
    for start in range(0, len(words), CHUNK):
        chunk = np.asarray(words[start : start + CHUNK])
        yield start, chunk[chunk < TAG]
