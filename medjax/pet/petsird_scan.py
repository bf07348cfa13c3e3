"""PETSIRD list mode, event by event: what a reconstruction needs of each time frame."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.io.frames import Frames
from medjax.pet.acquisition import Acquisition
from medjax.pet.attenuation import line_attenuation
from medjax.pet.event_scan import EventScan
from medjax.pet.grid import Grid
from medjax.pet.listmode import acquire_events
from medjax.pet.petsird_events import Frame, list_events, read_petsird_scan
from medjax.pet.petsird_randoms import SinglesRates, singles_rates
from medjax.pet.petsird_scanner import Detectors
from medjax.pet.petsird_sensitivity import line_sensitivity
from medjax.pet.psf import Psf
from medjax.running.progress import say

VOXEL_MM = 2.0  # usual voxel size, along all axes


def read_petsird_frames(path: Path, frames: Frames | None = None) -> Iterator[EventScan]:
    """Read the events of a PETSIRD file, one frame after the other, with expected randoms from its delayeds.

    Raises:
        ConfigError, DataError: see `read_petsird_scan`; a frame without prompts.
    """
    scan = read_petsird_scan(path, frames)
    for index, frame in enumerate(scan.frames):
        prompts = frame.counts[0]
        frame_s = None if frames is None else frames[index]
        when = "" if frame_s is None else f"{frame_s[0]:g} to {frame_s[1]:g} s: "
        if not prompts:
            raise DataError(f"{path}: {when}no prompts; expected some")
        rates = singles_rates(scan.detectors, frame.delayeds)
        centers = np.concatenate([own.centers_mm.reshape(-1, 3) for own in scan.detectors.types])
        radius = float(np.hypot(centers[:, 0], centers[:, 1]).min())
        yield EventScan(
            partial(_acquire, scan.detectors, frame, rates),
            events=prompts,
            additive=float(rates.delayeds),
            field_of_view_mm=radius / np.sqrt(2),
            slices=2 * int(np.ceil(float(np.abs(centers[:, 2]).max()) / VOXEL_MM)) + 1,
            plane_mm=VOXEL_MM,
            voxel_mm=VOXEL_MM,
            summary=f"{when}{prompts:,} prompts, {rates.delayeds:,} of them expected randoms",
            uncorrected=("attenuation",),
            files=(path,),
            frame_s=frame_s,
        )


def _acquire(
    scanner: Detectors,
    frame: Frame,
    rates: SinglesRates,
    grid: Grid,
    subsets: int,
    mu: Float[Array, "x y z"] | None,
    psf: Psf | None,
) -> Acquisition:
    attenuation = line_attenuation(grid, mu)
    listed = list_events(scanner, frame.prompts, factors=attenuation, additive=rates.expected)
    sensitivity = line_sensitivity(scanner, grid, factors=attenuation)
    if sensitivity.variance is not None:
        seen = sensitivity.image > 0.1 * sensitivity.image.max()
        sd = float(np.sqrt(np.mean(sensitivity.variance[seen])) / np.mean(sensitivity.image[seen]))
        lors = f"{sensitivity.taken:,} of {sensitivity.lors:,} lines of response"
        say(f"sensitivity from {lors}: standard deviation {sd:.1%}")
    return acquire_events(
        listed.events,
        grid,
        sensitivity.image,
        float(rates.delayeds),
        number=subsets,
        psf=psf,
        tof_sd_mm=listed.tof_sd_mm,
    )
