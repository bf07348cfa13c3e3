"""Simulation of PET counts: from an image on a fine grid, through finer rays than in reconstruction, to Poisson counts.

The simulation never shares its matrix with a reconstruction: voxels are those of a fine grid (1 mm in plane), each bin
averages several rays across the crystals' faces, and the resolution is a blur on the fine grid. That grid reaches
beyond the stack of planes (`with_margin`), so that activity outside the field of view is blurred into the end planes.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from medjax import defaults
from medjax.errors import DataError
from medjax.pet import projection
from medjax.pet.acquisition import Acquisition, check_counts
from medjax.pet.attenuation import attenuation, attenuation_factors, check_mu
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram
from medjax.pet.projection import AnySystem
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scan import pair_numbers
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system import build_system
from medjax.pet.system3d import build_system3d
from medjax.pet.tof import Tof

_MANY = 1e5  # counts a bin, of which the Poisson distribution's skewness is 0.003
_TOO_MANY = 1e13  # counts a bin, whose standard deviation is three steps of float32


class SimulatedCounts(NamedTuple):
    """Noisy counts, expected trues and background; `scale` is in counts per image unit and mm."""

    counts: Float[Array, "view bin plane *tof"]
    trues: Float[Array, "view bin plane *tof"]  # expected
    additive: Float[Array, "view bin plane *tof"]  # expected background (randoms + scatter)
    scale: float


def with_margin(grid: Grid, fwhm_mm: float) -> Grid:
    """The grid, with two FWHM more at both ends of its stack: what lies there is blurred into the end planes.

    A single plane stays one: it is a 2-D world, uniform along z.
    """
    x, y, planes = grid.shape
    margin = math.ceil(2 * fwhm_mm / grid.voxel_mm[2]) if planes > 1 else 0
    return Grid((x, y, planes + 2 * margin), grid.voxel_mm)


def middle_planes(longer: Grid, planes: int) -> slice:
    """The `planes` in the middle of a longer stack: those without its margin."""
    margin = (longer.shape[2] - planes) // 2
    return slice(margin, margin + planes)


def emission_volume_mm3(activity: Float[np.ndarray, "x y z"], grid: Grid) -> float:
    """Emission volume in mm³: of the voxels above 1 % of the largest activity.

    Count levels in trues per mm³ refer to it.

    Raises:
        DataError: no voxel is active.
    """
    largest = float(np.max(activity))
    if not largest > 0:
        raise DataError("activity: no voxel is above 0; expected an emission image")
    return float(np.sum(activity > 0.01 * largest)) * grid.voxel_volume_mm3


def expected_trues(
    scanner: Scanner,
    activity: Float[np.ndarray, "x y z"],
    fine_grid: Grid,
    mu: Float[np.ndarray, "x y z"] | None = None,
    fwhm_mm: float = defaults.PET_PSF_MM,
    rays: int = 3,
    system: AnySystem | None = None,
    michelogram: Michelogram | None = None,
    tof: Tof | None = None,
) -> Float[Array, "view bin plane *tof"]:
    """Expected trues, unscaled: a bin's coverage × mean over its rays of attenuation × line integral of activity.

    Oblique planes count as often as they sum ring pairs.

    Args:
        scanner: scanner with its lines of response.
        activity: emission image, any unit a volume.
        fine_grid: grid of the simulation. Of planes beyond the scanner's at both ends (`with_margin`) only the blur is
            seen; without them activity is taken to mirror itself at the ends.
        mu: attenuation map in mm⁻¹; None: no attenuation.
        fwhm_mm: FWHM of the point spread function, by which the activity is blurred; 0: none.
        rays: a bin.
        system: `system_of_rays` of the same scanner, grid, rays and planes, for many images; None: it is built.
        michelogram: oblique planes; None: direct planes.
        tof: time-of-flight bins, of oblique planes; None: none.

    Raises:
        DataError: a shape differs from the fine grid's, its planes cannot be centred on the scanner's, or a value is
            not one that activity or μ can have.
    """
    planes = min(scanner.planes, fine_grid.shape[2])
    if (fine_grid.shape[2] - planes) % 2:
        raise DataError(
            f"fine grid: {fine_grid.shape[2]} planes; the scanner has {planes}: expected an even number more"
        )
    for name, values in (("activity", activity), ("μ-map", mu)):
        if values is not None and values.shape != fine_grid.shape:
            raise DataError(f"{name}: shape {values.shape}; the fine grid has {fine_grid.shape}")
    check_counts("activity", jnp.asarray(activity))
    if mu is not None:
        check_mu(np.asarray(mu))
    seen = middle_planes(fine_grid, planes)
    image = blur(gaussian_psf(fine_grid, fwhm_mm), jnp.asarray(activity))[..., seen]
    mu = None if mu is None else mu[..., seen]
    seen_grid = Grid((*fine_grid.shape[:2], planes), fine_grid.voxel_mm)
    known = system_of_rays(scanner, seen_grid, rays, michelogram, tof) if system is None else system
    every_ray = _through(known, image, mu)
    mean = every_ray.reshape(scanner.views, rays, scanner.bins, *every_ray.shape[2:]).mean(axis=1)
    pairs = jnp.asarray(pair_numbers(scanner, michelogram), image.dtype)
    return mean * (pairs if mean.ndim == 3 else pairs[..., None])


def system_of_rays(
    scanner: Scanner, grid: Grid, rays: int = 3, michelogram: Michelogram | None = None, tof: Tof | None = None
) -> AnySystem:
    """System of several rays a bin, one after the other; building it takes longer than a projection."""
    shifts = (np.arange(rays) - (rays - 1) / 2) / rays
    ends = np.concatenate([lors(scanner, shift) for shift in shifts], axis=1)
    if michelogram is None:
        return build_system(ends, grid)
    return build_system3d(ends, michelogram, scanner.ring_spacing_mm, grid, tof)


@jax.jit
def _through(system: AnySystem, image: Array, mu: Array | None) -> Array:
    integral = projection.project(system, image)
    return integral if mu is None else integral * attenuation(system, mu)


def sample_counts(
    key: PRNGKeyArray,
    scanner: Scanner,
    trues: Float[Array, "view bin plane *tof"],
    total_trues: float,
    background: float = defaults.PET_BACKGROUND,
    michelogram: Michelogram | None = None,
) -> SimulatedCounts:
    """Sample counts ~ Poisson(trues + additive), scaled to `total_trues` expected trues.

    Args:
        key: random key.
        scanner: scanner, for the coverage of the bins.
        trues: expected, unscaled.
        total_trues: expected number of trues.
        background: fraction of the prompts that is randoms + scatter; uniform over pairs of crystals outside gaps.
        michelogram: oblique planes; None: direct planes.

    Raises:
        DataError: `total_trues` or `background` is out of range, or the expected trues sum to 0.
    """
    if not total_trues > 0:
        raise DataError(f"total trues: {total_trues:g}; expected more than 0")
    if not 0 <= background < 1:
        raise DataError(f"background: {background:g} of the prompts; expected 0 ≤ background < 1")
    unscaled = float(jnp.sum(trues))
    if not unscaled > 0:
        raise DataError("trues: their sum is not above 0; no line of response sees any activity")
    scale = total_trues / unscaled
    pairs = jnp.asarray(pair_numbers(scanner, michelogram), trues.dtype)
    flat = jnp.broadcast_to(pairs if trues.ndim == 3 else pairs[..., None], trues.shape)
    level = background / (1 - background) * total_trues / float(jnp.sum(flat))
    most = scale * float(jnp.max(trues)) + level
    if not most < _TOO_MANY:
        raise DataError(
            f"total trues: {total_trues:g}, up to {most:.2g} counts a bin; float32 holds their noise to 1e13"
        )
    additive = flat * level
    counts = _poisson(key, scale * trues + additive)
    return SimulatedCounts(counts, scale * trues, additive, scale)


@jax.jit
def _poisson(key: Array, mean: Array) -> Array:
    """Counts ~ Poisson(mean); above 1e5 the rounded normal, since JAX's sampler loses its variance in float32 there
    (1.5 times it at 1e8) and saturates at int32.
    """
    few = jax.random.poisson(key, jnp.minimum(mean, _MANY))
    noise = jax.random.normal(jax.random.fold_in(key, 1), (mean.size,), mean.dtype).reshape(mean.shape)
    return jnp.where(mean < _MANY, few.astype(mean.dtype), jnp.round(mean + jnp.sqrt(mean) * noise))


def multiplicative_factors(
    scanner: Scanner,
    system: AnySystem,
    scale: float,
    mu: Float[Array, "x y z"] | None = None,
    michelogram: Michelogram | None = None,
) -> Float[Array, "view bin plane"]:
    """Multiplicative factors of a reconstruction, of all time-of-flight bins: scale × coverage × attenuation.

    Attenuation is by the reconstruction's own projector.
    """
    flat = scale * jnp.asarray(pair_numbers(scanner, michelogram))
    if mu is None:
        return flat
    factors = attenuation_factors(system, mu)
    return flat * (factors if factors.ndim == 3 else factors[..., 0])


def simulate_acquisition(
    key: PRNGKeyArray,
    template: Acquisition,
    scanner: Scanner,
    trues: Float[Array, "view bin plane"],
    total_trues: float,
    background: float = defaults.PET_BACKGROUND,
    mu: Float[Array, "x y z"] | None = None,
) -> Acquisition:
    """Simulated acquisition: the `template` (system, resolution) with noisy counts, their factors and background.

    Args:
        key: random key.
        template: acquisition whose system and point spread function are kept.
        scanner: scanner, for the coverage of the bins.
        trues: expected, unscaled, as of `expected_trues`.
        total_trues: expected number of trues.
        background: fraction of the prompts that is randoms + scatter.
        mu: attenuation map on the template's grid, in mm⁻¹; None: no attenuation.

    Raises:
        DataError: as `sample_counts` and `multiplicative_factors`.
    """
    drawn = sample_counts(key, scanner, trues, total_trues, background)
    known = jnp.broadcast_to(multiplicative_factors(scanner, template.system, drawn.scale, mu), drawn.counts.shape)
    made = replace(template, counts=drawn.counts, multiplicative=known, additive=drawn.additive)
    return replace(made, sensitivity=_sensitivity(made))


@jax.jit
def _sensitivity(acquisition: Acquisition) -> Array:
    return acquisition.adjoint(jnp.ones_like(acquisition.counts))


def thin(key: PRNGKeyArray, counts: Float[Array, "*bins"], fraction: float | Float[Array, ""]) -> Float[Array, "*bins"]:
    """Thin Poisson counts to a `fraction`: the counts of a shorter scan, each kept with that probability.

    Where more than 1e5 counts' variance is asked for, they are normal: JAX's sampler loses it in float32.

    Raises:
        DataError: `fraction` is not between 0 and 1.
    """
    if not isinstance(fraction, jax.core.Tracer) and not 0 <= float(fraction) <= 1:
        raise DataError(f"fraction: {float(fraction):g}; expected 0 ≤ fraction ≤ 1")
    variance = counts * fraction * (1 - fraction)
    few = jax.random.binomial(key, jnp.where(variance < _MANY, counts, 0), fraction).astype(counts.dtype)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (counts.size,), counts.dtype).reshape(counts.shape)
    many = jnp.round(counts * fraction + jnp.sqrt(variance) * noise)
    return jnp.where(variance < _MANY, few, many)
