"""A reconstructed image: its unit, its error and its files; and maps resampled to its grid."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.io.grids import TOLERANCE, corner_distance
from medjax.io.nifti import Volume, resample
from medjax.metrics.image import nrmse
from medjax.pet.grid import Grid
from medjax.report.figures import PET
from medjax.report.volumes import write_volume
from medjax.running.progress import say
from medjax.tools.checks import check_volume

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
    files: tuple[Path, ...] = ()  # image, figure, standard deviation


def finish(
    reconstruction: Reconstruction, output: Path | None, frame_s: tuple[float, float] | None = None
) -> Reconstruction:
    """The image, of a time frame in activity a second, written with its figure where there is an output.

    Raises:
        OSError: a file cannot be written.
    """
    scale = PET._replace(unit="activity, counts per mm" if frame_s is None else "activity a second")
    if frame_s is not None:
        factor = np.float32(1 / (frame_s[1] - frame_s[0]))
        sd = None if reconstruction.sd is None else reconstruction.sd * factor
        reconstruction = reconstruction._replace(image=reconstruction.image * factor, sd=sd)
    if output is None:
        return reconstruction
    image, sd, affine, title, note, *_ = reconstruction
    return reconstruction._replace(files=write_volume(output, image, affine, scale, title, sd, note))


def resample_map(
    source: Path | Volume, name: str, grid: Grid, affine: Affine, check: Callable[[Any], None] | None = None
) -> Float[Array, "x y z"]:
    """Map, such as a μ-map or an MR image, resampled to an image grid.

    Raises:
        DataError: the check refuses it, or it is 0 in the whole grid.
    """
    volume, name = check_volume(source, name, check)
    array = resample(volume, grid.shape, affine).array
    if not array.any():
        first, last = affine[:3, 3], np.matmul(affine[:3, :3], np.subtract(grid.shape, 1)) + affine[:3, 3]
        where = ", ".join(f"{a} {low:.0f} to {high:.0f}" for a, low, high in zip("xyz", first, last, strict=True))
        raise DataError(f"{name}: 0 in the whole image grid ({where} mm); expected the same space, or --centre")
    return jnp.asarray(array)


def error_against(truth: Volume | None, image: Image, affine: Affine) -> float | None:
    """NRMSE against a truth on the same grid; None where there is none, or, which is said, one on another grid."""
    if truth is None or not truth.array.any():
        return None
    if truth.array.shape == image.shape and corner_distance(image.shape, affine, truth.affine)[0] <= TOLERANCE:
        return float(nrmse(image, truth.array))
    voxel = np.linalg.norm(truth.affine[:3, :3], axis=0)
    shape, size = (" × ".join(f"{one:g}" for one in values) for values in (truth.array.shape, voxel.round(3)))
    say(f"no NRMSE: the truth in the counts' file is on another grid, {shape} voxels of {size} mm")
    return None
