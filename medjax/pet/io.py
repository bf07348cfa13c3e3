"""Reading PET counts for a reconstruction: medjax's .npz, Interfile and Siemens list mode.

In memory planes run to the patient's head, so that z grows with them (RAS+). Siemens and STIR count rings from the head
of a patient who lies head first on the back, so the planes of Interfile and list mode are reversed here; a .npz has
them in medjax's order already.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts, read_counts
from medjax.io.files import check_file
from medjax.io.grids import MAX_POSITION_MM
from medjax.io.interfile_header import read_header
from medjax.io.nifti import Volume
from medjax.io.petsird import is_petsird
from medjax.io.siemens_listmode import MAX_RINGS, header_of
from medjax.pet import corrections as correcting
from medjax.pet.event_scan import EventScan
from medjax.pet.frames import parse_frames
from medjax.pet.interfile_scan import (
    Factors,
    check_sinogram_shape,
    counts_summary,
    read_interfile_scan,
)
from medjax.pet.listmode_events import read_listmode_events
from medjax.pet.listmode_scan import read_listmode_scans
from medjax.pet.petsird_scan import read_petsird_frames
from medjax.pet.plane_metadata import read_michelogram, read_tof
from medjax.pet.scan import Scan, select_segments
from medjax.pet.scanner import PRESETS, Scanner, preset


def load_scan(
    path: str | Path,
    scanner: str | None = None,
    *,
    factors: Factors | None = None,
    max_ring_difference: int | None = None,
    span: int | None = None,
) -> Scan:
    """Read counts from a medjax counts file (.npz), an Interfile header (.hs) or Siemens list mode (.l or its .l.hdr).

    Args:
        path: file of the counts.
        scanner: name of a preset; a .npz names its own.
        factors: additive and multiplicative files that go with an Interfile one, and their conventions. Of a counts
            file only `corrections` can be stated, where its metadata do not say.
        max_ring_difference: largest ring difference of events, or of the segments of oblique planes; None: 5 of list
            mode that is rebinned to direct planes, else all.
        span: axial compression of list mode in oblique planes; None: single-slice rebinning to direct planes. Of other
            files it is checked.

    Raises:
        ConfigError: no such scanner, none where one is needed, or an option that does not go with this kind of file.
        DataError: the file cannot be used: see the readers; or its shape is not the scanner's, or it holds no counts.
    """
    (scan,) = load_frames(path, scanner, factors=factors, max_ring_difference=max_ring_difference, span=span)
    if isinstance(scan, EventScan):
        raise ConfigError(f"{path}: PETSIRD has single events, no sinograms; expected `load_frames`")
    return scan


def load_frames(
    path: str | Path,
    scanner: str | None = None,
    *,
    factors: Factors | None = None,
    max_ring_difference: int | None = None,
    span: int | None = None,
    frames: str | None = None,
    events: bool = False,
) -> Iterator[Scan | EventScan]:
    """Read counts of each time frame, one frame after the other; further arguments and errors as of `load_scan`.

    Args:
        path: file of the counts; PETSIRD list mode too.
        scanner: name of a preset.
        factors: of an Interfile one.
        max_ring_difference: largest ring difference.
        span: axial compression.
        frames: durations in s of the frames, see `parse_frames`; None: one, of the whole file.
        events: whether Siemens list mode is kept as single events, as PETSIRD always is.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected counts: a .npz, an Interfile header (.hs) or list mode (.l)")
    if scanner is not None:
        preset(scanner)
    if max_ring_difference is not None and not 0 <= max_ring_difference <= MAX_RINGS:
        raise ConfigError(f"--max-ring-difference {str(max_ring_difference)[:20]}; expected 0 to {MAX_RINGS}")
    with warnings.catch_warnings(record=True) as told:  # of a file that is refused nothing else is told
        warnings.simplefilter("always")
        kind, factors = _kind(path), factors or Factors()
        _check_factors(path, kind, factors)
        if kind in ("list mode", "PETSIRD"):
            scans = _list_mode(path, kind, scanner, max_ring_difference, span, frames, events)
        elif frames is not None or events:
            raise ConfigError(f"--{'frames' if frames else 'list-mode'} goes with list mode; {path} is {kind}")
        else:
            scans = iter([_sinograms(path, kind, scanner, factors, max_ring_difference, span)])
        first = next(scans)
    for one in {str(one.message): one for one in told}.values():  # a file that is read twice tells the same twice
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return chain([first], scans)


def _list_mode(
    path: Path,
    kind: str,
    scanner: str | None,
    max_ring_difference: int | None,
    span: int | None,
    frames: str | None,
    events: bool,
) -> Iterator[Scan | EventScan]:
    if (events or kind == "PETSIRD") and (span is not None or max_ring_difference is not None):
        option = "--max-ring-difference" if span is None else "--span"
        raise ConfigError(f"{option} goes with sinograms; single events keep the lines of response that they were on")
    if kind == "PETSIRD":
        if scanner is not None:
            raise ConfigError(f"--scanner {scanner}; {path} describes its own")
        return read_petsird_frames(path, None if frames is None else parse_frames(frames, math.inf))
    ring = _needed(path, scanner)
    known = None if frames is None else parse_frames(frames, header_of(path).duration_s)
    if events:
        return read_listmode_events(path, ring, known)
    scans = read_listmode_scans(path, ring, span, max_ring_difference, known)
    return (_require_counts(scan, str(path)) for scan in scans)


def _sinograms(
    path: Path, kind: str, scanner: str | None, factors: Factors, max_ring_difference: int | None, span: int | None
) -> Scan:
    if kind == "npz":
        scan = _from_npz(path, scanner, factors.corrections)
    else:
        scan = read_interfile_scan(path, _needed(path, scanner), factors)
    return _require_counts(_segments(path, scan, span, max_ring_difference), str(path))


def _kind(path: Path) -> str:
    check_file(path, "a counts file (.npz), Interfile header (.hs) or list mode (.l)")
    if path.suffix == ".npz":
        return "npz"
    if path.suffix == ".l":
        return "list mode"
    if is_petsird(path):
        return "PETSIRD"
    keys = read_header(path)
    return "list mode" if keys.get("data format", "").lower() == "coincidencelist" else "Interfile"


def _needed(path: Path, scanner: str | None) -> Scanner:
    if scanner is None:
        raise ConfigError(f"{path} does not name its scanner; give --scanner, one of {', '.join(PRESETS)}")
    return preset(scanner)


def _check_factors(path: Path, kind: str, factors: Factors) -> None:
    for option in ("additive", "multiplicative"):
        convention, usual = getattr(factors, f"{option}_convention"), Factors._field_defaults[f"{option}_convention"]
        known = getattr(correcting, f"{option.upper()}_CONVENTIONS")
        if convention not in known:
            raise ConfigError(f"--{option}-convention {convention}; expected {' or '.join(known)}")
        if getattr(factors, option) and kind != "Interfile":
            raise ConfigError(f"--{option} goes with Interfile counts only; {path} is {kind} and has its own")
        if convention != usual and not getattr(factors, option):
            raise ConfigError(f"--{option}-convention goes with --{option}")
    if factors.corrections is not None and not (factors.multiplicative or kind == "npz"):
        raise ConfigError("--corrections tells what --multiplicative or a counts file holds; there is neither")


def _from_npz(path: Path, scanner: str | None, corrections: str | None) -> Scan:
    read = read_counts(path)
    if scanner is not None and scanner != read.scanner:
        raise ConfigError(f"{path} is of scanner {read.scanner!r}; --scanner is {scanner!r}")
    return replace(scan_from_counts(read, str(path), corrections), files=(path,))


def scan_from_counts(read: Counts, name: str = "counts", corrections: str | None = None) -> Scan:
    """Scan from the contents of a counts file, called `name` in messages.

    `corrections` states what its factors hold, such as "normalisation", where its metadata do not say.

    Raises:
        ConfigError: `corrections` are not known, or not those of the metadata.
        DataError: the scanner is unknown, the counts do not fit it, or there are none.
    """
    if read.scanner not in PRESETS:
        raise DataError(f"{name}: scanner {read.scanner!r}; expected one of {', '.join(PRESETS)}")
    held, missing = _corrections(name, read.metadata, corrections)
    planes = read_michelogram(name, read.metadata, read.counts.shape[2])
    scan = Scan(
        read.counts,
        read.multiplicative,
        read.additive,
        check_sinogram_shape(name, read.counts.shape[:3], preset(read.scanner), planes),
        preset(read.scanner).ring_spacing_mm / 2,
        _center(name, read.metadata),
        counts_summary(read.counts, read.additive),
        uncorrected=missing,
        corrections=held,
        tracer=str(read.metadata.get("tracer", "")),
        truth=Volume(read.truth, read.affine) if read.truth is not None and read.affine is not None else None,
        michelogram=planes,
        tof=read_tof(name, read.metadata, read.counts.shape[3] if read.counts.ndim == 4 else None),
    )
    return _require_counts(scan, name)


def _corrections(name: str, metadata: Mapping[str, Any], stated: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Corrections that the factors of a counts file hold, with who says so, and those that they are known not to."""
    known = metadata.get("corrections", ["attenuation"] if metadata.get("attenuation") else None)
    if known is None and stated is None:
        return {}, ()
    if not isinstance(known, list | None) or not all(isinstance(one, str) for one in known or ()):
        raise DataError(f"{name}: corrections {known!r} in its metadata; expected a list of names")
    held = correcting.parse_corrections(str(stated) if known is None else ", ".join(known), f"{name}: corrections")
    if known is not None and stated is not None and {*held} != {*correcting.parse_corrections(stated)}:
        raise ConfigError(f"--corrections {stated}; the metadata of {name} say {', '.join(held) or 'none'}")
    sources = dict.fromkeys(
        held, "--corrections says that the factors hold it" if known is None else f"the factors of {name} hold it"
    )
    if metadata.get("attenuation") is False and "corrections" in metadata:
        return {"attenuation": f"the metadata of {name} say that its counts are not attenuated"} | sources, ()
    return sources, ("attenuation",) if "attenuation" not in held else ()


def _segments(path: Path, scan: Scan, span: int | None, max_ring_difference: int | None) -> Scan:
    """The scan with the segments asked for; a span must be that of its planes."""
    if scan.michelogram is None and (span is not None or max_ring_difference is not None):
        raise ConfigError(
            f"--span and --max-ring-difference go with oblique planes or list mode; {path} has direct planes"
        )
    if scan.michelogram is None:
        return scan
    own = max(one.highest - one.lowest for one in scan.michelogram.segments) + 1
    if span is not None and span != own:
        raise ConfigError(f"--span {span}; the planes of {path} have span {own}")
    return scan if max_ring_difference is None else select_segments(scan, max_ring_difference)


def _require_counts(scan: Scan, name: str) -> Scan:
    """The scan, if it has counts and factors above 0."""
    if not scan.counts.any():
        raise DataError(f"{name}: holds no counts; expected some above 0")
    if not scan.multiplicative.any():
        raise DataError(f"{name}: all multiplicative factors are 0; expected some above 0")
    return scan


def _center(path: Path | str, metadata: Mapping[str, Any]) -> tuple[float, float, float]:
    try:
        x, y, z = (float(value) for value in metadata.get("centre_mm", (0, 0, 0)))
    except (TypeError, ValueError):
        x = y = z = math.nan
    if not all(abs(value) <= MAX_POSITION_MM for value in (x, y, z)):
        raise DataError(f"{path}: centre_mm {metadata['centre_mm']!r} in its metadata; expected three numbers of mm")
    return x, y, z
