"""3-D sinograms of a list-mode file: prompts and delayeds in the planes of a Michelogram.

Siemens counts rings from the head of a patient who lies head first on the back; here planes run to the head, so ring r
of the file is ring `rings` − 1 − r.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import ConfigError
from medjax.io.siemens_listmode import EventChunk, ListmodeHeader
from medjax.memory import check_memory
from medjax.pet.michelogram import Michelogram, michelogram

_EVENTS = 1 << 20  # events that are sorted into bins at once


class Sinograms(NamedTuple):
    """Prompts and delayeds, in counts, and how many of each lie in no plane."""

    prompts: Float[np.ndarray, "view bin plane"]
    delayeds: Float[np.ndarray, "view bin plane"]
    left_out: tuple[int, int]


def fill_sinograms(
    header: ListmodeHeader, chunks: Iterable[EventChunk], planes: Michelogram, frames: int = 1
) -> Iterator[Sinograms]:
    """Histogram of the events of each frame in these planes, one frame after the other.

    The file is read once, as the sinograms are asked for, and one frame's are in memory at a time.

    Args:
        header: header of the file.
        chunks: its events by frame, see `siemens_listmode.read_event_chunks`.
        planes: planes of the sinograms.
        frames: number of frames.

    Raises:
        ConfigError: the Michelogram has another number of rings than the file.
        DataError: there is no memory for the sinograms, or what `chunks` raises.
    """
    if planes.rings != header.rings:
        raise ConfigError(f"{header.path}: {header.rings} rings; the Michelogram has {planes.rings}")
    shape = (2, header.views, header.bins, planes.planes)  # prompts, delayeds
    check_memory(str(header.data), 4 * int(np.prod(shape)))
    return _fill(shape, chunks, planes_of_file(header, planes), frames)


def _fill(
    shape: tuple[int, int, int, int], chunks: Iterable[EventChunk], plane: np.ndarray, frames: int
) -> Iterator[Sinograms]:
    """Sinograms of this shape, given the plane of each sinogram of the file."""
    by_frame = groupby(chunks, key=lambda chunk: chunk.frame)
    frame, own = next(by_frame, (frames, iter(())))
    for number in range(frames):
        counts = np.zeros(shape, np.float32)
        left_out = np.zeros(2, int)
        if frame == number:
            for _, events in own:
                for start in range(0, events.address.size, _EVENTS):
                    part = slice(start, start + _EVENTS)
                    left_out += _add(counts, events.address[part], ~events.prompt[part], plane)
            frame, own = next(by_frame, (frames, iter(())))
        yield Sinograms(counts[0], counts[1], (int(left_out[0]), int(left_out[1])))
        del counts


def _add(counts: np.ndarray, address: np.ndarray, delayed: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Add events to counts; number of prompts and delayeds that lie in no plane."""
    _, views, bins, planes = counts.shape
    sinogram, line = np.divmod(address, views * bins)
    own = plane[sinogram]
    held = own >= 0
    where = (delayed[held].astype(int) * (views * bins) + line[held]) * planes + own[held]
    np.add.at(counts.reshape(-1), where, counts.dtype.type(1))  # of another type it takes sixteen times as long
    return np.bincount(delayed[~held], minlength=2)


def planes_of_file(header: ListmodeHeader, planes: Michelogram) -> np.ndarray:
    """Plane of each span-1 sinogram of the file; −1 for one that lies in no plane."""
    first, second = rings_of_file(header)
    return planes.plane_of_pair[first, second]


def rings_of_file(header: ListmodeHeader) -> Int[np.ndarray, "2 sinogram"]:
    """Rings of the first and the second crystal of each span-1 sinogram of the file, counted to the head.

    A ring difference of the file is that of the first crystal's ring from the second's: of the mMR's real scan in the
    tests this explains the prompts better than the opposite.
    """
    rings = michelogram(header.rings, 1, header.max_ring_difference).plane_rings.astype(int)
    return header.rings - 1 - rings.T[::-1]
