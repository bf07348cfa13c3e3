"""Reading PET counts for a reconstruction: medjax's .npz, Interfile and Siemens list mode.

In memory planes run to the patient's head, so that z grows with them (RAS+). Siemens and STIR count rings from the head
of a patient who lies head first on the back, so the planes of Interfile and list mode are reversed here; a .npz has
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

from medjax import defaults
from medjax.errors import ConfigError, DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.counts import Counts, read_counts
from medjax.io.nifti import Volume
from medjax.pet.grid import Grid
from medjax.pet.randoms import estimate_randoms
from medjax.pet.scanner import PRESETS, Scanner, coverage, preset


@dataclass(frozen=True)
class Scan:
    """A scan: counts ~ Poisson(multiplicative · P x + additive), its scanner, and the position of its planes."""

    counts: Float[np.ndarray, "view bin plane"]
    multiplicative: Float[np.ndarray, "view bin plane"]
    additive: Float[np.ndarray, "view bin plane"]
    scanner: Scanner  # the planes may be fewer than its own
    plane_mm: float  # distance from one plane to the next
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)  # middle of the planes, RAS+
    summary: str = ""  # numbers of prompts, delayeds and background, as text
    uncorrected: tuple[str, ...] = ()  # effects that the factors do not correct
    measured: bool = False  # whether it is known to be real data of a scanner
    truth: Volume | None = None  # true image of a simulation


def load_scan(
    path: str | Path,
    scanner: str | None = None,
    *,
    additive: str | Path | None = None,
    multiplicative: str | Path | None = None,
    max_ring_difference: int = defaults.PET_MAX_RING_DIFFERENCE,
) -> Scan:
    """Read counts from a medjax counts file (.npz), an Interfile header (.hs) or Siemens list mode (.l or its .l.hdr).

    Args:
        path: file of the counts.
        scanner: name of a preset; a .npz names its own.
        additive, multiplicative: Interfile headers that go with an Interfile one (default: 0, and the scanner's gaps).
        max_ring_difference: largest ring difference of list-mode events.

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
    return _require_counts(scan, str(path))


def image_grid(scan: Scan, size: int, voxel_mm: float | None = None) -> Grid:
    """Image grid of `size` × `size` voxels of `voxel_mm` (default: the scanner's own), and a slice a plane."""
    voxel = voxel_mm or scan.scanner.voxel_mm
    return Grid((size, size, scan.counts.shape[2]), (voxel, voxel, scan.plane_mm))


def image_affine(grid: Grid, center_mm: tuple[float, float, float]) -> Float[np.ndarray, "4 4"]:
    """Affine matrix, voxel index → RAS+ mm, of a grid whose middle lies at `center_mm`."""
    affine = grid.affine
    affine[:3, 3] += center_mm
    return affine


def correction_note(scan: Scan, *, attenuation_corrected: bool = False) -> str:
    """Note beside an image: whether the data are real, and which corrections (attenuation, …) are missing."""
    missing = [effect for effect in scan.uncorrected if not (attenuation_corrected and effect == "attenuation")]
    notes = ["real data"] * scan.measured + [f"no {' or '.join(missing)} correction"] * bool(missing)
    return ", ".join(notes)


def sum_planes(scan: Scan, number: int) -> Scan:
    """Sum each `number` neighbouring planes into one, factors too, for an image that is constant across them.

    Empty planes are added at the ends where `number` does not divide the planes.

    Raises:
        ConfigError: `number` is not between 1 and the number of planes.
    """
    planes = scan.counts.shape[2]
    if not 1 <= number <= planes:
        raise ConfigError(f"--sum-planes {number}; expected 1 to {planes}, the number of planes")
    missing = -planes % number
    below, above = missing // 2, missing - missing // 2

    def add(sinogram: np.ndarray) -> np.ndarray:
        padded = np.pad(sinogram, ((0, 0), (0, 0), (below, above)))
        return padded.reshape(*sinogram.shape[:2], -1, number).sum(axis=-1)

    x, y, z = scan.center_mm
    return replace(
        scan,
        counts=add(scan.counts),
        multiplicative=add(scan.multiplicative),
        additive=add(scan.additive),
        plane_mm=number * scan.plane_mm,
        center_mm=(x, y, z + (above - below) / 2 * scan.plane_mm),
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
        raise ConfigError(f"{path} is of scanner {read.scanner!r}; --scanner is {scanner!r}")
    return scan_from_counts(read, str(path))


def scan_from_counts(read: Counts, name: str = "counts") -> Scan:
    """Scan from the contents of a counts file, called `name` in messages.

    Raises:
        DataError: the scanner is unknown, the counts do not fit it, or there are none.
    """
    if read.scanner not in PRESETS:
        raise DataError(f"{name}: scanner {read.scanner!r}; expected one of {', '.join(PRESETS)}")
    scan = Scan(
        read.counts,
        read.multiplicative,
        read.additive,
        _fits(name, read.counts, preset(read.scanner)),
        preset(read.scanner).ring_spacing_mm / 2,
        _center(name, read.metadata),
        _summary(read.counts, read.additive),
        truth=Volume(read.truth, read.affine) if read.truth is not None and read.affine is not None else None,
    )
    return _require_counts(scan, name)


def _from_interfile(
    path: Path, scanner: Scanner, additive: str | Path | None, multiplicative: str | Path | None
) -> Scan:
    counts = _interfile_planes(path)
    _fits(path, counts, scanner)
    files = {file: _interfile_planes(Path(file)) for file in (additive, multiplicative) if file}
    for file, sinogram in files.items():
        if sinogram.shape != counts.shape:
            raise DataError(f"{file}: (view, bin, plane) {sinogram.shape}; the counts have {counts.shape}")
    flat = np.broadcast_to(coverage(scanner).astype(np.float32)[..., None], counts.shape)
    background = files[additive] if additive else np.zeros_like(counts)
    factors = files[multiplicative] if multiplicative else np.array(flat)
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
    coverages = (coverage(scanner)[..., None] * pairs).astype(np.float32)  # pairs are the same from either end
    if stray := int(prompts[coverages == 0].sum() + delayeds[coverages == 0].sum()):
        warnings.warn(f"{path}: {stray} events in the gaps between the detector blocks of {scanner.name}", stacklevel=2)
    summary = (
        f"{number[0]:,} prompts and {number[1]:,} delayeds; {prompts.sum(dtype=float):,.0f} and "
        f"{delayeds.sum(dtype=float):,.0f} with |ring difference| ≤ {max_ring_difference}"
    )
    background = estimate_randoms(delayeds, coverages)
    plane_mm = scanner.ring_spacing_mm / 2
    missing = ("attenuation", "normalisation")
    return Scan(prompts, coverages, background, scanner, plane_mm, summary=summary, uncorrected=missing, measured=True)


def _interfile_planes(path: Path) -> np.ndarray:
    sinogram = np.ascontiguousarray(np.moveaxis(interfile.read_sinogram(path)[::-1], 0, 2))
    if negative := np.count_nonzero(sinogram < 0):
        raise DataError(f"{path}: {negative} negative bins; expected values ≥ 0")
    return sinogram


def _require_counts(scan: Scan, name: str) -> Scan:
    """The scan, if it has counts and factors above 0."""
    if not scan.counts.any():
        raise DataError(f"{name}: holds no counts; expected some above 0")
    if not scan.multiplicative.any():
        raise DataError(f"{name}: all multiplicative factors are 0; expected some above 0")
    return scan


def _fits(path: Path | str, counts: np.ndarray, scanner: Scanner) -> Scanner:
    views, bins, planes = counts.shape
    if (views, bins) != (scanner.views, scanner.bins) or planes > scanner.planes or planes % 2 == 0:
        raise DataError(
            f"{path}: {views} views, {bins} bins, {planes} planes; {scanner.name} has {scanner.views} views, "
            f"{scanner.bins} bins and an odd number of planes up to {scanner.planes}"
        )
    return scanner


def _center(path: Path | str, metadata: Mapping[str, Any]) -> tuple[float, float, float]:
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
