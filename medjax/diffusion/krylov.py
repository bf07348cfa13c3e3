"""Krylov spaces of a data step: one holds the solutions for every variance, and their expected data.

    space = krylov_space(equations, anchor, variance, dimension)
    image, expected = combine(space, coefficients(space, another_variance))

With x = anchor + Σ cᵢ pᵢ the step (Aᵀ W A + 1/v)(x − anchor) = Aᵀ W (y − q(anchor)) has a right side without v. Its
Galerkin solution in the space of directions p is (C + G / v) c = g, C = pᵀ Aᵀ W A p, G = pᵀ p, g = pᵀ Aᵀ W (y − q).
The projections A p are kept, so neither another v nor its expected data cost a projector call.

    path = em_path(equations, image, dimension)
    expected = expected_of_path(path, iterations)

In the same way the iterates of expectation maximization, linearised around an early image, lie in the Krylov space of
x / sensitivity · Aᵀ W A: iterate n is φₙ(λ) = (1 − (1 − λ)ⁿ) / λ of its eigenvalues, for fractional n too.

Source: Saad, Iterative Methods for Sparse Linear Systems, SIAM 2003, chapter 6 (projection on Krylov spaces).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from medjax.diffusion.data_step import NormalEquations, precondition
from medjax.errors import ConfigError
from medjax.likelihood import linear_operator

Number = float | Scalar
SMALLEST_POSITIVE = 2e-3  # relative to the mean emission: a voxel below is at 0
HIGHEST = jax.lax.Precision.HIGHEST


class KrylovSpace(NamedTuple):
    """Directions from an anchor, their projections, and the projected normal equations."""

    anchor: Float[Array, "*space"]
    expected: Float[Array, "..."]  # expected data of the anchor
    basis: Float[Array, "direction *space"]  # p
    basis_data: Float[Array, "direction ..."]  # A p, in units of the data
    curvature: Float[Array, "direction direction"]  # C
    gram: Float[Array, "direction direction"]  # G
    right: Float[Array, " direction"]  # g
    residual: Float[Array, "*space"]  # Aᵀ W (y − q) of the anchor, where voxels are free to change
    normal: Float[Array, "known *space"]  # Aᵀ W A p of all directions but the last, which need not be known
    projector_calls: Scalar  # forward and back-projections that it cost


def krylov_space(
    equations: NormalEquations,
    anchor: Float[Array, "*space"],
    expected: Float[Array, "..."],
    variance: Number,
    dimension: int,
    nonnegative: bool = False,
) -> KrylovSpace:
    """Krylov space of the data step: the directions of `dimension` preconditioned conjugate gradients.

    Args:
        equations: from `data_step.normal_equations`.
        anchor: anchor of the step, in units of the network.
        expected: expected data of scale · anchor.
        variance: variance that the preconditioner is made for, and directions are conjugate for.
        dimension: number of directions, each of a forward and a back-projection; static.
        nonnegative: whether voxels of the anchor that are at 0, and that the data would have lower, stay there, so that
            clipping the result changes little.
    """

    def scaled(residual: Array, free: Array) -> Array:
        return free * precondition(equations, variance, free * residual)

    def free_voxels(residual: Array) -> Array:
        return ((anchor > SMALLEST_POSITIVE) | (residual > 0)).astype(anchor.dtype) if nonnegative else jnp.ones(())

    def gram(p: Array, _: Array) -> Array:
        return _products(p, p)

    return _space(equations, anchor, expected, 1 / jnp.maximum(variance, 1e-12), scaled, free_voxels, gram, dimension)


def _space(
    equations: NormalEquations,
    anchor: Array,
    expected: Array,
    weight: Any,
    scaled: Callable[[Array, Array], Array],
    free_voxels: Callable[[Array], Array],
    gram: Callable[[Array, Array], Array],
    dimension: int,
) -> KrylovSpace:
    """Conjugate directions of Aᵀ W A + weight, preconditioned by `scaled`; unit curvature each, for float32."""
    likelihood, weights, scale = equations.likelihood, equations.weights, equations.scale
    forward, adjoint = linear_operator(likelihood, anchor)
    residual = scale * adjoint(weights * likelihood.residual(expected))
    free = free_voxels(residual)

    def direction(r: Array, before: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        p = scaled(r, free)
        return _conjugate((p, r, forward(scale * p)), before, weights, weight)

    def body(carry: tuple[Array, tuple[Array, Array, Array]], number: Array) -> tuple[Any, Array]:
        r, space = carry
        own = direction(r, space)
        normal = scale * adjoint(weights * own[2])
        r = r - jnp.sum(r * own[0]) * (normal + weight * own[0])
        return (r, tuple(x.at[number].set(new) for x, new in zip(space, own, strict=True))), normal

    images, data = (jnp.zeros((dimension, *x.shape), anchor.dtype) for x in (anchor, expected))
    empty: Any = (images, images, data)
    (r, space), normal = jax.lax.scan(body, (residual, empty), jnp.arange(dimension - 1))
    p, u, data = (x.at[-1].set(new) for x, new in zip(space, direction(r, space), strict=True))
    return KrylovSpace(
        anchor=anchor,
        expected=expected,
        basis=p,
        basis_data=data,
        curvature=_products(data, weights[None] * data),
        gram=gram(p, u),
        right=_products(p, residual[None])[:, 0],
        residual=free * residual,
        normal=normal * jnp.broadcast_to(free, anchor.shape)[None],
        projector_calls=jnp.asarray(2.0 * dimension, anchor.dtype),
    )


def _conjugate(
    own: tuple[Array, Array, Array], before: tuple[Array, Array, Array], weights: Array, weight: Any
) -> tuple[Array, Array, Array]:
    """A direction, its dual and its projection, conjugate to the directions before and of unit curvature."""
    for _ in range(2):  # in float32 once is not enough, and conjugate gradients' own recursion loses them all
        along = _products(before[2], (weights * own[2])[None]) + weight * _products(before[0], own[0][None])
        p, u, data = (jnp.tensordot(along[:, 0], known, 1, precision=HIGHEST) for known in before)
        own = own[0] - p, own[1] - u, own[2] - data
    curvature = jnp.sum(weights * own[2] ** 2) + weight * jnp.sum(own[0] ** 2)
    unit = jnp.where(curvature > 0, 1 / jnp.sqrt(jnp.where(curvature > 0, curvature, 1)), 0)
    return unit * own[0], unit * own[1], unit * own[2]


def coefficients(space: KrylovSpace, variance: Number) -> Float[Array, " direction"]:
    """Coefficients of the step of this variance: (v C + G) c = v g."""
    return _solve(variance * space.curvature + space.gram, variance * space.right)


def combine(space: KrylovSpace, coefficients: Float[Array, " direction"]) -> tuple[Array, Array]:
    """Image anchor + Σ cᵢ pᵢ and its expected data."""
    return (
        space.anchor + jnp.tensordot(coefficients, space.basis, 1, precision=HIGHEST),
        space.expected + jnp.tensordot(coefficients, space.basis_data, 1, precision=HIGHEST),
    )


def residual_before_last(space: KrylovSpace, variance: Number) -> Scalar:
    """Relative residual of the solution without its last direction, an upper bound as a rule: the rest costs a call."""
    n = len(space.normal)
    part = space._replace(curvature=space.curvature[:n, :n], gram=space.gram[:n, :n], right=space.right[:n])
    c = coefficients(part, variance)
    left = space.residual - jnp.tensordot(c, space.normal + space.basis[:n] / variance, 1, precision=HIGHEST)
    whole = jnp.sum(space.residual**2)
    return jnp.sqrt(jnp.sum(left**2) / jnp.where(whole > 0, whole, 1))


def em_path(equations: NormalEquations, image: Float[Array, "*space"], dimension: int) -> KrylovSpace:
    """Krylov space of expectation maximization, linearised around the equations' early `image`, in units of the data.

    A space of m directions holds about the first m² iterates. For a likelihood that is not of counts it is gradient
    ascent by its own preconditioner.

    Args:
        equations: normal equations of the early image.
        image: the early image.
        dimension: number of directions m; static.

    Raises:
        ConfigError: the likelihood has no preconditioner of its own.
    """
    likelihood = equations.likelihood
    if not callable(own := getattr(likelihood, "precondition", None)):
        raise ConfigError(
            f"a path of EM needs a likelihood with precondition(image, direction); {type(likelihood).__name__} has none"
        )
    step = own(image, jnp.ones_like(image))

    def scaled(residual: Array, _: Array) -> Array:
        return step * residual

    def free_voxels(residual: Array) -> Array:
        return jnp.ones(())

    def gram(_: Array, u: Array) -> Array:
        return _products(u, step[None] * u)

    return _space(equations._replace(scale=1.0), image, equations.expected, 0.0, scaled, free_voxels, gram, dimension)


def expected_of_path(path: KrylovSpace, iterations: Float[Array, " iterate"]) -> Float[Array, "iterate ..."]:
    """Expected data of iterates of expectation maximization, counted from the path's image; fractional."""
    values, vectors = jnp.linalg.eigh(path.gram)  # C is the identity: G u = u / λ
    rate = jnp.clip(1 / jnp.maximum(values, 1e-12), 0, 1)
    filtered = (1 - (1 - rate)[None] ** iterations[:, None]) * jnp.einsum(
        "ij,i->j", vectors, path.right, precision=HIGHEST
    )[None]
    change = jnp.einsum("ij,nj->ni", vectors, filtered, precision=HIGHEST)
    return path.expected[None] + jnp.tensordot(change, path.basis_data, 1, precision=HIGHEST)


def _products(a: Array, b: Array) -> Array:
    """Inner products of every pair of images."""
    return jnp.einsum("ik,jk->ij", a.reshape(len(a), -1), b.reshape(len(b), -1), precision=HIGHEST)


def _solve(matrix: Array, right: Array) -> Array:
    """Solution of a small symmetric system; 0 for directions that are none."""
    empty = jnp.diagonal(matrix) <= 0
    return jnp.linalg.solve(matrix + jnp.diag(empty.astype(matrix.dtype)), right)
