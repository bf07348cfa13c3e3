"""Greedy deformable registration: compositional gradient steps, smoothed, from coarse to fine; no training.

    register(fixed, moving)                              the whole of it: Deformation(displacement, inverse)
    jax.vmap(partial(register, factors=(4, 2)))(f, m)    many pairs at once, as one by one
    greedy(fixed, moving, similarity)                    one level, an Algorithm that `iterate` runs

One step takes the derivative of the similarity, any similarity, with respect to the warped image w(x) = m(x + u(x)) by
`jax.grad`, multiplies it by ∇w, and so has the gradient of the loss with respect to a further displacement: nothing
differentiates through the interpolation. The same arrays give the same bits on repeat.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Scalar

from medjax import iterate
from medjax.errors import DataError
from medjax.registration.pyramid import downsample, resize_displacement
from medjax.registration.similarity import Similarity, lncc
from medjax.registration.smoothing import gaussian
from medjax.registration.warp import invert, warp

Number = float | int | Scalar
DEFAULT_SIMILARITY = lncc(2)
DECAY = (0.9, 0.99)  # of the running means of gradients and of their squared norms
HALF_STEP, MIN_STEP = 50.0, 0.1  # steps after which their length is halved, and its smallest fraction
SCALE_SIGMA, SCALE_RADIUS = 3.0, 6  # of the Gaussian around a voxel in which a step's scale is measured, voxels


class Deformation(NamedTuple):
    """A displacement field and its inverse, voxels: warped(x) = moving(x + u(x)), and x ≈ y + v(y) for y = x + u(x)."""

    displacement: Float[Array, "dim *space"]
    inverse: Float[Array, "dim *space"]


class State(NamedTuple):
    """What the next step needs."""

    displacement: Float[Array, "dim *space"]
    mean: Float[Array, "dim *space"]  # running mean of the gradients
    square: Float[Array, "*space"]  # and of their squared norms
    step: Int[Array, ""]  # steps made


class Info(NamedTuple):
    """What a reader wants of a step."""

    loss: Scalar  # of the displacement that entered the step
    update: Scalar  # largest norm of the smoothed direction, before it is scaled to the length of the step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pair:
    """Two images of one level and the settings of a step."""

    fixed: Float[Array, "*space"]
    moving: Float[Array, "*space"]
    mask: Float[Array, "*space"] | None
    max_step: Number
    update_sigma: Number
    field_sigma: Number
    radii: tuple[int, int] = field(metadata={"static": True})  # taps of the two Gaussians
    similarity: Callable[..., Scalar] = field(metadata={"static": True})


def greedy(
    fixed: Float[Array, "*space"],
    moving: Float[Array, "*space"],
    similarity: Similarity,
    *,
    mask: Float[Array, "*space"] | None = None,
    max_step: Number = 0.5,
    update_sigma: Number = 1.5,
    field_sigma: Number = 0.5,
    radii: tuple[int, int] | None = None,
) -> iterate.Algorithm:
    """Greedy registration of one resolution: `init(start)` takes a displacement (zeros: no start), `step` improves it.

    Args:
        fixed: image whose grid the displacement is on.
        moving: image to warp, on the same grid.
        similarity: (warped, fixed, mask) -> loss; see `medjax.registration.similarity`.
        mask: weights of the fixed image's voxels in the similarity.
        max_step: largest displacement of one step, voxels.
        update_sigma: of the Gaussian that smooths a step, voxels.
        field_sigma: of the Gaussian that smooths the whole field after each step, voxels.
        radii: taps on each side of the two Gaussians, needed if their sigmas are traced; by default ⌈3σ⌉.
    """
    if radii is None:
        radii = (math.ceil(3 * float(update_sigma)), math.ceil(3 * float(field_sigma)))
    pair = Pair(fixed, moving, mask, max_step, update_sigma, field_sigma, radii, similarity)
    return iterate.Algorithm(init, Partial(step, pair))


def register(
    fixed: Float[Array, "*space"] | Float[np.ndarray, "*space"],
    moving: Float[Array, "*other"] | Float[np.ndarray, "*other"],
    *,
    similarity: Similarity = DEFAULT_SIMILARITY,
    factors: tuple[int, ...] = (4, 2, 1),
    iterations: tuple[int, ...] = (100, 60, 50),
    max_step: Number = 0.5,
    update_sigma: float = 1.5,
    field_sigma: float = 0.5,
    start: Float[Array, "component *field"] | Float[np.ndarray, "component *field"] | None = None,
    mask: Float[Array, "*weights"] | Float[np.ndarray, "*weights"] | None = None,
    inverse_iterations: int = 30,
) -> Deformation:
    """Deformable registration from coarse to fine: the displacement that warps `moving` to `fixed`, and its inverse.

    The result is a function of the arrays alone; constant images give no displacement. `jax.vmap` registers many pairs.

    Args:
        fixed: image whose grid the displacement is on.
        moving: image to warp, on the same grid.
        similarity: (warped, fixed, mask) -> loss, hashable; by default `lncc(2)`.
        factors: by which the levels' grids are coarser, from coarse to fine; static, as are the following but max_step.
        iterations: steps of each level.
        max_step: largest displacement of one step, in voxels of the level.
        update_sigma: of the Gaussian that smooths a step, voxels.
        field_sigma: of the Gaussian that smooths the whole field after each step, voxels.
        start: displacement to improve, such as a network's; with one, `factors=(1,)` refines it.
        mask: weights ≥ 0 of the fixed image's voxels in the similarity.
        inverse_iterations: of the fixed-point inversion.

    Raises:
        DataError: shapes differ, levels and iterations do not match, or (outside jit and vmap) a value is not finite.
    """
    fixed, moving = jnp.asarray(fixed), jnp.asarray(moving)
    start, mask = (None if values is None else jnp.asarray(values) for values in (start, mask))
    _check(fixed, moving, mask, start, factors, iterations)
    return _register(
        fixed, moving, max_step, start, mask, similarity=similarity, factors=tuple(factors),
        iterations=tuple(iterations), sigmas=(float(update_sigma), float(field_sigma)),
        inverse_iterations=inverse_iterations,
    )  # fmt: skip


def _check(
    fixed: Array, moving: Array, mask: Array | None, start: Array | None, factors: tuple, iterations: tuple
) -> None:
    if len(factors) != len(iterations) or not factors or min(factors) < 1 or min(iterations) < 0:
        raise DataError(f"factors: {factors}, iterations: {iterations}; expected as many, ≥ 1 and ≥ 0, one a level")
    if fixed.ndim not in (2, 3) or min(fixed.shape) < 2:
        raise DataError(f"fixed: shape {fixed.shape}; expected 2 or 3 axes of 2 or more voxels")
    expected = {
        "moving": (moving, fixed.shape),
        "mask": (mask, fixed.shape),
        "start": (start, (fixed.ndim, *fixed.shape)),
    }
    for name, (values, shape) in expected.items():
        if values is not None and values.shape != shape:
            raise DataError(f"{name}: shape {values.shape}; expected {shape}, as fixed is {fixed.shape}")
    for name, values in {"fixed": fixed, "moving": moving, "mask": mask, "start": start}.items():
        if values is None or isinstance(values, jax.core.Tracer):
            continue
        if not bool(jnp.isfinite(values).all()):
            raise DataError(f"{name}: holds values that are not finite; expected an image without NaN or infinity")


@partial(jax.jit, static_argnames=("similarity", "factors", "iterations", "sigmas", "inverse_iterations"))
def _register(
    fixed: Array,
    moving: Array,
    max_step: Number,
    start: Array | None,
    mask: Array | None,
    *,
    similarity: Similarity,
    factors: tuple[int, ...],
    iterations: tuple[int, ...],
    sigmas: tuple[float, float],
    inverse_iterations: int,
) -> Deformation:
    fixed, moving = (image.astype(jnp.float32) for image in (fixed, moving))
    displacement = jnp.zeros((fixed.ndim, *fixed.shape), jnp.float32) if start is None else start.astype(jnp.float32)
    previous = 1
    for factor, number in zip(factors, iterations, strict=True):
        near, far = downsample(fixed, factor), downsample(moving, factor)
        weights = None if mask is None else downsample(mask.astype(jnp.float32), factor)
        displacement = resize_displacement(displacement, near.shape, previous / factor)
        level = greedy(
            near, far, similarity, mask=weights, max_step=max_step, update_sigma=sigmas[0], field_sigma=sigmas[1]
        )
        displacement = iterate.scan(level, level.init(displacement), number)[0].displacement
        previous = factor
    if previous != 1:
        displacement = resize_displacement(displacement, fixed.shape, float(previous))
    return Deformation(displacement, invert(displacement, inverse_iterations))


def init(start: Float[Array, "dim *space"]) -> State:
    """State that starts from a displacement."""
    return State(start, jnp.zeros_like(start), jnp.zeros_like(start[0]), jnp.zeros((), jnp.int32))


def step(pair: Pair, state: State) -> tuple[State, Info]:
    """One step, u ← G_field ∗ (d + u ∘ (id + d)), d the smoothed direction of Adam, second moments of neighbourhoods.

    Sources: Yushkevich et al., Alzheimer's & Dementia 12(7), 2016 (greedy); Jena et al., arXiv 2404.01249 (Adam).
    """
    axes = range(1, state.displacement.ndim)
    # barriers keep arrays in memory that are read at shifted positions: fused, they would be computed anew for each
    warped = lax.optimization_barrier(warp(pair.moving, state.displacement))
    loss, force = jax.value_and_grad(pair.similarity)(warped, pair.fixed, pair.mask)
    gradient = lax.optimization_barrier(force)[None] * _spatial_gradient(warped)
    number = state.step + 1
    mean = DECAY[0] * state.mean + (1 - DECAY[0]) * gradient
    square = DECAY[1] * state.square + (1 - DECAY[1]) * jnp.sum(gradient**2, 0)
    # one scale for all components, and the same for neighbours: steps are as long in faint regions as in bright ones,
    # while within a region edges lead and noise does not
    around = gaussian(square / (1 - DECAY[1] ** number), SCALE_SIGMA, radius=SCALE_RADIUS)
    rms = jnp.sqrt(around)
    scale = (1 - DECAY[0] ** number) * (rms + 1e-2 * rms.max() + 1e-30)
    direction = lax.optimization_barrier(mean / scale[None])
    direction = gaussian(direction, pair.update_sigma, radius=pair.radii[0], axes=axes)
    longest = jnp.sqrt(jnp.max(jnp.sum(direction**2, 0)))
    decay = jnp.maximum(1 / (1 + state.step / HALF_STEP), MIN_STEP)
    update = direction * (-pair.max_step * decay / jnp.maximum(longest, 1e-6))
    displacement = lax.optimization_barrier(_compose_small(state.displacement, update))
    displacement = gaussian(displacement, pair.field_sigma, radius=pair.radii[1], axes=axes)
    return State(displacement, mean, square, number), Info(loss, longest)


def _compose_small(displacement: Array, update: Array) -> Array:
    """u(x + d) + d for a small d, to first order in d: as near as linear interpolation, at a fifth of its cost."""
    components = [
        component + shift + jnp.sum(update * _spatial_gradient(component), 0)
        for component, shift in zip(displacement, update, strict=True)
    ]
    return jnp.stack(components)


def _spatial_gradient(image: Array) -> Array:
    """Central differences of the image continued by its edge values, so that steps at an edge cannot extrapolate."""
    slopes = []
    for axis, side in enumerate(image.shape):
        padded = jnp.pad(image, [(1, 1) if k == axis else (0, 0) for k in range(image.ndim)], mode="edge")
        padded = lax.optimization_barrier(padded)
        before, after = (lax.slice_in_dim(padded, k, k + side, axis=axis) for k in (0, 2))
        slopes.append((after - before) / 2)
    return jnp.stack(slopes)
