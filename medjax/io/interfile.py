"""Interfile: headers of `key := value` lines beside raw binary, as STIR and Siemens use it for projection data."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.atomic import replacing_together
from medjax.errors import DataError
from medjax.io.interfile_header import check_data_file, check_keys, integers, number, read_header, whole
from medjax.io.interfile_keys import Role
from medjax.memory import check_memory

NUMBER_KINDS = {"signed integer": "i", "unsigned integer": "u", "float": "f", "short float": "f", "long float": "f"}
MIN_SCALE, MAX_SCALE = 1e-30, 1e30  # of stored numbers, as float32 holds them
BYTE_ORDERS = {"littleendian": "<", "bigendian": ">"}
AXES = {
    "tangential coordinate": "bin",
    "sinogram projections": "bin",
    "bin": "bin",
    "view": "view",
    "sinogram views": "view",
    "projection": "view",
    "axial coordinate": "plane",
    "number of sinograms": "plane",
    "plane": "plane",
    "segment": "segment",
}
DEFAULT_AXIS_LABELS = {1: "bin", 2: "view", 3: "plane", 4: "segment"}


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
        max_ring_difference=None if "data format" in keys and _is_list(keys) else _segments(path, keys)[2],
    )


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
    names, sizes = _axes(path, keys)
    (stored, direct, _), scale = _segments(path, keys), _scale(path, keys)
    if len(stored) > 1:
        warnings.warn(f"{path}: {len(stored) - 1} oblique segments left out, only segment 0 is read", stacklevel=2)
    shape = [stored[direct] if name == "plane" else sizes[name][0] for name in names]
    dtype, offset = _number_type(path, keys), whole(path, keys, "data offset in bytes", 0)
    per_plane = sizes["view"][0] * sizes["bin"][0] * dtype.itemsize
    data = _data_file(path, keys, offset + sum(stored) * per_plane)
    if len(stored) > 1 and len(sizes["plane"]) == 1 and names[0] != "plane":
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
    content = HEADER.format(data=data.name, scanner=scanner, corrections=held, **sizes, **limits)
    with replacing_together(data, path) as (data_part, header_part):
        data_part.write_bytes(np.ascontiguousarray(values).data)
        header_part.write_text(content)


HEADER = """!INTERFILE  :=
!imaging modality := PT
name of data file := {data}
originating system := {scanner}
!version of keys := STIR3.0
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
number of dimensions := 4
matrix axis label [4] := segment
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


def _axes(path: Path, keys: dict[str, str]) -> tuple[list[str], dict[str, list[int]]]:
    """Names of the stored axes, slowest first, without segments; and the sizes of each, for planes one a segment."""
    count = whole(path, keys, "number of dimensions", 3)
    if count not in (3, 4):
        raise DataError(f"{path}: {count} dimensions; expected 3, or 4 with segments (no time of flight)")
    names: list[str] = []
    sizes: dict[str, list[int]] = {}
    for axis in range(count, 0, -1):
        label = keys.get(f"matrix axis label [{axis}]", DEFAULT_AXIS_LABELS[axis]).lower()
        if label not in AXES:
            raise DataError(f"{path}: matrix axis label [{axis}] is {label!r}; expected one of {', '.join(AXES)}")
        names.append(AXES[label])
        sizes[AXES[label]] = integers(path, keys, f"matrix size [{axis}]")
    inner = names[1:] if count == 4 else names
    if sorted(inner) != ["bin", "plane", "view"] or inner[-1] != "bin" or names[:-3] not in ([], ["segment"]):
        raise DataError(f"{path}: axes {names}; expected (segment, plane, view, bin) or (segment, view, plane, bin)")
    if len(sizes["view"]) != 1 or len(sizes["bin"]) != 1 or sizes.get("segment", [1]) != [len(sizes["plane"])]:
        raise DataError(f"{path}: matrix sizes {sizes}; expected one for views, for bins, and a segment for planes")
    return inner, sizes


def _segments(path: Path, keys: dict[str, str]) -> tuple[list[int], int, int | None]:
    """Planes of each stored segment, the index of the direct one, and its largest ring difference (None: unknown)."""
    planes = _axes(path, keys)[1]["plane"]
    if "segment table" in keys:  # Siemens: segment 0 first, spans of an odd number of ring differences
        table, span = integers(path, keys, "segment table"), whole(path, keys, "axial compression")
        if sum(table) != sum(planes) or span % 2 == 0:
            raise DataError(
                f"{path}: segment table {table}, axial compression {span}; expected {sum(planes)} planes in all, and "
                "an odd compression"
            )
        return table, 0, min((span - 1) // 2, whole(path, keys, "maximum ring difference", (span - 1) // 2))
    if len(planes) == 1 and "minimum ring difference per segment" not in keys:
        return planes, 0, None
    low = integers(path, keys, "minimum ring difference per segment")
    high = integers(path, keys, "maximum ring difference per segment")
    direct = [index for index, (least, most) in enumerate(zip(low, high, strict=False)) if least == -most]
    if len(direct) != 1 or not len(low) == len(high) == len(planes):
        raise DataError(f"{path}: ring differences {low} to {high}; expected one segment that is symmetric about 0")
    return planes, direct[0], high[direct[0]]


def _scale(path: Path, keys: dict[str, str]) -> float:
    """Factor from stored numbers to values; `quantification units` is another name of it, as in STIR."""
    scale = number(path, keys, "image scaling factor", 1)
    units = number(path, keys, "quantification units", scale)
    if scale not in (1, units):
        raise DataError(f"{path}: image scaling factor {scale:g}, quantification units {units:g}; expected one factor")
    if not MIN_SCALE <= units <= MAX_SCALE:
        raise DataError(f"{path}: image scaling factor {units:g}; expected {MIN_SCALE:g} to {MAX_SCALE:g}")
    return units


def _is_list(keys: dict[str, str]) -> bool:
    return keys["data format"].lower() == "coincidencelist"


def _number_type(path: Path, keys: dict[str, str]) -> np.dtype:
    kind = keys.get("number format", "unsigned integer").lower()
    order = keys.get("imagedata byte order", keys.get("image data byte order", "BIGENDIAN")).lower()
    size = whole(path, keys, "number of bytes per pixel")
    if (
        kind not in NUMBER_KINDS
        or order not in BYTE_ORDERS
        or size not in ((4, 8) if "float" in kind else (1, 2, 4, 8))
    ):
        raise DataError(
            f"{path}: number format {kind!r}, {size} bytes, {order!r}; expected integers or floats of 1 to 8 bytes"
        )
    return np.dtype(f"{BYTE_ORDERS[order]}{NUMBER_KINDS[kind]}{size}")


def _data_file(path: Path, keys: dict[str, str], size: int) -> Path:
    """The file beside the header that holds the data, which must be there and have `size` bytes."""
    data = path.parent / keys.get("name of data file", "")
    check_data_file(path, keys)
    if data.stat().st_size != size:
        raise DataError(f"{data}: {data.stat().st_size} bytes; its header {path.name} has {size}")
    return data
