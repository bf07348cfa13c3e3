"""PET reconstruction (`medjax pet reconstruct`): check everything, reconstruct, write image and figure."""

import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import defaults, iterate
from medjax.bowsher import bowsher
from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts
from medjax.io.grids import TOLERANCE, corner_distance
from medjax.io.nifti import SUFFIXES, Volume, resample
from medjax.metrics.image import nrmse
from medjax.penalty import Penalty, Quadratic, neighbors, require
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, attenuation_factors, ordered_subsets
from medjax.pet.attenuation import check_mu
from medjax.pet.corrections import check_background
from medjax.pet.grid import Grid, in_field_of_view
from medjax.pet.io import load_scan, scan_from_counts
from medjax.pet.projection import AnySystem, possible_subsets
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scan import Scan, correction_note, image_affine, image_grid, sum_planes, system_model
from medjax.report.figures import PET
from medjax.report.volumes import volume_files, write_volume
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.tools.checks import (
    as_paths,
    check_no_overwrite,
    check_output,
    check_output_files,
    check_position,
    check_volume,
    reraise_as_config_error,
)
from medjax.tools.pet_checks import (
    check_attenuation_once,
    check_coverage,
    check_grid,
    check_grid_memory,
    check_image,
    check_truncation,
    early_emission,
    warn_of_few_counts,
)
from medjax.tools.pet_sample import SAMPLERS, denoiser_for_grid, prepare_prior, sample
from medjax.tools.pet_settings import ReconstructionSettings, complete_settings, settings_for_counts, title

PRIOR_SIZE, PRIOR_VOXEL_MM = 96, 2.5  # slice of medjax's brain prior
ACTIVITY_SCALE = PET._replace(unit="activity, arbitrary units")
Image = Float[np.ndarray, "x y z"]
Affine = Float[np.ndarray, "4 4"]


class Reconstruction(NamedTuple):
    """A reconstructed image with its title, note, cost and error, and the files that it was written to."""

    image: Image
    sd: Image | None  # standard deviation of several samples
    affine: Affine  # voxel index to RAS+ mm
    title: str  # method and settings
    note: str  # whether data are real, and missing corrections
    counts: float  # total
    seconds: float  # computation time
    nrmse: float | None  # against the truth in the counts' file
    files: tuple[Path, ...]  # image, figure, standard deviation


def reconstruct(
    counts: Path | str | Counts | Scan | Callable[[], Scan],
    settings: ReconstructionSettings | None = None,
    output: Path | str | None = None,
    *,
    mu: Path | str | Volume | None = None,
    mr: Path | str | Volume | None = None,
    size: int | None = None,
    voxel_mm: float | None = None,
    planes_to_sum: int = 1,
    center_mm: tuple[float, float, float] | None = None,
) -> Reconstruction:
    """Reconstruct an image from counts.

    Args:
        counts: a file, counts in memory such as `simulate(…).counts`, a scan, or a function that loads one
            (`medjax.pet.io.load_scan`), which is called after other checks.
        settings: method and its parameters.
        output: NIfTI file to write, with a figure (.png) beside it; None: none.
        mu: attenuation map in mm⁻¹.
        mr: MR image in the same space, for an MR-guided method.
        size: voxels along x and y.
        voxel_mm: voxel size along x and y.
        planes_to_sum: neighbouring planes summed into one.
        center_mm: position of the scanner's centre, RAS+; None: the file's.

    Without a number of subsets OSEM takes as many as leave 500 counts a subset and plane, 21 at most.

    Raises:
        ConfigError, DataError: an argument cannot be used, attenuation would be corrected twice, a map covers less than
            two thirds of the emission, or the image is not one that the counts allow; nothing has been written then.
        OSError: the image cannot be written; nothing has been changed then.
    """
    counts, output, mu, mr, _ = as_paths(counts, output, mu, mr, settings and settings.sampling.prior)
    requested = (settings or ReconstructionSettings())._replace(mr_guided=mr is not None)
    settings = complete_settings(requested)
    if output is not None:
        check_output(output, SUFFIXES)
        check_output_files(volume_files(output, sd=settings.sampling.samples > 1))
    if isinstance(counts, Path | Counts):
        loaded = load_scan(counts) if isinstance(counts, Path) else scan_from_counts(counts)
    else:
        loaded = counts if isinstance(counts, Scan) else counts()
    scan = sum_planes(loaded if center_mm is None else replace(loaded, center_mm=center_mm), planes_to_sum)
    check_position(scan.center_mm, "--centre")
    check_background(str(loaded.files[0]) if loaded.files else "counts", scan)
    if output is not None:
        check_no_overwrite(volume_files(output, sd=True), [*loaded.files, mu, mr, settings.sampling.prior])
    if settings.method in SAMPLERS and scan.truth is None:
        size, voxel_mm = size or PRIOR_SIZE, voxel_mm or PRIOR_VOXEL_MM
    grid = _grid(scan, size, voxel_mm)
    prior = (
        prepare_prior(settings.sampling, grid, mr_guided=settings.mr_guided, tracer=scan.tracer)
        if settings.method in SAMPLERS
        else None
    )
    affine = image_affine(grid, scan.center_mm)
    mu_image = None if mu is None else _resampled(mu, "μ-map", grid, affine, check_mu)
    guide = None if mr is None else _resampled(mr, "MR image", grid, affine)
    maps = {str(mu) if isinstance(mu, Path) else "μ-map": mu_image, str(mr) if isinstance(mr, Path) else "MR": guide}
    perpendicular = settings.sampling.perpendicular
    part = denoiser_for_grid(prior, grid, perpendicular, guide) if prior else _penalty(settings, grid, guide)
    system = system_model(scan, grid)
    possible = possible_subsets(system)
    total = float(scan.counts.sum(dtype=float))
    settings = settings_for_counts(settings, requested, total / scan.slices, possible)
    if settings.subsets not in possible:
        expected = f"one of {', '.join(map(str, possible))}, which divide the views evenly"
        raise ConfigError(f"--subsets {settings.subsets}; expected {expected}")
    if mu is not None:
        check_attenuation_once(scan)
    check_truncation(scan, grid)
    say(scan.summary)
    if note := correction_note(scan, attenuation_corrected=mu is not None):
        say(note)
    warn_of_few_counts(scan, settings)
    start = time.perf_counter()
    image, sd = _image(scan, grid, system, settings, mu_image, part, maps)
    seconds, name = time.perf_counter() - start, title(settings)
    files = () if output is None else write_volume(output, image, affine, ACTIVITY_SCALE, name, sd, note)
    return Reconstruction(image, sd, affine, name, note, total, seconds, _error(scan.truth, image, affine), files)


def _image(
    scan: Scan,
    grid: Grid,
    system: AnySystem,
    settings: ReconstructionSettings,
    mu: Float[Array, "x y z"] | None,
    part: Any,
    maps: Mapping[str, Float[Array, "x y z"] | None],
) -> tuple[Image, Image | None]:
    """Image, and standard deviation of several samples; `part` is a denoiser of volumes, or a penalty."""
    psf = _psf(grid, settings.psf_mm) if settings.psf_mm > 0 else None
    factors = scan.multiplicative if scan.tof is None else scan.multiplicative[..., None]
    data = (jnp.asarray(scan.counts), jnp.asarray(factors), jnp.asarray(scan.additive))
    acquisition = acquire(system, *data, psf)
    if any(one is not None for one in maps.values()):  # before attenuation, which raises activity where it is known
        stacked = ordered_subsets(acquisition, settings.subsets)
        emission = early_emission(stacked, _first(acquisition, grid, scan), grid)
        background = float(scan.additive.sum(dtype=float) / scan.counts.sum(dtype=float))
        for line in check_coverage(emission, maps, background):
            say(line)
    if mu is not None:
        attenuation = attenuation_factors(system_model(replace(scan, tof=None), grid), mu)
        attenuation = attenuation if scan.tof is None else attenuation[..., None]
        acquisition = acquire(system, data[0], data[1] * attenuation, data[2], psf)
    image, sd = _solve(acquisition, _first(acquisition, grid, scan), settings, part)
    check_image(acquisition, image, settings.method, penalized=settings.method == "map-em")
    return _filtered(grid, settings, jnp.asarray(image)), sd


def _first(acquisition: Acquisition, grid: Grid, scan: Scan) -> em.State:
    """State that EM starts from: a uniform image within the scanner's field of view."""
    state = jax.jit(em.init)(acquisition)
    state = state._replace(image=state.image * in_field_of_view(grid, scan.scanner.field_of_view_mm))
    if not bool(jnp.any(state.image > 0)) or not bool(jnp.isfinite(acquisition.sensitivity).all()):
        raise DataError(
            "the sensitivity is 0 in the whole image or infinite: the multiplicative factors of its lines of response "
            "are 0, or too large or too small for float32"
        )
    return state


def _solve(
    acquisition: Acquisition, state: em.State, settings: ReconstructionSettings, part: Any
) -> tuple[Image, Image | None]:
    if settings.method in SAMPLERS:
        image, sd = sample(settings.method, acquisition, part, state.image, settings.iterations, settings.sampling)
        return image, sd if settings.sampling.samples > 1 else None
    stacked = ordered_subsets(acquisition, settings.subsets)
    algorithm = em.osem(stacked)
    if settings.method == "map-em":
        weight = settings.beta
        if settings.penalty is None:
            weight = float(jax.jit(em.penalty_weight)(stacked, settings.beta, state))
        algorithm = em.map_em(stacked, part, weight)
    states = iterate.loop(
        algorithm,
        state,
        em.updates(stacked, settings.iterations),
        every=settings.subsets,
        progress=partial(track, description=settings.method),
        check=partial(_require_finite_image, settings),
    )
    return np.asarray(iterate.last(states, state).image), None


def _require_finite_image(settings: ReconstructionSettings, state: em.State, _: em.Info, updates: int) -> None:
    if not bool(jnp.isfinite(state.image).all()):
        after = f"after iteration {updates // settings.subsets}"
        raise DataError(f"{settings.method}: the image is not finite {after}; nothing is written")


def _filtered(grid: Grid, settings: ReconstructionSettings, image: Array) -> np.ndarray:
    if settings.post_filter_mm > 0:
        image = jax.jit(blur)(_psf(grid, settings.post_filter_mm), image)
    return np.asarray(image)


_psf = jax.jit(gaussian_psf, static_argnums=0)  # under jit: one program to compile and keep, not a dozen


def _penalty(settings: ReconstructionSettings, grid: Grid, guide: Float[Array, "x y z"] | None) -> Any:
    """Quadratic penalty; with a guide Bowsher's, of 4 neighbours in a slice, 7 in a volume; or the user's own."""
    if settings.method != "map-em":
        return None
    if settings.penalty is not None:
        return _users_penalty(settings.penalty, grid)
    plain = neighbors(grid.shape, grid.voxel_mm)
    return Quadratic(plain if guide is None else bowsher(plain, guide, similar=4 if grid.shape[2] == 1 else 7))


def _users_penalty(part: Part, grid: Grid) -> Any:
    """User's penalty, or the result of a function of the image's shape and voxel size; checked on such an image.

    Raises:
        ConfigError: it is not one, has no surrogate, or fails.
    """
    own, name = part.value, f"--penalty {part.name}"
    expected = "value, gradient and surrogate of an image, or a function of its shape and voxel size that returns them"
    with reraise_as_config_error(name, expected):
        made = own if isinstance(own, Penalty) and not isinstance(own, type) else own(*astuple(grid))
        require(made, f"{name}: MAP-EM", "surrogate")
        if jax.tree_util.all_leaves([made]):
            raise ConfigError(
                f"{name}: {type(made).__name__} is not a pytree; expected one, as jax.tree_util.register_dataclass or "
                "register_static makes of its class"
            )
        jax.eval_shape(lambda penalty, image: penalty.surrogate(image), made, jnp.zeros(grid.shape))
    return made


def _grid(scan: Scan, size: int | None, voxel_mm: float | None) -> Grid:
    """Image grid: as the truth in the file, unless told otherwise. Raises: ConfigError, DataError: out of range."""
    check_grid(size, voxel_mm)
    if scan.truth is None:
        grid = image_grid(scan, size or defaults.PET_SIZE, voxel_mm)
    else:
        voxel = voxel_mm or float(np.linalg.norm(scan.truth.affine[:3, 0]))
        grid = image_grid(scan, size or scan.truth.array.shape[0], voxel)
    check_grid_memory(grid)
    return grid


def _resampled(
    source: Path | Volume, name: str, grid: Grid, affine: Affine, check: Callable[[Any], None] | None = None
) -> Float[Array, "x y z"]:
    volume, name = check_volume(source, name, check)
    array = resample(volume, grid.shape, affine).array
    if not array.any():
        first, last = affine[:3, 3], np.matmul(affine[:3, :3], np.subtract(grid.shape, 1)) + affine[:3, 3]
        where = ", ".join(f"{a} {low:.0f} to {high:.0f}" for a, low, high in zip("xyz", first, last, strict=True))
        raise DataError(f"{name}: 0 in the whole image grid ({where} mm); expected the same space, or --centre")
    return jnp.asarray(array)


def _error(truth: Volume | None, image: Image, affine: Affine) -> float | None:
    """NRMSE against a truth on the same grid; None where there is no such truth."""
    if truth is None or not truth.array.any() or truth.array.shape != image.shape:
        return None
    apart, _ = corner_distance(image.shape, affine, truth.affine)
    return float(nrmse(image, truth.array)) if apart <= TOLERANCE else None
