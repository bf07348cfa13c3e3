"""Conventional reconstructions of the PET experiments: OSEM, MAP-EM with three penalties, BSREM.

Hyper-parameters: iterations (of all subsets), β and δ of the penalty, FWHM of the post-filter in mm.

method(key, scan, **hyperparameters) → Reconstruction
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array

from experiments.pet.scans import Reconstruction, Scan
from medjax import iterate
from medjax.iterate import Algorithm
from medjax.penalty import Neighbors, Patch, Quadratic, RelativeDifference, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.bsrem import bsrem as bsrem_algorithm
from medjax.pet.grid import Grid
from medjax.pet.psf import blur, gaussian_psf

OSEM_SUBSETS, MAP_EM_SUBSETS = 14, 7


def osem(key: Array, scan: Scan, iterations: Array, filter_mm: Array, subsets: int = OSEM_SUBSETS) -> Reconstruction:
    """Ordered-subset EM (OSEM), then a Gaussian post-filter of `filter_mm` FWHM."""
    stacked = ordered_subsets(scan.acquisition, subsets)
    image = _iterated(em.osem(stacked), stacked, iterations)
    return Reconstruction(_filtered(scan.grid, image, filter_mm), 2 * iterations)


def map_em(
    key: Array, scan: Scan, iterations: Array, beta: Array, filter_mm: Array, mr_guided: bool = False
) -> Reconstruction:
    """De Pierro's MAP-EM with a quadratic penalty: on all neighbours, or with the MR's Bowsher weights."""
    stacked, pairs = ordered_subsets(scan.acquisition, MAP_EM_SUBSETS), _neighbors(scan.grid)
    pairs = replace(pairs, weights=scan.bowsher_weights) if mr_guided else pairs
    algorithm = em.map_em(stacked, Quadratic(pairs), em.penalty_weight(stacked, beta))
    return Reconstruction(_filtered(scan.grid, _iterated(algorithm, stacked, iterations), filter_mm), 2 * iterations)


def patch_map_em(key: Array, scan: Scan, beta: Array, delta: Array, iterations: int = 10) -> Reconstruction:
    """MAP-EM with the patch-based penalty of Wang & Qi; δ in units of the mean activity."""
    stacked = ordered_subsets(scan.acquisition, 7)
    weight = em.penalty_weight(stacked, beta)
    threshold = delta * jnp.sqrt(beta / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny))
    start = iterate.repeat(em.osem(stacked), em.init(stacked), 7)
    algorithm = em.map_em(stacked, Patch(_neighbors(scan.grid), threshold), weight)
    state = iterate.repeat(algorithm, start, em.updates(stacked, iterations))
    return Reconstruction(state.image, 2.0 * (iterations + 1) + 0 * beta)


def bsrem(key: Array, scan: Scan, beta: Array, filter_mm: Array, iterations: int = 20) -> Reconstruction:
    """BSREM with the relative difference; β in units of the mean sensitivity."""
    stacked = ordered_subsets(scan.acquisition, 14)
    penalty = RelativeDifference(_neighbors(scan.grid))
    algorithm = bsrem_algorithm(stacked, penalty, beta * jnp.mean(scan.acquisition.sensitivity))
    start = iterate.repeat(em.osem(stacked), em.init(stacked), em.updates(stacked, 1))
    state = iterate.repeat(algorithm, algorithm.init(start.image), em.updates(stacked, iterations))
    return Reconstruction(_filtered(scan.grid, state.image, filter_mm), 2.0 * (iterations + 1) + 0 * beta)


def _neighbors(grid: Grid) -> Neighbors:
    return neighbors(grid.shape, grid.voxel_mm)


def _filtered(grid: Grid, image: Array, filter_mm: Array) -> Array:
    return blur(gaussian_psf(grid, filter_mm), image)


def _iterated(algorithm: Algorithm, stacked: Acquisition, iterations: Array) -> Array:
    return iterate.repeat(algorithm, em.init(stacked), em.updates(stacked, 1) * iterations.astype(int)).image


METHODS: dict[str, Callable[..., Reconstruction]] = {
    "osem": osem,
    "map_em": map_em,
    "mr_map_em": partial(map_em, mr_guided=True),
    "patch_map_em": patch_map_em,
    "bsrem": bsrem,
}
