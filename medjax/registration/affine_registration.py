"""Rigid and affine registration of two images with their grids: the affine map of world points, mm.

A point x of the fixed image's world goes to B (R S (x − c) + c + t), with c the fixed image's centre of mass, B the
start (by default the translation between centres of mass), R a rotation (exponential map), S upper triangular (scales
exp(s), shears h) and t a translation. The optimiser sees all parameters in mm, angles and strains times a radius of the
image, so one step length fits them all.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax import iterate
from medjax.errors import DataError
from medjax.interpolation import in_field_of_view, sample
from medjax.registration.grid import Grid, check_grid, to_world, voxel_mm
from medjax.registration.pyramid import downsample
from medjax.registration.similarity import Similarity, mutual_information
from medjax.registration.warp import identity

Kind = Literal["rigid", "affine"]
Image = Float[Array, "*space"] | Float[np.ndarray, "*space"]
HIGHEST = lax.Precision.HIGHEST
ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)
ANGLES = (-20.0, 0.0, 20.0)  # degrees about each axis, tried at the start
DEFAULT_SIMILARITY = mutual_information(32)
MIN_OVERLAP = 0.05  # fraction of the fixed image that must be inside the moving one


class State(NamedTuple):
    """What the next step needs."""

    parameters: Float[Array, " parameter"]  # mm
    moments: PyTree  # of Adam
    step: Int[Array, ""]  # steps made


class Info(NamedTuple):
    """What a reader wants of a step."""

    loss: Scalar  # of the parameters that entered the step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """Two images of one level, their affines, the reference frame of the parameters, and settings."""

    fixed: Float[Array, "*space"]
    moving: Float[Array, "*other"]
    mask: Float[Array, "*space"] | None
    fixed_affine: Float[Array, "size size"]
    to_moving: Float[Array, "size size"]  # voxels of the moving image from world points after R S (x − c) + c + t
    center: Float[Array, " dim"]  # c, mm
    radius: Scalar  # mm
    length: Scalar  # of the first step, mm
    total: Scalar  # steps of the level
    kind: Kind = field(metadata={"static": True})
    similarity: Similarity = field(metadata={"static": True})


def register_affine(
    fixed: Image,
    fixed_grid: Grid,
    moving: Float[Array, "*other"] | Float[np.ndarray, "*other"],
    moving_grid: Grid,
    *,
    kind: Kind = "affine",
    similarity: Similarity = DEFAULT_SIMILARITY,
    factors: tuple[int, ...] = (4, 2, 1),
    iterations: tuple[int, ...] = (100, 60, 40),
    start: Float[Array, "size size"] | Float[np.ndarray, "size size"] | None = None,
    mask: Float[Array, "*weights"] | Float[np.ndarray, "*weights"] | None = None,
) -> Float[Array, "size size"]:
    """Matrix of the rigid or affine map of fixed world points to moving world points, RAS+ mm.

    Levels are coarser than the mean voxel of the fixed image by `factors`, along each axis as near as whole blocks of
    voxels allow, so that anisotropic images are nearly isotropic at coarse ones. The first level starts at the best of
    rotations by −20°, 0° and 20° about each axis around the centres of mass. Voxels that are mapped out of the moving
    image's field of view do not count.

    Args:
        fixed: image.
        fixed_grid: its grid.
        moving: image that will be resampled.
        moving_grid: its grid; orientation, voxel size and shape may differ from the fixed one's.
        kind: "rigid" (3 parameters in 2-D, 6 in 3-D) or "affine" (6, 12).
        similarity: (warped, fixed, mask) -> loss; by default mutual information, for images of any two contrasts.
        factors: of the levels, from coarse to fine; images of fewer than 8 voxels a side fit one another in several
            poses: leave such levels out.
        iterations: steps of each level.
        start: matrix to start from instead of the centres of mass.
        mask: weights ≥ 0 of the fixed image's voxels.

    Raises:
        DataError: an image does not fit its grid, is not finite or of another dimension; levels and iterations do not
            match; the registration diverges or ends with hardly any overlap.
    """
    _check(fixed, fixed_grid, moving, moving_grid, mask, kind, factors, iterations)
    dim, center = fixed.ndim, center_of_mass(fixed, fixed_grid)
    base = np.eye(dim + 1) if start is None else np.asarray(start, float)
    if start is None:
        base[:dim, dim] = center_of_mass(moving, moving_grid) - center
    mean_mm = float(np.prod(np.asarray(voxel_mm(fixed_grid))) ** (1 / dim))
    radius = float(np.linalg.norm(np.asarray(voxel_mm(fixed_grid)) * fixed.shape) / 4)
    parameters = jnp.zeros(dim * (dim + 1) // 2 * (2 if kind == "affine" else 1), jnp.float32)
    problem, inside = None, 0.0
    for number, (factor, steps) in enumerate(zip(factors, iterations, strict=True)):
        size_mm = factor * mean_mm
        (near, near_affine), (far, far_affine) = (
            _level(image, grid, size_mm) for image, grid in ((fixed, fixed_grid), (moving, moving_grid))
        )
        problem = Problem(
            near, far, None if mask is None else _level(mask, fixed_grid, size_mm)[0], _single(near_affine),
            _single(np.matmul(np.linalg.inv(far_affine), base)), _single(center), _single(radius),
            _single(size_mm * (0.5 if number == 0 else 0.2)), _single(steps), kind, similarity,
        )  # fmt: skip
        if number == 0 and start is None:
            parameters = _best_rotation(problem, parameters)
        parameters = _optimize(problem, parameters, steps)
        if not bool(jnp.isfinite(parameters).all()):
            raise DataError(
                f"{kind} registration diverged at factor {factor}; expected a smaller first step or a start"
            )
    if problem is None or (inside := float(_overlap(problem, parameters))) < MIN_OVERLAP:
        raise DataError(f"moving: {inside:.0%} of fixed is inside its field of view at the end; check both affines")
    own = np.asarray(to_matrix(parameters, _single(center), _single(radius), kind), float)
    return _single(np.matmul(base, own))


def center_of_mass(image: Image, grid: Grid) -> Float[np.ndarray, " dim"]:
    """Centre of mass of the intensities above their minimum, RAS+ mm; the grid's centre if the image is constant."""
    weights = np.asarray(image, float) - float(np.min(np.asarray(image)))
    total = weights.sum()
    axes = range(weights.ndim)
    if total <= 0:
        voxels = (np.asarray(weights.shape) - 1) / 2
    else:
        alone = [weights.sum(tuple(k for k in axes if k != axis)) for axis in axes]
        voxels = np.array([np.dot(np.arange(len(profile)), profile) / total for profile in alone])
    return np.asarray(to_world(grid, voxels[None])[0], float)


def to_matrix(
    parameters: Float[Array, " parameter"], center: Float[Array, " dim"], radius: Scalar, kind: Kind
) -> Float[Array, "size size"]:
    """Homogeneous matrix of R S (x − c) + c + t from parameters in mm: translation, rotation, log scales, shears."""
    dim = len(center)
    turns = dim * (dim - 1) // 2
    translation, angles, strains = parameters[:dim], parameters[dim : dim + turns], parameters[dim + turns :]
    linear = _rotation(angles / radius, dim)
    if kind == "affine":
        scales = jnp.diag(jnp.exp(strains[:dim] / radius))
        upper = jnp.zeros((dim, dim)).at[np.triu_indices(dim, 1)].set(strains[dim:] / radius)
        linear = jnp.matmul(linear, scales + upper, precision=HIGHEST)
    shift = translation + center - jnp.matmul(linear, center, precision=HIGHEST)
    return jnp.eye(dim + 1).at[:dim, :dim].set(linear).at[:dim, dim].set(shift)


def init(parameters: Float[Array, " parameter"]) -> State:
    """State that starts from these parameters."""
    return State(parameters, ADAM.init(parameters), jnp.zeros((), jnp.int32))


def step(problem: Problem, state: State) -> tuple[State, Info]:
    """One step of Adam, its length falling to a twentieth of the first along a half cosine."""
    loss, gradient = jax.value_and_grad(_loss, 1)(problem, state.parameters)
    direction, moments = ADAM.update(gradient, state.moments)
    direction = jnp.asarray(direction)
    decay = 0.05 + 0.95 * 0.5 * (1 + jnp.cos(jnp.pi * state.step / problem.total))
    parameters = state.parameters - problem.length * decay * direction
    return State(parameters, moments, state.step + 1), Info(loss)


def _loss(problem: Problem, parameters: Array) -> Scalar:
    coords = _coordinates(problem, parameters)
    inside = lax.stop_gradient(in_field_of_view(coords, problem.moving.shape)).astype(coords.dtype)
    weights = inside if problem.mask is None else inside * problem.mask
    return problem.similarity(sample(problem.moving[None], coords)[0], problem.fixed, weights)


def _coordinates(problem: Problem, parameters: Array) -> Array:
    """Voxel coordinates in the moving image of the fixed image's voxels."""
    own = to_matrix(parameters, problem.center, problem.radius, problem.kind)
    matrix = jnp.matmul(problem.to_moving, jnp.matmul(own, problem.fixed_affine, precision=HIGHEST), precision=HIGHEST)
    dim = problem.fixed.ndim
    turned = jnp.tensordot(matrix[:dim, :dim], identity(problem.fixed.shape), 1, precision=HIGHEST)
    return turned + matrix[:dim, dim].reshape(-1, *[1] * dim)


@jax.jit
def _overlap(problem: Problem, parameters: Array) -> Scalar:
    return in_field_of_view(_coordinates(problem, parameters), problem.moving.shape).mean()


@partial(jax.jit, static_argnames="factors")
def _downsample(image: Array, factors: tuple[int, ...]) -> Array:
    return downsample(image, factors)


@partial(jax.jit, static_argnames="steps")
def _optimize(problem: Problem, parameters: Array, steps: int) -> Array:
    algorithm = iterate.Algorithm(init, Partial(step, problem))
    return iterate.scan(algorithm, init(parameters), steps)[0].parameters


@jax.jit
def _best_rotation(problem: Problem, parameters: Array) -> Array:
    """Parameters of the best rotation out of all combinations of ANGLES."""
    dim = problem.fixed.ndim
    turns = dim * (dim - 1) // 2
    angles = np.radians(list(product(ANGLES, repeat=turns))).astype(np.float32)
    tries = jnp.tile(parameters, (len(angles), 1)).at[:, dim : dim + turns].set(angles * problem.radius)
    return tries[jnp.argmin(lax.map(partial(_loss, problem), tries))]


def _rotation(angles: Array, dim: int) -> Array:
    """Exponential map: Rodrigues' formula, with its series where the angle is small."""
    if dim == 2:
        cos, sin = jnp.cos(angles[0]), jnp.sin(angles[0])
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    x, y, z = angles
    zero = jnp.zeros_like(x)
    skew = jnp.stack([jnp.stack([zero, -z, y]), jnp.stack([z, zero, -x]), jnp.stack([-y, x, zero])])
    square = jnp.sum(angles**2)
    small = square < 1e-6
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    first = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    second = jnp.where(small, 0.5 - square / 24, (1 - jnp.cos(angle)) / angle**2)
    return jnp.eye(3) + first * skew + second * jnp.matmul(skew, skew, precision=HIGHEST)


def _level(image: Image, grid: Grid, size_mm: float) -> tuple[Array, np.ndarray]:
    """Image with voxels near `size_mm`, as whole blocks allow, and its affine."""
    factors = tuple(max(1, round(size_mm / float(mm))) for mm in voxel_mm(grid))
    blocks = np.eye(image.ndim + 1)
    blocks[:-1, :-1], blocks[:-1, -1] = np.diag(factors), (np.asarray(factors) - 1) / 2
    return _downsample(jnp.asarray(image, jnp.float32), factors), np.matmul(np.asarray(grid.affine, float), blocks)


def _single(values: Any) -> Array:
    return jnp.asarray(values, jnp.float32)


def _check(
    fixed: Any, fixed_grid: Grid, moving: Any, moving_grid: Grid, mask: Any,
    kind: str, factors: tuple[int, ...], iterations: tuple[int, ...],
) -> None:  # fmt: skip
    if kind not in ("rigid", "affine"):
        raise DataError(f'kind: {kind!r}; expected "rigid" or "affine"')
    if len(factors) != len(iterations) or not factors or min(factors) < 1 or min(iterations) < 0:
        raise DataError(f"factors: {factors}, iterations: {iterations}; expected as many, ≥ 1 and ≥ 0, one a level")
    if fixed.ndim != moving.ndim:
        raise DataError(f"moving: {moving.ndim} axes; expected {fixed.ndim}, as fixed has")
    for name, image, grid in (
        ("fixed", fixed, fixed_grid),
        ("moving", moving, moving_grid),
        ("mask", mask, fixed_grid),
    ):
        if image is None:
            continue
        check_grid(grid, f"{name}'s grid")
        if image.shape != grid.shape:
            raise DataError(f"{name}: shape {image.shape}; expected that of its grid, {grid.shape}")
        if not np.isfinite(np.asarray(image)).all():
            raise DataError(f"{name}: holds values that are not finite; expected an image without NaN or infinity")
