"""Solved data step: the Gaussian approximation of a likelihood, times a Gaussian around an anchor.

    equations = normal_equations(likelihood, early_image, scale)
    x, info = solve(equations, anchor, variance, iterations)          mean of N(anchor, v) · N(y | A x + b, W⁻¹)
    x, info = draw(key, equations, anchor, variance, iterations)      a draw of it: perturb and solve

The weights W are the inverse variance of each datum where an early image expects it. Then

    (Aᵀ W A + 1/v) x = Aᵀ W (y − b) + anchor / v

is solved by conjugate gradients from the anchor, preconditioned by K⁻¹ F⁻¹ [1 / (h + 1 / (v κ̄²))] F K⁻¹: κ² = Aᵀ W A 1,
h the Fourier transform of the response of K⁻¹ Aᵀ W A K⁻¹ to a point in the middle, F over all axes. Where A is not
shift-invariant that is a worse preconditioner, of the same solution.

One image each, of any number of axes, in units of the network: the likelihood sees scale · x. Nothing is kept at 0 or
above: that would be another distribution; who uses the image decides.

Sources: Fessler & Booth, IEEE Transactions on Image Processing 8(5), 1999 (preconditioner); Papandreou & Yuille,
NeurIPS 2010, and Orieux, Féron & Giovannelli, IEEE Signal Processing Letters 19(5), 2012 (perturbation).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax.likelihood import linear_operator, require_gaussian

SMALLEST_KAPPA = 0.02  # of κ², relative to its largest value: where no data see a voxel the anchor alone decides
SETUP_CALLS = 5.0  # expected data, Aᵀ W A of a uniform image and of a point

Number = float | Scalar


class NormalEquations(NamedTuple):
    """Weights of a Gaussian approximation, and a preconditioner."""

    likelihood: Any
    expected: Float[Array, "..."]  # expected data of the early image
    weights: Float[Array, "..."]  # W, inverse variance of each datum
    scale: Number  # intensity scale: the likelihood's image = scale · x
    kappa: Float[Array, "*space"]  # κ, at most 1
    response: Float[Array, "..."]  # h, of the real Fourier transform, ≥ 0
    inverse_kappa2: Scalar  # 1 / κ̄², the mean of 1 / κ² over the middle
    projector_calls: Scalar  # forward and back-projections that these cost


class Info(NamedTuple):
    """Convergence and cost of a solved step."""

    residual: Scalar  # ‖residual of the normal equations‖ relative to the anchor's; 0 where the anchor solves them
    projector_calls: Scalar  # forward and back-projections of the whole data


def normal_equations(likelihood: Any, image: Float[Array, "*space"], scale: Number = 1.0) -> NormalEquations:
    """Normal equations of the Gaussian approximation around the expected data of `image`, and their preconditioner.

    Args:
        likelihood: likelihood of all data, with `residual` and `precision`.
        image: an early image, in units of the data; smooth, for the weights see its noise.
        scale: intensity scale, in units of the likelihood's image.

    Raises:
        ConfigError: the likelihood has no Gaussian approximation.
    """
    require_gaussian(likelihood, "a solved data step")
    forward, adjoint = linear_operator(likelihood, image)
    expected = likelihood.expected(image)
    weights = likelihood.precision(expected)

    def normal(x: Array) -> Array:
        return scale * adjoint(weights * forward(scale * x))

    kappa2 = normal(jnp.ones_like(image))
    largest = jnp.max(kappa2)
    kappa2 = jnp.maximum(kappa2 / jnp.where(largest > 0, largest, 1), SMALLEST_KAPPA)
    kappa = jnp.sqrt(kappa2)
    middle = tuple(n // 2 for n in image.shape)
    point = jnp.zeros_like(image).at[middle].set(1)
    response = normal(point / kappa) / kappa
    centered = jnp.roll(response, tuple(-n for n in middle), tuple(range(image.ndim)))
    h = jnp.maximum(jnp.real(jnp.fft.rfftn(centered, axes=_axes(image.shape))), 0)
    inner = tuple(slice(n // 4, n - n // 4) for n in image.shape)
    return NormalEquations(
        likelihood,
        expected,
        weights,
        scale,
        kappa,
        h,
        jnp.mean(1 / kappa2[inner]),
        jnp.asarray(SETUP_CALLS, image.dtype),
    )


def solve(
    equations: NormalEquations,
    anchor: Float[Array, "*space"],
    variance: Number,
    iterations: int | Int[Array, ""],
) -> tuple[Float[Array, "*space"], Info]:
    """Solve (Aᵀ W A + 1/v) x = Aᵀ W (y − b) + anchor / v by conjugate gradients from the anchor.

    Args:
        equations: from `normal_equations`.
        anchor: mean of the Gaussian, and where the iterations start; in units of the network.
        variance: v ≥ 0, variance of that Gaussian; 0 leaves the anchor.
        iterations: number of iterations, each of a forward and a back-projection; there are two projections before.
    """
    return _conjugate_gradients(equations, anchor, variance, iterations, _weighted_residual(equations, anchor))


def pull(
    equations: NormalEquations,
    image: Float[Array, "*space"],
    target: Float[Array, "*space"],
    variance: Number,
    iterations: int | Int[Array, ""],
) -> tuple[Float[Array, "*space"], Info]:
    """Image pulled towards a target where data tell much: image + (Aᵀ W A + 1/v)⁻¹ Aᵀ W A (target − image).

    What `solve` gives for data that the target has without noise. Other arguments are those of `solve`.
    """
    forward, _ = linear_operator(equations.likelihood, image)
    change = equations.weights * forward(equations.scale * (target - image))
    return _conjugate_gradients(equations, image, variance, iterations, change)


def draw(
    key: PRNGKeyArray,
    equations: NormalEquations,
    anchor: Float[Array, "*space"],
    variance: Number,
    iterations: int | Int[Array, ""],
) -> tuple[Float[Array, "*space"], Info]:
    """A draw of N(anchor, v) · N(y | A x + b, W⁻¹): perturb anchor and data by their noise, then `solve`.

    Exact when solved to convergence. Other arguments are those of `solve`.
    """
    image_key, data_key = jax.random.split(key)
    noise = jnp.sqrt(equations.weights) * jax.random.normal(data_key, equations.weights.shape, anchor.dtype)
    anchor = anchor + jnp.sqrt(variance) * jax.random.normal(image_key, anchor.shape, anchor.dtype)
    residual = _weighted_residual(equations, anchor) + noise
    return _conjugate_gradients(equations, anchor, variance, iterations, residual)


def _weighted_residual(equations: NormalEquations, image: Array) -> Array:
    """W (y − b − A x)."""
    likelihood = equations.likelihood
    return equations.weights * likelihood.residual(likelihood.expected(equations.scale * image))


def _conjugate_gradients(
    equations: NormalEquations, anchor: Array, variance: Any, iterations: Any, residual: Array
) -> tuple[Array, Info]:
    """The system times v, whose operator v Aᵀ W A + 1 stays finite for any v; `residual`: the data's, times W."""
    likelihood, weights, scale = equations.likelihood, equations.weights, equations.scale
    forward, adjoint = linear_operator(likelihood, anchor)

    def backproject(data: Array) -> Array:
        return variance * scale * adjoint(data)

    def body(_: Any, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        x, r, p, rz = carry
        q = backproject(weights * forward(scale * p)) + p
        step = _ratio(rz, jnp.sum(p * q))
        x, r = x + step * p, r - step * q
        z = precondition(equations, variance, r)
        next_rz = jnp.sum(r * z)
        return x, r, z + _ratio(next_rz, rz) * p, next_rz

    r0 = backproject(residual)
    z0 = precondition(equations, variance, r0)
    x, r, *_ = jax.lax.fori_loop(0, iterations, body, (anchor, r0, z0, jnp.sum(r0 * z0)))
    calls = jnp.asarray(2.0 + 2.0 * iterations, anchor.dtype)
    return x, Info(_ratio(jnp.sqrt(jnp.sum(r**2)), jnp.sqrt(jnp.sum(r0**2))), calls)


def precondition(equations: NormalEquations, variance: Number, image: Float[Array, "*space"]) -> Float[Array, "*space"]:
    """K⁻¹ F⁻¹ [1 / (v h + 1/κ̄²)] F K⁻¹, about the inverse of v Aᵀ W A + 1."""
    axes = _axes(image.shape)
    spectrum = jnp.fft.rfftn(image / equations.kappa, axes=axes)
    spectrum = spectrum / (variance * equations.response + equations.inverse_kappa2)
    sizes = [image.shape[axis] for axis in axes]
    return jnp.fft.irfftn(spectrum, sizes, axes).astype(image.dtype) / equations.kappa


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of more than one voxel, of which the last is halved by a real transform."""
    return tuple(axis for axis, n in enumerate(shape) if n > 1) or (0,)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, and 0 where that is not positive: conjugate gradients that have converged stay."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0)
