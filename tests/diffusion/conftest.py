"""A small PET scan, and a prior that is a Gaussian around a blob: exact and without a network."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import sampler
from medjax.diffusion.sde import vp
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import parallel_lines
from medjax.pet.system import build_system

SIDE = 16
BLOB = np.exp(-((np.indices((SIDE, SIDE)) - 7.5) ** 2).sum(axis=0) / 20)[..., None].astype(np.float32)


def gaussian_prior(mean, spread):
    """The estimator of voxels ~ N(mean, spread²)."""
    sde = vp()

    def score(x, t):
        gamma, nu = sde.marginal(t)
        return -(x - gamma * mean) / (gamma**2 * spread**2 + nu**2)

    return sampler.unconditional(sde, score)


def pet_scan(level: float = 30.0, background: float = 1.0, seed: int = 0) -> Acquisition:
    grid = Grid((SIDE, SIDE, 1), (4.0, 4.0, 4.0))
    system = build_system(parallel_lines(24, 24, 4.0), grid)
    empty = jnp.zeros((24, 24, 1))
    shell = acquire(system, empty, 0.05, background, gaussian_psf(grid, 6.0))
    expected = np.asarray(shell.expected(level * jnp.asarray(BLOB)))
    counts = jnp.asarray(np.random.default_rng(seed).poisson(expected), jnp.float32)
    return acquire(system, counts, 0.05, background, gaussian_psf(grid, 6.0))


@pytest.fixture(scope="module")
def scan() -> Acquisition:
    return pet_scan()


@pytest.fixture(scope="module")
def prior() -> sampler.Estimator:
    return gaussian_prior(jnp.asarray(BLOB), 0.3)
