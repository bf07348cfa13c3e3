"""A small PET scan, and a prior that is a Gaussian around a blob: exact and without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.diffusion import sampler
from medjax.diffusion.denoiser import Denoiser, from_score
from medjax.diffusion.sde import Sde, vp
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import parallel_lors
from medjax.pet.system import build_system

SIDE = 16
BLOB = np.exp(-((np.indices((SIDE, SIDE)) - 7.5) ** 2).sum(axis=0) / 20)[..., None].astype(np.float32)


def gaussian_denoiser(mean, deviation, sde: Sde | None = None) -> Denoiser:
    """The denoiser of voxels ~ N(mean, deviation²), of the exact score."""
    sde = vp() if sde is None else sde

    def score(x, t):
        gamma, nu = (value.reshape(-1, *(1,) * (x.ndim - 1)) for value in jax.vmap(sde.marginal)(t))
        return -(x - gamma * jnp.broadcast_to(mean, x.shape)) / (gamma**2 * deviation**2 + nu**2)

    return from_score(score, sde)


def sample(key, guided, times, shape, solver=None, image=0.0, sde: Sde | None = None):
    """State and Info of all steps by scan."""
    algorithm = sampler.sampler(guided, vp() if sde is None else sde, times, solver)
    return iterate.scan(algorithm, algorithm.init(key, shape, image), len(times) - 1)


def pet_scan(level: float = 30.0, background: float = 1.0, seed: int = 0) -> Acquisition:
    grid = Grid((SIDE, SIDE, 1), (4.0, 4.0, 4.0))
    system = build_system(parallel_lors(24, 24, 4.0), grid)
    empty = jnp.zeros((24, 24, 1))
    shell = acquire(system, empty, 0.05, background, gaussian_psf(grid, 6.0))
    expected = np.asarray(shell.expected(level * jnp.asarray(BLOB)))
    counts = jnp.asarray(np.random.default_rng(seed).poisson(expected), jnp.float32)
    return acquire(system, counts, 0.05, background, gaussian_psf(grid, 6.0))


@pytest.fixture(scope="module")
def scan() -> Acquisition:
    return pet_scan()


@pytest.fixture(scope="module")
def early_image(scan) -> jax.Array:
    """Eight updates of EM."""
    image = em.init(scan).image
    for _ in range(8):
        image = scan.update(image)
    return image


@pytest.fixture(scope="module")
def noisy_blob() -> jax.Array:
    noise = np.random.default_rng(2).standard_normal(BLOB.shape)
    return jnp.asarray(BLOB + 0.4 * noise, jnp.float32)


@pytest.fixture(scope="module")
def prior() -> Denoiser:
    return gaussian_denoiser(BLOB, 0.3)
