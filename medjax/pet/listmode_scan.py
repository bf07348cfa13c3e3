"""A scan from a Siemens list-mode file: rebinned to direct planes, or in the oblique planes of a Michelogram.

Siemens counts rings from the head of a patient who lies head first on the back; in memory planes run to the head.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from medjax import defaults
from medjax.errors import ConfigError, DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.frames import Frames
from medjax.io.siemens_listmode import EventChunk, Events, ListmodeHeader, read_event_chunks
from medjax.pet.interfile_scan import scanner_of_header
from medjax.pet.listmode_randoms import event_fan_sums
from medjax.pet.listmode_sinograms import fill_sinograms
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.randoms import estimate_randoms, randoms_from_singles, singles_from_fan_sums
from medjax.pet.scan import Scan, pair_numbers
from medjax.pet.scanner import Scanner, coverage

MISSING = ("attenuation", "normalisation")  # corrections


def read_listmode_scans(
    path: Path,
    scanner: Scanner,
    span: int | None = None,
    max_ring_difference: int | None = None,
    frames: Frames | None = None,
) -> Iterator[Scan]:
    """Read the scan of each time frame from list mode, its expected randoms estimated from the delayeds.

    Args:
        path: list-mode file (.l) or its header.
        scanner: scanner of the header.
        span: axial compression of oblique planes; None: single-slice rebinning to direct planes.
        max_ring_difference: largest |ring difference| of its events; None: 5 of direct planes, all of oblique ones.
        frames: start and end of each frame in s; None: one scan, of the whole file.

    Raises:
        ConfigError: the file has no such ring difference or frame, or the span is not odd.
        DataError: the file is not of the scanner, or cannot be used: see `siemens_listmode`.
    """
    header, scanner = read_checked_header(path, scanner, max_ring_difference)
    usual = min(defaults.PET_MAX_RING_DIFFERENCE, header.max_ring_difference)
    if span is None:
        largest = usual if max_ring_difference is None else max_ring_difference
        scans = _direct_planes(path, header, scanner, largest, frames)
    else:
        largest = header.max_ring_difference if max_ring_difference is None else max_ring_difference
        scans = _oblique_planes(path, header, scanner, michelogram(header.rings, span, largest), frames)
    for number, scan in enumerate(scans):
        frame = None if frames is None else frames[number]
        text = "" if frame is None else f"{frame[0]:g} to {frame[1]:g} s: "
        yield replace(scan, summary=text + scan.summary, frame_s=frame, files=(path, header.path, header.data))


def read_checked_header(
    path: Path, scanner: Scanner, max_ring_difference: int | None
) -> tuple[ListmodeHeader, Scanner]:
    """Header of a list-mode file, checked against the scanner, and the scanner with the header's lengths."""
    header = siemens_listmode.header_of(path)
    scanner = scanner_of_header(header.path, scanner, interfile.read_geometry(header.path), 2 * header.rings - 1)
    if (header.views, header.bins, header.rings) != (scanner.views, scanner.bins, scanner.rings):
        raise DataError(
            f"{path}: {header.views} views, {header.bins} bins, {header.rings} rings; "
            f"{scanner.name} has {scanner.views}, {scanner.bins}, {scanner.rings}"
        )
    if max_ring_difference is not None and max_ring_difference > header.max_ring_difference:
        expected = f"expected 0 to {header.max_ring_difference}, that of {header.path}"
        raise ConfigError(f"--max-ring-difference {max_ring_difference}; {expected}")
    return header, scanner


def _direct_planes(
    path: Path, header: ListmodeHeader, scanner: Scanner, max_ring_difference: int, frames: Frames | None
) -> Iterator[Scan]:
    """Single-slice rebinned prompts, and randoms from smoothed delayeds."""
    pairs = siemens_listmode.ring_pairs(header.rings, max_ring_difference)
    coverages = (coverage(scanner)[..., None] * pairs).astype(np.float32)  # pairs are the same from either end
    for events in _events_of_frames(header, frames):
        prompts, delayeds = siemens_listmode.rebin(header, events, max_ring_difference)
        prompts, delayeds = (np.ascontiguousarray(planes[..., ::-1]) for planes in (prompts, delayeds))
        if stray := int(prompts[coverages == 0].sum() + delayeds[coverages == 0].sum()):
            text = f"{path}: {stray} events in the gaps between the detector blocks of {scanner.name}"
            warnings.warn(text, stacklevel=3)
        number = int(events.prompt.sum())
        summary = (
            f"{number:,} prompts and {events.prompt.size - number:,} delayeds; {prompts.sum(dtype=float):,.0f} and "
            f"{delayeds.sum(dtype=float):,.0f} with |ring difference| ≤ {max_ring_difference}"
        )
        background = estimate_randoms(delayeds, coverages)
        yield Scan(
            prompts, coverages, background, scanner, scanner.ring_spacing_mm / 2, summary=summary, uncorrected=MISSING,
            measured=True,
        )  # fmt: skip


def _events_of_frames(header: ListmodeHeader, frames: Frames | None) -> Iterator[Events]:
    """All events of each frame."""
    nothing = Events(np.zeros(0, np.int32), np.zeros(0, bool))
    kept, frame, number = [nothing], 0, 1 if frames is None else len(frames)
    for index, events in chain(read_event_chunks(header.path, frames)[1], [EventChunk(number, nothing)]):
        while frame < index:
            yield Events(*map(np.concatenate, zip(*kept, strict=True)))
            kept, frame = [nothing], frame + 1
        kept.append(events)


def _oblique_planes(
    path: Path, header: ListmodeHeader, scanner: Scanner, planes: Michelogram, frames: Frames | None
) -> Iterator[Scan]:
    """All prompts whose ring difference a segment holds; randoms from the singles that explain all delayeds."""
    number = 1 if frames is None else len(frames)
    sums = event_fan_sums(header, read_event_chunks(header.path, frames)[1], scanner, number)
    pairs = pair_numbers(scanner, planes)
    largest = max(segment.highest for segment in planes.segments)
    filled = fill_sinograms(header, read_event_chunks(header.path, frames)[1], planes, number)
    for own, delayeds in zip(filled, sums, strict=True):
        if stray := int(own.prompts[pairs == 0].sum()):
            text = f"{path}: {stray} prompts in the gaps between the detector blocks of {scanner.name} are left out"
            warnings.warn(text, stacklevel=3)
        prompts = np.where(pairs > 0, own.prompts, 0)
        singles = singles_from_fan_sums(delayeds, scanner, header.max_ring_difference, hierarchical=True)
        background = randoms_from_singles(singles, scanner, planes)
        summary = (
            f"{prompts.sum(dtype=float):,.0f} prompts in {planes.planes} planes with |ring difference| ≤ {largest}; of "
            f"them {background.sum(dtype=float):,.0f} expected randoms, from {delayeds.sum() / 2:,.0f} delayeds"
        )
        yield Scan(
            prompts, pairs, background, scanner, scanner.ring_spacing_mm / 2, summary=summary, uncorrected=MISSING,
            measured=True, michelogram=planes,
        )  # fmt: skip
