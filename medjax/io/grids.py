"""Whether two images lie on one grid, by the positions of its corners.

An affine's entries do not tell it: a rotation by a hundredth moves the far edge of a head by millimetres.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError

TOLERANCE = 0.05  # voxels between corners that count as one place: headers are rounded to single precision or less
MIN_VOXEL_MM, MAX_VOXEL_MM = 1e-4, 1e4
MAX_POSITION_MM = 1e5  # 100 m from the origin; beyond, float32 affines lose millimetres

Affine = Float[np.ndarray, "4 4"]


def check_same_grid(
    name: Path | str,
    shape: tuple[int, ...],
    affine: Affine | None,
    other: Path | str,
    other_shape: tuple[int, ...],
    other_affine: Affine | None,
) -> None:
    """Check that an image lies on the grid of another: the same shape, its corners at the same places.

    Args:
        name: the image in messages.
        shape: its shape; the first three axes lie in space, a slice has two.
        affine: its affine, in mm; None (PNG): only shapes are compared.
        other, other_shape, other_affine: the same of the image whose grid is expected.

    Raises:
        DataError: shapes differ, or a corner lies more than `TOLERANCE` voxels from the other's.
    """
    if shape != other_shape:
        raise DataError(f"{name}: shape {shape}; expected that of {other}, {other_shape}")
    if affine is None or other_affine is None:
        return
    voxels, millimetres = corner_distance(shape, affine, other_affine)
    if not voxels <= TOLERANCE:
        raise DataError(
            f"{name}: another affine than {other}, corners up to {millimetres:.3g} mm ({voxels:.2g} voxels) apart; "
            "expected one grid: resample it, or correct its header if it is wrong"
        )


def corner_distance(shape: tuple[int, ...], affine: Affine, other: Affine) -> tuple[float, float]:
    """Largest distance between the corners of a grid under two affines: voxels along an axis of `affine`, and mm."""
    sides = (*shape, 1, 1)[:3]
    corners = np.array([(*index, 1) for index in product(*((-0.5, side - 0.5) for side in sides))])
    apart = corners @ (np.asarray(other, float) - np.asarray(affine, float)).T[:, :3]
    voxels = np.linalg.solve(np.asarray(affine, float)[:3, :3], apart.T)
    return float(np.abs(voxels).max()), float(np.linalg.norm(apart, axis=1).max())


def check_voxel_mm(name: Path | str, sides: Sequence[float]) -> None:
    """Check the voxel sizes of a file: from microscopy to a body in one voxel; others are errors of a unit.

    Raises:
        DataError: one is out of range.
    """
    if not all(MIN_VOXEL_MM <= side <= MAX_VOXEL_MM for side in sides):
        found = " × ".join(f"{side:.4g}" for side in sides)
        raise DataError(f"{name}: voxels of {found} mm; expected {MIN_VOXEL_MM:g} to {MAX_VOXEL_MM:g} along each axis")
