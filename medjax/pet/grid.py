"""Image grid: voxels whose centre is the scanner's centre, `(x, y, z)` in RAS+ mm."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError


@dataclass(frozen=True)
class Grid:
    """Image grid of `shape` voxels of `voxel_mm`; x grows to the right, y to the front, z to the head. Hashable."""

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.shape[:2]) < 2 or self.shape[2] < 1 or min(self.voxel_mm) <= 0:
            raise DataError(
                f"grid: {self.shape} voxels of {self.voxel_mm} mm; expected at least 2 × 2 × 1 of a positive size"
            )

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Affine matrix, voxel index to mm, with the centre of the grid at the origin."""
        affine = np.diag([*self.voxel_mm, 1.0])
        affine[:3, 3] = -np.asarray(self.voxel_mm) * (np.asarray(self.shape) - 1) / 2
        return affine

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(np.prod(self.voxel_mm))


def centers_mm(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxel centres along x, y and z in mm, shaped to broadcast against a volume."""
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(grid.shape, grid.voxel_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return x, y, z


def in_field_of_view(grid: Grid, radius_mm: float) -> np.ndarray:
    """Mask of the field of view: voxels whose centre lies within `radius_mm` of the scanner's axis."""
    x, y, _ = centers_mm(grid)
    return np.broadcast_to(np.hypot(x, y) <= radius_mm, grid.shape)
