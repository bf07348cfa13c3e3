"""Interfile: headers of `key := value` lines beside raw binary, as STIR and Siemens use it for projection data."""

import math
import re
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.atomic import replacing
from medjax.errors import DataError

MAX_HEADER_BYTES = 1 << 20  # a header is a few kB, the raw data beside it may be many GB
NUMBER_KINDS = {"signed integer": "i", "unsigned integer": "u", "float": "f", "short float": "f", "long float": "f"}
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


def read_header(path: str | Path) -> dict[str, str]:
    """Read the keys and values of an Interfile header, up to `END OF INTERFILE`.

    Keys are lower case, without a leading ! or %, single-spaced, with one space before an index: `matrix size [1]`.
    Values keep their case. Lines that start with ; are comments, others without := are skipped; of equal keys the last
    one counts.

    Raises:
        DataError: missing, or its first line is not `!INTERFILE :=`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an Interfile header")
    with path.open("rb") as file:
        text = file.read(MAX_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    pairs = [_key_and_value(line) for line in text.splitlines() if ":=" in line and not line.lstrip().startswith(";")]
    if not pairs or pairs[0][0] != "interfile":
        raise DataError(f"{path}: not an Interfile header; expected its first line to be !INTERFILE :=")
    keys = [key for key, _ in pairs]
    return dict(pairs[1 : keys.index("end of interfile") if "end of interfile" in keys else None])


def read_sinogram(header: str | Path) -> Float[np.ndarray, "plane view bin"]:
    """Read direct-plane projection data (STIR's segment 0, any span, no time of flight), or a 3-D array, as float32.

    Takes STIR's two storage orders, by sinogram (views inside a plane) and by view (planes inside a view), and all
    integer and float formats. Oblique segments are left out, and a warning says so. Views and bins keep their order.

    Raises:
        DataError: no Interfile header, keys missing or not understood, time-of-flight or dynamic data, no direct
            segment, a data file that is missing or not of the size the header tells, NaN or infinite values.

    Source: STIR, src/IO/interfile.cxx and examples/samples/PET_Interfile_header.hs.
    """
    path = Path(header)
    keys = read_header(path)
    names, sizes = _axes(path, keys)
    planes, skipped = _direct_planes(path, keys, sizes)
    shape = [planes if name == "plane" else sizes[name][0] for name in names]
    dtype, offset = _number_type(path, keys), int(_number(path, keys, "data offset in bytes", 0))
    per_plane = sizes["view"][0] * sizes["bin"][0] * dtype.itemsize
    data = _data_file(path, keys, offset + sum(sizes["plane"]) * per_plane)
    values = np.fromfile(data, dtype, math.prod(shape), offset=offset + skipped * per_plane).reshape(shape)
    values = np.transpose(values, [names.index(name) for name in ("plane", "view", "bin")])
    values = np.ascontiguousarray(values, np.float32) * np.float32(_number(path, keys, "image scaling factor", 1))
    if faults := np.count_nonzero(~np.isfinite(values)):
        raise DataError(f"{data}: {faults} NaN or infinite bins; expected finite values")
    return values


def write_sinogram(
    path: str | Path,
    array: Real[np.ndarray | Array, "plane view bin"],
    *,
    scanner: str = "unknown",
    max_ring_difference: int = 0,
) -> None:
    """Write a direct-plane sinogram as STIR does: float32 in a .s file and its header `path` (.hs), each atomic.

    `scanner` is a name that STIR knows ("Siemens mMR") where STIR is to read it.

    Raises:
        DataError: the name does not end in .hs or the array is not 3-D.
        OSError: it cannot be written (disk full, no permission, no such folder).
    """
    path, values = Path(path), np.asarray(array, "<f4")
    if path.suffix != ".hs":
        raise DataError(f"{path}: expected a name that ends in .hs")
    if values.ndim != 3:
        raise DataError(f"{path}: an array of shape {values.shape} to write; expected (plane, view, bin)")
    data = path.with_suffix(".s")
    planes, views, bins = values.shape
    limits = {"low": -max_ring_difference, "high": max_ring_difference}
    content = HEADER.format(data=data.name, scanner=scanner, planes=planes, views=views, bins=bins, **limits)
    with replacing(data) as file:
        file.write(np.ascontiguousarray(values).data)
    with replacing(path) as file:
        file.write(content.encode())


HEADER = """!INTERFILE  :=
!imaging modality := PT
name of data file := {data}
originating system := {scanner}
!version of keys := STIR3.0
!GENERAL DATA :=
!GENERAL IMAGE DATA :=
!type of data := PET
imagedata byte order := LITTLEENDIAN
!PET STUDY (General) :=
!PET data type := Emission
applied corrections := {{None}}
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


def _key_and_value(line: str) -> tuple[str, str]:
    key, value = line.split(":=", 1)
    key = " ".join(key.replace("[", " [").split()).lstrip("!%").strip().lower()
    return re.sub(r"\[\s*(\d+)\s*\]", r"[\1]", key), value.strip()


def _axes(path: Path, keys: dict[str, str]) -> tuple[list[str], dict[str, list[int]]]:
    """Names of the stored axes, slowest first, without segments; and the sizes of each, for planes one a segment."""
    count = int(_number(path, keys, "number of dimensions", 3))
    if count not in (3, 4):
        raise DataError(f"{path}: {count} dimensions; expected 3, or 4 with segments (no time of flight)")
    names: list[str] = []
    sizes: dict[str, list[int]] = {}
    for axis in range(count, 0, -1):
        label = keys.get(f"matrix axis label [{axis}]", DEFAULT_AXIS_LABELS[axis]).lower()
        if label not in AXES:
            raise DataError(f"{path}: matrix axis label [{axis}] is {label!r}; expected one of {', '.join(AXES)}")
        names.append(AXES[label])
        sizes[AXES[label]] = _integers(path, keys, f"matrix size [{axis}]")
    inner = names[1:] if count == 4 else names
    if sorted(inner) != ["bin", "plane", "view"] or inner[-1] != "bin" or names[:-3] not in ([], ["segment"]):
        raise DataError(f"{path}: axes {names}; expected (segment, plane, view, bin) or (segment, view, plane, bin)")
    if len(sizes["view"]) != 1 or len(sizes["bin"]) != 1 or sizes.get("segment", [1]) != [len(sizes["plane"])]:
        raise DataError(f"{path}: matrix sizes {sizes}; expected one for views, for bins, and a segment for planes")
    return inner, sizes


def _direct_planes(path: Path, keys: dict[str, str], sizes: dict[str, list[int]]) -> tuple[int, int]:
    """How many planes the segment around ring difference 0 has, and how many are stored before it."""
    planes = sizes["plane"]
    if len(planes) == 1 and "minimum ring difference per segment" not in keys:
        return planes[0], 0
    low = _integers(path, keys, "minimum ring difference per segment")
    high = _integers(path, keys, "maximum ring difference per segment")
    direct = [index for index, (least, most) in enumerate(zip(low, high, strict=False)) if least == -most]
    if len(direct) != 1 or not len(low) == len(high) == len(planes):
        raise DataError(f"{path}: ring differences {low} to {high}; expected one segment that is symmetric about 0")
    if len(planes) > 1:
        warnings.warn(f"{path}: {len(planes) - 1} oblique segments left out, only segment 0 is read", stacklevel=3)
    return planes[direct[0]], sum(planes[: direct[0]])


def _number_type(path: Path, keys: dict[str, str]) -> np.dtype:
    kind = keys.get("number format", "unsigned integer").lower()
    order = keys.get("imagedata byte order", "BIGENDIAN").lower()
    size = int(_number(path, keys, "number of bytes per pixel"))
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
    """The file beside the header that holds the data, if it is there and has `size` bytes."""
    name = keys.get("name of data file", "")
    data = path.parent / name
    if not name or not data.is_file():
        raise DataError(f"{path}: its data file {name!r} is not beside it; expected one named by 'name of data file'")
    if int(_number(path, keys, "number of time frames", 1)) != 1:
        raise DataError(f"{path}: {keys['number of time frames']} time frames; expected 1")
    if data.stat().st_size != size:
        raise DataError(f"{data}: {data.stat().st_size} bytes; its header {path.name} has {size}")
    return data


def _number(path: Path, keys: dict[str, str], key: str, default: int | None = None) -> float:
    """The value of `key` or, as STIR writes some, of `key [1]`."""
    text = keys.get(key, keys.get(f"{key} [1]", "")) or ("" if default is None else str(default))
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{path}: {key} is {text!r}; expected one number") from error


def _integers(path: Path, keys: dict[str, str], key: str) -> list[int]:
    """A list like `{ 62,63,64}`, or one number."""
    text = keys.get(key, "")
    if not re.fullmatch(r"\{?\s*-?\d+(\s*,\s*-?\d+)*\s*\}?", text) or ("size" in key and re.search(r"\b0\b|-", text)):
        raise DataError(f"{path}: {key} is {text!r}; expected whole numbers, sizes above 0")
    return [int(number) for number in text.strip("{} \t").split(",")]
