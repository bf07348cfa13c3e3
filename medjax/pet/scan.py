"""A PET scan ready for reconstruction: counts, factors, scanner, its planes and their position, its image grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError
from medjax.io.nifti import Volume
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram
from medjax.pet.projection import AnySystem
from medjax.pet.scanner import Scanner, coverage, coverage3d, lors
from medjax.pet.system import build_system
from medjax.pet.system3d import build_system3d
from medjax.pet.tof import Tof


@dataclass(frozen=True)
class Scan:
    """A scan: counts ~ Poisson(multiplicative · P x + additive), its scanner, and the position of its planes.

    With time of flight, counts and background have the bins as a last axis; the factors are those of all bins.
    """

    counts: Float[np.ndarray, "view bin plane *tof"]
    multiplicative: Float[np.ndarray, "view bin plane"]
    additive: Float[np.ndarray, "view bin plane *tof"]
    scanner: Scanner  # the planes may be fewer than its own
    plane_mm: float  # distance from one plane to the next
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)  # middle of the planes, RAS+
    summary: str = ""  # numbers of prompts, delayeds and background, as text
    uncorrected: tuple[str, ...] = ()  # effects that the factors do not correct
    corrections: Mapping[str, str] = field(default_factory=dict)  # effects that the factors correct, and who says so
    tracer: str = ""  # its name, where the file says it
    measured: bool = False  # whether it is known to be real data of a scanner
    truth: Volume | None = None  # true image of a simulation
    files: tuple[Path, ...] = ()  # what it was read from
    michelogram: Michelogram | None = None  # of oblique planes; None: direct planes
    tof: Tof | None = None  # time-of-flight bins
    frame_s: tuple[float, float] | None = None  # start and end of its time frame; None: the whole file

    @property
    def slices(self) -> int:
        """Number of slices of its image: one at each axial position of a plane."""
        return self.counts.shape[2] if self.michelogram is None else 2 * self.michelogram.rings - 1


def image_grid(scan: Scan, size: int, voxel_mm: float | None = None) -> Grid:
    """Image grid of `size` × `size` voxels of `voxel_mm` (default: the scanner's own), and a slice a plane."""
    voxel = voxel_mm or scan.scanner.voxel_mm
    return Grid((size, size, scan.slices), (voxel, voxel, scan.plane_mm))


def system_model(
    scanner: Scanner, grid: Grid, michelogram: Michelogram | None = None, tof: Tof | None = None
) -> AnySystem:
    """System model of direct planes, or of oblique planes and their time-of-flight bins.

    Raises:
        DataError: the grid's slices are not half a ring spacing apart, where planes are oblique.
    """
    if michelogram is None:
        return build_system(lors(scanner), grid)
    return build_system3d(lors(scanner), michelogram, scanner.ring_spacing_mm, grid, tof)


def pair_numbers(scanner: Scanner, michelogram: Michelogram | None) -> Float[np.ndarray, "view bin plane"]:
    """Number of ring pairs in each plane × fraction of a bin's crystal pairs that are real: factors of the counts.

    Direct planes (`None`) count 1 each, as a plane axis of length 1 that is broadcast.
    """
    if michelogram is None:
        return coverage(scanner).astype(np.float32)[..., None]
    own = replace(scanner, rings=michelogram.rings)  # the planes may be of fewer rings
    return coverage3d(own, michelogram) * michelogram.ring_pairs.astype(np.float32)


def select_segments(scan: Scan, max_ring_difference: int) -> Scan:
    """The scan without the segments that hold larger ring differences.

    Raises:
        ConfigError: no segment is left.
    """
    if scan.michelogram is None:
        return scan
    kept = [max(-one.lowest, one.highest) <= max_ring_difference for one in scan.michelogram.segments]
    if not any(kept):
        raise ConfigError(f"--max-ring-difference {max_ring_difference}: no segment is within; expected more")
    planes = np.repeat(kept, scan.michelogram.planes_per_segment)
    segments = tuple(one for one, stays in zip(scan.michelogram.segments, kept, strict=True) if stays)
    arrays = {name: getattr(scan, name)[:, :, planes] for name in ("counts", "multiplicative", "additive")}
    return replace(scan, **arrays, michelogram=Michelogram(scan.michelogram.rings, segments))


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
        ConfigError: `number` is not between 1 and the number of planes, or planes are oblique.
    """
    planes = scan.counts.shape[2]
    if number > 1 and scan.michelogram is not None:
        raise ConfigError(f"--sum-planes {number} goes with direct planes; these are oblique: expected 1")
    if not 1 <= number <= planes:
        raise ConfigError(f"--sum-planes {number}; expected 1 to {planes}, the number of planes")
    if number == 1:
        return scan
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
