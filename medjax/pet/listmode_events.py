"""Siemens list mode event by event: lines of response of the prompts, their expected randoms, and the sensitivity.

The sensitivity is that of all lines of response, of every ring difference of the file, outside the detector gaps.
"""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from medjax.errors import DataError
from medjax.io.frames import Frames
from medjax.io.siemens_listmode import Events as FileEvents
from medjax.io.siemens_listmode import ListmodeHeader, read_event_chunks
from medjax.pet import projection
from medjax.pet.attenuation import attenuation, check_mu, line_attenuation
from medjax.pet.event_scan import EventScan
from medjax.pet.grid import Grid
from medjax.pet.listmode import Events
from medjax.pet.listmode_randoms import event_fan_sums
from medjax.pet.listmode_scan import MISSING, read_checked_header
from medjax.pet.listmode_sinograms import rings_of_file
from medjax.pet.listmode_stream import EventStream
from medjax.pet.lor_geometry import from_end_points, views_along_x
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.randoms import bin_crystals, singles_from_fan_sums
from medjax.pet.scan import system_model
from medjax.pet.scanner import Scanner, coverage, lors, ring_coverage

_EVENTS = 2**19  # most events that are prepared at once


class _Lines(NamedTuple):
    """Where the events of a file lie: its rings, its bins, and which lines of response are real."""

    scanner: Scanner
    planes: Michelogram  # of span 1
    rings: Int[np.ndarray, "2 sinogram"]
    real: Bool[np.ndarray, "line"]  # of a view and bin
    real_rings: Bool[np.ndarray, "sinogram"]


def read_listmode_events(path: Path, scanner: Scanner, frames: Frames | None = None) -> Iterator[EventScan]:
    """Read the events of list mode, one frame after the other.

    Args:
        path: list-mode file (.l) or its header.
        scanner: scanner of the header.
        frames: start and end of each frame in s; None: the whole file.

    Raises:
        ConfigError: frames overlap, or one ends after the scan.
        DataError: the file is not of the scanner, its views are mashed, or cannot be used: see `siemens_listmode`.
    """
    header, scanner = read_checked_header(path, scanner, None)
    number = 1 if frames is None else len(frames)
    sums = event_fan_sums(header, read_event_chunks(header.path, frames)[1], scanner, number)
    planes = michelogram(header.rings, 1, header.max_ring_difference)
    rings = rings_of_file(header)
    real = (coverage(scanner) > 0).reshape(-1)
    lines = _Lines(scanner, planes, rings, real, ring_coverage(scanner, planes)[planes.plane_of_pair[tuple(rings)]] > 0)
    prompts = np.zeros(number, int)
    for index, events in read_event_chunks(header.path, frames)[1]:
        prompts[index] += len(_real_prompts(header, lines, events))
    for k in range(number):
        yield _scan(path, header, lines, int(prompts[k]), sums[k], None if frames is None else frames[k])


def _real_prompts(header: ListmodeHeader, lines: _Lines, events: FileEvents) -> Int[np.ndarray, " event"]:
    """Addresses of the prompts on real lines of response."""
    address = events.address[events.prompt]
    sinogram, line = np.divmod(address, header.views * header.bins)
    return address[lines.real[line] & lines.real_rings[sinogram]]


def _scan(
    path: Path,
    header: ListmodeHeader,
    lines: _Lines,
    prompts: int,
    sums: Float[np.ndarray, "ring crystal"],
    frame_s: tuple[float, float] | None,
) -> EventScan:
    scanner = lines.scanner
    if not prompts:
        where = "" if frame_s is None else f" from {frame_s[0]:g} to {frame_s[1]:g} s"
        raise DataError(f"{path}: no prompts{where}; expected some")
    singles = singles_from_fan_sums(sums, scanner, header.max_ring_difference, hierarchical=True)
    delayeds = float(sums.sum()) / 2
    if delayeds == 0:
        warnings.warn(
            f"{path}: no delayeds, from which randoms are estimated; taken as if there were none", stacklevel=3
        )
    when = "" if frame_s is None else f"{frame_s[0]:g} to {frame_s[1]:g} s: "

    def stream(grid: Grid, mu: Float[Array, "x y z"] | None) -> EventStream:
        read = partial(_read, header, lines, singles, grid, mu, frame_s)
        return EventStream(read, prompts, delayeds, _sensitivity(lines, grid, mu))

    return EventScan(
        stream,
        events=prompts,
        additive=delayeds,
        field_of_view_mm=scanner.field_of_view_mm,
        slices=scanner.planes,
        plane_mm=scanner.ring_spacing_mm / 2,
        voxel_mm=scanner.voxel_mm,
        summary=f"{when}{prompts:,} prompts, {delayeds:,.0f} of them expected randoms",
        uncorrected=MISSING,
        files=(path, header.path, header.data),
        frame_s=frame_s,
    )


def _read(
    header: ListmodeHeader,
    lines: _Lines,
    singles: Float[np.ndarray, "ring crystal"],
    grid: Grid,
    mu: Float[Array, "x y z"] | None,
    frame_s: tuple[float, float] | None,
) -> Iterator[Events]:
    """Prompts of a frame, some at a time."""
    scanner, attenuated = lines.scanner, line_attenuation(grid, mu)
    crystals = [crystal[:, 0].reshape(-1) for crystal in bin_crystals(scanner)]
    ends = lors(scanner)
    along_x = views_along_x(from_end_points(ends, grid), grid)
    for _, chunk in read_event_chunks(header.path, None if frame_s is None else (frame_s,))[1]:
        address = _real_prompts(header, lines, chunk)
        for start in range(0, len(address), _EVENTS):
            sinogram, line = np.divmod(address[start : start + _EVENTS], header.views * header.bins)
            rings = lines.rings[:, sinogram]
            z = (rings.T - (header.rings - 1) / 2) * scanner.ring_spacing_mm
            end_points = np.concatenate([ends.reshape(-1, 2, 2)[line], z[..., None]], axis=-1)
            yield Events(
                end_points,
                attenuated(end_points),
                singles[rings[0], crystals[0][line]] * singles[rings[1], crystals[1][line]],
                None if along_x is None else np.repeat(along_x, scanner.bins)[line],
            )


def _sensitivity(lines: _Lines, grid: Grid, mu: Float[Array, "x y z"] | None) -> Float[Array, "x y z"]:
    """Pᵀ m of all real lines of response, some views at a time."""
    if mu is not None:
        check_mu(np.asarray(mu))
    system = system_model(lines.scanner, grid, lines.planes)
    number = max(projection.possible_subsets(system))
    stacked, views = projection.subsets(system, number)
    real = coverage(lines.scanner).astype(np.float32)[..., None]
    planes = ring_coverage(lines.scanner, lines.planes).astype(np.float32)
    return _sum_of_views(stacked, jnp.asarray(real[views]), jnp.asarray(planes), mu)


@jax.jit
def _sum_of_views(stacked: projection.AnySystem, real: Array, planes: Array, mu: Array | None) -> Array:
    def add(total: Array, part: tuple[projection.AnySystem, Array]) -> tuple[Array, None]:
        system, real = part
        factors = real * planes[None, None]
        if mu is not None:
            factors = factors * attenuation(system, mu)
        return total + projection.backproject(system, factors), None

    return jax.lax.scan(add, jnp.zeros(stacked.shape, real.dtype), (stacked, real))[0]
