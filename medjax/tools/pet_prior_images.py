"""Training images of score priors: a user's PET images, and random brain phantoms, noise-free or as OSEM shows them.

Noise-free phantoms are the activity itself. An OSEM image is what a scanner would show of it at full counts, the kind
of image that priors of real PET learn: a scan of every transverse slice by the mMR's ring, simulated on voxels of half
the width (activity and attenuation of the head, three rays a bin, 3-D resolution of 4.5 mm FWHM), 250 trues per mm³ and
half of the prompts background, reconstructed by OSEM with 21 subsets, two iterations and the point spread function.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import defaults, iterate
from medjax.diffusion.prior import PriorSettings
from medjax.diffusion.score_matching import intensity_scale, normalize_intensity
from medjax.errors import DataError
from medjax.io.nifti import grid_affine, read_nifti, resample
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, lors, preset
from medjax.pet.simulate import emission_volume_mm3, expected_trues, simulate_acquisition
from medjax.pet.system import build_system
from medjax.phantoms.brain import MU_BONE, MU_SOFT
from medjax.phantoms.mni import Tissues, bounding_box, mix, tissue_fractions
from medjax.phantoms.uptake import FAMILY, WITHOUT_LESIONS, on_grid, random_activity, random_head
from medjax.running.progress import track
from medjax.tools.pet_checks import check_coverage

FAMILIES = {"noise_free": FAMILY, "osem": FAMILY, "without_lesions": WITHOUT_LESIONS}  # kinds of phantoms
FULL_TRUES_PER_MM3, SUBSETS, ITERATIONS = 250.0, 21, 2  # of OSEM images
ATTENUATION = Tissues(*[MU_SOFT] * 9)._replace(skull=MU_BONE)._asdict()


class OsemScanner(NamedTuple):
    """Scanner of OSEM images: its ring, and an acquisition without counts with system model and resolution."""

    scanner: Scanner
    grid: Grid
    empty: Acquisition


def read_image(path: Path, settings: PriorSettings, mr: Path | None = None) -> Float[np.ndarray, "x y z channel"]:
    """Training image resampled to the prior's voxels around its own centre; channels: PET, and MR if any.

    Raises:
        DataError: a file cannot be read, or has no voxel above 0 there.
    """
    volume = read_nifti(path)
    shape = (settings.size,) * 3
    affine = grid_affine(shape, settings.voxel_mm, volume.center_mm)
    files = {path: volume} if mr is None else {path: volume, mr / path.name: read_nifti(mr / path.name)}
    arrays = [resample(one, shape, affine).array for one in files.values()]
    for file, array in zip(files, arrays, strict=True):
        if not (array > 0).any():
            raise DataError(f"{file}: no voxel is above 0 within the PET; expected an image in the same space")
    check_coverage(arrays[0], {str(file): array for file, array in [*zip(files, arrays, strict=True)][1:]})
    return np.stack([np.asarray(normalize_intensity(jnp.asarray(array))) for array in arrays], axis=-1)


def phantom_volumes(
    seeds: range, settings: PriorSettings, kind: str = "noise_free"
) -> Iterable[Float[np.ndarray, "x y z 1"]]:
    """Training images of the brain phantoms with these seeds, of a kind in `FAMILIES`."""
    shape, family = (settings.size,) * 3, FAMILIES[kind]
    tissues, affine = tissue_fractions()
    scanner = osem_scanner(settings) if kind == "osem" else None
    for seed in track(seeds, "phantoms"):
        if scanner is not None:
            yield osem_image(seed, scanner, tissues, affine)[..., None]
        else:
            volume = random_activity(seed, tissues, affine, settings.voxel_mm, shape, family)
            yield np.asarray(normalize_intensity(jnp.asarray(volume)))[..., None]


def osem_scanner(settings: PriorSettings) -> OsemScanner:
    """Scanner of OSEM images on the voxels of a prior: the mMR's ring around each transverse slice."""
    grid = Grid((settings.size,) * 3, (settings.voxel_mm,) * 3)
    scanner = replace(preset("mmr"), rings=settings.size)  # no fewer planes than slices
    counts = jnp.zeros((scanner.views, scanner.bins, settings.size))
    resolution = gaussian_psf(grid, defaults.PET_PSF_MM)
    return OsemScanner(scanner, grid, acquire(build_system(lors(scanner), grid), counts, psf=resolution))


def osem_image(
    seed: int,
    scanner: OsemScanner,
    tissues: dict[str, Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    trues_per_mm3: float = FULL_TRUES_PER_MM3,
) -> Float[np.ndarray, "a b c"]:
    """OSEM image of the phantom with this seed, in units of its noise-free mean emission.

    It is 0 outside the box around the emission, so that no training slice is noise alone.

    Args:
        seed: seed of head and noise.
        scanner: scanner, with the image's voxels.
        tissues: fraction of each tissue, as from `mni.tissue_fractions`.
        affine: voxel → mm of `tissues`.
        trues_per_mm3: expected trues per mm³ of emission volume.
    """
    size, voxel_mm = scanner.grid.shape[0], scanner.grid.voxel_mm[0]
    fine = Grid((2 * size, 2 * size, size), (voxel_mm / 2, voxel_mm / 2, voxel_mm))
    undeformed, warp = random_head(seed, tissues, affine, FAMILY)
    images = [undeformed, mix(tissues, ATTENUATION)]
    activity, mu = (np.maximum(image, 0) for image in on_grid(images, affine, warp, fine.voxel_mm, fine.shape))
    truth, own_mu = (image.reshape(size, 2, size, 2, size).mean(axis=(1, 3)) for image in (activity, mu))
    trues = expected_trues(scanner.scanner, activity, fine, mu)
    total = trues_per_mm3 * emission_volume_mm3(activity, fine)
    key = jax.random.key(seed)
    scan = simulate_acquisition(key, scanner.empty, scanner.scanner, trues, total, mu=jnp.asarray(own_mu))
    first, last = bounding_box(truth > 0.01 * truth.max())
    box = tuple(slice(start, stop + 1) for start, stop in zip(first, last, strict=True))
    image = np.zeros_like(truth)
    image[box] = (np.asarray(_osem(ordered_subsets(scan, SUBSETS))) / float(intensity_scale(jnp.asarray(truth))))[box]
    return image


@jax.jit
def _osem(stacked: Acquisition) -> Array:
    return iterate.repeat(em.osem(stacked), em.init(stacked), em.updates(stacked, ITERATIONS)).image
