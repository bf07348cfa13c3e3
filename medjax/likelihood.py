"""What reconstruction and guidance ask of a likelihood, what follows from that, and the Gaussian likelihood.

A `Likelihood` needs three methods: `expected`, `deviance` and `gradient`. It may have better ones of its own for what
follows from these, and the free functions below use them where they exist:

    update(likelihood, image)                        a step that raises the likelihood (for counts: EM)
    precondition(likelihood, image, direction)       a direction in units in which a step of 1 is a safe one
    proximal(likelihood, image, anchor, weight)      a step on log-likelihood − ½ Σ weight (x − anchor)²

`medjax.pet.acquisition.Acquisition` is the Poisson likelihood of counts; `Gaussian` is for denoising, inpainting, CT.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

NEWTON_STEPS = 8  # of a line search


@runtime_checkable
class Likelihood(Protocol):
    """p(data | image). Arrays are pytree leaves."""

    def expected(self, image: Array) -> Array:
        """The data that the image predicts; affine in the image."""
        ...

    def deviance(self, expected: Array) -> Scalar:
        """The log-likelihood's distance from its largest possible value, ≥ 0, convex in what is expected."""
        ...

    def gradient(self, image: Array) -> Array:
        """∂ log-likelihood / ∂ image."""
        ...


def update(likelihood: Likelihood, image: Array, expected: Array | None = None) -> Array:
    """One step that raises the log-likelihood; `expected`, if known, saves its computation.

    The likelihood's own `update`, or a step along its gradient to the least deviance on that line. Expected data are
    affine in the image, so the search costs one projection.
    """
    own = getattr(likelihood, "update", None)
    if own is not None:
        return own(image, expected)
    expected = likelihood.expected(image) if expected is None else expected
    direction = likelihood.gradient(image)
    along = likelihood.expected(image + direction) - expected
    return image + _line_search(likelihood, expected, along) * direction


def precondition(likelihood: Likelihood, image: Array, direction: Array) -> Array:
    """`direction` in units in which a step of 1 is a safe one.

    The likelihood's own `precondition`, or direction · ‖d‖² / dᵀ H d, H the deviance's Hessian: along the gradient of a
    quadratic likelihood that is the step to the least deviance.
    """
    own = getattr(likelihood, "precondition", None)
    if own is not None:
        return own(image, direction)
    return _safe_step(likelihood, image, direction) * direction


def proximal(likelihood: Likelihood, image: Array, anchor: Array, weight: Any, expected: Array | None = None) -> Array:
    """One step that raises log-likelihood − ½ Σ weight (image − anchor)².

    The likelihood's own `proximal`, or a gradient step of length ‖d‖² / (dᵀ H d + Σ weight d²).
    """
    own = getattr(likelihood, "proximal", None)
    if own is not None:
        return own(image, anchor, weight, expected)
    direction = likelihood.gradient(image) - weight * (image - anchor)
    return image + _safe_step(likelihood, image, direction, weight) * direction


def _safe_step(likelihood: Likelihood, image: Array, direction: Array, weight: Any = 0.0) -> Scalar:
    expected = likelihood.expected(image)
    along = likelihood.expected(image + direction) - expected
    _, (_, bend) = _derivatives(likelihood, expected, along, jnp.zeros((), expected.dtype))
    stiffness = bend + jnp.sum(weight * direction**2)
    return jnp.where(stiffness > 0, jnp.sum(direction**2) / jnp.where(stiffness > 0, stiffness, 1), 0.0)


def _line_search(likelihood: Likelihood, start: Array, along: Array) -> Scalar:
    """argmin over α ≥ 0 of deviance(start + α · along) by Newton's method, halving steps that leave its domain."""

    def misfit(alpha: Scalar) -> Scalar:
        return likelihood.deviance(start + alpha * along)

    def body(_: Any, alpha: Scalar) -> Scalar:
        value, (slope, bend) = _derivatives(likelihood, start, along, alpha)
        change = jnp.where(bend > 0, -slope / jnp.where(bend > 0, bend, 1), 0.0)
        sizes = 0.5 ** jnp.arange(12, dtype=start.dtype)
        tried = jnp.maximum(alpha + sizes * change, 0)
        values = jax.vmap(misfit)(tried)
        lower = values < value
        return jnp.where(jnp.any(lower), tried[jnp.argmax(lower)], alpha)

    return jax.lax.fori_loop(0, NEWTON_STEPS, body, jnp.zeros((), start.dtype))


def _derivatives(
    likelihood: Likelihood, start: Array, along: Array, alpha: Scalar
) -> tuple[Scalar, tuple[Scalar, Scalar]]:
    """The deviance at start + α · along, its slope and its second derivative by α."""

    def misfit(alpha: Scalar) -> Scalar:
        return likelihood.deviance(start + alpha * along)

    def slope(alpha: Scalar) -> tuple[Scalar, Scalar]:
        value, first = jax.jvp(misfit, (alpha,), (jnp.ones_like(alpha),))
        return first, value

    first, second, value = jax.jvp(slope, (alpha,), (jnp.ones_like(alpha),), has_aux=True)
    return value, (first, second)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """data ~ N(A image, noise² I) for a linear A. `curvature` is any bound on the largest eigenvalue of Aᵀ A."""

    data: Float[Array, "..."]
    noise: Float[Array, ""] | float
    operator: PyTree = None  # whatever forward and adjoint need to know
    curvature: Float[Array, ""] | float = 1.0
    forward: Callable = field(default=lambda operator, image: image, metadata={"static": True})
    adjoint: Callable = field(default=lambda operator, data: data, metadata={"static": True})

    def expected(self, image: Float[Array, "..."]) -> Float[Array, "..."]:
        """A x."""
        return self.forward(self.operator, image)

    def deviance(self, expected: Float[Array, "..."]) -> Scalar:
        """½ ‖data − A x‖² / noise²."""
        return jnp.sum((expected - self.data) ** 2) / (2 * self.noise**2)

    def gradient(self, image: Float[Array, "..."], expected: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """Aᵀ(data − A x) / noise²."""
        expected = self.expected(image) if expected is None else expected
        return self.adjoint(self.operator, self.data - expected) / self.noise**2

    def precondition(self, image: Float[Array, "..."], direction: Float[Array, "..."]) -> Float[Array, "..."]:
        """noise² / curvature · direction: a gradient step so long never overshoots."""
        return self.noise**2 / self.curvature * direction

    def update(self, image: Float[Array, "..."], expected: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """A gradient step: x + Aᵀ(data − A x) / curvature."""
        return image + self.precondition(image, self.gradient(image, expected))

    def proximal(
        self,
        image: Float[Array, "..."],
        anchor: Float[Array, "..."],
        weight: Float[Array, "..."] | float,
        expected: Float[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """argmax of the quadratic that touches the log-likelihood from below, − ½ weight (x − anchor)²."""
        stiffness = self.curvature / self.noise**2
        return (stiffness * self.update(image, expected) + weight * anchor) / (stiffness + weight)
