"""Planes and grids of a PET simulation: direct or oblique planes, and the voxels of the object and of its truth."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medjax.errors import ConfigError, DataError
from medjax.io.nifti import Volume, extent_mm
from medjax.pet.grid import Grid
from medjax.pet.scanner import Scanner
from medjax.pet.tof import Tof
from medjax.tools.checks import short_number

SIMULATION_VOXEL_MM = 1.0  # along x and y
OBJECT_MARGIN_MM = 10.0  # around the object, for the blur


class PlaneSettings(NamedTuple):
    """Planes of a simulated sinogram, and its time-of-flight bins."""

    planes: int | None = None  # number of direct planes, odd; oblique ones lie between the same rings
    span: int | None = None  # axial compression of oblique planes; None: direct planes alone
    max_ring_difference: int | None = None  # of oblique planes; None: all
    tof: Tof | None = None  # of oblique planes


def check_planes(scanner: Scanner, chosen: PlaneSettings, slice_mm: float | None) -> None:
    """Check the planes of a simulated sinogram and the position of the middle one.

    Raises:
        ConfigError: out of range.
    """
    planes, span, largest, tof = chosen
    if span is None and (largest is not None or tof is not None):
        raise ConfigError(
            f"{'--tof' if largest is None else '--max-ring-difference'} goes with --span, of oblique planes"
        )
    if planes is not None and (planes % 2 == 0 or not 1 <= planes <= scanner.planes):
        raise ConfigError(
            f"--planes {short_number(planes)}; expected an odd number from 1 to {scanner.planes}, those of "
            f"{scanner.name}"
        )
    if slice_mm is not None and not math.isfinite(slice_mm):
        raise ConfigError(f"--slice-mm {slice_mm}; expected mm")


def simulation_grids(
    scanner: Scanner,
    name: str,
    images: Sequence[Volume | None],
    center: tuple[float, float, float],
    planes: int | None,
    size: int,
    voxel_mm: float | None,
) -> tuple[Grid, Grid]:
    """Fine grid of the simulation, which contains the object, and grid of the reconstruction.

    Args:
        scanner: scanner.
        name: name of the object, for messages.
        images: activity and, where there is one, μ-map.
        center: position of the scanner's centre, RAS+ mm.
        planes: number of direct planes; None: as many as cover the object.
        size: voxels of the reconstruction's grid along x and y.
        voxel_mm: their size; None: the scanner's own.

    Raises:
        DataError: the object does not fit into the scanner, or is twice as wide as the reconstruction's grid.
    """
    plane_mm = scanner.ring_spacing_mm / 2
    reach = np.max([extent_mm(one, center) for one in images if one is not None], axis=0).tolist()
    if planes is None:
        planes = min(2 * math.ceil(max(reach[2] / plane_mm - 0.5, 0)) + 1, scanner.planes)
    max_half = math.floor(min((scanner.radius_mm + scanner.depth_mm) / math.sqrt(2), scanner.field_of_view_mm)) - 1
    half = max(reach[:2])
    if half > max_half:
        raise DataError(
            f"{name}: reaches {half:.0f} mm from the scanner's axis at x, y = {center[0]:g}, {center[1]:g} mm; "
            f"{scanner.name} allows {max_half} mm: crop the image, or use --centre"
        )
    voxel = voxel_mm or scanner.voxel_mm
    short = f"{name}: reaches {half:.0f} mm from the axis, the image grid {size * voxel / 2:.0f} mm"
    if half > size * voxel:
        raise DataError(f"{short}; expected a --size of {math.ceil(2 * half / voxel)} or more")
    if half > size * voxel / 2:
        warnings.warn(f"{short}; use --size {math.ceil(2 * half / voxel)} or more", stacklevel=2)
    side = 8 * math.ceil(min(half + OBJECT_MARGIN_MM, max_half) / SIMULATION_VOXEL_MM / 4)
    fine = Grid(
        (min(side, 2 * max_half), min(side, 2 * max_half), planes), (SIMULATION_VOXEL_MM, SIMULATION_VOXEL_MM, plane_mm)
    )
    return fine, Grid((size, size, planes), (voxel, voxel, plane_mm))
