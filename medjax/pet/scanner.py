"""Cylindrical PET scanners: positions of the crystals, and lines of response of the sinogram bins.

Frame: mm, RAS+ for a patient head first on the back. Crystal 0 is at the top of the ring and the numbers run towards
the patient's left, as Siemens scanners count (and STIR, whose patient axes these are). Views and bins follow Siemens'
list-mode: with t = bin − bins // 2, unmashed view v and C crystals, a bin joins crystals v + ⌊t/2⌋ and v − ⌊(t+1)/2⌋ +
C/2. Even and odd bins of a view therefore differ by half a crystal in angle, and bins lie at s = R sin(π t / C): closer
together towards the edge.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from medjax.errors import ConfigError, DataError
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram


@dataclass(frozen=True)
class Scanner:
    """Cylindrical scanner: rings of crystals, sinogram size and default voxel size. Hashable.

    `crystals` is the number in a ring, virtual ones (in the gaps between blocks) included; every `block`-th crystal is
    virtual when `gaps` is true. `axial_block` is the number of rings from one block to the next, the last of which is
    virtual (in the gap between them); 0: no ring is. `depth_mm` is the mean depth of interaction, added to `radius_mm`.
    `mash` is the view mashing factor: so many views are added into one.
    """

    name: str
    crystals: int
    rings: int
    radius_mm: float
    ring_spacing_mm: float
    bins: int
    voxel_mm: float
    depth_mm: float = 0.0
    block: int = 1
    gaps: bool = False
    mash: int = 1
    axial_block: int = 0

    def __post_init__(self) -> None:
        for name in ("crystals", "rings", "bins", "block", "mash", "radius_mm", "ring_spacing_mm", "voxel_mm"):
            if not 0 < (value := getattr(self, name)) < np.inf:
                raise ConfigError(f"scanner {self.name}: {name} is {value}; expected more than 0")
        if not 0 <= self.depth_mm < np.inf:
            raise ConfigError(f"scanner {self.name}: depth_mm is {self.depth_mm}; expected 0 or more")
        if self.axial_block < 0 or self.axial_block == 1:
            raise ConfigError(f"scanner {self.name}: axial_block is {self.axial_block}; expected 0, or 2 rings or more")
        if self.crystals % 2 or (self.crystals // 2) % self.mash:
            raise ConfigError(f"scanner {self.name}: {self.crystals} crystals do not make views mashed by {self.mash}")
        if self.gaps and self.crystals % self.block:
            raise ConfigError(f"scanner {self.name}: {self.crystals} crystals are not whole blocks of {self.block}")
        if self.bins > self.crystals:
            raise ConfigError(f"scanner {self.name}: {self.bins} bins; expected 1 to {self.crystals} (one a crystal)")

    @property
    def views(self) -> int:
        """Number of views (angles) of a sinogram, after mashing."""
        return self.crystals // 2 // self.mash

    @property
    def planes(self) -> int:
        """Number of direct planes: one a ring and one between each pair of neighbours."""
        return 2 * self.rings - 1

    @property
    def sinogram_shape(self) -> tuple[int, int, int]:
        """Shape (view, bin, plane) of a sinogram of direct planes."""
        return self.views, self.bins, self.planes

    @property
    def field_of_view_mm(self) -> float:
        """Radius in mm of the field of view: the outermost bin's distance from the axis."""
        half = min((self.bins - 1) // 2, self.crystals // 2)
        return (self.radius_mm + self.depth_mm) * float(np.sin(np.pi * half / self.crystals))


PRESETS = {
    "ring_2d": Scanner(
        "ring_2d", crystals=504, rings=1, radius_mm=328.0, depth_mm=9.6, ring_spacing_mm=4.0625, bins=344, voxel_mm=2.0
    ),
    "mmr": Scanner(
        "mmr",
        crystals=504,
        rings=64,
        radius_mm=328.0,
        depth_mm=9.6,
        ring_spacing_mm=4.0625,
        bins=344,
        voxel_mm=2.08625,
        block=9,
        gaps=True,
    ),
    "mct": Scanner(
        "mct",
        crystals=672,
        rings=55,
        radius_mm=427.6,
        depth_mm=9.6,
        ring_spacing_mm=4.05,
        bins=400,
        voxel_mm=2.036,
        block=14,
        gaps=True,
        mash=2,
        axial_block=14,
    ),
}
"""Scanners by name. Sources: the group's public reconstruction code and the Siemens headers it reads."""


def preset(name: str) -> Scanner:
    """Scanner preset of that name.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"scanner {name!r} is not known; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def with_rings(scanner: Scanner, planes: int) -> Scanner:
    """The scanner with fewer rings: as many as make `planes` direct planes.

    Raises:
        DataError: `planes` is even: direct planes number 2 · rings − 1.
    """
    if planes % 2 == 0:
        raise DataError(f"{planes} planes; direct planes number 2 · rings − 1, an odd number")
    return replace(scanner, rings=(planes + 1) // 2)


def crystal_pairs(scanner: Scanner) -> tuple[Float[np.ndarray, "view mash bin"], Float[np.ndarray, "view mash bin"]]:
    """Crystal numbers at both ends of each unmashed line of response of a bin."""
    view = np.arange(scanner.views * scanner.mash).reshape(scanner.views, scanner.mash, 1)
    t = np.arange(scanner.bins) - scanner.bins // 2
    return (view + t // 2).astype(float), (view - (t + 1) // 2 + scanner.crystals // 2).astype(float)


def lors(scanner: Scanner, shift: float = 0.0) -> Float[np.ndarray, "view bin 2 2"]:
    """Lines of response: end points (x, y) in mm of each bin; of a mashed bin the middle line.

    `shift` moves the ends by so many crystals in opposite senses, and so the line across its bin.
    """
    radius = scanner.radius_mm + scanner.depth_mm
    first, second = (crystal.mean(axis=1) for crystal in crystal_pairs(scanner))
    ends = first + shift, second - shift
    angles = np.pi / 2 + 2 * np.pi / scanner.crystals * np.stack(ends, axis=-1)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def parallel_lors(views: int, bins: int, spacing_mm: float) -> Float[np.ndarray, "view bin 2 2"]:
    """Parallel-beam lines of response, as end points (x, y) in mm.

    x cos θ + y sin θ = s, θ = π view / views, s = (bin − (bins − 1)/2) · spacing.
    """
    angle = np.pi * np.arange(views)[:, None] / views
    s = (np.arange(bins) - (bins - 1) / 2) * spacing_mm
    reach = bins * spacing_mm
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    along = np.stack([-np.sin(angle), np.cos(angle)], axis=-1)
    return np.stack([s[:, None] * normal + side * reach * along for side in (-1, 1)], axis=-2)


def coverage(scanner: Scanner) -> Float[np.ndarray, "view bin"]:
    """Fraction of a bin's crystal pairs that are real: 0 where all lines of response end in gaps between blocks."""
    if not scanner.gaps:
        return np.ones((scanner.views, scanner.bins))
    first, second = crystal_pairs(scanner)
    return np.mean((first % scanner.block != 0) & (second % scanner.block != 0), axis=1)


def real_rings(scanner: Scanner) -> Bool[np.ndarray, " ring"]:
    """Mask of the rings that are no gap between blocks."""
    ring = np.arange(scanner.rings)
    return ring % scanner.axial_block != scanner.axial_block - 1 if scanner.axial_block else np.full(ring.shape, True)


def ring_coverage(scanner: Scanner, michelogram: Michelogram) -> Float[np.ndarray, " plane"]:
    """Fraction of a plane's pairs of rings that are real.

    Raises:
        ConfigError: the Michelogram has another number of rings.
    """
    if michelogram.rings != scanner.rings:
        raise ConfigError(f"Michelogram of {michelogram.rings} rings; scanner {scanner.name} has {scanner.rings}")
    real, plane = real_rings(scanner), michelogram.plane_of_pair
    held = plane[(plane >= 0) & real[:, None] & real]
    return np.bincount(held, minlength=michelogram.planes) / michelogram.ring_pairs


def coverage3d(scanner: Scanner, michelogram: Michelogram) -> Float[np.ndarray, "view bin plane"]:
    """Fraction of a bin's pairs of crystals that are real: of those of its view and bin × of its plane's rings.

    Raises:
        ConfigError: the Michelogram has another number of rings.
    """
    rings = ring_coverage(scanner, michelogram).astype(np.float32)
    return coverage(scanner).astype(np.float32)[..., None] * rings


def gap_mask(scanner: Scanner) -> Bool[np.ndarray, "view bin"]:
    """Mask of the sinogram bins outside the detector gaps."""
    return coverage(scanner) > 0


def grid(scanner: Scanner, size: int | None = None, voxel_mm: float | None = None, planes: int | None = None) -> Grid:
    """Image grid of a stack of direct planes: square in x and y, one slice a plane.

    `size` voxels of `voxel_mm` (default: the scanner's own); without a size, as many as fit the field of view with the
    corners inside the ring.

    Raises:
        DataError: a number of voxels or their size is not positive.
    """
    voxel = scanner.voxel_mm if voxel_mm is None else voxel_mm
    if not voxel > 0:
        raise DataError(f"voxel size: {voxel:g} mm; expected more than 0")
    if size is None:
        corner = (scanner.radius_mm + scanner.depth_mm) / np.sqrt(2)
        size = 2 * int(min(scanner.field_of_view_mm, corner) / voxel)
    planes = scanner.planes if planes is None else planes
    return Grid((size, size, planes), (voxel, voxel, scanner.ring_spacing_mm / 2))
