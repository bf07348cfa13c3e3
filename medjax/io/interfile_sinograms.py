"""3-D sinograms in Interfile: the planes of all segments, with or without time of flight, as STIR stores them.

A segment is a band of ring differences: those of the second crystal's ring from the first's, with rings numbered as the
file numbers them (STIR and Siemens: from the head of a patient who lies head first on the back). With t = bin −
bins // 2, unmashed view v and C crystals a ring, a bin's first crystal is v + ⌊t/2⌋, its second v − ⌊(t+1)/2⌋ + C/2.
Time-of-flight bins go by timing position from the most negative one; STIR's grow towards the first crystal.

Source: STIR, src/IO/InterfileHeader.cxx, src/recon_buildblock/ProjMatrixByBin.cxx (sign of the timing positions),
examples/samples/PET_TOF_Interfile_header_Signa_PETMR.hs.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.interfile_header import check_keys, integers, number, read_header, whole
from medjax.io.interfile_keys import Role
from medjax.io.interfile_layout import (
    Axes,
    Bands,
    find_data_file,
    read_axes,
    read_number_type,
    read_scale,
    read_segments,
)
from medjax.memory import check_memory

SMALLEST_PS, LARGEST_PS = 5.0, 20_000.0  # of a bin's width and of the resolution
SMALLEST_UNMASHED_PS = 1.0
MAX_TOF_BINS = 10_000
UNMASHED, WIDTH = "maximum number of (unmashed) tof time bins", "size of unmashed tof time bins (ps)"
RESOLUTIONS = ("tof timing resolution (ps)", "timing resolution (ps)")  # STIR's names, new and old


class TofBins(NamedTuple):
    """Time-of-flight bins around a difference in arrival time of 0."""

    bins: int
    bin_ps: float  # width of a bin in the difference of arrival times
    resolution_ps: float | None  # full width at half maximum; None: the file does not tell it


@dataclass(frozen=True, eq=False)
class Sinograms:
    """Planes of segments 0, +1, −1, +2, … one after the other, along the axis each."""

    array: Float[np.ndarray, "*tof plane view bin"]
    segments: Bands | None  # lowest and highest ring difference of each; None: one segment of which that is not known
    planes: tuple[int, ...]  # number of planes of each
    rings: int | None
    tof: TofBins | None = None


def planes_of_segment(rings: int, lowest: int, highest: int) -> int:
    """Number of planes of a band of ring differences: of each sum of ring numbers that occurs, one."""
    smallest = 0 if lowest <= 0 <= highest else min(abs(lowest), abs(highest))
    return max(-((1 + 2 * smallest - 2 * rings) // (2 if lowest == highest else 1)), 0)


def read_sinograms(header: str | Path, role: Role = "counts") -> Sinograms:
    """Read all segments of projection data as float32, one segment in memory beside the result.

    Takes STIR's storage orders, (segment, view, plane, bin) and (segment, plane, view, bin), either inside timing
    positions, segments in any order, Siemens' segment table without time of flight, all integer and float formats.

    Args:
        header: the header's file.
        role: what it is read as: see `interfile.read_sinogram`.

    Raises:
        DataError: as `interfile.read_sinogram`; segments that overlap or have other planes than their rings make;
            time-of-flight bins whose width or resolution is not in ps, or whose numbers contradict each other.
    """
    path = Path(header)
    keys = read_header(path)
    check_keys(path, keys, role)
    axes, scale, dtype = read_axes(path, keys), read_scale(path, keys), read_number_type(path, keys)
    segments = read_segments(path, keys, axes)
    rings = rings_of_segments(
        path, segments.planes, segments.bands, segments.direct, whole(path, keys, "number of rings", 0)
    )
    tof, tof_order = _read_tof(path, keys, axes)
    offset, per_plane = whole(path, keys, "data offset in bytes", 0), axes.views * axes.bins
    planes = sum(segments.planes)
    count = planes * per_plane * len(tof_order)
    data = find_data_file(path, keys, offset + count * dtype.itemsize)
    if len(segments.planes) > len(axes.planes) and axes.names[0] != "plane":
        raise DataError(f"{path}: a segment table with views outside planes; expected planes as the slowest axis")
    check_memory(str(data), 4 * count + max(segments.planes) * per_plane * (dtype.itemsize + 5))
    array = np.empty((len(tof_order), planes, axes.views, axes.bins), np.float32)
    order = _order(segments.bands)
    starts = dict(zip(order, np.cumsum([0, *(segments.planes[index] for index in order)]).tolist(), strict=False))
    for tof_bin in tof_order:
        for index, number_planes in enumerate(segments.planes):
            block = array[tof_bin, starts[index] : starts[index] + number_planes]
            _read_block(data, block, axes.names, dtype, offset, scale)
            offset += block.size * dtype.itemsize
    return Sinograms(
        array if tof else array[0],
        segments.bands and tuple(segments.bands[index] for index in order),
        tuple(segments.planes[index] for index in order),
        rings,
        tof,
    )


def reverse_rings(sinograms: Sinograms) -> Sinograms:
    """The same sinograms with rings numbered from the other end: each segment holds its opposite's planes, reversed."""
    bands = sinograms.segments or ((0, 0),)
    opposite = tuple((-high, -low) for low, high in bands)
    order = _order(opposite)
    starts = np.cumsum([0, *sinograms.planes])
    planes = [np.arange(starts[index + 1] - 1, starts[index] - 1, -1) for index in order]
    return replace(
        sinograms,
        array=np.take(sinograms.array, np.concatenate(planes), axis=-3),
        segments=sinograms.segments and tuple(opposite[index] for index in order),
        planes=tuple(sinograms.planes[index] for index in order),
    )


def _order(bands: Bands | None) -> list[int]:
    """Indices of the segments in the order 0, +1, −1, +2, …"""
    if bands is None:
        return [0]
    return sorted(range(len(bands)), key=lambda index: (abs(sum(bands[index])), -sum(bands[index])))


def rings_of_segments(path: Path, planes: list[int], bands: Bands | None, direct: int, stated: int) -> int | None:
    """Number of rings, stated or else that which the direct planes have; all segments must have that number's planes.

    Raises:
        DataError: they have not.
    """
    if bands is None:
        return stated or None
    for (_, below), (above, _) in pairwise(sorted(bands)):
        if below >= above:
            raise DataError(f"{path}: segments of ring differences {sorted(bands)}; expected bands without overlap")
    rings = stated or (planes[direct] if bands[direct] == (0, 0) else (planes[direct] + 1) // 2)
    for number_planes, (low, high) in zip(planes, bands, strict=True):
        if low > high or (expected := planes_of_segment(rings, low, high)) == 0:
            raise DataError(f"{path}: ring differences {low} to {high} in a segment; {rings} rings have none such")
        if number_planes != expected:
            raise DataError(
                f"{path}: {number_planes} planes of ring differences {low} to {high}; {rings} rings make {expected}"
            )
    return rings


def _read_tof(path: Path, keys: dict[str, str], axes: Axes) -> tuple[TofBins | None, list[int]]:
    """Time-of-flight bins, and the index of each stored one."""
    if axes.tof is None:
        mashing = whole(path, keys, "tof mashing factor", 0)
        if 0 < mashing < whole(path, keys, UNMASHED, 0):
            raise DataError(f"{path}: TOF mashing factor {mashing} without timing positions; expected their axis")
        return None, [0]
    if axes.tof > MAX_TOF_BINS:
        raise DataError(f"{path}: {axes.tof} timing positions; expected at most {MAX_TOF_BINS}")
    mashing, unmashed = (whole(path, keys, key, default) for key, default in (("tof mashing factor", 1), (UNMASHED, 0)))
    if not mashing or abs(axes.tof - unmashed / mashing) > 1:
        raise DataError(
            f"{path}: {axes.tof} timing positions; expected {unmashed} unmashed TOF bins mashed by {mashing}"
        )
    width = number(path, keys, WIDTH)
    check_ps(path, "size of unmashed TOF time bins", width, SMALLEST_UNMASHED_PS)
    check_ps(path, f"width of TOF bins mashed by {mashing}", width * mashing, SMALLEST_PS)
    resolution = next((value for key in RESOLUTIONS if (value := number(path, keys, key, 0)) > 0), None)
    if resolution is not None:
        check_ps(path, "timing resolution", resolution, SMALLEST_PS)
    first = -(axes.tof // 2)
    order = integers(path, keys, "tof bin order") if "tof bin order" in keys else [first + n for n in range(axes.tof)]
    if sorted(order) != [first + n for n in range(axes.tof)]:
        raise DataError(
            f"{path}: TOF bin order {order[:20]}; expected the numbers {first} to {first + axes.tof - 1} once each"
        )
    return TofBins(axes.tof, width * mashing, resolution), [position - first for position in order]


def check_ps(path: Path, name: str, value: float, smallest: float) -> None:
    """Check that a width or a resolution is in ps.

    Raises:
        DataError: it is not.
    """
    if not smallest <= value <= LARGEST_PS:
        raise DataError(
            f"{path}: {name} is {value:g} ps; expected {smallest:g} to {LARGEST_PS:g} ps ({1000 * value:g} ps if it "
            "was meant in ns)"
        )


def _read_block(data: Path, block: np.ndarray, names: list[str], dtype: np.dtype, offset: int, scale: float) -> None:
    """Read the planes of a segment into `block`."""
    planes, views, bins = block.shape
    by_view = names[0] == "view"
    values = np.fromfile(data, dtype, block.size, offset=offset)
    values = values.reshape((views, planes, bins) if by_view else block.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 does not hold is refused
        block[...] = np.swapaxes(values, 0, 1) if by_view else values
        block *= np.float32(scale)
    if faults := np.count_nonzero(~np.isfinite(block)):
        raise DataError(f"{data}: {faults} NaN or infinite bins in a segment; expected finite values")
