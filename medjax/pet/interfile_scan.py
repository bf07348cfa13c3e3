"""A scan from Interfile files: counts, and factors in either convention, of direct planes or of all segments.

Siemens and STIR count rings from the head of a patient who lies head first on the back; in memory planes run to the
head, so those of files are reversed. STIR's time-of-flight bins grow towards the first crystal, medjax's to the second.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax import defaults
from medjax.errors import DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.interfile_header import read_header
from medjax.io.interfile_keys import Role
from medjax.io.interfile_layout import read_axes, read_segments
from medjax.io.interfile_sinograms import read_sinograms, reverse_rings
from medjax.pet import corrections as correcting
from medjax.pet.michelogram import Michelogram, Segment
from medjax.pet.scan import Scan, pair_numbers
from medjax.pet.scanner import Scanner, coverage
from medjax.pet.tof import Tof

MAX_DIFFERENCE = 0.05  # relative, of a length in a header from the scanner's own: beyond, it is another scanner
FIELDS = {
    "crystals": "detectors a ring",
    "rings": "rings",
    "radius_mm": "mm inner ring radius",
    "depth_mm": "mm depth of interaction",
    "ring_spacing_mm": "mm between rings",
}


class Factors(NamedTuple):
    """Factors that go with Interfile counts, and what is known of them."""

    additive: str | Path | None = None  # Interfile header; None: 0
    multiplicative: str | Path | None = None  # Interfile header; None: the scanner's gaps
    additive_convention: str = defaults.PET_ADDITIVE_CONVENTION  # counts, or divided by the multiplicative factors
    multiplicative_convention: str = defaults.PET_MULTIPLICATIVE_CONVENTION  # factors, or corrections (reciprocals)
    corrections: str | None = None  # what the multiplicative factors hold, such as "attenuation, normalisation"


def read_interfile_scan(path: Path, scanner: Scanner, factors: Factors) -> Scan:
    """Read counts from an Interfile header, with their factors.

    Raises:
        ConfigError: corrections that are not known.
        DataError: a file cannot be used: see `interfile.read_sinogram`; or it is not of the scanner or of the counts'
            shape.
    """
    counts, planes, tof = _interfile_planes(path, "counts")
    geometry = interfile.read_geometry(path)
    slices = counts.shape[2] if planes is None else 2 * planes.rings - 1
    scanner = scanner_of_header(path, scanner, geometry, slices)
    direct_only = planes is None and geometry.max_ring_difference == 0 and slices > 1  # a plane a ring, none between
    check_sinogram_shape(path, counts.shape[:3], scanner, planes, direct_only=direct_only)
    roles: tuple[Role, ...] = ("additive", "multiplicative")
    files = {role: Path(file) for role in roles if (file := getattr(factors, role))}
    read = dict[str, np.ndarray]()
    for name, file in files.items():
        sinogram, own, _ = _interfile_planes(file, name)
        expected = counts.shape[:3] if name == "multiplicative" else counts.shape
        if sinogram.shape != expected or own != planes:
            found = "other segments than the counts" if own != planes else f"(view, bin, plane) {sinogram.shape}"
            raise DataError(f"{file}: {found}; the counts have {expected}")
        read[name] = sinogram
    if "multiplicative" in read:
        file = str(files["multiplicative"])
        multiplicative = correcting.efficiencies(file, read["multiplicative"], factors.multiplicative_convention)
        held = _held(files["multiplicative"], factors.corrections)
    else:
        multiplicative = _coverages(path, scanner, geometry.max_ring_difference, counts.shape, planes)
        held = dict[str, str]()
    background = np.zeros_like(counts)
    if "additive" in read:
        each = multiplicative if tof is None else multiplicative[..., None]
        background = correcting.background_counts(read["additive"], each, factors.additive_convention)
    return Scan(
        counts,
        multiplicative,
        background,
        scanner,
        scanner.ring_spacing_mm / (1 if direct_only else 2),
        summary=counts_summary(counts, background),
        uncorrected=correcting.missing_corrections(held),
        corrections=held,
        files=tuple(file for header in (path, *files.values()) for file in (header, interfile.data_file(header))),
        michelogram=planes,
        tof=tof,
    )


def _coverages(
    path: Path,
    scanner: Scanner,
    max_ring_difference: int | None,
    shape: tuple[int, ...],
    michelogram: Michelogram | None,
) -> np.ndarray:
    """Fraction of a bin's crystal pairs that are real × number of ring pairs in its plane (relative if direct)."""
    planes = shape[2]
    if michelogram is not None:
        return pair_numbers(scanner, michelogram)
    pairs = np.ones(planes)
    if max_ring_difference is None and planes > 1:
        warnings.warn(
            f"{path}: no ring differences; taken as if each plane summed as many ring pairs, else give "
            "--multiplicative with them",
            stacklevel=4,
        )
    elif max_ring_difference:
        pairs = siemens_listmode.ring_pairs((planes + 1) // 2, max_ring_difference)
    return (coverage(scanner)[..., None] * pairs).astype(np.float32)


def _held(path: Path, stated: str | None) -> dict[str, str]:
    """Corrections in a file of multiplicative factors, and who says so: the user, its header, or what it is for."""
    keys = read_header(path)
    kinds = {"attenuationcorrection": "attenuation", "normalisation": "normalisation"}
    if stated is not None:
        return dict.fromkeys(correcting.parse_corrections(stated), "--corrections says that the factors hold it")
    if kind := kinds.get(keys.get("pet data type", "").lower()):
        return {kind: f"the PET data type of {path} is {keys['pet data type']}"}
    if held := correcting.parse_corrections(keys.get("applied corrections", ""), f"{path}: applied corrections"):
        return dict.fromkeys(held, f"the applied corrections of {path} list it")
    source = f"--multiplicative {path} is taken as attenuation × normalisation, unless --corrections states otherwise"
    return dict.fromkeys(("attenuation", "normalisation"), source)


def _interfile_planes(path: Path, role: Role) -> tuple[np.ndarray, Michelogram | None, Tof | None]:
    """Sinogram (view, bin, plane), or (…, tof), with its planes where they are oblique and its time-of-flight bins."""
    keys = read_header(path)
    axes = read_axes(path, keys)
    if axes.tof is None and len(read_segments(path, keys, axes).planes) == 1:
        planes = interfile.read_sinogram(path, role)
        return _checked(path, np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))), None, None
    read = reverse_rings(read_sinograms(path, role))
    _checked(path, read.array)
    bands = read.segments or ((0, 0),)
    tof = None
    if read.tof is None:
        sinogram = np.ascontiguousarray(read.array.transpose(1, 2, 0))
    elif read.tof.resolution_ps is None:
        raise DataError(f"{path}: no timing resolution (ps); expected one beside {read.tof.bins} time-of-flight bins")
    else:
        sinogram = np.ascontiguousarray(read.array[::-1].transpose(2, 3, 1, 0))
        tof = Tof(read.tof.bins, read.tof.bin_ps, read.tof.resolution_ps)
    if read.rings is None:
        raise DataError(f"{path}: no number of rings; expected one beside its segments")
    planes = Michelogram(read.rings, tuple(Segment(low, high) for low, high in bands))
    return sinogram, planes, tof


def _checked(path: Path, sinogram: np.ndarray) -> np.ndarray:
    if negative := np.count_nonzero(sinogram < 0):
        raise DataError(f"{path}: {negative} negative bins; expected values ≥ 0")
    return sinogram


def scanner_of_header(path: Path, scanner: Scanner, geometry: interfile.Geometry, planes: int) -> Scanner:
    """The scanner with the lengths of a header, where they are about its own.

    Raises:
        DataError: the header is another scanner's.
    """
    expected = {"crystals": {scanner.crystals}, "rings": {scanner.rings, planes, (planes + 1) // 2}}
    for name, numbers in expected.items():
        if (value := getattr(geometry, name)) is not None and value not in numbers:
            raise DataError(f"{path}: {value} {FIELDS[name]}; {scanner.name} has {getattr(scanner, name)}")
    lengths = {name: getattr(geometry, name) for name in ("radius_mm", "depth_mm", "ring_spacing_mm")}
    lengths = {name: value for name, value in lengths.items() if value is not None}
    for name, value in lengths.items():
        own = getattr(scanner, name)
        if abs(value - own) > MAX_DIFFERENCE * (scanner.radius_mm if name == "depth_mm" else own):
            raise DataError(f"{path}: {value:g} {FIELDS[name]}; {scanner.name} has {own:g}")
    return replace(scanner, **lengths)


def check_sinogram_shape(
    path: Path | str,
    shape: tuple[int, ...],
    scanner: Scanner,
    michelogram: Michelogram | None = None,
    *,
    direct_only: bool = False,
) -> Scanner:
    """Check that counts of this shape have the views and bins of a scanner and no more planes than it; the scanner.

    `michelogram`: of oblique planes. `direct_only`: there is a plane a ring and none between them.

    Raises:
        DataError: they do not.
    """
    views, bins, planes = shape
    if michelogram is not None:
        if (views, bins) != (scanner.views, scanner.bins) or michelogram.rings > scanner.rings:
            raise DataError(
                f"{path}: {views} views, {bins} bins, {michelogram.rings} rings; {scanner.name} has {scanner.views}, "
                f"{scanner.bins}, {scanner.rings}"
            )
        return scanner
    if direct_only and (views, bins) == (scanner.views, scanner.bins) and planes <= scanner.rings:
        return scanner
    if (views, bins) != (scanner.views, scanner.bins) or planes > scanner.planes or planes % 2 == 0:
        raise DataError(
            f"{path}: {views} views, {bins} bins, {planes} planes; {scanner.name} has {scanner.views} views, "
            f"{scanner.bins} bins and an odd number of planes up to {scanner.planes} "
            "(axes of a counts file: plane, view, bin)"
        )
    return scanner


def counts_summary(counts: Float[np.ndarray, "..."], additive: Float[np.ndarray, "..."]) -> str:
    """Number of counts and fraction of them that is background, as text."""
    total, background = float(counts.sum(dtype=float)), float(additive.sum(dtype=float))
    return f"{total:,.0f} counts, {background / max(total, 1):.0%} of them expected background"
