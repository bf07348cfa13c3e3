"""What conditioning asks of a likelihood; and the Gaussian one, for denoising, inpainting, CT, MR."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar


@runtime_checkable
class Likelihood(Protocol):
    """p(data | image). `medjax.pet.acquisition.Acquisition` is one. Arrays are pytree leaves."""

    def expected(self, image: Array) -> Array:
        """The data that the image predicts; affine in the image."""
        ...

    def deviance(self, expected: Array) -> Scalar:
        """log-likelihood's distance from its largest possible value, ≥ 0, convex in what is expected."""
        ...

    def gradient(self, image: Array) -> Array:
        """Of the log-likelihood, by the image."""
        ...

    def precondition(self, image: Array, direction: Array) -> Array:
        """`direction` in units that make a step of 1 a safe one."""
        ...

    def ascend(self, image: Array, expected: Array | None = None) -> Array:
        """One step that raises the log-likelihood; `expected`, if known, saves its computation."""
        ...

    def proximal(self, image: Array, anchor: Array, weight: Any, expected: Array | None = None) -> Array:
        """One step on log-likelihood − ½ Σ weight (image − anchor)²."""
        ...


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

    def ascend(self, image: Float[Array, "..."], expected: Float[Array, "..."] | None = None) -> Float[Array, "..."]:
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
        return (stiffness * self.ascend(image, expected) + weight * anchor) / (stiffness + weight)
