"""Counts with their factors as Interfile projection data, as STIR reads them and `interfile_scan` takes them back.

STIR counts rings from the head of a patient who lies head first on the back, and its time-of-flight bins grow towards
the first crystal: planes and bins of medjax are reversed in a file.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.io.counts import Counts
from medjax.io.interfile import Geometry
from medjax.io.interfile_output import write_sinograms
from medjax.io.interfile_sinograms import Sinograms, TofBins, reverse_rings
from medjax.pet.michelogram import Michelogram, Segment
from medjax.pet.plane_metadata import read_michelogram, read_tof
from medjax.pet.scanner import Scanner

STIR_NAMES = {"mmr": "Siemens mMR", "mct": "Siemens mCT"}  # of presets that STIR has too
FACTORS = ("additive", "multiplicative")


def interfile_names(path: Path) -> list[Path]:
    """Files of counts whose header is `path`: header and data of the counts, the background and the factors."""
    headers = [path, *(path.with_name(f"{path.stem}_{name}.hs") for name in FACTORS)]
    return [file for header in headers for file in (header, header.with_suffix(".s"))]


def write_interfile_counts(
    path: str | Path, counts: Counts, scanner: Scanner, *, corrections: Sequence[str] = ()
) -> None:
    """Write counts, background and multiplicative factors, each a header (.hs) and its data (.s).

    They are `path`, and beside it the headers named NAME_additive and NAME_multiplicative: in counts, and as factors by
    which expected counts are multiplied. Direct planes are one segment of the smallest span that has them. Write them
    to a folder of `atomic.replacing_together` for all or none.

    Args:
        path: header of the counts, whose name ends in .hs.
        counts: counts of any planes.
        scanner: their scanner, whose lengths go into the headers.
        corrections: corrections that the factors hold, of `medjax.io.counts.CORRECTIONS`.

    Raises:
        DataError: as `write_sinograms`, or metadata that contradict the counts.
        OSError: they cannot be written.
    """
    path = Path(path)
    planes = read_michelogram(str(path), counts.metadata, counts.counts.shape[2]) or _direct(counts.counts.shape[2])
    tof = read_tof(str(path), counts.metadata, counts.counts.shape[3] if counts.counts.ndim == 4 else None)
    bins = None if tof is None else TofBins(tof.bins, tof.bin_ps, tof.resolution_ps)
    bands = tuple((one.lowest, one.highest) for one in planes.segments)
    geometry = Geometry(
        planes.rings, scanner.crystals, scanner.radius_mm, scanner.depth_mm, scanner.ring_spacing_mm, None
    )
    for name, header in zip(("counts", *FACTORS), interfile_names(path)[::2], strict=True):
        values = getattr(counts, name)
        own, order = (bins, (3, 2, 0, 1)) if values.ndim == 4 else (None, (2, 0, 1))
        array = values[..., ::-1].transpose(order) if values.ndim == 4 else values.transpose(order)
        write_sinograms(
            header,
            reverse_rings(Sinograms(np.asarray(array), bands, planes.planes_per_segment, planes.rings, own)),
            geometry=geometry,
            scanner=STIR_NAMES.get(scanner.name, scanner.name),
            corrections=corrections if name == "multiplicative" else (),
        )


def _direct(planes: int) -> Michelogram:
    """Direct planes as a segment: those of neighbouring rings beside those within a ring."""
    widest = min(1, planes // 2)
    return Michelogram((planes + 1) // 2, (Segment(-widest, widest),))
