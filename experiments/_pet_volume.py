"""A 2-D prior on a volume: likelihood-scheduled sampling transverse only, and in all three orientations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments._pet import FINE_MM, HELD_OUT, simulated, template_head
from experiments._pet_samplers import EARLY, Sampling, sampler_of
from medjax import iterate
from medjax.diffusion import likelihood_schedule, sampler
from medjax.diffusion.prior import MODES, volumes
from medjax.diffusion.score_matching import intensity_scale
from medjax.metrics.image import nrmse
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import grid, lines, preset, with_rings
from medjax.pet.simulate import draw, factors
from medjax.pet.system import build_system
from medjax.phantoms.brain import Brain
from medjax.phantoms.heads import deform, deformation

__all__ = ["MODES", "sample", "volume_measures", "volume_scan"]


def volume_scan(config: ConfigDict, resolution_mm: float = 4.5) -> tuple[Acquisition, Brain]:
    """A scan of a held-out head, with direct planes as far apart as voxels are wide, and the truth."""
    v, size, voxel_mm = config.volume, config.grid.size, config.grid.voxel_mm
    scanner = with_rings(preset(config.scan.scanner), v.planes)
    scanner = replace(scanner, ring_spacing_mm=2 * voxel_mm)
    coarse = grid(scanner, size, voxel_mm, v.planes)
    change = deformation(HELD_OUT + v.head)
    centre = (*change.centre_mm[:2].tolist(), 10.0)
    truth = deform(template_head("fdg"), change, coarse.voxel_mm, coarse.shape, centre)
    fine = Grid((240, 240, v.planes), (FINE_MM, FINE_MM, coarse.voxel_mm[2]))
    head = deform(template_head("fdg"), change, fine.voxel_mm, fine.shape, centre)
    system = build_system(lines(scanner), coarse)
    one = simulated(scanner, resolution_mm, truth, head, fine)
    key = jax.random.key(config.seed + 7)
    scan = draw(key, scanner, jnp.asarray(one.trues), v.trues_per_mm3 * one.volume_mm3, config.scan.background)
    m = factors(scanner, system, scan.scale, jnp.asarray(np.clip(truth.mu, 0, None)))
    return acquire(system, scan.counts, m, scan.additive, gaussian_psf(coarse, resolution_mm)), truth


def sample(key: Array, acquisition: Acquisition, s: Sampling, mode: str, iterations: float) -> dict[str, Array]:
    """One volume by likelihood-scheduled sampling, and what it cost."""
    uniform = em.init(acquisition).image
    targets = likelihood_schedule.targets(acquisition, uniform, iterations, s.steps, 100, EARLY)
    scale, denoiser = intensity_scale(targets.image), volumes(s.denoisers, mode, s.multiple)
    guided = likelihood_schedule.likelihood_schedule(denoiser, acquisition, targets.deviance, scale, 30)
    algorithm = sampler_of(s, denoiser, guided, sampler.ddim(s.eta))
    state, info = iterate.scan(algorithm, algorithm.init(key, uniform.shape, targets.image / scale), s.steps)
    return {
        "image": jnp.maximum(scale * state.x0, 0),
        "projections": jnp.sum(info.projector_calls) + 2.0 * max(iterations, EARLY),
    }


def roughness(image: np.ndarray, mask: np.ndarray, axis: int) -> float:
    """Root mean square of the second difference along an axis over that of the image, inside the mask."""
    bend = np.diff(image, 2, axis)
    inside = np.moveaxis(np.moveaxis(mask, axis, 0)[1:-1], 0, axis)
    return float(np.sqrt((bend[inside] ** 2).mean() / (image[mask] ** 2).mean()))


def volume_measures(image: np.ndarray, truth: Brain) -> dict[str, float]:
    """Error, and roughness between and within transverse slices over the truth's own: 1 is ideal."""
    mask, activity = truth.brain_mask, np.maximum(truth.activity, 0)
    between, within = (roughness(image, mask, axis) / roughness(activity, mask, axis) for axis in (2, 0))
    return {"nrmse": float(nrmse(image, activity, mask)), "roughness_between": between, "roughness_within": within}
