"""Simulated counts: an image on a fine grid, through finer rays than any reconstruction uses, to Poisson counts.

The simulation never shares its matrix with a reconstruction: voxels are those of `fine` (1 mm in plane), each bin
averages several rays across the crystals' faces, and the resolution is a blur on the fine grid.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from medjax.errors import DataError
from medjax.pet import projector
from medjax.pet.acquisition import Acquisition, attenuation_factors, check_counts, check_mu
from medjax.pet.grid import Grid
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import Scanner, coverage, lors
from medjax.pet.system import System, build_system


class Simulation(NamedTuple):
    """A noisy scan and what is known of it; counts per image unit and mm are `scale` · coverage · attenuation."""

    counts: Float[Array, "view bin plane"]
    trues: Float[Array, "view bin plane"]  # expected
    additive: Float[Array, "view bin plane"]  # expected background
    scale: float


def emission_volume_mm3(activity: Float[np.ndarray, "x y z"], grid: Grid) -> float:
    """Volume of the voxels above 1 % of the largest activity: what count levels in trues per mm³ refer to.

    Raises:
        DataError: no voxel is active.
    """
    largest = float(np.max(activity))
    if not largest > 0:
        raise DataError("activity: no voxel is above 0; expected an emission image")
    return float(np.sum(activity > 0.01 * largest)) * grid.voxel_volume_mm3


def expected_trues(
    scanner: Scanner,
    activity: Float[np.ndarray, "x y plane"],
    fine: Grid,
    mu: Float[np.ndarray, "x y plane"] | None = None,
    fwhm_mm: float = 4.5,
    rays: int = 3,
) -> Float[Array, "view bin plane"]:
    """Mean over a bin's `rays` of attenuation × line integral of the blurred activity, × the bin's coverage; unscaled.

    Raises:
        DataError: a shape differs from the fine grid's, or a value is not one that activity or μ can have.
    """
    for name, values in (("activity", activity), ("μ-map", mu)):
        if values is not None and values.shape != fine.shape:
            raise DataError(f"{name}: shape {values.shape}; the fine grid has {fine.shape}")
    check_counts("activity", jnp.asarray(activity))
    if mu is not None:
        check_mu(np.asarray(mu))
    image = blur(gaussian_psf(fine, fwhm_mm), jnp.asarray(activity))
    shifts = (np.arange(rays) - (rays - 1) / 2) / rays
    system = build_system(np.concatenate([lors(scanner, shift) for shift in shifts], axis=1), fine)
    every_ray = _through(system, image, mu).reshape(scanner.views, rays, scanner.bins, -1)
    return every_ray.mean(axis=1) * jnp.asarray(coverage(scanner), image.dtype)[..., None]


@jax.jit
def _through(system: System, image: Array, mu: Array | None) -> Array:
    integral = projector.project(system, image)
    return integral if mu is None else integral * jnp.exp(-projector.project(system, jnp.asarray(mu)))


def draw(
    key: PRNGKeyArray,
    scanner: Scanner,
    trues: Float[Array, "view bin plane"],
    total_trues: float,
    background: float = 0.5,
) -> Simulation:
    """Counts ~ Poisson(trues + additive), scaled to `total_trues` expected trues.

    `background` is the fraction of the prompts that is not true: a constant over the bins that can hold counts.

    Raises:
        DataError: `total_trues` or `background` is out of range, or there are no trues to scale.
    """
    if not total_trues > 0:
        raise DataError(f"total trues: {total_trues:g}; expected more than 0")
    if not 0 <= background < 1:
        raise DataError(f"background: {background:g} of the prompts; expected 0 ≤ background < 1")
    unscaled = float(jnp.sum(trues))
    if not unscaled > 0:
        raise DataError("trues: their sum is not above 0; no line of response sees any activity")
    scale = total_trues / unscaled
    flat = jnp.broadcast_to(jnp.asarray(coverage(scanner), trues.dtype)[..., None], trues.shape)
    additive = flat * (background / (1 - background) * total_trues / jnp.sum(flat))
    counts = jax.random.poisson(key, scale * trues + additive).astype(trues.dtype)
    return Simulation(counts, scale * trues, additive, scale)


def factors(
    scanner: Scanner, system: System, scale: float, mu: Float[Array, "x y plane"] | None = None
) -> Float[Array, "view bin plane"]:
    """What a reconstruction multiplies projections with: scale × coverage × attenuation by its own projector."""
    flat = scale * jnp.asarray(coverage(scanner), jnp.float32)[..., None]
    return flat if mu is None else flat * attenuation_factors(system, mu)


def acquire_noisy(
    key: PRNGKeyArray,
    template: Acquisition,
    scanner: Scanner,
    trues: Float[Array, "view bin plane"],
    total_trues: float,
    background: float = 0.5,
    mu: Float[Array, "x y plane"] | None = None,
) -> Acquisition:
    """The `template` (its system and resolution) with counts as `draw` gives them, and what a reconstruction knows.

    That are the factors of `factors`, with μ on the template's grid, and the expected background.

    Raises:
        DataError: as `draw` and `factors`.
    """
    drawn = draw(key, scanner, trues, total_trues, background)
    known = jnp.broadcast_to(factors(scanner, template.system, drawn.scale, mu), drawn.counts.shape)
    made = replace(template, counts=drawn.counts, multiplicative=known, additive=drawn.additive)
    return replace(made, sensitivity=_sensitivity(made))


@jax.jit
def _sensitivity(acquisition: Acquisition) -> Array:
    return acquisition.adjoint(jnp.ones_like(acquisition.counts))


def thin(key: PRNGKeyArray, counts: Float[Array, "*bins"], fraction: float | Float[Array, ""]) -> Float[Array, "*bins"]:
    """Keep each count with probability `fraction`: Poisson counts of a shorter scan, whose background shrinks with it.

    Raises:
        DataError: `fraction` is not between 0 and 1.
    """
    if not isinstance(fraction, jax.core.Tracer) and not 0 <= float(fraction) <= 1:
        raise DataError(f"fraction: {float(fraction):g}; expected 0 ≤ fraction ≤ 1")
    return jax.random.binomial(key, counts, fraction).astype(counts.dtype)
