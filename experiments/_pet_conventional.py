"""Conventional reconstructions of the PET experiments: OSEM, MAP-EM with three penalties, BSREM."""

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array

from experiments._pet import Scans, Setup, acquisition
from experiments._pet_batched import Reconstruction
from medjax import iterate
from medjax.iterate import Algorithm
from medjax.penalty import Patch, Quadratic, RelativeDifference, neighbours
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.bsrem import bsrem as bsrem_algorithm
from medjax.pet.psf import blur, gaussian_psf


def _filtered(b: Setup, image: Array, filter_mm: Array) -> Array:
    return blur(gaussian_psf(b.grid, filter_mm), image)


def _reconstruct(algorithm: Algorithm, stacked: Acquisition, iterations: Array) -> Array:
    return iterate.repeat(algorithm, em.init(stacked), em.updates(stacked, 1) * iterations.astype(int)).image


def osem(b: Setup, key: Array, case: Scans, passes: Array, filter_mm: Array, subsets: int = 14) -> Reconstruction:
    """Ordered-subset EM, then a Gaussian."""
    stacked = ordered_subsets(acquisition(b, case), subsets)
    return Reconstruction(_filtered(b, _reconstruct(em.osem(stacked), stacked, passes), filter_mm), 2 * passes)


def map_em(
    b: Setup, key: Array, case: Scans, passes: Array, beta: Array, filter_mm: Array, guided: bool = False
) -> Reconstruction:
    """De Pierro's MAP-EM with a quadratic penalty, all neighbours or those that the MR finds alike."""
    stacked = ordered_subsets(acquisition(b, case), 7)
    pairs = neighbours(b.grid.shape, b.grid.voxel_mm)
    pairs = replace(pairs, weights=jnp.asarray(case.alike)) if guided else pairs
    algorithm = em.map_em(stacked, Quadratic(pairs), em.penalty_weight(stacked, beta))
    return Reconstruction(_filtered(b, _reconstruct(algorithm, stacked, passes), filter_mm), 2 * passes)


def patch_map_em(b: Setup, key: Array, case: Scans, beta: Array, delta: Array, passes: int = 10) -> Reconstruction:
    """MAP-EM with the patch-based penalty of Wang & Qi; δ in units of the mean activity."""
    stacked = ordered_subsets(acquisition(b, case), 7)
    weight = em.penalty_weight(stacked, beta)
    threshold = delta * jnp.sqrt(beta / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny))
    penalty = Patch(neighbours(b.grid.shape, b.grid.voxel_mm), threshold)
    start = iterate.repeat(em.osem(stacked), em.init(stacked), 7)
    state = iterate.repeat(em.map_em(stacked, penalty, weight), start, em.updates(stacked, passes))
    return Reconstruction(state.image, 2.0 * (passes + 1) + 0 * beta)


def bsrem(b: Setup, key: Array, case: Scans, beta: Array, filter_mm: Array, passes: int = 20) -> Reconstruction:
    """BSREM with the relative difference; β in units of the mean sensitivity."""
    stacked = ordered_subsets(acquisition(b, case), 14)
    penalty = RelativeDifference(neighbours(b.grid.shape, b.grid.voxel_mm))
    algorithm = bsrem_algorithm(stacked, penalty, beta * jnp.mean(jnp.asarray(case.sensitivity)))
    start = iterate.repeat(em.osem(stacked), em.init(stacked), em.updates(stacked, 1))
    state = iterate.repeat(algorithm, algorithm.init(start.image), em.updates(stacked, passes))
    return Reconstruction(_filtered(b, state.image, filter_mm), 2.0 * (passes + 1) + 0 * beta)
