"""Where the bins of an Interfile header's projection data lie in the file beside it: axes, segments, numbers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.errors import DataError
from medjax.io.interfile_header import check_data_file, integers, number, whole

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
    "timing positions": "tof",
}
DEFAULT_AXIS_LABELS = {1: "bin", 2: "view", 3: "plane", 4: "segment", 5: "timing positions"}
OUTER_AXES: tuple[list[str], ...] = ([], ["segment"], ["tof", "segment"])
Bands = tuple[tuple[int, int], ...]  # lowest and highest ring difference of each segment


class Axes(NamedTuple):
    """Stored axes of a segment, slowest first, and the sizes of all."""

    names: list[str]  # of plane, view and bin
    planes: list[int]  # of each entry of the header: a segment's in STIR's dialect, all in Siemens'
    views: int
    bins: int
    tof: int | None  # number of time-of-flight bins, the slowest axis; None: no such axis


def read_axes(path: Path, keys: dict[str, str]) -> Axes:
    """Axes of the header.

    Raises:
        DataError: not 3 dimensions, 4 with segments or 5 with time-of-flight bins, or in an order that is no storage
            order of projection data.
    """
    count = whole(path, keys, "number of dimensions", 3)
    if count not in (3, 4, 5):
        raise DataError(f"{path}: {count} dimensions; expected 3, 4 with segments, or 5 with time of flight too")
    names: list[str] = []
    sizes: dict[str, list[int]] = {}
    for axis in range(count, 0, -1):
        label = keys.get(f"matrix axis label [{axis}]", DEFAULT_AXIS_LABELS[axis]).lower()
        if label not in AXES:
            raise DataError(f"{path}: matrix axis label [{axis}] is {label!r}; expected one of {', '.join(AXES)}")
        names.append(AXES[label])
        sizes[AXES[label]] = integers(path, keys, f"matrix size [{axis}]")
    inner = names[-3:]
    if sorted(inner) != ["bin", "plane", "view"] or inner[-1] != "bin" or names[:-3] not in OUTER_AXES:
        raise DataError(
            f"{path}: axes {names}; expected (segment, plane, view, bin) or (segment, view, plane, bin), with timing "
            "positions before them where there is time of flight"
        )
    single = ("view", "bin", "tof")
    if any(len(sizes.get(name, [1])) != 1 for name in single) or sizes.get("segment", [1]) != [len(sizes["plane"])]:
        raise DataError(f"{path}: matrix sizes {sizes}; expected one for views, for bins, and a segment for planes")
    return Axes(inner, sizes["plane"], sizes["view"][0], sizes["bin"][0], sizes["tof"][0] if "tof" in sizes else None)


class Segments(NamedTuple):
    """Segments in the order of the file."""

    planes: list[int]
    bands: Bands | None  # ring differences of each; None: the header tells nothing, of direct planes alone
    direct: int  # index of segment 0


def read_segments(path: Path, keys: dict[str, str], axes: Axes) -> Segments:
    """Segments of the header, of STIR's lists or of Siemens' table. Ring differences: second crystal's − first's.

    Raises:
        DataError: lists of other lengths than the segments, no segment or two that are symmetric about 0, a table whose
            sum is not the number of planes.
    """
    planes = axes.planes
    if "segment table" in keys:
        return _siemens_segments(path, keys, planes)
    if len(planes) == 1 and "minimum ring difference per segment" not in keys:
        return Segments(planes, None, 0)
    low = integers(path, keys, "minimum ring difference per segment")
    high = integers(path, keys, "maximum ring difference per segment")
    direct = [index for index, (least, most) in enumerate(zip(low, high, strict=False)) if least == -most]
    if len(direct) != 1 or not len(low) == len(high) == len(planes):
        raise DataError(f"{path}: ring differences {low} to {high}; expected one segment that is symmetric about 0")
    return Segments(planes, tuple(zip(low, high, strict=True)), direct[0])


def _siemens_segments(path: Path, keys: dict[str, str], planes: list[int]) -> Segments:
    """Segment 0 first, then pairs; spans of an odd number of ring differences, the last as far as the largest one.

    Siemens stores 0, −1, +1, … in the sign of second − first ring (STIR, src/IO/stir_ecat_common.cxx).
    """
    table, span = integers(path, keys, "segment table"), whole(path, keys, "axial compression")
    if sum(table) != sum(planes) or span % 2 == 0:
        raise DataError(
            f"{path}: segment table {table}, axial compression {span}; expected {sum(planes)} planes in all, and an "
            "odd compression"
        )
    half = (span - 1) // 2
    reach = len(table) // 2 * span + half
    largest = min(reach, whole(path, keys, "maximum ring difference", reach))
    bands = [(-min(half, largest), min(half, largest))]
    for middle in range(span, len(table) // 2 * span + 1, span):
        low, high = middle - half, min(middle + half, largest)
        bands += [(-high, -low), (low, high)]
    return Segments(table, tuple(bands[: len(table)]), 0)


def read_scale(path: Path, keys: dict[str, str]) -> float:
    """Factor from stored numbers to values; `quantification units` is another name of it, as in STIR.

    Raises:
        DataError: two factors, or one that float32 does not hold.
    """
    scale = number(path, keys, "image scaling factor", 1)
    units = number(path, keys, "quantification units", scale)
    if scale not in (1, units):
        raise DataError(f"{path}: image scaling factor {scale:g}, quantification units {units:g}; expected one factor")
    if not MIN_SCALE <= units <= MAX_SCALE:
        raise DataError(f"{path}: image scaling factor {units:g}; expected {MIN_SCALE:g} to {MAX_SCALE:g}")
    return units


def read_number_type(path: Path, keys: dict[str, str]) -> np.dtype:
    """Type of the stored numbers.

    Raises:
        DataError: no integers or floats of 1 to 8 bytes.
    """
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


def find_data_file(path: Path, keys: dict[str, str], size: int) -> Path:
    """The file beside the header that holds the data.

    Raises:
        DataError: it is not there, or has not `size` bytes.
    """
    data = path.parent / keys.get("name of data file", "")
    check_data_file(path, keys)
    if data.stat().st_size != size:
        raise DataError(f"{data}: {data.stat().st_size} bytes; its header {path.name} has {size}")
    return data
