"""Interfile: headers of `key := value` lines beside raw binary, as STIR and Siemens use it for projection data.

Here: what a header tells of the scanner, and sinograms of direct planes. All segments, and time of flight:
`interfile_sinograms`.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.atomic import replacing_together
from medjax.errors import DataError
from medjax.io.interfile_header import check_keys, number, read_header, whole
from medjax.io.interfile_keys import Role
from medjax.io.interfile_layout import find_data_file, read_axes, read_number_type, read_scale, read_segments
from medjax.memory import check_memory


class Geometry(NamedTuple):
    """What a header tells of the scanner and of its direct planes; None where it tells nothing."""

    rings: int | None
    crystals: int | None  # a ring
    radius_mm: float | None  # inner radius of the ring
    depth_mm: float | None  # mean depth of interaction
    ring_spacing_mm: float | None
    max_ring_difference: int | None  # of the direct planes: the largest one that is summed in them


def read_geometry(path: str | Path) -> Geometry:
    """Read from a header of projection data, or of list mode, what it tells of the scanner.

    Raises:
        DataError: no Interfile header, or a value that is no number.
    """
    path = Path(path)
    keys = read_header(path)

    def length(key: str, factor: int) -> float | None:
        value = number(path, keys, key, 0)
        return factor * value if value > 0 else None  # STIR writes −1 for unknown ones

    diameter = length("inner ring diameter (cm)", 5)
    return Geometry(
        rings=whole(path, keys, "number of rings", 0) or None,
        crystals=whole(path, keys, "number of detectors per ring", 0) or None,
        radius_mm=length("gantry crystal radius (cm)", 10) if diameter is None else diameter,
        depth_mm=length("average depth of interaction (cm)", 10),
        ring_spacing_mm=length("distance between rings (cm)", 10),
        max_ring_difference=None if "data format" in keys and _is_list(keys) else _largest_direct(path, keys),
    )


def _largest_direct(path: Path, keys: dict[str, str]) -> int | None:
    segments = read_segments(path, keys, read_axes(path, keys))
    return None if segments.bands is None else segments.bands[segments.direct][1]


def data_file(path: str | Path) -> Path:
    """The raw data that a header names: the file beside it."""
    return Path(path).parent / read_header(path).get("name of data file", "")


def read_sinogram(header: str | Path, role: Role = "counts") -> Float[np.ndarray, "plane view bin"]:
    """Read direct-plane projection data (STIR's segment 0, any span, no time of flight), or a 3-D array, as float32.

    Takes STIR's two storage orders, by sinogram (views inside a plane) and by view (planes inside a view), Siemens'
    segment table, and all integer and float formats. Oblique segments are left out, and a warning says so. Views and
    bins keep their order.

    Args:
        header: the header's file.
        role: what it is read as; counts must be uncorrected emission data, factors need not be.

    Raises:
        DataError: no Interfile header, keys missing, not understood, or of a value that is not supported (see
            `interfile_keys`), time-of-flight or dynamic data, no direct segment, a data file that is missing or not of
            the size the header tells, NaN or infinite values.

    Source: STIR, src/IO/interfile.cxx and examples/samples/PET_Interfile_header.hs.
    """
    path = Path(header)
    keys = read_header(path)
    check_keys(path, keys, role)
    axes, scale = read_axes(path, keys), read_scale(path, keys)
    stored, _, direct = read_segments(path, keys, axes)
    if axes.tof is not None:
        raise DataError(f"{path}: time of flight in {axes.tof} bins; expected direct planes without it")
    if len(stored) > 1:
        warnings.warn(f"{path}: {len(stored) - 1} oblique segments left out, only segment 0 is read", stacklevel=2)
    sizes = {"plane": stored[direct], "view": axes.views, "bin": axes.bins}
    shape, names = [sizes[name] for name in axes.names], axes.names
    dtype, offset = read_number_type(path, keys), whole(path, keys, "data offset in bytes", 0)
    per_plane = axes.views * axes.bins * dtype.itemsize
    data = find_data_file(path, keys, offset + sum(stored) * per_plane)
    if len(stored) > 1 and len(axes.planes) == 1 and names[0] != "plane":
        raise DataError(f"{path}: a segment table with views outside planes; expected planes as the slowest axis")
    start = offset + sum(stored[:direct]) * per_plane
    check_memory(str(data), math.prod(shape) * (dtype.itemsize + 8))
    values = np.fromfile(data, dtype, math.prod(shape), offset=start).reshape(shape)
    values = np.transpose(values, [names.index(name) for name in ("plane", "view", "bin")])
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 does not hold is refused
        values = np.ascontiguousarray(values, np.float32) * scale
    if faults := np.count_nonzero(~np.isfinite(values)):
        raise DataError(f"{data}: {faults} NaN or infinite bins; expected finite values")
    return values


def write_sinogram(
    path: str | Path,
    array: Real[np.ndarray | Array, "plane view bin"],
    *,
    max_ring_difference: int,
    scanner: str = "unknown",
    corrections: Sequence[str] = (),
) -> None:
    """Write a direct-plane sinogram as STIR does: float32 in a .s file and its header `path` (.hs), both or neither.

    Args:
        path: header to write.
        array: planes from the head of a patient who lies head first, supine.
        max_ring_difference: largest ring difference that is summed in a plane; with 0 there is one plane a ring, else
            one more between each pair of rings.
        scanner: name that STIR knows ("Siemens mMR") where STIR is to read it.
        corrections: corrections that multiplicative factors hold, of `medjax.io.counts.CORRECTIONS`.

    Raises:
        DataError: the name does not end in .hs, or the array is not 3-D and finite.
        OSError: they cannot be written (disk full, no permission, no such folder).
    """
    path = Path(path)
    with np.errstate(over="ignore"):
        values = np.asarray(array, "<f4")
    if path.suffix != ".hs":
        raise DataError(f"{path}: expected a name that ends in .hs")
    if values.ndim != 3 or not values.size or not np.isfinite(values).all():
        raise DataError(
            f"{path}: an array of shape {values.shape} to write; expected (plane, view, bin), finite in float32"
        )
    data = path.with_suffix(".s")
    planes, views, bins = values.shape
    limits = {"low": -max_ring_difference, "high": max_ring_difference}
    held = ", ".join(corrections) or "None"
    sizes = {"planes": planes, "views": views, "bins": bins}
    head = HEAD.format(data=data.name, scanner=scanner, corrections=held, version="STIR3.0", dimensions=4)
    content = head + SEGMENT.format(**sizes, **limits)
    with replacing_together(data, path) as (data_part, header_part):
        data_part.write_bytes(np.ascontiguousarray(values).data)
        header_part.write_text(content)


HEAD = """!INTERFILE  :=
!imaging modality := PT
name of data file := {data}
originating system := {scanner}
!version of keys := {version}
!GENERAL DATA :=
patient orientation := head_in
patient rotation := supine
!GENERAL IMAGE DATA :=
!type of data := PET
imagedata byte order := LITTLEENDIAN
!PET STUDY (General) :=
!PET data type := Emission
applied corrections := {{{corrections}}}
!number format := float
!number of bytes per pixel := 4
number of dimensions := {dimensions}
"""
SEGMENT = """matrix axis label [4] := segment
!matrix size [4] := 1
matrix axis label [3] := axial coordinate
!matrix size [3] := {{ {planes}}}
matrix axis label [2] := view
!matrix size [2] := {views}
matrix axis label [1] := tangential coordinate
!matrix size [1] := {bins}
minimum ring difference per segment := {{ {low}}}
maximum ring difference per segment := {{ {high}}}
number of time frames := 1
!END OF INTERFILE :=
"""


def _is_list(keys: dict[str, str]) -> bool:
    return keys["data format"].lower() == "coincidencelist"
