"""Fan sums of the delayed coincidences of a list-mode file: what `randoms.singles_from_fan_sums` takes."""

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.siemens_listmode import CHUNK, Events, ListmodeHeader
from medjax.pet.listmode_sinograms import rings_of_file
from medjax.pet.randoms import bin_crystals
from medjax.pet.scanner import Scanner


def event_fan_sums(header: ListmodeHeader, events: Events, scanner: Scanner) -> Float[np.ndarray, "ring crystal"]:
    """Delayeds of all lines of response of each crystal; rings run to the head.

    Raises:
        DataError: views are mashed, so that a bin has no two crystals of its own.
    """
    if scanner.mash != 1:
        raise DataError(f"{scanner.name}: {scanner.mash} views are mashed into one; expected unmashed delayeds")
    rings = rings_of_file(header)
    crystals = [crystal[:, 0].ravel() for crystal in bin_crystals(scanner)]
    sums = np.zeros(scanner.rings * scanner.crystals)
    for start in range(0, events.address.size, CHUNK):
        part = slice(start, start + CHUNK)
        sinogram, index = np.divmod(events.address[part][~events.prompt[part]], header.views * header.bins)
        for ring, crystal in zip(rings, crystals, strict=True):
            sums += np.bincount(ring[sinogram] * scanner.crystals + crystal[index], minlength=sums.size)
    return sums.reshape(scanner.rings, scanner.crystals)
