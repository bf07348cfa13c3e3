"""What `medjax pet reconstruct` does: check everything, reconstruct, write image and picture."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Array, Float

from medjax import iterate
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import Prior
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import SUFFIXES, Volume, read_nifti, resample
from medjax.penalty import Quadratic, bowsher, neighbours
from medjax.pet import em
from medjax.pet.acquisition import acquire, attenuation_factors, check_mu, ordered_subsets
from medjax.pet.grid import Grid, in_field_of_view
from medjax.pet.io import Scan, caution, image_affine, image_grid, sum_planes
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import lines
from medjax.pet.system import build_system
from medjax.running.config import did_you_mean
from medjax.running.progress import track
from medjax.tools.checks import at_least, check_output, counted
from medjax.tools.pet_output import nrmse_note, picture_path, write_reconstruction
from medjax.tools.pet_sample import SAMPLERS, Sampling, checked_prior, denoiser_of_volumes, sample

DEFAULTS = {  # iterations, subsets
    "osem": (3, 21), "mlem": (30, 1), "map-em": (10, 7), "dds": (4, 1), "likelihood-schedule": (20, 1)
}  # fmt: skip
BETA, GUIDED_BETA = 5.0, 30.0
SIZE = 128
PRIOR_SIZE, PRIOR_VOXEL_MM = 96, 2.5  # of the prior that comes with medjax
FEW_COUNTS = 100  # in a plane of a subset: ordered subsets without a penalty then make specks


class Settings(NamedTuple):
    """How to reconstruct; checked, defaults filled in."""

    method: str
    iterations: int
    subsets: int
    beta: float
    psf_mm: float
    post_filter_mm: float
    guided: bool  # by an MR image
    sampling: Sampling = Sampling(None)


def choose_settings(
    method: str,
    iterations: int | None = None,
    subsets: int | None = None,
    beta: float | None = None,
    psf_mm: float = 4.5,
    post_filter_mm: float = 0.0,
    *,
    guided: bool = False,
    sampling: Sampling | None = None,
) -> Settings:
    """The settings of these options.

    Raises:
        ConfigError: an unknown method, an option that does not go with it, or a number out of range.
    """
    if method not in DEFAULTS:
        known = ", ".join(DEFAULTS)
        raise ConfigError(f"--method {method}; expected one of {known}{did_you_mean(method, DEFAULTS)}")
    if method != "map-em" and beta is not None:
        raise ConfigError(f"--beta goes with --method map-em, not with {method}")
    if guided and method not in ("map-em", *SAMPLERS):
        raise ConfigError(f"--mr goes with --method map-em and {' and '.join(SAMPLERS)}, not with {method}")
    if method == "mlem" and subsets not in (None, 1):
        raise ConfigError(f"--subsets {subsets} makes it OSEM; expected 1 for mlem, or --method osem")
    if method in SAMPLERS and subsets not in (None, 1):
        raise ConfigError(f"--subsets {subsets}; {method} uses all data in every update")
    if method not in SAMPLERS and sampling not in (None, Sampling(None)):
        raise ConfigError(f"--prior, --samples, --steps, --seed and --perpendicular go with {' and '.join(SAMPLERS)}")
    passes, parts = DEFAULTS[method]
    chosen = Settings(
        method,
        passes if iterations is None else iterations,
        parts if subsets is None else subsets,
        (GUIDED_BETA if guided else BETA) if beta is None else beta,
        psf_mm,
        post_filter_mm,
        guided,
        sampling or Sampling(None),
    )
    at_least("--steps", chosen.sampling.steps, 1)
    at_least("--samples", chosen.sampling.samples, 1)
    at_least("--iterations", chosen.iterations, 1)
    at_least("--subsets", chosen.subsets, 1)
    for name in ("beta", "psf_mm", "post_filter_mm"):
        at_least(f"--{name.replace('_', '-')}", getattr(chosen, name), 0)
    return chosen


def reconstruct(
    load: Callable[[], Scan],
    output: Path,
    settings: Settings,
    *,
    mu: Path | None = None,
    mr: Path | None = None,
    size: int | None = None,
    voxel_mm: float | None = None,
    planes_to_sum: int = 1,
    centre_mm: tuple[float, float, float] | None = None,
    denoiser: Any = None,
) -> None:
    """Reconstruct what `load` gives and write it to `output`, with a picture beside it.

    A `denoiser` takes the place of the prior: see `run`.

    Raises:
        ConfigError, DataError: something given cannot be used; nothing has been written then.
        OSError: the image cannot be written; nothing has been changed then.
    """
    check_output(output, SUFFIXES)
    scan = load()
    if centre_mm is not None:
        scan = replace(scan, centre_mm=centre_mm)
    scan = sum_planes(scan, planes_to_sum)
    if settings.method in SAMPLERS and scan.truth is None:
        size, voxel_mm = size or PRIOR_SIZE, voxel_mm or PRIOR_VOXEL_MM
    grid = _grid(scan, size, voxel_mm)
    _prior(settings, grid, denoiser, guided=mr is not None)  # before any work is done
    affine = image_affine(grid, scan.centre_mm)
    mu_image = None if mu is None else _resampled_mu(mu, grid, affine)
    guide = None if mr is None else _resampled(mr, grid, affine)
    typer.echo(scan.summary)
    if said := caution(scan, attenuation_given=mu is not None):
        typer.echo(said)
    _warn_of_few_counts(scan, settings)
    start = time.perf_counter()
    image, spread = run(scan, grid, settings, mu_image, guide, denoiser=denoiser)
    seconds = time.perf_counter() - start
    write_reconstruction(output, image, spread, affine, _title(settings), said)
    typer.echo(
        f"{_title(settings)}: {scan.counts.sum(dtype=float):,.0f} counts, {seconds:.1f} s"
        f"{nrmse_note(image, affine, scan.truth)}; wrote {output} and {picture_path(output).name}"
    )


def run(
    scan: Scan,
    grid: Grid,
    settings: Settings,
    mu: Float[Array, "x y z"] | None = None,
    guide: Float[Array, "x y z"] | None = None,
    *,
    denoiser: Any = None,
) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"] | None]:
    """The reconstructed image, and of several samples their standard deviation.

    EM starts from a uniform image within the scanner's field of view. Samplers take any `denoiser` of volumes
    (batch, x, y, z) of mean emission 1 (`medjax.diffusion.denoiser`) instead of a prior's file.

    Raises:
        ConfigError: the number of subsets does not divide the views; a denoiser where none is asked for, or one with
            settings of a prior.
        DataError: the grid does not fit into the scanner, or nothing of it is seen.
    """
    system = build_system(lines(scan.scanner), grid)
    factors = jnp.asarray(scan.multiplicative)
    if mu is not None:
        factors = factors * attenuation_factors(system, mu)
    psf = _psf(grid, settings.psf_mm) if settings.psf_mm > 0 else None
    acquisition = acquire(system, jnp.asarray(scan.counts), factors, jnp.asarray(scan.additive), psf)
    stacked = ordered_subsets(acquisition, settings.subsets)
    state = jax.jit(em.init)(acquisition)
    state = state._replace(image=state.image * in_field_of_view(grid, scan.scanner.field_of_view_mm))
    if not bool(jnp.any(state.image > 0)):
        raise DataError("no voxel is seen: the multiplicative factors are 0 wherever a line crosses the image")
    if settings.method in SAMPLERS:
        prior = _prior(settings, grid, denoiser, guided=guide is not None)
        chosen = denoiser if prior is None else denoiser_of_volumes(prior, settings.sampling, guide)
        image, spread = sample(
            settings.method, acquisition, chosen, state.image, settings.iterations, settings.sampling
        )
        return _filtered(grid, settings, jnp.asarray(image)), spread
    algorithm = em.osem(stacked)
    if settings.method == "map-em":
        weight = float(jax.jit(em.penalty_weight)(stacked, settings.beta, state))
        if settings.beta > 0 and weight == 0:
            raise DataError("the counts are explained by the background alone; expected some activity")
        algorithm = em.map_em(stacked, _penalty(grid, guide), weight)
    states = iterate.loop(
        algorithm,
        state,
        em.updates(stacked, settings.iterations),
        every=settings.subsets,
        progress=partial(track, description=settings.method),
        check=partial(_require_finite_image, settings),
    )
    return _filtered(grid, settings, iterate.last(states, state).image), None


def _prior(settings: Settings, grid: Grid, denoiser: Any, *, guided: bool) -> Prior | None:
    """The prior of the settings, seen to fit; None where there is a denoiser or none is asked for."""
    if denoiser is None:
        return checked_prior(settings.sampling, grid, guided=guided) if settings.method in SAMPLERS else None
    as_denoiser(denoiser)
    if settings.method not in SAMPLERS:
        raise ConfigError(f"denoiser: it goes with {' and '.join(SAMPLERS)}, not with {settings.method}")
    if settings.sampling.prior is not None or settings.sampling.perpendicular or guided:
        raise ConfigError("denoiser: it takes the place of prior, orientations and MR; expected none of them beside it")
    return None


def _require_finite_image(settings: Settings, state: em.State, _: em.Info, updates: int) -> None:
    if not bool(jnp.isfinite(state.image).all()):
        after = f"after iteration {updates // settings.subsets}"
        raise DataError(f"{settings.method}: the image is not finite {after}; nothing is written")


def _filtered(grid: Grid, settings: Settings, image: Array) -> np.ndarray:
    if settings.post_filter_mm > 0:
        image = jax.jit(blur)(_psf(grid, settings.post_filter_mm), image)
    return np.asarray(image)


_psf = jax.jit(gaussian_psf, static_argnums=0)  # under jit: one program to compile and keep, not a dozen


def _penalty(grid: Grid, guide: Float[Array, "x y z"] | None) -> Quadratic:
    """Of all neighbours; with a guide of those that are alike in it, 4 in a slice, 7 in a volume."""
    plain = neighbours(grid.shape, grid.voxel_mm)
    return Quadratic(plain if guide is None else bowsher(plain, guide, similar=4 if grid.shape[2] == 1 else 7))


def _grid(scan: Scan, size: int | None, voxel_mm: float | None) -> Grid:
    if size is not None:
        at_least("--size", size, 2)
    if voxel_mm is not None and not (math.isfinite(voxel_mm) and voxel_mm > 0):
        raise ConfigError(f"--voxel-mm {voxel_mm:g}; expected more than 0")
    if scan.truth is None:
        return image_grid(scan, size or SIZE, voxel_mm)
    voxel = voxel_mm or float(np.linalg.norm(scan.truth.affine[:3, 0]))
    return image_grid(scan, size or scan.truth.array.shape[0], voxel)


def _warn_of_few_counts(scan: Scan, settings: Settings) -> None:
    counts = float(scan.counts.sum(dtype=float)) / scan.counts.shape[2] / settings.subsets
    if settings.method == "osem" and counts < FEW_COUNTS:
        text = f"{counts:.0f} counts a subset and plane are few: fewer --subsets, --sum-planes or --method map-em help"
        warnings.warn(text, stacklevel=3)


def _resampled_mu(path: Path, grid: Grid, affine: np.ndarray) -> Float[Array, "x y z"]:
    volume = read_nifti(path)
    try:
        check_mu(volume.array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return _resampled(path, grid, affine, volume)


def _resampled(path: Path, grid: Grid, affine: np.ndarray, volume: Volume | None = None) -> Float[Array, "x y z"]:
    array = resample(volume or read_nifti(path), grid.shape, affine).array
    if not array.any():
        first, last = affine[:3, 3], np.matmul(affine[:3, :3], np.subtract(grid.shape, 1)) + affine[:3, 3]
        where = ", ".join(f"{a} {low:.0f} to {high:.0f}" for a, low, high in zip("xyz", first, last, strict=True))
        raise DataError(f"{path}: 0 all over the image to make ({where} mm); expected the same space, or --centre")
    return jnp.asarray(array)


def _title(settings: Settings) -> str:
    name, passes = settings.method.upper(), counted(settings.iterations, "iteration")
    if settings.method in SAMPLERS:
        of = "update" if settings.method == "dds" else "iteration of MLEM"
        return f"{name}, {counted(settings.iterations, of)}, {counted(settings.sampling.samples, 'sample')}".replace(
            "iteration of MLEMs", "iterations of MLEM"
        )
    subsets = f" × {settings.subsets} subsets" if settings.subsets > 1 else ""
    penalty = f", {'MR-guided, ' * settings.guided}β = {settings.beta:g}" if settings.method == "map-em" else ""
    post = f", {settings.post_filter_mm:g} mm post-filter" if settings.post_filter_mm else ""
    return f"{name}, {passes}{subsets}{penalty}{post}"
