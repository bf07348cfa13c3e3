"""What `medjax pet reconstruct` does: check everything, reconstruct, write image and picture."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts
from medjax.io.nifti import SUFFIXES, Volume, resample
from medjax.metrics.image import nrmse
from medjax.penalty import Penalty, Quadratic, bowsher, neighbours, require
from medjax.pet import em
from medjax.pet.acquisition import acquire, attenuation_factors, check_mu, ordered_subsets
from medjax.pet.grid import Grid, in_field_of_view
from medjax.pet.io import Scan, caution, image_affine, image_grid, load_scan, scan_of_counts, sum_planes
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import lors
from medjax.pet.system import build_system
from medjax.report.figures import PET
from medjax.report.volumes import write_volume
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.tools.checks import as_paths, at_least, check_output, checked_volume, errors_of
from medjax.tools.pet_defaults import SIZE
from medjax.tools.pet_sample import SAMPLERS, checked_prior, denoiser_of_volumes, sample
from medjax.tools.pet_settings import Settings, complete_settings, title

PRIOR_SIZE, PRIOR_VOXEL_MM = 96, 2.5  # of the prior that comes with medjax
SCALE = PET._replace(unit="activity, arbitrary units")
FEW_COUNTS = 100  # in a plane of a subset: ordered subsets without a penalty then make specks
Image = Float[np.ndarray, "x y z"]
Affine = Float[np.ndarray, "4 4"]


class Reconstruction(NamedTuple):
    """An image, what there is to say of it, and the files that it was written to."""

    image: Image
    sd: Image | None  # standard deviation of several samples
    affine: Affine  # voxel index to RAS+ mm
    title: str  # how it was made
    note: str  # what it lacks, and whether it is real
    counts: float
    seconds: float
    nrmse: float | None  # against the truth of the counts' file
    files: tuple[Path, ...]  # image, picture, standard deviation


def reconstruct(
    counts: Path | str | Counts | Scan | Callable[[], Scan],
    settings: Settings | None = None,
    output: Path | str | None = None,
    *,
    mu: Path | str | Volume | None = None,
    mr: Path | str | Volume | None = None,
    size: int | None = None,
    voxel_mm: float | None = None,
    planes_to_sum: int = 1,
    centre_mm: tuple[float, float, float] | None = None,
) -> Reconstruction:
    """Reconstruct a scan, the file of one, or what a function loads (`medjax.pet.io.load_scan`) after other checks.

    Counts in memory, such as `simulate(…).counts`, need no file.

    The image goes to `output`, if that is given, with a picture beside it.

    Raises:
        ConfigError, DataError: something given cannot be used; nothing has been written then.
        OSError: the image cannot be written; nothing has been changed then.
    """
    counts, output, mu, mr = as_paths(counts, output, mu, mr)
    settings = complete_settings((settings or Settings())._replace(guided=mr is not None))
    if output is not None:
        check_output(output, SUFFIXES)
    if isinstance(counts, Path | Counts):
        loaded = load_scan(counts) if isinstance(counts, Path) else scan_of_counts(counts)
    else:
        loaded = counts if isinstance(counts, Scan) else counts()
    scan = sum_planes(loaded if centre_mm is None else replace(loaded, centre_mm=centre_mm), planes_to_sum)
    if settings.method in SAMPLERS and scan.truth is None:
        size, voxel_mm = size or PRIOR_SIZE, voxel_mm or PRIOR_VOXEL_MM
    grid = _grid(scan, size, voxel_mm)
    prior = checked_prior(settings.sampling, grid, guided=settings.guided) if settings.method in SAMPLERS else None
    affine = image_affine(grid, scan.centre_mm)
    mu_image = None if mu is None else _resampled(mu, "μ-map", grid, affine, check_mu)
    guide = None if mr is None else _resampled(mr, "MR image", grid, affine)
    turns = settings.sampling.perpendicular
    part = denoiser_of_volumes(prior, grid, turns, guide) if prior else _penalty(settings, grid, guide)
    say(scan.summary)
    if note := caution(scan, attenuation_given=mu is not None):
        say(note)
    _warn_of_few_counts(scan, settings)
    start = time.perf_counter()
    image, sd = _image(scan, grid, settings, mu_image, part)
    seconds, name, total = time.perf_counter() - start, title(settings), float(scan.counts.sum(dtype=float))
    files = () if output is None else write_volume(output, image, affine, SCALE, name, sd, note)
    return Reconstruction(image, sd, affine, name, note, total, seconds, _error(scan.truth, image, affine), files)


def _image(
    scan: Scan, grid: Grid, settings: Settings, mu: Float[Array, "x y z"] | None, part: Any
) -> tuple[Image, Image | None]:
    """The image, and of several samples their standard deviation; `part` is a denoiser of volumes, or a penalty.

    EM starts from a uniform image within the scanner's field of view.
    """
    system = build_system(lors(scan.scanner), grid)
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
        image, sd = sample(settings.method, acquisition, part, state.image, settings.iterations, settings.sampling)
        return _filtered(grid, settings, jnp.asarray(image)), sd if settings.sampling.samples > 1 else None
    algorithm = em.osem(stacked)
    if settings.method == "map-em":
        weight = settings.beta
        if settings.penalty is None:
            weight = float(jax.jit(em.penalty_weight)(stacked, settings.beta, state))
        if settings.beta > 0 and weight == 0:
            raise DataError("the counts are explained by the background alone; expected some activity")
        algorithm = em.map_em(stacked, part, weight)
    states = iterate.loop(
        algorithm,
        state,
        em.updates(stacked, settings.iterations),
        every=settings.subsets,
        progress=partial(track, description=settings.method),
        check=partial(_require_finite_image, settings),
    )
    return _filtered(grid, settings, iterate.last(states, state).image), None


def _require_finite_image(settings: Settings, state: em.State, _: em.Info, updates: int) -> None:
    if not bool(jnp.isfinite(state.image).all()):
        after = f"after iteration {updates // settings.subsets}"
        raise DataError(f"{settings.method}: the image is not finite {after}; nothing is written")


def _filtered(grid: Grid, settings: Settings, image: Array) -> np.ndarray:
    if settings.post_filter_mm > 0:
        image = jax.jit(blur)(_psf(grid, settings.post_filter_mm), image)
    return np.asarray(image)


_psf = jax.jit(gaussian_psf, static_argnums=0)  # under jit: one program to compile and keep, not a dozen


def _penalty(settings: Settings, grid: Grid, guide: Float[Array, "x y z"] | None) -> Any:
    """Of all neighbours; with a guide of those that are alike in it, 4 in a slice, 7 in a volume; or the user's own."""
    if settings.method != "map-em":
        return None
    if settings.penalty is not None:
        return _users_penalty(settings.penalty, grid)
    plain = neighbours(grid.shape, grid.voxel_mm)
    return Quadratic(plain if guide is None else bowsher(plain, guide, similar=4 if grid.shape[2] == 1 else 7))


def _users_penalty(part: Part, grid: Grid) -> Any:
    """The penalty, or what a function of the image's shape and voxel size gives; seen to work on such an image.

    Raises:
        ConfigError: it is none, has no surrogate, or fails.
    """
    given, name = part.value, f"--penalty {part.name}"
    expected = "value, gradient and surrogate of an image, or a function of its shape and voxel size that gives them"
    with errors_of(name, expected):
        made = given if isinstance(given, Penalty) and not isinstance(given, type) else given(*astuple(grid))
        require(made, f"{name}: MAP-EM", "surrogate")
        if jax.tree_util.all_leaves([made]):
            raise ConfigError(
                f"{name}: {type(made).__name__} is no pytree; expected one, as jax.tree_util.register_dataclass or "
                "register_static makes of its class"
            )
        jax.eval_shape(lambda penalty, image: penalty.surrogate(image), made, jnp.zeros(grid.shape))
    return made


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


def _resampled(
    given: Path | Volume, name: str, grid: Grid, affine: Affine, check: Callable[[Any], None] | None = None
) -> Float[Array, "x y z"]:
    volume, name = checked_volume(given, name, check)
    array = resample(volume, grid.shape, affine).array
    if not array.any():
        first, last = affine[:3, 3], np.matmul(affine[:3, :3], np.subtract(grid.shape, 1)) + affine[:3, 3]
        where = ", ".join(f"{a} {low:.0f} to {high:.0f}" for a, low, high in zip("xyz", first, last, strict=True))
        raise DataError(f"{name}: 0 all over the image to make ({where} mm); expected the same space, or --centre")
    return jnp.asarray(array)


def _error(truth: Volume | None, image: Image, affine: Affine) -> float | None:
    """NRMSE against a truth on the same grid; None where there is no such truth."""
    if truth is None or not truth.array.any() or truth.array.shape != image.shape:
        return None
    return float(nrmse(image, truth.array)) if np.allclose(truth.affine, affine, atol=1e-3) else None
