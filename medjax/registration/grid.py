"""Grid of an image in the world: its shape, and the affine from voxel indices to RAS+ mm, as nibabel has it."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError

Matrix = Float[Array, "*batch size size"] | Float[np.ndarray, "*batch size size"]  # a batch: only under vmap
Points = Float[Array, "number dim"] | Float[np.ndarray, "number dim"]
HIGHEST = jax.lax.Precision.HIGHEST  # in TF32 a position would be off by a tenth of a millimetre


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels of an image of `shape`, 2-D or 3-D; `affine` takes the indices of voxel centres to world mm.

    A pytree whose affine is data; a NumPy affine (float64) is composed with others in double precision on the host.
    """

    shape: tuple[int, ...] = field(metadata={"static": True})
    affine: Matrix  # (dim + 1, dim + 1)


def check_grid(grid: Grid, name: str = "grid") -> Grid:
    """The grid itself, if its affine fits its shape and has an inverse.

    Raises:
        DataError: the affine has another size, is not finite or singular, or the grid is neither 2-D nor 3-D.
    """
    affine, size = np.asarray(grid.affine, float), len(grid.shape)
    if size not in (2, 3) or affine.shape != (size + 1, size + 1) or not np.isfinite(affine).all():
        raise DataError(
            f"{name}: shape {grid.shape} and a {'×'.join(map(str, affine.shape))} affine; expected 2 or 3 axes and a "
            "finite affine of one row more"
        )
    if abs(np.linalg.det(affine)) < 1e-12:
        raise DataError(f"{name}: singular affine; expected axes of positive length that span the space")
    return grid


def voxel_mm(grid: Grid) -> Float[Array, " dim"] | Float[np.ndarray, " dim"]:
    """Distance between voxel centres along each axis, mm."""
    linear = grid.affine[:-1, :-1]
    return jnp.linalg.norm(linear, axis=0) if isinstance(linear, jax.Array) else np.linalg.norm(linear, axis=0)


def to_world(grid: Grid, voxels: Points) -> Points:
    """World coordinates, RAS+ mm, of voxel coordinates."""
    return apply_matrix(grid.affine, voxels.T).T


def to_voxel(grid: Grid, points_mm: Points) -> Points:
    """Voxel coordinates of points in RAS+ mm."""
    return apply_matrix(inverse(grid.affine), points_mm.T).T


def center_mm(grid: Grid) -> Float[np.ndarray, " dim"]:
    """Centre of the field of view, RAS+ mm."""
    middle = (np.asarray(grid.shape) - 1) / 2
    return np.asarray(apply_matrix(np.asarray(grid.affine, float), middle))


def product(*matrices: Matrix) -> Matrix:
    """Product of affines, the last one first applied; in NumPy's double precision where all are NumPy's."""
    if any(isinstance(one, jax.Array) for one in matrices):
        out = jnp.asarray(matrices[0])
        for one in matrices[1:]:
            out = jnp.matmul(out, jnp.asarray(one), precision=HIGHEST)
        return out
    out = np.asarray(matrices[0], float)
    for one in matrices[1:]:
        out = np.matmul(out, np.asarray(one, float))
    return out


def inverse(matrix: Matrix) -> Matrix:
    """Inverse of an affine."""
    return jnp.linalg.inv(matrix) if isinstance(matrix, jax.Array) else np.linalg.inv(np.asarray(matrix, float))


def apply_matrix(matrix: Matrix, points: Any) -> Any:
    """Points of an affine, component first: A x + t."""
    return apply_linear(matrix, points) + matrix[:-1, -1].reshape(-1, *[1] * (points.ndim - 1))


def apply_linear(matrix: Matrix, vectors: Any) -> Any:
    """Vectors (differences of points) of an affine, component first: A x; on the host where both are NumPy's."""
    if isinstance(matrix, jax.Array) or isinstance(vectors, jax.Array):
        linear = jnp.asarray(matrix[:-1, :-1], jnp.float32)
        return jnp.tensordot(linear, jnp.asarray(vectors, jnp.float32), 1, precision=HIGHEST)
    return np.tensordot(matrix[:-1, :-1], vectors, 1)
