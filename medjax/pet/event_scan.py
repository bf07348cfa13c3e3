"""A list-mode scan that is reconstructed event by event, each on its own line of response."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Array, Float

from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.pet.listmode_stream import EventStream, acquire_stream
from medjax.pet.psf import Psf


@dataclass(frozen=True)
class EventScan:
    """Events of a time frame, and how they are acquired.

    `stream(grid, mu)` reads them for an image grid; `mu` is an attenuation map on that grid in mm⁻¹, or None.
    """

    stream: Callable[[Grid, Float[Array, "x y z"] | None], EventStream]
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

    def acquire(
        self, grid: Grid, subsets: int, mu: Float[Array, "x y z"] | None, psf: Psf | None = None
    ) -> Acquisition:
        """Acquisition of all events, in so many subsets."""
        return acquire_stream(self.stream(grid, mu), grid, subsets, psf)
