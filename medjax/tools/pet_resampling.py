"""Volumes on the grids of a PET simulation, whose stacks reach beyond the scanner's planes."""

from itertools import product

import numpy as np
from jaxtyping import Float

from medjax.io.nifti import Volume, resample
from medjax.pet.grid import Grid
from medjax.pet.scan import image_affine


def resample_to_grid(
    volume: Volume | None, grid: Grid, center: tuple[float, float, float]
) -> Float[np.ndarray, "x y z"] | None:
    """The volume on a grid whose centre is at `center`, mm; None for None."""
    return None if volume is None else resample(volume, grid.shape, image_affine(grid, center)).array


def resample_beyond_ends(
    volume: Volume, grid: Grid, planes: int, center: tuple[float, float, float]
) -> Float[np.ndarray, "x y z"]:
    """The volume on a grid longer than its stack of `planes`; where the volume ends with the stack, it is mirrored."""
    array = resample(volume, grid.shape, image_affine(grid, center)).array
    corners = np.array([*product(*((-0.5, n - 0.5) for n in volume.array.shape))])
    ends = corners @ volume.affine[2, :3] + volume.affine[2, 3]
    z = image_affine(grid, center)[2, 3] + grid.voxel_mm[2] * np.arange(grid.shape[2])
    margin = (grid.shape[2] - planes) // 2
    unknown = (int(np.sum(z < ends.min())), int(np.sum(z > ends.max())))
    below, above = (number if number <= margin else 0 for number in unknown)  # more: it ends within the stack
    return np.pad(array[:, :, below : len(z) - above], ((0, 0), (0, 0), (below, above)), "symmetric")
