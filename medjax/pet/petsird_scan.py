"""PETSIRD list mode, event by event: what a reconstruction needs of each time frame."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.io.frames import Frames
from medjax.pet.attenuation import line_attenuation
from medjax.pet.event_scan import EventScan
from medjax.pet.grid import Grid
from medjax.pet.listmode import Events
from medjax.pet.listmode_stream import EventStream
from medjax.pet.petsird_events import list_events, read_petsird_scan, read_prompts
from medjax.pet.petsird_randoms import SinglesRates, singles_rates
from medjax.pet.petsird_scanner import Detectors
from medjax.pet.petsird_sensitivity import line_sensitivity
from medjax.pet.petsird_simulation import SIMULATION
from medjax.running.progress import say

VOXEL_MM = 2.0  # usual voxel size, along all axes


def read_petsird_frames(path: Path, frames: Frames | None = None) -> Iterator[EventScan]:
    """Read the events of a PETSIRD file, one frame after the other, with expected randoms from its delayeds.

    Raises:
        ConfigError, DataError: see `read_petsird_scan`; a frame without prompts.
    """
    scan = read_petsird_scan(path, frames)
    for index, frame in enumerate(scan.frames):
        prompts = frame.prompts
        frame_s = None if frames is None else frames[index]
        when = "" if frame_s is None else f"{frame_s[0]:g} to {frame_s[1]:g} s: "
        if not prompts:
            raise DataError(f"{path}: {when}no prompts; expected some")
        rates = singles_rates(scan.detectors, frame.delayeds)
        centers = np.concatenate([own.centers_mm.reshape(-1, 3) for own in scan.detectors.types])
        radius = float(np.hypot(centers[:, 0], centers[:, 1]).min())
        yield EventScan(
            partial(_stream, path, scan.detectors, prompts, rates, frame_s),
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
            measured=SIMULATION not in scan.detectors.name,
        )


def _stream(
    path: Path,
    scanner: Detectors,
    prompts: int,
    rates: SinglesRates,
    frame_s: tuple[float, float] | None,
    grid: Grid,
    mu: Float[Array, "x y z"] | None,
) -> EventStream:
    attenuated = line_attenuation(grid, mu)
    sensitivity = line_sensitivity(scanner, grid, factors=attenuated)
    if sensitivity.variance is not None:
        seen = sensitivity.image > 0.1 * sensitivity.image.max()
        sd = float(np.sqrt(np.mean(sensitivity.variance[seen])) / np.mean(sensitivity.image[seen]))
        lors = f"{sensitivity.taken:,} of {sensitivity.lors:,} lines of response"
        say(f"sensitivity from {lors}: standard deviation {sd:.1%}")

    def read() -> Iterator[Events]:
        for chunk in read_prompts(path, frame_s):
            yield list_events(scanner, chunk, factors=attenuated, additive=rates.expected).events

    return EventStream(read, prompts, float(rates.delayeds), sensitivity.image)
