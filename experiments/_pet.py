"""What the PET experiments share: subjects that no prior has seen, their scans, and how images of them are judged.

A *case* is one noisy scan of one subject. Scans lie along a leading axis and share the scanner, so a method handles all
of them in one program; the projector folds them into one stack of slices.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.io.nifti import Volume, resample
from medjax.metrics.image import contrast_recovery, nrmse, ssim
from medjax.penalty import bowsher, neighbours
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, grid, lines, preset
from medjax.pet.simulate import draw, emission_volume_mm3, expected_trues, factors
from medjax.pet.system import build_system
from medjax.phantoms.brain import Brain, Lesion, brain
from medjax.phantoms.heads import FAMILY, deform, deformation, generator, source_voxels
from medjax.phantoms.mni import Tissues, mix, tissue_shares

HELD_OUT = 20_000  # the first seed of a head shape that is tested on; training ends below 10 000
LESION_MM, LESION_CONTRAST = 6.0, 4.0  # in white matter: as hot as, or hotter than, the cortex
FINE_MM = 1.0
AnyArray = Any  # of NumPy on the host, of JAX where cases are traced


class Setup(NamedTuple):
    """What all cases share."""

    scanner: Scanner
    grid: Grid
    template: Acquisition  # its system and resolution; the rest is replaced by a case's
    resolution_mm: float
    background: float


class Subject(NamedTuple):
    """One slice of one head, on the reconstruction's grid, and what its scan is expected to be."""

    truth: Brain
    trues: np.ndarray  # expected, unscaled, of a scan simulated at 1 mm
    volume_mm3: float


class Scans(NamedTuple):
    """Scans along a leading axis, and the truth that judges them."""

    counts: AnyArray
    multiplicative: AnyArray
    additive: AnyArray
    sensitivity: AnyArray
    alike: AnyArray  # weights of the MR-guided penalty's pairs
    truth: AnyArray
    mask: AnyArray
    white: AnyArray  # pure white matter, away from lesions
    lesions: AnyArray
    ring: AnyArray  # white matter around lesions
    level: AnyArray  # trues per mm³
    subject: AnyArray

    def where(self, chosen: Any) -> "Scans":
        """The cases of a mask, an index array or a slice."""
        return Scans(*(array[chosen] for array in self))

    @property
    def number(self) -> int:
        """How many."""
        return len(self.level)


def bench(scanner: str, size: int, voxel_mm: float, resolution_mm: float = 4.5, background: float = 0.5) -> Setup:
    """A ring and a slice of `size`² voxels."""
    ring = preset(scanner)
    coarse = grid(ring, size, voxel_mm, 1)
    system = build_system(lines(ring), coarse)
    empty = jnp.zeros((ring.views, ring.bins, 1))
    template = acquire(system, empty, 1.0, 0.0, gaussian_psf(coarse, resolution_mm))
    return Setup(ring, coarse, template, resolution_mm, background)


@lru_cache(maxsize=2)
def template_head(tracer: str, lesions: tuple[Lesion, ...] = ()) -> Brain:
    """The MNI head at 1 mm."""
    return brain(FINE_MM, tracer, lesions=lesions)


def subject(b: Setup, seed: int, tracer: str = "fdg", lesions: int = 0, z_mm: float | None = None) -> Subject:
    """A slice through a held-out deformation of the MNI head, with `lesions` hot spots in its white matter."""
    change = deformation(HELD_OUT + seed)
    own = generator(HELD_OUT + seed)
    z = own.uniform(8, 38) if z_mm is None else z_mm
    x0, y0, _ = change.centre_mm
    fine = Grid((240, 240, 1), (FINE_MM, FINE_MM, b.grid.voxel_mm[2]))
    centre = (float(x0), float(y0), float(z))
    plain = deform(template_head(tracer), change, b.grid.voxel_mm, b.grid.shape, centre)
    spots = tuple(_lesions(own, plain, change, lesions))
    phantom = template_head(tracer, spots)
    truth = deform(phantom, change, b.grid.voxel_mm, b.grid.shape, centre)
    head = deform(phantom, change, fine.voxel_mm, fine.shape, centre)
    return simulated(b.scanner, b.resolution_mm, truth, head, fine)


def training_subject(b: Setup, seed: int) -> Subject:
    """A slice of a head of the family that priors learn: shape and activities vary, no lesions. `seed` below 10 000."""
    own = generator(seed)
    tissues, affine = _tissues()
    low, high = (np.asarray(ends) for ends in FAMILY)
    activity = mix(tissues, Tissues(*own.uniform(low, high).tolist())._asdict())
    template = template_head("fdg")
    phantom = replace(template, activity=resample(Volume(activity, affine), template.t1.shape, template.affine).array)
    change = deformation(seed)
    fine = Grid((240, 240, 1), (FINE_MM, FINE_MM, b.grid.voxel_mm[2]))
    x0, y0, _ = change.centre_mm
    centre = (float(x0), float(y0), float(own.uniform(0, 45)))
    truth = deform(phantom, change, b.grid.voxel_mm, b.grid.shape, centre)
    head = deform(phantom, change, fine.voxel_mm, fine.shape, centre)
    return simulated(b.scanner, b.resolution_mm, truth, head, fine)


@lru_cache(maxsize=1)
def _tissues() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return tissue_shares()


def simulated(scanner: Scanner, resolution_mm: float, truth: Brain, head: Brain, fine: Grid) -> Subject:
    """A subject from its images on the reconstruction's grid and on the simulation's."""
    activity, mu = np.maximum(head.activity, 0), np.clip(head.mu, 0, None)
    trues = expected_trues(scanner, activity, fine, mu, resolution_mm)
    return Subject(truth, np.asarray(trues), emission_volume_mm3(activity, fine))


def _lesions(own: np.random.Generator, plain: Brain, change: Any, number: int) -> list[Lesion]:
    """Spheres where the slice has most white matter, 25 mm or more apart; centres in the undeformed head's mm."""
    if not number:
        return []
    voxel = float(np.linalg.norm(plain.affine[:3, 0]))
    room = ndimage.gaussian_filter(plain.white[..., 0], LESION_MM / voxel)
    places = np.argwhere(room > np.quantile(room[plain.brain_mask[..., 0]], 0.93))
    chosen: list[np.ndarray] = []
    for place in own.permutation(places):
        if all(np.linalg.norm(place - other) * voxel > 25 for other in chosen):
            chosen.append(place)
        if len(chosen) == number:
            break
    template = template_head("fdg")
    source = source_voxels(change, plain.white.shape, plain.affine, template.affine)
    out = []
    for i, j in chosen:
        x, y, z = (np.matmul(template.affine[:3, :3], source[:, i, j, 0]) + template.affine[:3, 3]).tolist()
        out.append(Lesion((x, y, z), LESION_MM, "pet", contrast=LESION_CONTRAST))
    return out


def scan(b: Setup, subjects: Sequence[Subject], levels: Sequence[float], realisations: int, seed: int) -> Scans:
    """Every subject at every level, `realisations` times: levels outermost, then subjects."""
    rows = []
    pairs = neighbours(b.grid.shape, b.grid.voxel_mm)
    made = jax.jit(lambda m: replace(b.template, multiplicative=m).adjoint(jnp.ones_like(m)))
    for number, one in enumerate(subjects):
        masks = _masks(one.truth)
        alike = bowsher(pairs, jnp.asarray(one.truth.t1), 4).weights
        for k, level in enumerate(levels):
            for r in range(realisations):
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), 1000 * k + r)
                scan = draw(key, b.scanner, jnp.asarray(one.trues), level * one.volume_mm3, b.background)
                mu = jnp.asarray(np.clip(one.truth.mu, 0, None))
                m = factors(b.scanner, b.template.system, scan.scale, mu)
                m = jnp.broadcast_to(m, scan.counts.shape)
                arrays = (scan.counts, m, scan.additive, made(m), alike, np.maximum(one.truth.activity, 0))
                rows.append((k, number, r, (*map(np.asarray, arrays), *masks, np.float32(level), np.int32(number))))
    rows.sort(key=lambda row: row[:3])
    return Scans(*(np.stack(arrays) for arrays in zip(*(row[3] for row in rows), strict=True)))


def _masks(truth: Brain) -> tuple[np.ndarray, ...]:
    lesions = truth.lesion_ids > 0
    near = ndimage.binary_dilation(lesions, iterations=2)
    white = (truth.white > 0.95) & ~near
    eroded = ndimage.binary_erosion(white[..., 0])[..., None]
    ring = ndimage.binary_dilation(lesions, iterations=5) & ~near & (truth.white > 0.8)
    return truth.brain_mask, eroded if eroded.sum() > 20 else white, lesions, ring


def acquisition(b: Setup, one: Scans) -> Acquisition:
    """The acquisition of one case (or, traced by vmap, of each)."""
    return replace(
        b.template,
        counts=jnp.asarray(one.counts),
        multiplicative=jnp.asarray(one.multiplicative),
        additive=jnp.asarray(one.additive),
        sensitivity=jnp.asarray(one.sensitivity),
    )


MEASURES = ("nrmse", "ssim", "lesion_contrast", "background_sd")


def measures(image: np.ndarray, one: Scans) -> dict[str, float]:
    """Against the truth: error and similarity in the brain, recovered lesion contrast, noise in pure white matter."""
    lesion = bool(one.lesions.any() and one.ring.any())
    return {
        "nrmse": float(nrmse(image, one.truth, one.mask)),
        "ssim": float(ssim(image[..., 0], one.truth[..., 0], one.mask[..., 0])),
        "lesion_contrast": float(contrast_recovery(image, one.truth, one.lesions, one.ring)) if lesion else np.nan,
        "background_sd": float(image[one.white].std() / image[one.white].mean()) if one.white.any() else np.nan,
    }
