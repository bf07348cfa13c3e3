"""A scan from a Siemens list-mode file: rebinned to direct planes, or in the oblique planes of a Michelogram.

Siemens counts rings from the head of a patient who lies head first on the back; in memory planes run to the head.
"""

import warnings
from pathlib import Path

import numpy as np

from medjax import defaults
from medjax.errors import ConfigError, DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.siemens_listmode import ListmodeHeader, read_event_chunks
from medjax.pet.interfile_scan import scanner_of_header
from medjax.pet.listmode_randoms import event_fan_sums
from medjax.pet.listmode_sinograms import fill_sinograms
from medjax.pet.michelogram import michelogram
from medjax.pet.randoms import estimate_randoms, randoms_from_singles, singles_from_fan_sums
from medjax.pet.scan import Scan, pair_numbers
from medjax.pet.scanner import Scanner, coverage

MISSING = ("attenuation", "normalisation")  # corrections


def read_listmode_scan(
    path: Path, scanner: Scanner, span: int | None = None, max_ring_difference: int | None = None
) -> Scan:
    """Read a scan from list mode, its expected randoms estimated from the delayeds.

    Args:
        path: list-mode file (.l) or its header.
        scanner: scanner of the header.
        span: axial compression of oblique planes; None: single-slice rebinning to direct planes.
        max_ring_difference: largest |ring difference| of its events; None: 5 of direct planes, all of oblique ones.

    Raises:
        ConfigError: the file has no such ring difference, or the span is not odd.
        DataError: the file is not of the scanner, or cannot be used: see `siemens_listmode`.
    """
    header, scanner = read_checked_header(path, scanner, max_ring_difference)
    if span is not None:
        return _oblique_planes(path, header, scanner, span, max_ring_difference)
    usual = min(defaults.PET_MAX_RING_DIFFERENCE, header.max_ring_difference)
    return _direct_planes(path, header, scanner, usual if max_ring_difference is None else max_ring_difference)


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


def _direct_planes(path: Path, header: ListmodeHeader, scanner: Scanner, max_ring_difference: int) -> Scan:
    _, prompts, delayeds, pairs, number = siemens_listmode.read_direct_planes(header.path, max_ring_difference)
    prompts, delayeds = (np.ascontiguousarray(planes[..., ::-1]) for planes in (prompts, delayeds))
    coverages = (coverage(scanner)[..., None] * pairs).astype(np.float32)  # pairs are the same from either end
    if stray := int(prompts[coverages == 0].sum() + delayeds[coverages == 0].sum()):
        warnings.warn(f"{path}: {stray} events in the gaps between the detector blocks of {scanner.name}", stacklevel=2)
    summary = (
        f"{number[0]:,} prompts and {number[1]:,} delayeds; {prompts.sum(dtype=float):,.0f} and "
        f"{delayeds.sum(dtype=float):,.0f} with |ring difference| ≤ {max_ring_difference}"
    )
    background = estimate_randoms(delayeds, coverages)
    return Scan(
        prompts, coverages, background, scanner, scanner.ring_spacing_mm / 2, summary=summary, uncorrected=MISSING,
        measured=True, files=(path, header.path, header.data),
    )  # fmt: skip


def _oblique_planes(
    path: Path, header: ListmodeHeader, scanner: Scanner, span: int, max_ring_difference: int | None
) -> Scan:
    """All prompts whose ring difference a segment holds; randoms from the singles that explain all delayeds."""
    largest = header.max_ring_difference if max_ring_difference is None else max_ring_difference
    planes = michelogram(header.rings, span, largest)
    (sums,) = event_fan_sums(header, read_event_chunks(header.path)[1], scanner)
    singles = singles_from_fan_sums(sums, scanner, header.max_ring_difference, hierarchical=True)
    (filled,) = fill_sinograms(header, read_event_chunks(header.path)[1], planes)
    pairs = pair_numbers(scanner, planes)
    if stray := int(filled.prompts[pairs == 0].sum()):
        text = f"{path}: {stray} prompts in the gaps between the detector blocks of {scanner.name} are left out"
        warnings.warn(text, stacklevel=2)
    prompts = np.where(pairs > 0, filled.prompts, 0)
    background = randoms_from_singles(singles, scanner, planes)
    summary = (
        f"{prompts.sum(dtype=float):,.0f} prompts in {planes.planes} planes of span {span} with |ring difference| ≤ "
        f"{largest}; of them {background.sum(dtype=float):,.0f} expected randoms, from {sums.sum() / 2:,.0f} delayeds"
    )
    return Scan(
        prompts, pairs, background, scanner, scanner.ring_spacing_mm / 2, summary=summary, uncorrected=MISSING,
        measured=True, files=(path, header.path, header.data), michelogram=planes,
    )  # fmt: skip
