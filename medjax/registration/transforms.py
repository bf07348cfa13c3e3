"""Transforms in world millimetres (RAS+), chains of them, and what a chain does to images and points.

A transform takes points of the fixed image's space to the moving image's, which is how images are resampled: the value
at a voxel of the target grid is that of the image at the transformed point. A chain is a tuple, its first transform
applied first; any chain costs one interpolation of the image.

    resample(moving, moving_grid, fixed_grid, (AffineTransform(matrix), FieldTransform(field_mm, fixed_grid)))

Source of the conventions: ITK Software Guide, 3.9 (Transforms); here in RAS+ where ITK has LPS+.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from medjax.errors import DataError
from medjax.interpolation import sample, sample_nearest
from medjax.registration.grid import Grid, Matrix, Points, apply_linear, apply_matrix, inverse, product
from medjax.registration.warp import identity


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AffineTransform:
    """World point x, mm → A x + t of a homogeneous matrix, (dim + 1, dim + 1)."""

    matrix: Matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FieldTransform:
    """World point x → x + d(x), mm; d is interpolated linearly on its grid and 0 outside of it, as in ITK."""

    displacement_mm: Float[Array, "dim *space"] | Float[np.ndarray, "dim *space"]  # components along RAS+
    grid: Grid


Transform = AffineTransform | FieldTransform
Chain = tuple[Transform, ...]


def from_displacement(
    displacement: Float[Array, "dim *space"] | Float[np.ndarray, "dim *space"], grid: Grid
) -> FieldTransform:
    """Transform in mm of a displacement in voxels of the grid it lies on."""
    return FieldTransform(apply_linear(grid.affine, displacement), grid)


def transform_world_points(chain: Chain, points_mm: Points) -> Float[Array, "number dim"]:
    """Points of the moving image's space, RAS+ mm, for points of the fixed image's space.

    Raises:
        DataError: a transform has another dimension than the points.
    """
    points = jnp.asarray(points_mm, jnp.float32).T
    size = len(points)
    return _run(chain, np.eye(size + 1), points, np.eye(size + 1)).T


def resample(
    image: Shaped[Array, "*space"] | Shaped[np.ndarray, "*space"],
    image_grid: Grid,
    target_grid: Grid,
    chain: Chain = (),
    *,
    order: Literal["linear", "nearest"] = "linear",
    outside: int | float | None = 0.0,
) -> Shaped[Array, "*target"]:
    """Image on another grid, through a chain of transforms, interpolated once.

    Args:
        image: values on `image_grid`.
        image_grid: grid of the image (the moving one).
        target_grid: grid of the result (the fixed one).
        chain: transforms from the target's space to the image's, the first one first; none: the same space.
        order: "linear", or "nearest" for labels, which keep their type.
        outside: value outside the image's field of view; None repeats its edge values.

    Raises:
        DataError: an image, a grid or a transform has another dimension than the rest, or the image is off its grid.
    """
    if image.shape != image_grid.shape:
        raise DataError(f"image: shape {image.shape}; expected that of its grid, {image_grid.shape}")
    coords = moving_voxels(chain, target_grid, image_grid)
    if order == "nearest":
        return sample_nearest(jnp.asarray(image)[None], coords, outside=outside)[0]
    fill = None if outside is None else float(outside)
    return sample(jnp.asarray(image, jnp.float32)[None], coords, outside=fill)[0]


def moving_voxels(chain: Chain, fixed_grid: Grid, moving_grid: Grid) -> Float[Array, "dim *space"]:
    """Voxel coordinates in the moving grid of every voxel of the fixed grid.

    Raises:
        DataError: a grid or a transform has another dimension than the fixed grid.
    """
    _check_dimension(len(fixed_grid.shape), len(moving_grid.shape), "moving grid")
    return _run(chain, fixed_grid.affine, identity(fixed_grid.shape), inverse(moving_grid.affine))


def to_displacement(chain: Chain, fixed_grid: Grid, moving_grid: Grid) -> Float[Array, "dim *space"]:
    """Displacement u, in voxels, with which `warp` does what `resample` does: u(x) = y(x) − x.

    x is a voxel of the fixed grid, y(x) its coordinates in the moving grid; warped(x) = moving(x + u(x)).
    """
    return moving_voxels(chain, fixed_grid, moving_grid) - identity(fixed_grid.shape)


def compose_chain(chain: Chain, grid: Grid) -> FieldTransform:
    """One field on `grid` that does what the chain does at its voxels; outside of the grid it does nothing."""
    start = identity(grid.shape)
    end = _run(chain, grid.affine, start, np.eye(len(grid.shape) + 1))
    return FieldTransform(end - apply_matrix(grid.affine, start), grid)


def invert_chain(chain: Chain, *, grid: Grid | None = None, iterations: int = 30) -> Chain:
    """Inverse of each transform, in the opposite order.

    A field is inverted by fixed-point iteration around the affine map nearest to it, so that fields that hold a whole
    affine are inverted too, on `grid` or, by default, on its own, which should hold what it maps to.
    """
    return tuple(
        AffineTransform(inverse(one.matrix))
        if isinstance(one, AffineTransform)
        else invert_field(one, one.grid if grid is None else grid, iterations)
        for one in reversed(chain)
    )


def invert_field(field: FieldTransform, grid: Grid, iterations: int = 30) -> FieldTransform:
    """Inverse of a field on `grid`: x with A x + r(x) = y, by x ← A⁻¹ (y − r(x)), for each voxel's y.

    A x is the affine map nearest to x + d(x) in the mean of squares, r(x) = x + d(x) − A x continued by edge values.
    """
    size = len(grid.shape)
    points = apply_matrix(field.grid.affine, identity(field.grid.shape))
    displacement = jnp.asarray(field.displacement_mm)
    nearest = _nearest_affine(points.reshape(size, -1), displacement.reshape(size, -1))
    rest = points + displacement - apply_matrix(nearest, points)
    back, to_voxel = inverse(nearest), inverse(field.grid.affine)
    target = apply_matrix(grid.affine, identity(grid.shape))

    def iterate(x: Array, _: None) -> tuple[Array, None]:
        return apply_matrix(back, target - sample(rest, apply_matrix(to_voxel, x))), None

    found, _ = jax.lax.scan(iterate, apply_matrix(back, target), length=iterations)
    return FieldTransform(found - target, grid)


def _nearest_affine(points: Array, displacement: Array) -> Array:
    """Affine A of least Σ |x + d(x) − A x|², (size + 1, size + 1); axes of one voxel are left as they are."""
    size = len(points)
    middle, shift = points.mean(1, keepdims=True), displacement.mean(1, keepdims=True)
    apart, moved = points - middle, displacement - shift
    gram = jnp.matmul(apart, apart.T, precision=jax.lax.Precision.HIGHEST)
    cross = jnp.matmul(moved, apart.T, precision=jax.lax.Precision.HIGHEST)
    linear = jnp.eye(size) + jnp.matmul(
        cross, jnp.linalg.pinv(gram, hermitian=True), precision=jax.lax.Precision.HIGHEST
    )
    translation = middle + shift - jnp.matmul(linear, middle, precision=jax.lax.Precision.HIGHEST)
    last = jnp.eye(size + 1)[-1:]
    return jnp.concatenate([jnp.concatenate([linear, translation], 1), last])


def _run(chain: Chain, start: Matrix, points: Array, end: Matrix) -> Array:
    """end ∘ chain ∘ start of points, component first: affines that follow each other are one."""
    matrix = start
    for transform in chain:
        if isinstance(transform, AffineTransform):
            _check_dimension(len(points), len(transform.matrix) - 1, "affine transform")
            matrix = product(transform.matrix, matrix)
            continue
        _check_dimension(len(points), len(transform.displacement_mm), "displacement field")
        world = apply_matrix(matrix, points)
        inside = apply_matrix(product(inverse(transform.grid.affine), matrix), points)
        points = world + sample(jnp.asarray(transform.displacement_mm, jnp.float32), inside, outside=0.0)
        matrix = np.eye(len(points) + 1)
    return apply_matrix(product(end, matrix), points)


def _check_dimension(size: int, found: int, name: str) -> None:
    if found != size:
        raise DataError(f"{name}: {found}-D; expected {size}-D, as the fixed image (or the points)")
