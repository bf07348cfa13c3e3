"""Counts from files as a reconstruction takes them: medjax's .npz, Interfile and Siemens list mode.

In memory planes run to the patient's head, so that z grows with them (RAS+). Siemens and STIR count rings from the head
of a patient who lies head first on the back, so the planes of Interfile and list mode are turned over here; a .npz has
them in medjax's order already.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.counts import Counts, read_counts
from medjax.io.nifti import Volume
from medjax.pet.grid import Grid
from medjax.pet.randoms import smoothed_delayeds
from medjax.pet.scanner import PRESETS, Scanner, coverage, preset


@dataclass(frozen=True)
class Scan:
    """counts ~ Poisson(multiplicative · P x + additive), and where its planes lie."""

    counts: Float[np.ndarray, "view bin plane"]
    multiplicative: Float[np.ndarray, "view bin plane"]
    additive: Float[np.ndarray, "view bin plane"]
    scanner: Scanner  # whose lines these are; the planes may be fewer
    plane_mm: float  # from one plane to the next
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)  # where the middle of the stack lies, RAS+
    summary: str = ""  # what was read, for a reader
    uncorrected: tuple[str, ...] = ()  # effects that the factors leave out
    measured: bool = False  # whether it is known to come from a scanner
    truth: Volume | None = None  # the image, where it is known


def load_scan(
    path: str | Path,
    scanner: str | None = None,
    *,
    additive: str | Path | None = None,
    multiplicative: str | Path | None = None,
    max_ring_difference: int = 5,
) -> Scan:
    """Counts from a medjax counts file (.npz), an Interfile header (.hs) or Siemens list mode (.l or its .l.hdr).

    Args:
        scanner: name of a preset; a .npz names its own.
        additive, multiplicative: Interfile headers that go with an Interfile one (default: 0, and the scanner's gaps).
        max_ring_difference: of the list-mode events to take.

    Raises:
        ConfigError: no such scanner, none where one is needed, or an option that does not go with this kind of file.
        DataError: the file cannot be used: see the readers; or its shape is not the scanner's, or it holds no counts.
    """
    path = Path(path)
    if scanner is not None:
        preset(scanner)
    kind = _kind(path)
    if kind != "Interfile" and (additive or multiplicative):
        option = "--additive" if additive else "--multiplicative"
        raise ConfigError(f"{option} goes with Interfile counts only; {path} is {kind} and has its own")
    if kind == "npz":
        scan = _from_npz(path, scanner)
    elif kind == "list mode":
        scan = _from_listmode(path, _needed(path, scanner), max_ring_difference)
    else:
        scan = _from_interfile(path, _needed(path, scanner), additive, multiplicative)
    return _seen(scan, str(path))


def image_grid(scan: Scan, size: int, voxel_mm: float | None = None) -> Grid:
    """Voxels of `voxel_mm` (default: the scanner's own), `size` × `size` and a slice a plane."""
    voxel = voxel_mm or scan.scanner.voxel_mm
    return Grid((size, size, scan.counts.shape[2]), (voxel, voxel, scan.plane_mm))


def image_affine(grid: Grid, centre_mm: tuple[float, float, float]) -> Float[np.ndarray, "4 4"]:
    """Voxel index → RAS+ mm of a grid whose middle lies at `centre_mm`."""
    affine = grid.affine
    affine[:3, 3] += centre_mm
    return affine


def caution(scan: Scan, *, attenuation_given: bool = False) -> str:
    """What must be said beside an image of `scan`: whether it is real and which corrections it lacks."""
    missing = [effect for effect in scan.uncorrected if not (attenuation_given and effect == "attenuation")]
    said = ["real data"] * scan.measured + [f"no {' or '.join(missing)} correction"] * bool(missing)
    return ", ".join(said)


def sum_planes(scan: Scan, number: int) -> Scan:
    """Each `number` neighbouring planes added into one, factors too, as for an image that does not change between them.

    A stack that cannot be dealt out gets empty planes at its ends: the last groups just see less.

    Raises:
        ConfigError: `number` is not between 1 and the number of planes.
    """
    planes = scan.counts.shape[2]
    if not 1 <= number <= planes:
        raise ConfigError(f"--sum-planes {number}; expected 1 to {planes}, the planes there are")
    missing = -planes % number
    below, above = missing // 2, missing - missing // 2

    def add(sinogram: np.ndarray) -> np.ndarray:
        padded = np.pad(sinogram, ((0, 0), (0, 0), (below, above)))
        return padded.reshape(*sinogram.shape[:2], -1, number).sum(axis=-1)

    x, y, z = scan.centre_mm
    return replace(
        scan,
        counts=add(scan.counts),
        multiplicative=add(scan.multiplicative),
        additive=add(scan.additive),
        plane_mm=number * scan.plane_mm,
        centre_mm=(x, y, z + (above - below) / 2 * scan.plane_mm),
    )


def _kind(path: Path) -> str:
    if path.suffix == ".npz":
        return "npz"
    if path.suffix == ".l":
        return "list mode"
    keys = interfile.read_header(path)
    return "list mode" if keys.get("data format", "").lower() == "coincidencelist" else "Interfile"


def _needed(path: Path, scanner: str | None) -> Scanner:
    if scanner is None:
        raise ConfigError(f"{path} does not name its scanner; give --scanner, one of {', '.join(PRESETS)}")
    return preset(scanner)


def _from_npz(path: Path, scanner: str | None) -> Scan:
    read = read_counts(path)
    if scanner is not None and scanner != read.scanner:
        raise ConfigError(f"{path} is of scanner {read.scanner!r}; --scanner says {scanner!r}")
    return scan_of_counts(read, str(path))


def scan_of_counts(read: Counts, name: str = "counts") -> Scan:
    """The scan that a counts file holds, which a message calls `name`.

    Raises:
        DataError: a scanner that is not known, counts that are not of it, or none.
    """
    if read.scanner not in PRESETS:
        raise DataError(f"{name}: scanner {read.scanner!r}; expected one of {', '.join(PRESETS)}")
    scan = Scan(
        read.counts,
        read.multiplicative,
        read.additive,
        _fits(name, read.counts, preset(read.scanner)),
        preset(read.scanner).ring_spacing_mm / 2,
        _centre(name, read.metadata),
        _summary(read.counts, read.additive),
        truth=Volume(read.truth, read.affine) if read.truth is not None and read.affine is not None else None,
    )
    return _seen(scan, name)


def _from_interfile(
    path: Path, scanner: Scanner, additive: str | Path | None, multiplicative: str | Path | None
) -> Scan:
    counts = _interfile_planes(path)
    _fits(path, counts, scanner)
    given = {file: _interfile_planes(Path(file)) for file in (additive, multiplicative) if file}
    for file, sinogram in given.items():
        if sinogram.shape != counts.shape:
            raise DataError(f"{file}: (view, bin, plane) {sinogram.shape}; the counts have {counts.shape}")
    flat = np.broadcast_to(coverage(scanner).astype(np.float32)[..., None], counts.shape)
    background = given[additive] if additive else np.zeros_like(counts)
    factors = given[multiplicative] if multiplicative else np.array(flat)
    summary, plane_mm = _summary(counts, background), scanner.ring_spacing_mm / 2
    missing = () if multiplicative else ("attenuation", "normalisation")
    return Scan(counts, factors, background, scanner, plane_mm, summary=summary, uncorrected=missing)


def _from_listmode(path: Path, scanner: Scanner, max_ring_difference: int) -> Scan:
    header, prompts, delayeds, pairs, number = siemens_listmode.read_direct_planes(path, max_ring_difference)
    if (header.views, header.bins, header.rings) != (scanner.views, scanner.bins, scanner.rings):
        raise DataError(
            f"{path}: {header.views} views, {header.bins} bins, {header.rings} rings; "
            f"{scanner.name} has {scanner.views}, {scanner.bins}, {scanner.rings}"
        )
    prompts, delayeds = (np.ascontiguousarray(planes[..., ::-1]) for planes in (prompts, delayeds))
    seen = (coverage(scanner)[..., None] * pairs).astype(np.float32)  # pairs are the same from either end
    if stray := int(prompts[seen == 0].sum() + delayeds[seen == 0].sum()):
        warnings.warn(f"{path}: {stray} events in the gaps between the detector blocks of {scanner.name}", stacklevel=2)
    summary = (
        f"{number[0]:,} prompts and {number[1]:,} delayeds; {prompts.sum(dtype=float):,.0f} and "
        f"{delayeds.sum(dtype=float):,.0f} with |ring difference| ≤ {max_ring_difference}"
    )
    background = smoothed_delayeds(delayeds, seen)
    plane_mm = scanner.ring_spacing_mm / 2
    missing = ("attenuation", "normalisation")
    return Scan(prompts, seen, background, scanner, plane_mm, summary=summary, uncorrected=missing, measured=True)


def _interfile_planes(path: Path) -> np.ndarray:
    sinogram = np.ascontiguousarray(np.moveaxis(interfile.read_sinogram(path)[::-1], 0, 2))
    if faults := np.count_nonzero(sinogram < 0):
        raise DataError(f"{path}: {faults} negative bins; expected values ≥ 0")
    return sinogram


def _seen(scan: Scan, name: str) -> Scan:
    """The scan, if there is anything in it."""
    if not scan.counts.any():
        raise DataError(f"{name}: holds no counts; expected some")
    if not scan.multiplicative.any():
        raise DataError(f"{name}: all multiplicative factors are 0; expected a scanner that sees something")
    return scan


def _fits(path: Path | str, counts: np.ndarray, scanner: Scanner) -> Scanner:
    views, bins, planes = counts.shape
    if (views, bins) != (scanner.views, scanner.bins) or planes > scanner.planes or planes % 2 == 0:
        raise DataError(
            f"{path}: {views} views, {bins} bins, {planes} planes; {scanner.name} has {scanner.views} views, "
            f"{scanner.bins} bins and an odd number of planes up to {scanner.planes}"
        )
    return scanner


def _centre(path: Path | str, metadata: Mapping[str, Any]) -> tuple[float, float, float]:
    try:
        x, y, z = (float(value) for value in metadata.get("centre_mm", (0, 0, 0)))
    except (TypeError, ValueError):
        x = y = z = math.nan
    if not all(map(math.isfinite, (x, y, z))):
        raise DataError(f"{path}: centre_mm {metadata['centre_mm']!r} in its metadata; expected three finite numbers")
    return x, y, z


def _summary(counts: np.ndarray, additive: np.ndarray) -> str:
    total, background = float(counts.sum(dtype=float)), float(additive.sum(dtype=float))
    return f"{total:,.0f} counts, {background / max(total, 1):.0%} of them expected background"
