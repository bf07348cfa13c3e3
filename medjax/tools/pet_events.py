"""Reconstruction of list mode event by event: check, reconstruct, write, as `pet_reconstruct` does of sinograms."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from medjax import defaults
from medjax.errors import DataError
from medjax.io.nifti import Volume
from medjax.memory import available_memory
from medjax.pet.acquisition import select_subset
from medjax.pet.attenuation import check_mu
from medjax.pet.event_scan import EventScan
from medjax.pet.grid import Grid
from medjax.pet.listmode_stream import EventStream, acquire_stream, osem, single_bin
from medjax.pet.psf import Psf
from medjax.pet.scan import image_affine
from medjax.report.volumes import volume_files
from medjax.running.progress import say, track
from medjax.tools.checks import check_no_overwrite, check_position
from medjax.tools.pet_checks import (
    check_coverage,
    check_grid,
    check_grid_memory,
    check_image,
    early_emission,
    emission_of,
)
from medjax.tools.pet_memory import event_plan, require
from medjax.tools.pet_result import Reconstruction, finish, resample_map
from medjax.tools.pet_sample import SAMPLERS
from medjax.tools.pet_settings import PENALIZED, ReconstructionSettings, settings_for_counts, title
from medjax.tools.pet_solve import denoiser_or_regularizer, first_image, post_filter, psf_of, solve

EVENTS_AT_ONCE = 2**20  # of a stream: as many as are prepared
STREAMED = ("osem", "mlem")  # methods that can read the events anew in every iteration
Image = Float[np.ndarray, "x y z"]
Maps = Mapping[str, Float[Array | np.ndarray, "x y z"] | None]


def reconstruct_events(
    scan: EventScan,
    settings: ReconstructionSettings,
    requested: ReconstructionSettings,
    output: Path | None,
    mu: Path | Volume | None,
    mr: Path | Volume | None,
    size: int | None,
    voxel_mm: float | None,
) -> Reconstruction:
    """Reconstruct an image from single events; arguments as of `pet_reconstruct.reconstruct`.

    Args:
        scan: events.
        settings: complete settings.
        requested: as they were before they were completed.
        output: NIfTI file to write; None: none.
        mu: attenuation map in mm⁻¹.
        mr: MR image in the same space.
        size: voxels along x and y.
        voxel_mm: voxel size along x and y.

    Raises:
        ConfigError, DataError, OSError: as of `pet_reconstruct.reconstruct`.
    """
    check_position(scan.center_mm, "--centre")
    if output is not None:
        check_no_overwrite(
            volume_files(output, sd=True), [*scan.files, *(one for one in (mu, mr) if isinstance(one, Path))]
        )
    check_grid(size, voxel_mm)
    side, sampled = size or defaults.PET_SIZE, settings.method in SAMPLERS
    voxel = voxel_mm or scan.voxel_mm
    grid = Grid((side, side, scan.slices), (voxel, voxel, scan.plane_mm))
    check_grid_memory(grid)
    affine = image_affine(grid, scan.center_mm)
    mu_image = None if mu is None else resample_map(mu, "μ-map", grid, affine, check_mu)
    guide = None if mr is None else resample_map(mr, "MR image", grid, affine)
    part = denoiser_or_regularizer(settings, grid, guide, scan.tracer)
    possible = list(range(1, min(scan.events, settings.subsets) + 1))
    settings = settings_for_counts(settings, requested, scan.events / scan.slices, possible)
    plan = event_plan(scan.events, grid, 1 if sampled else settings.subsets, settings.method)
    streamed = settings.method in STREAMED and plan.total > available_memory()
    require(event_plan(EVENTS_AT_ONCE, grid, 1, settings.method) if streamed else plan)
    if scan.additive >= scan.events:
        raise DataError(f"{scan.files[0]}: the counts are explained by the randoms alone; expected some activity")
    say(scan.summary)
    missing = [effect for effect in scan.uncorrected if not (effect == "attenuation" and mu is not None)]
    note = ", ".join(["real data"] * scan.measured + [f"no {' or '.join(missing)} correction"] * bool(missing))
    if note:
        say(note)
    start = time.perf_counter()
    psf = psf_of(grid, settings.psf_mm) if settings.psf_mm > 0 else None
    stream, maps = scan.stream(grid, mu_image), {"μ-map": mu_image, "MR": guide}
    if streamed:
        image, sd = _streamed(scan, stream, grid, settings, psf, maps), None
    else:
        stacked = acquire_stream(stream, grid, 1 if sampled else settings.subsets, psf)
        if any(one is not None for one in maps.values()):
            check_maps(scan, early_emission(stacked, first_image(stacked, grid, scan.field_of_view_mm), grid), maps)
        acquisition = select_subset(stacked, 0) if sampled else stacked
        image, sd = solve(acquisition, first_image(stacked, grid, scan.field_of_view_mm), settings, part, grid)
        check_image(stacked, image, settings.method, penalized=settings.method in PENALIZED)
    image = post_filter(image, grid, settings.post_filter_mm)
    made = Reconstruction(
        image, sd, affine, f"{title(settings)}, list mode", note, float(scan.events), time.perf_counter() - start, None
    )
    return finish(made, output, scan.frame_s)


def _streamed(
    scan: EventScan, stream: EventStream, grid: Grid, settings: ReconstructionSettings, psf: Psf | None, maps: Maps
) -> Image:
    """Image of events that do not fit into memory: each iteration reads them from the file."""
    say(f"{scan.events:,} events do not fit into memory: each iteration reads them from the file")
    whole = single_bin(stream, psf)
    state = first_image(whole, grid, scan.field_of_view_mm)
    states = osem(stream, grid, state.image, settings.iterations, settings.subsets, psf)
    for state in track(states, settings.method):  # noqa: B007 (the last one)
        pass
    image = np.asarray(state.image)
    check_image(whole, image, settings.method)
    check_maps(scan, emission_of(image, grid), maps)
    return image


def check_maps(scan: EventScan, emission: Image, maps: Maps) -> None:
    """Check that maps cover the emission; a line tells how much of it.

    Raises:
        DataError: less than two thirds are covered.
    """
    for line in check_coverage(emission, maps, scan.additive / scan.events):
        say(line)
