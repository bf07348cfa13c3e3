"""3-D sinograms of a list-mode file: prompts and delayeds in the planes of a Michelogram.

Siemens counts rings from the head of a patient who lies head first on the back; here planes run to the head, so ring r
of the file is ring `rings` − 1 − r.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import ConfigError
from medjax.io.siemens_listmode import CHUNK, Events, ListmodeHeader
from medjax.memory import check_memory
from medjax.pet.michelogram import Michelogram, michelogram


class Sinograms(NamedTuple):
    """Prompts and delayeds, in counts, and how many of each lie in no plane."""

    prompts: Float[np.ndarray, "view bin plane"]
    delayeds: Float[np.ndarray, "view bin plane"]
    left_out: tuple[int, int]


def fill_sinograms(header: ListmodeHeader, events: Events, planes: Michelogram) -> Sinograms:
    """Histogram of the events of a file (`siemens_listmode.read_events`) in these planes.

    Raises:
        ConfigError: the Michelogram has another number of rings than the file.
        DataError: there is no memory for the sinograms.
    """
    if planes.rings != header.rings:
        raise ConfigError(f"{header.path}: {header.rings} rings; the Michelogram has {planes.rings}")
    shape = (2, header.views, header.bins, planes.planes)  # prompts, delayeds
    check_memory(str(header.data), 4 * int(np.prod(shape)))
    counts = np.zeros(shape, np.float32)
    plane = planes_of_file(header, planes)
    left_out = [0, 0]
    for start in range(0, events.address.size, CHUNK):
        sinogram, index = np.divmod(events.address[start : start + CHUNK], header.views * header.bins)
        delayed, own = ~events.prompt[start : start + CHUNK], plane[sinogram]
        for kind in range(2):
            left_out[kind] += int(np.sum((own < 0) & (delayed == kind)))
        held = own >= 0
        view, bin_ = np.divmod(index[held], header.bins)
        where = np.ravel_multi_index((delayed[held].astype(int), view, bin_, own[held]), shape)
        np.add.at(counts.reshape(-1), where, 1)
    return Sinograms(counts[0], counts[1], (left_out[0], left_out[1]))


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
