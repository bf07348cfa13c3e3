"""The scanner with its image grid, noisy scans of subjects along a leading axis, and how an image of one is judged.

Scans share the scanner, so a method handles all of them in one program; the projector folds them into one stack of
slices. A *case* is one scan.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from scipy import ndimage

from medjax.metrics.image import contrast_recovery, nrmse, ssim
from medjax.penalty import bowsher, neighbours
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, grid, lors, with_rings
from medjax.pet.simulate import acquire_noisy
from medjax.pet.system import build_system
from medjax.phantoms.brain import Brain

MEASURES = ("nrmse", "ssim", "lesion_contrast", "background_sd")
KNOWN = ("counts", "multiplicative", "additive", "sensitivity")
RESOLUTION_MM = 4.5  # full width at half maximum
FINE_MM = 1.0  # voxels in plane that counts are simulated on
AnyArray = Any  # of NumPy on the host, of JAX where cases are traced


class Setup(NamedTuple):
    """What all scans share."""

    scanner: Scanner
    grid: Grid
    template: Acquisition  # its system and resolution; the rest is replaced by a scan's
    background: float  # fraction of the prompts

    @property
    def fine(self) -> Grid:
        """The grid that counts are simulated on: as many planes."""
        return Grid((240, 240, self.grid.shape[2]), (FINE_MM, FINE_MM, self.grid.voxel_mm[2]))


def setup(scanner: Scanner, size: int, voxel_mm: float, background: float = 0.5, planes: int = 1) -> Setup:
    """A scanner, and `size`² voxels in as many direct planes."""
    coarse = grid(scanner, size, voxel_mm, planes)
    empty = jnp.zeros((scanner.views, scanner.bins, planes))
    template = acquire(build_system(lors(scanner), coarse), empty, 1.0, 0.0, gaussian_psf(coarse, RESOLUTION_MM))
    return Setup(scanner, coarse, template, background)


def stack(plane: Setup, planes: int) -> Setup:
    """Rings with direct `planes` as far apart as the voxels of one `plane`'s setup are wide."""
    voxel_mm = plane.grid.voxel_mm[0]
    rings = replace(with_rings(plane.scanner, planes), ring_spacing_mm=2 * voxel_mm)
    return setup(rings, plane.grid.shape[0], voxel_mm, plane.background, planes)


class Subject(NamedTuple):
    """A slice (or stack) of a head on the reconstruction's grid, and what its scan is expected to be."""

    truth: Brain
    trues: np.ndarray  # expected, unscaled, of a scan simulated at 1 mm
    volume_mm3: float


class Scans(NamedTuple):
    """Scans along a leading axis, and the truth that judges them."""

    counts: AnyArray
    multiplicative: AnyArray
    additive: AnyArray
    sensitivity: AnyArray
    alike: AnyArray  # Bowsher weights of the MR-guided penalty's pairs
    truth: AnyArray
    mask: AnyArray
    white: AnyArray  # pure white matter, away from lesions
    lesions: AnyArray
    ring: AnyArray  # white matter around lesions
    level: AnyArray  # trues per mm³

    @property
    def number(self) -> int:
        """How many."""
        return len(self.level)

    def where(self, chosen: Any) -> "Scans":
        """The cases of a mask, an index array or a slice; one case by its number."""
        return Scans(*(array[chosen] for array in self))

    def at_level(self, level: float) -> "Scans":
        """The cases of a count level."""
        return self.where(self.level == np.float32(level))

    def repeated(self, times: int) -> "Scans":
        """Each case so many times in a row."""
        return Scans(*(np.repeat(array, times, axis=0) for array in self))


class Scan(NamedTuple):
    """What a reconstruction is given of a case: the counts and their model, and no truth."""

    acquisition: Acquisition
    grid: Grid
    alike: AnyArray  # Bowsher weights of the MR image


class Reconstruction(NamedTuple):
    """An image, and what it cost."""

    image: AnyArray
    projections: AnyArray  # forward and back-projections of the whole data


def simulate(setup: Setup, subjects: Sequence[Subject], levels: Sequence[float], realisations: int, seed: int) -> Scans:
    """Every subject at every level, `realisations` times: levels outermost, then subjects."""
    rows = []
    pairs = neighbours(setup.grid.shape, setup.grid.voxel_mm)
    for number, subject in enumerate(subjects):
        alike = bowsher(pairs, jnp.asarray(subject.truth.t1), 4).weights
        images = (alike, np.maximum(subject.truth.activity, 0), *_masks(subject.truth))
        for k, level in enumerate(levels):
            for r in range(realisations):
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), 1000 * k + r)
                a = measure(key, setup, subject, level)
                row = (*(getattr(a, name) for name in KNOWN), *images, np.float32(level))
                rows.append((k, number, r, [np.asarray(array) for array in row]))
    rows.sort(key=lambda row: row[:3])
    return Scans(*(np.stack(arrays) for arrays in zip(*(row[3] for row in rows), strict=True)))


def measure(key: PRNGKeyArray, setup: Setup, subject: Subject, level: float) -> Acquisition:
    """A scan of `level` trues per mm³."""
    total, mu = level * subject.volume_mm3, jnp.asarray(np.clip(subject.truth.mu, 0, None))
    return acquire_noisy(key, setup.template, setup.scanner, jnp.asarray(subject.trues), total, setup.background, mu)


def scan_of(setup: Setup, case: Scans) -> Scan:
    """One case as a reconstruction sees it (traced by vmap: each)."""
    known: dict[str, Any] = {name: jnp.asarray(getattr(case, name)) for name in KNOWN}
    return Scan(replace(setup.template, **known), setup.grid, jnp.asarray(case.alike))


def case_keys(key: PRNGKeyArray, cases: Scans) -> Array:
    """fold_in(key, n) for case n."""
    return jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(cases.number))


def judge(images: np.ndarray, cases: Scans) -> dict[str, np.ndarray]:
    """Each measure of each case."""
    rows = [measures(image, cases.where(i)) for i, image in enumerate(images)]
    return {name: np.array([row[name] for row in rows]) for name in MEASURES}


def measures(image: np.ndarray, case: Scans) -> dict[str, float]:
    """Against the truth: error and similarity in the brain, recovered lesion contrast, noise in pure white matter."""
    lesion = bool(case.lesions.any() and case.ring.any())
    white = image[case.white]
    return {
        "nrmse": float(nrmse(image, case.truth, case.mask)),
        "ssim": float(ssim(image[..., 0], case.truth[..., 0], case.mask[..., 0])),
        "lesion_contrast": float(contrast_recovery(image, case.truth, case.lesions, case.ring)) if lesion else np.nan,
        "background_sd": float(white.std() / white.mean()) if white.size else np.nan,
    }


def _masks(truth: Brain) -> tuple[np.ndarray, ...]:
    """Of `Scans`: mask, white, lesions, ring."""
    lesions = truth.lesion_ids > 0
    near = ndimage.binary_dilation(lesions, iterations=2)
    white = (truth.white > 0.95) & ~near
    eroded = ndimage.binary_erosion(white[..., 0])[..., None]
    ring = ndimage.binary_dilation(lesions, iterations=5) & ~near & (truth.white > 0.8)
    return truth.brain_mask, eroded if eroded.sum() > 20 else white, lesions, ring
