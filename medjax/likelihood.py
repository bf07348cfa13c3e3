"""Likelihoods: the protocol that reconstruction and guidance take, steps that follow from it, and the Gaussian one.

A `Likelihood` needs three methods: `expected`, `deviance` and `gradient`. It may have better ones of its own for what
follows from these, and the free functions below use them where they exist:

    update(likelihood, image)                        a step that increases the likelihood (for counts: EM)
    precondition(likelihood, image, direction)       a direction scaled such that a step of 1 does not overshoot
    proximal(likelihood, image, anchor, weight)      a step on log-likelihood − ½ Σ weight (x − anchor)²
    linear_operator(likelihood, image)               A and Aᵀ of the expected data A x + b

A likelihood that has `residual(expected)`, data − expected, and `precision(expected)`, the inverse variance of each
datum, also has a Gaussian approximation (`require_gaussian`): a data step can then be solved (`diffusion.data_step`).

`medjax.pet.acquisition.Acquisition` is the Poisson likelihood of counts; `Gaussian` is for denoising, inpainting, CT.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from medjax.errors import ConfigError

REQUIRED_METHODS = ("expected", "deviance", "gradient")
GAUSSIAN_METHODS = ("residual", "precision")
LINE_SEARCH_STEPS = 40  # halvings at worst


@runtime_checkable
class Likelihood(Protocol):
    """Protocol of a likelihood p(data | image). Arrays are pytree leaves."""

    def expected(self, image: Array) -> Array:
        """Expected data of the image; affine in it."""
        ...

    def deviance(self, expected: Array) -> Scalar:
        """Deviance: the log-likelihood's distance from its largest possible value, ≥ 0, convex in the expected data."""
        ...

    def gradient(self, image: Array) -> Array:
        """Gradient ∂ log-likelihood / ∂ image."""
        ...


def require(likelihood: Any, use: str) -> None:
    """Check that an object is a likelihood and a pytree, as compiled programs need.

    Raises:
        ConfigError: it lacks a method, or is not a pytree; the message names the `use`.
    """
    name = type(likelihood).__name__
    if missing := [method for method in REQUIRED_METHODS if not callable(getattr(likelihood, method, None))]:
        raise ConfigError(f"{use} needs a likelihood with {', '.join(REQUIRED_METHODS)}; {name} has no {missing[0]}")
    if jax.tree_util.all_leaves([likelihood]):
        raise ConfigError(
            f"{use} needs a likelihood that is a pytree; {name} is not: jax.tree_util.register_dataclass makes it one"
        )


def require_gaussian(likelihood: Any, use: str) -> None:
    """Check that an object is a likelihood with a Gaussian approximation: `residual` and `precision`.

    Raises:
        ConfigError: it lacks a method, or is not a pytree; the message names the `use`.
    """
    require(likelihood, use)
    if missing := [method for method in GAUSSIAN_METHODS if not callable(getattr(likelihood, method, None))]:
        raise ConfigError(
            f"{use} needs a likelihood with residual(expected), the data less expected data, and precision(expected), "
            f"the inverse variance of each datum; {type(likelihood).__name__} has no {missing[0]}"
        )


def linear_operator(likelihood: Likelihood, image: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Linear operator of the expected data A x + b: the functions x → A x and y → Aᵀ y.

    The likelihood's own methods `forward(image)` and `adjoint(data)`; or A x = expected(x) − expected(0), which costs
    one more projection, and the derivative of `expected`. `image` gives shape and type only.
    """
    if inspect.ismethod(own := getattr(likelihood, "forward", None)):
        forward = own
    else:  # a field of that name, as of `Gaussian`, has other arguments
        constant = likelihood.expected(jnp.zeros_like(image))
        forward = lambda x: likelihood.expected(x) - constant  # noqa: E731
    if inspect.ismethod(own := getattr(likelihood, "adjoint", None)):
        return forward, own
    return forward, lambda data: jax.vjp(likelihood.expected, image)[1](data)[0]


def update(likelihood: Likelihood, image: Array, expected: Array | None = None) -> Array:
    """One step that increases the log-likelihood; `expected`, if known, saves its computation.

    The likelihood's own `update`, or a step along its gradient to the smallest deviance on that line. Expected data are
    affine in the image, so the search costs one projection.
    """
    own = getattr(likelihood, "update", None)
    if own is not None:
        return own(image, expected)
    direction = likelihood.gradient(image)
    misfit = _along(likelihood, image, direction, likelihood.expected(image) if expected is None else expected)
    return image + _line_search(misfit, jnp.zeros((), image.dtype)) * direction


def precondition(likelihood: Likelihood, image: Array, direction: Array) -> Array:
    """Precondition a `direction`: scale it such that a step of 1 does not overshoot.

    The likelihood's own `precondition`, or α · direction with α = ‖d‖² / dᵀ H d, H the deviance's Hessian, and no more
    than reaches the smallest deviance on that line: along the gradient of a quadratic likelihood both are the same.
    """
    own = getattr(likelihood, "precondition", None)
    if own is not None:
        return own(image, direction)
    misfit = _along(likelihood, image, direction, likelihood.expected(image))
    zero = jnp.zeros((), image.dtype)
    slope, bend = _derivatives(misfit, zero)
    curved = jnp.sum(direction**2) / jnp.where(bend > 0, bend, 1)
    bound = jnp.where(slope < 0, _line_search(misfit, zero), jnp.where(bend > 0, curved, 0))
    return jnp.where(bend > 0, jnp.minimum(curved, bound), bound) * direction


def proximal(likelihood: Likelihood, image: Array, anchor: Array, weight: Any, expected: Array | None = None) -> Array:
    """Proximal step, which increases log-likelihood − ½ Σ weight (image − anchor)².

    The likelihood's own `proximal`, or a step along the gradient of that sum to its maximum on the line.

    Args:
        likelihood: likelihood of the data.
        image: image to start from.
        anchor: image of the proximal term.
        weight: weight of the proximal term, a number or one a voxel.
        expected: data of `image`, if known: saves their computation.
    """
    own = getattr(likelihood, "proximal", None)
    if own is not None:
        return own(image, anchor, weight, expected)
    direction = likelihood.gradient(image) - weight * (image - anchor)
    misfit = _along(likelihood, image, direction, likelihood.expected(image) if expected is None else expected)

    def total(alpha: Scalar) -> Scalar:
        return misfit(alpha) + jnp.sum(weight * (image + alpha * direction - anchor) ** 2) / 2

    return image + _line_search(total, jnp.zeros((), image.dtype)) * direction


def _along(likelihood: Likelihood, image: Array, direction: Array, expected: Array) -> Callable[[Scalar], Scalar]:
    """α → the deviance at image + α · direction; expected data are affine, so one projection serves all α."""
    change = likelihood.expected(image + direction) - expected
    return lambda alpha: likelihood.deviance(expected + alpha * change)


def _derivatives(function: Callable[[Scalar], Scalar], alpha: Scalar) -> tuple[Scalar, Scalar]:
    """The slope at α and its derivative."""
    return jax.jvp(jax.grad(function), (alpha,), (jnp.ones_like(alpha),))


def _line_search(misfit: Callable[[Scalar], Scalar], zero: Scalar) -> Scalar:
    """argmin over α ≥ 0 of a convex function: Newton's method within a bracket that shrinks, else its middle.

    Where the function is not a number, outside its domain, the minimum lies before.
    """

    def falls(alpha: Scalar) -> Array:
        return jax.grad(misfit)(alpha) < 0  # False where it is not a number

    def body(_: Any, carry: tuple[Scalar, Scalar, Scalar]) -> tuple[Scalar, Scalar, Scalar]:
        low, high, alpha = carry
        slope, bend = _derivatives(misfit, alpha)
        low, high = jnp.where(slope < 0, alpha, low), jnp.where(slope < 0, high, alpha)
        newton = alpha - slope / jnp.where(bend > 0, bend, 1)
        return low, high, jnp.where((bend > 0) & (newton > low) & (newton < high), newton, (low + high) / 2)

    high = jax.lax.while_loop(lambda alpha: falls(alpha) & (alpha < 1e30), lambda alpha: 4 * alpha, zero + 1)
    low, _, alpha = jax.lax.fori_loop(0, LINE_SEARCH_STEPS, body, (zero, high, high / 2))
    return jnp.where(misfit(alpha) < misfit(low), alpha, low)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """Gaussian likelihood data ~ N(A image, noise² I) of a linear A.

    `noise` is a standard deviation, `curvature` any bound on the largest eigenvalue of Aᵀ A.
    """

    data: Float[Array, "..."]
    noise: Float[Array, ""] | float
    operator: PyTree = None  # argument of forward and adjoint
    curvature: Float[Array, ""] | float = 1.0  # bound on the largest eigenvalue of Aᵀ A
    forward: Callable = field(default=lambda operator, image: image, metadata={"static": True})
    adjoint: Callable = field(default=lambda operator, data: data, metadata={"static": True})

    def expected(self, image: Float[Array, "..."]) -> Float[Array, "..."]:
        """Expected data A x."""
        return self.forward(self.operator, image)

    def deviance(self, expected: Float[Array, "..."]) -> Scalar:
        """Deviance ½ ‖data − A x‖² / noise²."""
        return jnp.sum((expected - self.data) ** 2) / (2 * self.noise**2)

    def gradient(self, image: Float[Array, "..."], expected: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """Gradient Aᵀ(data − A x) / noise²."""
        expected = self.expected(image) if expected is None else expected
        return self.adjoint(self.operator, self.data - expected) / self.noise**2

    def residual(self, expected: Float[Array, "..."]) -> Float[Array, "..."]:
        """Residual data − expected."""
        return self.data - expected

    def precision(self, expected: Float[Array, "..."]) -> Float[Array, "..."]:
        """Inverse variance 1 / noise² of each datum."""
        return jnp.ones_like(expected) / self.noise**2

    def precondition(self, image: Float[Array, "..."], direction: Float[Array, "..."]) -> Float[Array, "..."]:
        """Preconditioned direction noise² / curvature · direction: a gradient step of that length never overshoots."""
        return self.noise**2 / self.curvature * direction

    def update(self, image: Float[Array, "..."], expected: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
        """Gradient step x + Aᵀ(data − A x) / curvature."""
        return image + self.precondition(image, self.gradient(image, expected))

    def proximal(
        self,
        image: Float[Array, "..."],
        anchor: Float[Array, "..."],
        weight: Float[Array, "..."] | float,
        expected: Float[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """Proximal step: argmax of the quadratic minorant of the log-likelihood − ½ weight (x − anchor)²."""
        stiffness = self.curvature / self.noise**2
        return (stiffness * self.update(image, expected) + weight * anchor) / (stiffness + weight)
