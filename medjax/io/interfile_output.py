"""Write 3-D sinograms in Interfile, all segments, with or without time of flight, as STIR stores them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medjax.atomic import replacing_together
from medjax.errors import DataError
from medjax.io.interfile import HEAD, Geometry
from medjax.io.interfile_sinograms import (
    RESOLUTIONS,
    SMALLEST_PS,
    UNMASHED,
    WIDTH,
    Sinograms,
    check_ps,
    rings_of_segments,
)


def write_sinograms(
    path: str | Path,
    sinograms: Sinograms,
    *,
    geometry: Geometry | None = None,
    scanner: str = "unknown",
    corrections: Sequence[str] = (),
) -> None:
    """Write sinograms as STIR does: float32 by view in a .s file and its header `path` (.hs), both or neither.

    Args:
        path: header to write.
        sinograms: planes, segments and time-of-flight bins, with rings numbered as STIR's.
        geometry: what the header tells of the scanner.
        scanner: name that STIR knows ("Siemens mMR") where STIR is to read it.
        corrections: corrections that multiplicative factors hold, of `medjax.io.counts.CORRECTIONS`.

    Raises:
        DataError: the name does not end in .hs, the array is not finite or not of these planes, the segments are not
            known or contradict the rings, or time-of-flight bins are not in ps.
        OSError: they cannot be written (disk full, no permission, no such folder).
    """
    path = Path(path)
    if path.suffix != ".hs":
        raise DataError(f"{path}: expected a name that ends in .hs")
    array, bands, planes, tof = sinograms.array, sinograms.segments, sinograms.planes, sinograms.tof
    stored = array[None] if tof is None else array
    if stored.ndim != 4 or stored.shape[:2] != (1 if tof is None else tof.bins, sum(planes)) or not stored.size:
        raise DataError(f"{path}: an array of shape {array.shape} to write; expected {planes} planes and {tof}")
    if bands is None or len(bands) != len(planes):
        raise DataError(f"{path}: ring differences {bands} of {len(planes)} segments; expected those of each")
    direct = next((index for index, (low, high) in enumerate(bands) if low == -high), 0)
    rings = rings_of_segments(path, list(planes), bands, direct, sinograms.rings or 0)
    if tof is not None:
        check_ps(path, "width of a bin", tof.bin_ps, SMALLEST_PS)
        if tof.resolution_ps is not None:
            check_ps(path, "timing resolution", tof.resolution_ps, SMALLEST_PS)
    data = path.with_suffix(".s")
    text = _header(data.name, stored, replace(sinograms, rings=rings), geometry, scanner, corrections)
    stops = np.cumsum(planes).tolist()
    with replacing_together(data, path) as (data_part, header_part):
        with data_part.open("wb") as file:
            for planes_of_bin in stored:
                for stop, number_planes in zip(stops, planes, strict=True):
                    file.write(_to_write(path, planes_of_bin[stop - number_planes : stop]))
        header_part.write_text(text)


def _to_write(path: Path, planes: np.ndarray) -> memoryview:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(np.swapaxes(planes, 0, 1), "<f4")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: NaN or infinite bins to write; expected finite values in float32")
    return values.data


def _header(
    data: str, stored: np.ndarray, sinograms: Sinograms, geometry: Geometry | None, scanner: str, held: Sequence[str]
) -> str:
    """Text of the header, with the keys in STIR's order."""
    bands, tof = sinograms.segments or (), sinograms.tof
    low, high, planes = (", ".join(map(str, row)) for row in (*zip(*bands, strict=True), sinograms.planes))
    sizes = [("segment", len(bands)), ("view", stored.shape[2]), ("axial coordinate", f"{{ {planes}}}")]
    sizes = [
        *([] if tof is None else [("timing positions", tof.bins)]),
        *sizes,
        ("tangential coordinate", stored.shape[3]),
    ]
    axes = [
        f"matrix axis label [{axis}] := {label}\n!matrix size [{axis}] := {size}"
        for axis, (label, size) in zip(range(len(sizes), 0, -1), sizes, strict=True)
    ]
    lengths = {"number of rings": sinograms.rings}
    if geometry is not None:
        lengths |= {
            "number of detectors per ring": geometry.crystals,
            "inner ring diameter (cm)": geometry.radius_mm and geometry.radius_mm / 5,
            "average depth of interaction (cm)": geometry.depth_mm and geometry.depth_mm / 10,
            "distance between rings (cm)": geometry.ring_spacing_mm and geometry.ring_spacing_mm / 10,
        }
    if tof is not None:
        lengths |= {UNMASHED: tof.bins, WIDTH: tof.bin_ps, RESOLUTIONS[0]: tof.resolution_ps}
    parameters = [f"{key} := {value:.9g}" for key, value in lengths.items() if value]
    corrections = ", ".join(held) or "None"
    head = HEAD.format(data=data, scanner=scanner, corrections=corrections, version="STIR6.0", dimensions=len(sizes))
    return "\n".join(
        [
            head.rstrip("\n"),
            *axes,
            *([] if tof is None else ["TOF mashing factor := 1"]),
            f"minimum ring difference per segment := {{ {low}}}",
            f"maximum ring difference per segment := {{ {high}}}",
            "Scanner parameters :=",
            f"Scanner type := {scanner}",
            *parameters,
            f"Maximum number of non-arc-corrected bins := {stored.shape[3]}",
            "View offset (degrees) := 0",
            "end scanner parameters :=",
            "number of time frames := 1",
            "!END OF INTERFILE :=\n",
        ]
    )
