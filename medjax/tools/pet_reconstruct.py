"""PET reconstruction (`medjax pet reconstruct`): check everything, reconstruct, write image and figure."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import defaults
from medjax.errors import ConfigError
from medjax.io.counts import Counts
from medjax.io.nifti import SUFFIXES, Volume
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.attenuation import attenuation_factors, check_mu
from medjax.pet.compton import EnergyWindow
from medjax.pet.corrections import check_background
from medjax.pet.event_scan import EventScan
from medjax.pet.grid import Grid
from medjax.pet.io import load_scan, scan_from_counts
from medjax.pet.projection import AnySystem, possible_subsets
from medjax.pet.scan import Scan, correction_note, image_affine, image_grid, sum_planes, system_model
from medjax.report.volumes import volume_files
from medjax.running.progress import say
from medjax.tools.checks import (
    as_paths,
    check_no_overwrite,
    check_output,
    check_output_files,
    check_position,
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
from medjax.tools.pet_events import reconstruct_events
from medjax.tools.pet_memory import require, sinogram_plan
from medjax.tools.pet_result import Reconstruction, error_against, finish, resample_map
from medjax.tools.pet_sample import SAMPLERS
from medjax.tools.pet_scatter import add_scatter
from medjax.tools.pet_settings import PENALIZED, ReconstructionSettings, complete_settings, settings_for_counts, title
from medjax.tools.pet_solve import denoiser_or_regularizer, first_image, post_filter, psf_of, solve

PRIOR_SIZE, PRIOR_VOXEL_MM = 96, 2.5  # slice of medjax's brain prior
Image = Float[np.ndarray, "x y z"]


def reconstruct(
    counts: Path | str | Counts | Scan | EventScan | Callable[[], Scan | EventScan],
    settings: ReconstructionSettings | None = None,
    output: Path | str | None = None,
    *,
    mu: Path | str | Volume | None = None,
    mr: Path | str | Volume | None = None,
    size: int | None = None,
    voxel_mm: float | None = None,
    planes_to_sum: int = 1,
    center_mm: tuple[float, float, float] | None = None,
    scatter: EnergyWindow | None = None,
) -> Reconstruction:
    """Reconstruct an image from counts.

    Args:
        counts: a file, counts in memory such as `simulate(…).counts`, a scan of sinograms or events, or a function that
            loads one (`medjax.pet.io.load_scan`), which is called after other checks.
        settings: method and its parameters.
        output: NIfTI file to write, with a figure (.png) beside it; None: none.
        mu: attenuation map in mm⁻¹.
        mr: MR image in the same space, for an MR-guided method.
        size: voxels along x and y.
        voxel_mm: voxel size along x and y.
        planes_to_sum: neighbouring planes summed into one.
        center_mm: position of the scanner's centre, RAS+; None: the file's.
        scatter: energy window of a simulation of the scatter, which is added to the background; None: none.

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
    loaded = _loaded(counts)
    loaded = loaded if center_mm is None else replace(loaded, center_mm=center_mm)
    if isinstance(loaded, EventScan):
        if scatter is not None or planes_to_sum > 1:
            raise ConfigError(f"--{'scatter' if scatter else 'sum-planes'} goes with sinograms, not with single events")
        return reconstruct_events(loaded, settings, requested, output, mu, mr, size, voxel_mm)
    scan = sum_planes(loaded, planes_to_sum)
    check_position(scan.center_mm, "--centre")
    check_background(str(loaded.files[0]) if loaded.files else "counts", scan)
    if output is not None:
        check_no_overwrite(volume_files(output, sd=True), [*loaded.files, mu, mr, settings.sampling.prior])
    if settings.method in SAMPLERS and scan.truth is None:
        size, voxel_mm = size or PRIOR_SIZE, voxel_mm or PRIOR_VOXEL_MM
    grid = _grid(scan, size, voxel_mm)
    affine = image_affine(grid, scan.center_mm)
    mu_image = None if mu is None else resample_map(mu, "μ-map", grid, affine, check_mu)
    guide = None if mr is None else resample_map(mr, "MR image", grid, affine)
    maps = {str(mu) if isinstance(mu, Path) else "μ-map": mu_image, str(mr) if isinstance(mr, Path) else "MR": guide}
    part = denoiser_or_regularizer(settings, grid, guide, scan.tracer)
    system = system_model(scan.scanner, grid, scan.michelogram, scan.tof)
    total = float(scan.counts.sum(dtype=float))
    settings = settings_for_counts(settings, requested, total / scan.slices, possible_subsets(system))
    require(sinogram_plan(scan.counts.size, grid, settings.subsets, settings.method))
    if mu is not None:
        check_attenuation_once(scan)
    check_truncation(scan, grid)
    say(scan.summary)
    if note := correction_note(scan, attenuation_corrected=mu is not None):
        say(note)
    warn_of_few_counts(scan, settings)
    start = time.perf_counter()
    if scatter is not None:
        scan = add_scatter(scan, grid, system, mu_image, scatter, psf_of(grid, settings.psf_mm))
    image, sd = _image(scan, grid, system, settings, mu_image, part, maps)
    error, seconds = error_against(scan.truth, image, affine), time.perf_counter() - start
    made = Reconstruction(image, sd, affine, title(settings), note, total, seconds, error)
    return finish(made, output, scan.frame_s)


def _loaded(counts: Path | Counts | Scan | EventScan | Callable[[], Scan | EventScan]) -> Scan | EventScan:
    if isinstance(counts, Path | Counts):
        return load_scan(counts) if isinstance(counts, Path) else scan_from_counts(counts)
    return counts if isinstance(counts, Scan | EventScan) else counts()


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
    psf = psf_of(grid, settings.psf_mm) if settings.psf_mm > 0 else None
    factors = scan.multiplicative if scan.tof is None else scan.multiplicative[..., None]
    data = (jnp.asarray(scan.counts), jnp.asarray(factors), jnp.asarray(scan.additive))
    acquisition = acquire(system, *data, psf)
    if any(one is not None for one in maps.values()):  # before attenuation, which raises activity where it is known
        stacked = ordered_subsets(acquisition, settings.subsets)
        emission = early_emission(stacked, first_image(acquisition, grid, scan.scanner.field_of_view_mm), grid)
        background = float(scan.additive.sum(dtype=float) / scan.counts.sum(dtype=float))
        for line in check_coverage(emission, maps, background):
            say(line)
    if mu is not None:
        attenuation = attenuation_factors(system, mu)
        acquisition = acquire(system, data[0], data[1] * attenuation, data[2], psf)
    if settings.method not in SAMPLERS:  # the whole is not kept beside its subsets
        acquisition = ordered_subsets(acquisition, settings.subsets)
    image, sd = solve(acquisition, first_image(acquisition, grid, scan.scanner.field_of_view_mm), settings, part, grid)
    check_image(acquisition, image, settings.method, penalized=settings.method in PENALIZED)
    return post_filter(image, grid, settings.post_filter_mm), sd


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
