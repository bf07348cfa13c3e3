"""A list-mode scan that is reconstructed event by event, each on its own line of response."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Array, Float

from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.pet.psf import Psf


@dataclass(frozen=True)
class EventScan:
    """Events of a time frame, and how they are acquired.

    `acquire(grid, subsets, mu, psf)` gives the acquisition of an image grid in so many subsets of the events; `mu` is
    an attenuation map on that grid in mm⁻¹, or None.
    """

    acquire: Callable[[Grid, int, Float[Array, "x y z"] | None, Psf | None], Acquisition]
    events: int  # number of prompts
    additive: float  # expected randoms + scatter among them
    field_of_view_mm: float  # radius
    slices: int  # number of slices that cover the scanner
    plane_mm: float  # their distance
    voxel_mm: float  # usual voxel size along x and y
    summary: str
    uncorrected: tuple[str, ...]
    files: tuple[Path, ...]
    frame_s: tuple[float, float] | None = None  # start and end of the frame; None: the whole file
    corrections: Mapping[str, str] = field(default_factory=dict)  # effects that the factors correct, and who says so
    tracer: str = ""
    measured: bool = True
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)  # middle of the scanner, RAS+
