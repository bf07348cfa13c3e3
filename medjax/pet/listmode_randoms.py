"""Fan sums of the delayed coincidences of a list-mode file: what `randoms.singles_from_fan_sums` takes."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.siemens_listmode import EventChunk, ListmodeHeader
from medjax.pet.listmode_sinograms import rings_of_file
from medjax.pet.randoms import bin_crystals
from medjax.pet.scanner import Scanner


def event_fan_sums(
    header: ListmodeHeader, chunks: Iterable[EventChunk], scanner: Scanner, frames: int = 1
) -> Float[np.ndarray, "frame ring crystal"]:
    """Delayeds of all lines of response of each crystal in each frame; rings run to the head.

    Args:
        header: header of the file.
        chunks: its events by frame, see `siemens_listmode.read_event_chunks`.
        scanner: scanner.
        frames: number of frames.

    Raises:
        DataError: views are mashed, so that a bin has no two crystals of its own.
    """
    if scanner.mash != 1:
        raise DataError(f"{scanner.name}: {scanner.mash} views are mashed into one; expected unmashed delayeds")
    rings = rings_of_file(header)
    crystals = [crystal[:, 0].ravel() for crystal in bin_crystals(scanner)]
    sums = np.zeros((frames, scanner.rings * scanner.crystals))
    for frame, events in chunks:
        sinogram, index = np.divmod(events.address[~events.prompt], header.views * header.bins)
        for ring, crystal in zip(rings, crystals, strict=True):
            sums[frame] += np.bincount(ring[sinogram] * scanner.crystals + crystal[index], minlength=sums.shape[1])
    return sums.reshape(frames, scanner.rings, scanner.crystals)
