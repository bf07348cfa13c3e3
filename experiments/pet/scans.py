"""The scanner with its image grid, noisy scans of subjects along a leading axis, and measures of an image of one.

Scans share the scanner, so a method handles all of them in one program; the projector folds them into one stack of
slices. A *case* is one scan.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from scipy import ndimage

from medjax.bowsher import bowsher
from medjax.metrics.image import contrast_recovery, nrmse, ssim
from medjax.penalty import neighbors
from medjax.pet import simulate as simulation
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram
from medjax.pet.psf import gaussian_psf
from medjax.pet.scan import system_model
from medjax.pet.scanner import Scanner, grid, with_rings
from medjax.phantoms.brain import Brain

MEASURES = ("nrmse", "nrmse_without_lesions", "ssim", "lesion_contrast", "background_sd")
ACQUISITION_FIELDS = ("counts", "multiplicative", "additive", "sensitivity")
RESOLUTION_MM = 4.5  # full width at half maximum
FINE_MM = 1.0  # voxels in plane that counts are simulated on
FULL_COUNT = 1_000_000  # folded into the key of a full-count scan's noise: no realisation's number
AnyArray = Any  # of NumPy on the host, of JAX where cases are traced


class ScanSetup(NamedTuple):
    """Scanner, image grid, system model and background fraction, which all scans share."""

    scanner: Scanner
    grid: Grid
    template: Acquisition  # acquisition that gives system and resolution; the rest is replaced by a scan's
    background: float  # fraction of the prompts
    michelogram: Michelogram | None = None  # oblique planes; None: direct planes
    full_count: Callable[[Acquisition], Array] | None = (
        None  # image of a full-count scan, which others are thinned from
    )
    full_trues_per_mm3: float = 0.0  # of that scan

    @property
    def fine_grid(self) -> Grid:
        """The grid that counts are simulated on: as many planes, and a margin at both ends of a volume."""
        planes = Grid((240, 240, self.grid.shape[2]), (FINE_MM, FINE_MM, self.grid.voxel_mm[2]))
        return simulation.with_margin(planes, RESOLUTION_MM)


def setup(
    scanner: Scanner,
    size: int,
    voxel_mm: float,
    background: float = 0.5,
    planes: int = 1,
    michelogram: Michelogram | None = None,
) -> ScanSetup:
    """Setup of a scanner with an image of `size`² voxels of `voxel_mm` in `planes` slices, one a direct plane.

    `background` is the fraction of the prompts that is randoms + scatter; `michelogram`: oblique planes, or None.
    """
    coarse = grid(scanner, size, voxel_mm, planes)
    empty = jnp.zeros((scanner.views, scanner.bins, planes if michelogram is None else michelogram.planes))
    system, resolution = system_model(scanner, coarse, michelogram), gaussian_psf(coarse, RESOLUTION_MM)
    return ScanSetup(scanner, coarse, acquire(system, empty, 1.0, 0.0, resolution), background, michelogram)


def volume_setup(plane: ScanSetup, planes: int) -> ScanSetup:
    """Setup of a volume: direct `planes` as far apart as the voxels of one `plane`'s setup are wide."""
    voxel_mm = plane.grid.voxel_mm[0]
    rings = replace(with_rings(plane.scanner, planes), ring_spacing_mm=2 * voxel_mm)
    return setup(rings, plane.grid.shape[0], voxel_mm, plane.background, planes)


class Subject(NamedTuple):
    """A slice (or volume) of a head on the reconstruction's grid, and the expected trues of its scan."""

    truth: Brain
    trues: np.ndarray  # (view, bin, plane), expected, unscaled, of a scan simulated at 1 mm
    emission_volume_mm3: float


class Scans(NamedTuple):
    """Scans along a leading axis, and the truth that their images are compared with."""

    counts: AnyArray
    multiplicative: AnyArray
    additive: AnyArray
    sensitivity: AnyArray
    bowsher_weights: AnyArray  # Bowsher weights of the MR-guided penalty's pairs
    truth: AnyArray
    mask: AnyArray
    white: AnyArray  # pure white matter, away from lesions
    lesions: AnyArray
    ring: AnyArray  # white matter around lesions
    level: AnyArray  # trues per mm³
    full_count: AnyArray | None = None  # image of the full-count scan, where that was thinned

    @property
    def number(self) -> int:
        """Number of cases."""
        return len(self.level)

    def select(self, chosen: Any) -> "Scans":
        """The cases of a mask, an index array or a slice; one case by its number."""
        return Scans(*(None if array is None else array[chosen] for array in self))

    def at_level(self, level: float) -> "Scans":
        """The cases of a count level."""
        return self.select(self.level == np.float32(level))

    def repeat(self, times: int) -> "Scans":
        """Each case so many times in a row."""
        return Scans(*(None if array is None else np.repeat(array, times, axis=0) for array in self))

    def arrays(self) -> dict[str, AnyArray]:
        """The arrays by name, as `Scans(**arrays)` takes them."""
        return {name: array for name, array in self._asdict().items() if array is not None}


class Scan(NamedTuple):
    """Data of one case for a reconstruction: the counts and their model, and no truth."""

    acquisition: Acquisition
    grid: Grid
    bowsher_weights: AnyArray  # Bowsher weights of the MR image


class Reconstruction(NamedTuple):
    """An image, and its cost in projector calls."""

    image: AnyArray
    projector_calls: AnyArray  # forward and back-projections of the whole data


class Draws(NamedTuple):
    """Several samples of each case, and their cost in projector calls."""

    images: AnyArray  # (case, sample, *space)
    posterior_mean: AnyArray  # (case, *space), estimated from all samples
    projector_calls: AnyArray  # of all samples of a case
    calls_of_one: AnyArray  # of one sample alone

    def of_one(self) -> Reconstruction:
        """The first sample of each case."""
        return Reconstruction(self.images[:, 0], self.calls_of_one)

    def mean(self) -> Reconstruction:
        """Estimate of the posterior mean of each case, from all of its samples."""
        return Reconstruction(self.posterior_mean, self.projector_calls)


def simulate(
    setup: ScanSetup, subjects: Sequence[Subject], levels: Sequence[float], realizations: int, seed: int
) -> Scans:
    """Simulated scans of every subject at every level, `realizations` times: levels outermost, then subjects.

    Where the setup has a full-count scan, that is simulated once for each subject, and all are thinned from it.
    """
    rows = []
    pairs = neighbors(setup.grid.shape, setup.grid.voxel_mm)
    for number, subject in enumerate(subjects):
        bowsher_weights = bowsher(pairs, jnp.asarray(subject.truth.t1), 4).weights
        images = (bowsher_weights, np.maximum(subject.truth.activity, 0), *_masks(subject.truth))
        own, full, more = jax.random.fold_in(jax.random.key(seed), number), None, ()
        if setup.full_count is not None:
            full = simulate_scan(jax.random.fold_in(own, FULL_COUNT), setup, subject, setup.full_trues_per_mm3)
            more = (setup.full_count(full),)
        for k, level in enumerate(levels):
            for r in range(realizations):
                key = jax.random.fold_in(own, 1000 * k + r)
                if full is None:
                    a = simulate_scan(key, setup, subject, level)
                else:
                    a = thin_scan(key, full, level / setup.full_trues_per_mm3)
                row = (*(getattr(a, name) for name in ACQUISITION_FIELDS), *images, np.float32(level), *more)
                rows.append((k, number, r, [np.asarray(array) for array in row]))
    rows.sort(key=lambda row: row[:3])
    return Scans(*(np.stack(arrays) for arrays in zip(*(row[3] for row in rows), strict=True)))


def simulate_scan(key: PRNGKeyArray, setup: ScanSetup, subject: Subject, level: float) -> Acquisition:
    """Simulated scan with `level` expected trues per mm³ of emission volume."""
    total, mu = level * subject.emission_volume_mm3, jnp.asarray(np.clip(subject.truth.mu, 0, None))
    trues, planes = jnp.asarray(subject.trues), setup.michelogram
    if planes is None:
        return simulation.simulate_acquisition(key, setup.template, setup.scanner, trues, total, setup.background, mu)
    drawn = simulation.sample_counts(key, setup.scanner, trues, total, setup.background, planes)
    system = setup.template.system
    factors = simulation.multiplicative_factors(setup.scanner, system, drawn.scale, mu, planes)
    return acquire(system, drawn.counts, factors, drawn.additive, setup.template.psf)


def thin_scan(key: PRNGKeyArray, full: Acquisition, fraction: float) -> Acquisition:
    """The scan of which a `fraction` of the counts is kept, each with that probability; its factors likewise."""
    less = {name: fraction * getattr(full, name) for name in ("multiplicative", "additive", "sensitivity")}
    return replace(full, counts=simulation.thin(key, full.counts, fraction), **less)


def scan_of(setup: ScanSetup, case: Scans) -> Scan:
    """One case as the data of a reconstruction (traced by vmap: each)."""
    known: dict[str, Any] = {name: jnp.asarray(getattr(case, name)) for name in ACQUISITION_FIELDS}
    return Scan(replace(setup.template, **known), setup.grid, jnp.asarray(case.bowsher_weights))


def case_keys(key: PRNGKeyArray, cases: Scans) -> Array:
    """Random key of each case: fold_in(key, n) for case n."""
    return jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(cases.number))


def evaluate(images: np.ndarray, cases: Scans) -> dict[str, np.ndarray]:
    """Each measure of the image of each case."""
    rows = [measures(image, cases.select(i)) for i, image in enumerate(images)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def measures(image: np.ndarray, case: Scans) -> dict[str, float]:
    """NRMSE and SSIM in the brain, lesion contrast recovery, and noise (SD / mean) in pure white matter.

    Where the scan was thinned, also the NRMSE against the full-count image.
    """
    lesion = bool(case.lesions.any() and case.ring.any())
    white, plane = image[case.white], 0 if image.shape[2] == 1 else slice(None)
    thin = {} if case.full_count is None else {"nrmse_full_count": float(nrmse(image, case.full_count, case.mask))}
    return thin | {
        "nrmse": float(nrmse(image, case.truth, case.mask)),
        "nrmse_without_lesions": float(nrmse(image, case.truth, case.mask & ~case.lesions)),
        "ssim": float(ssim(image[..., plane], case.truth[..., plane], case.mask[..., plane])),
        "lesion_contrast": float(contrast_recovery(image, case.truth, case.lesions, case.ring)) if lesion else np.nan,
        "background_sd": float(white.std() / white.mean()) if white.size else np.nan,
    }


def _masks(truth: Brain) -> tuple[np.ndarray, ...]:
    """Of `Scans`: mask, white, lesions, ring."""
    lesions = truth.lesion_ids > 0
    near = ndimage.binary_dilation(lesions, iterations=2)
    white = (truth.white > 0.95) & ~near
    eroded = ndimage.binary_erosion(white[..., 0])[..., None] if white.shape[2] == 1 else ndimage.binary_erosion(white)
    ring = ndimage.binary_dilation(lesions, iterations=5) & ~near & (truth.white > 0.8)
    return truth.brain_mask, eroded if eroded.sum() > 20 else white, lesions, ring
