"""Penalties (regularisation, priors): their protocol, and penalties on differences between neighbouring voxels.

A `Penalty` has `value(x)` and `gradient(x)`, without its weight, and, where it has one, `surrogate(x)` (De Pierro's
separable bound, for MAP-EM) and `curvature(x)` (the Hessian's diagonal). Any function of x becomes one by
`from_function`. The same object goes into MAP-EM, BSREM and DDS; an algorithm that needs more refuses it (`require`).

A sum over pairs of neighbours j, k with weights w ∝ 1 / distance:

    Quadratic(neighbours(…))            ½ w (xⱼ − xₖ)²
    Quadratic(bowsher(…, MR))           the same, with Bowsher weights: see `medjax.bowsher`
    Patch(neighbours(…), delta)         w ψ(t), t the distance of the patches around j and k
    RelativeDifference(neighbours(…))   w (xⱼ − xₖ)² / (xⱼ + xₖ + γ |xⱼ − xₖ| + ε)

Every pair is counted once; `weights[o]` at voxel j belongs to the pair of j and j + offsets[o].
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Scalar, Shaped

from medjax.errors import ConfigError
from medjax.one_program import one_program


@runtime_checkable
class Penalty(Protocol):
    """Protocol of a penalty R(x), which an algorithm multiplies by its weight. Arrays are pytree leaves."""

    def value(self, image: Array) -> Scalar:
        """Value of the penalty R(x)."""
        ...

    def gradient(self, image: Array) -> Array:
        """Gradient ∂ R / ∂ x."""
        ...


def require(penalty: Any, use: str, *methods: str) -> None:
    """Check that a penalty has the methods that `use` needs.

    Raises:
        ConfigError: it lacks one; the message names both.
    """
    missing = [name for name in methods if not callable(getattr(penalty, name, None))]
    if missing:
        raise ConfigError(
            f"{use} needs a penalty with {', '.join(methods)}; {type(penalty).__name__} has no {missing[0]}"
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FunctionPenalty:
    """Penalty of any function of the image, with its gradient by automatic differentiation."""

    function: Callable[[Array], Scalar]  # a `Partial`

    def value(self, image: Float[Array, "*space"]) -> Scalar:
        """Value of the function."""
        return self.function(image)

    def gradient(self, image: Float[Array, "*space"]) -> Float[Array, "*space"]:
        """Gradient of the function."""
        return jax.grad(self.function)(image)


def from_function(function: Callable[[Array], Scalar]) -> FunctionPenalty:
    """Penalty from a function of the image; a `jax.tree_util.Partial` keeps its arrays traced."""
    return FunctionPenalty(function if isinstance(function, Partial) else Partial(function))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Neighbors:
    """Pairs of neighbouring voxels and their weights, 0 where a pair would leave the image."""

    weights: Float[Array, "*stack offset x y z"]
    offsets: tuple[tuple[int, int, int], ...] = field(metadata={"static": True})


def neighbors(shape: tuple[int, int, int], voxel_mm: tuple[float, float, float]) -> Neighbors:
    """Pairs of neighbouring voxels in a 3 × 3 × 3 neighbourhood (3 × 3 in a single slice), weighted by 1 / distance.

    The weights around a voxel inside add up to 1, so that a penalty's strength does not depend on the neighbourhood.
    """
    reach = [range(-1, 2) if n > 1 else range(1) for n in shape]
    offsets = tuple((i, j, k) for i, j, k in product(*reach) if (i, j, k) > (0, 0, 0))
    weight = 1 / np.linalg.norm(np.multiply(offsets, voxel_mm), axis=1)
    weight = weight / (2 * weight.sum())
    inside = np.pad(np.ones(shape), 1)
    there = [inside[tuple(slice(1 + i, 1 + i + n) for i, n in zip(o, shape, strict=True))] for o in offsets]
    return Neighbors(jnp.asarray(np.stack([w * t for w, t in zip(weight, there, strict=True)])), offsets)


@one_program
def edge_weights(pairs: Neighbors, kappa: Float[Array, "x y z"]) -> Neighbors:
    """Spatially varying weights w κⱼ κₖ, for any penalty on pairs: resolution is then uniform, and not finer where
    the data are less certain.

    Args:
        pairs: pairs of neighbours and their weights w.
        kappa: image κ of the certainty of the data, such as `medjax.pet.kappa.kappa`; κ = 1 changes nothing.

    Source: Fessler & Rogers, IEEE Transactions on Image Processing 5(9), 1996.
    """
    both = [weight * (kappa * shift(kappa, o)) for weight, o in zip(pairs.weights, pairs.offsets, strict=True)]
    return replace(pairs, weights=jnp.stack(both))


@one_program
def patch_weights(pairs: Neighbors, image: Float[Array, "x y z"], delta: float | Scalar) -> Neighbors:
    """Patch-based weights, with which the quadratic penalty majorises the patch-based one at `image`.

    The penalty is Σ w ψ(t), ψ(t) = δ² (t / δ − log(1 + t / δ)), t² the mean over a 3 × 3 (× 3) patch of the squared
    differences between the patches around j and k. So w is multiplied by the patch mean of 1 / (1 + t / δ).

    Source: Wang & Qi, IEEE Transactions on Medical Imaging 31(12), 2012.
    """
    weights = []
    for weight, offset in zip(pairs.weights, pairs.offsets, strict=True):
        weights.append(weight * _patch_mean(delta / (delta + _patch_distance(weight, offset, image))))
    return replace(pairs, weights=jnp.stack(weights))


def _patch_distance(weight: Array, offset: tuple[int, ...], image: Array) -> Array:
    square = _patch_mean(jnp.where(weight > 0, (image - shift(image, offset)) ** 2, 0))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)  # whose gradient at 0 is 0, not NaN


def _patch_mean(image: Array) -> Array:
    for axis, side in enumerate(image.shape):
        if side > 1:
            ahead = tuple(int(k == axis) for k in range(3))
            image = (image + shift(image, ahead) + shift(image, tuple(-i for i in ahead))) / 3
    return image


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quadratic:
    """Quadratic penalty ½ Σ w (xⱼ − xₖ)²."""

    pairs: Neighbors

    @one_program
    def value(self, image: Float[Array, "x y z"]) -> Scalar:
        """Value ½ Σ w (xⱼ − xₖ)²."""
        return _sum_over_pairs(self.pairs, image, lambda a, b: (a - b) ** 2 / 2)

    @one_program
    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Gradient Σ_k w (xⱼ − xₖ)."""
        return _gather_pairs(self.pairs, image, lambda a, b: a - b)

    @one_program
    def surrogate(self, image: Float[Array, "x y z"]) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"]]:
        """De Pierro's separable surrogate at `image`, as its anchor and curvature.

        ½ Σ curvature (x − anchor)², up to a constant, touches the penalty there and lies above it elsewhere:
        anchor_j = Σ_k w (xⱼ + xₖ) / (2 Wⱼ), curvature_j = 2 Wⱼ, Wⱼ = Σ_k w. A voxel without neighbours is its own
        anchor.
        """
        total = self.curvature(image)
        mixed = _gather_pairs(self.pairs, image, lambda a, b: b)
        anchor = jnp.where(total > 0, (image + mixed / jnp.where(total > 0, total, 1)) / 2, image)
        return anchor, 2 * total

    @one_program
    def curvature(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """The Hessian's diagonal, Wⱼ = Σ_k w."""
        return _gather_pairs(self.pairs, image, lambda a, b: jnp.ones_like(a))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Patch:
    """Patch-based penalty Σ w ψ(t), ψ(t) = δ² (t / δ − log(1 + t / δ)), t the distance of the patches of j and k.

    t² is the mean over a 3 × 3 (× 3) patch of the squared differences. Gradient and surrogate are those of the
    quadratic that `patch_weights` gives at the image: the gradient is exact where all weights of a patch are equal,
    as they are away from the border.

    Source: Wang & Qi, IEEE Transactions on Medical Imaging 31(12), 2012.
    """

    pairs: Neighbors
    delta: float | Scalar

    @one_program
    def value(self, image: Float[Array, "x y z"]) -> Scalar:
        """Value Σ w ψ(t)."""
        total = jnp.zeros((), image.dtype)
        for weight, offset in zip(self.pairs.weights, self.pairs.offsets, strict=True):
            ratio = _patch_distance(weight, offset, image) / self.delta
            total = total + jnp.sum(weight * self.delta**2 * (ratio - jnp.log1p(ratio)))
        return total

    @one_program
    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Gradient, of the quadratic that touches the penalty at `image`."""
        return Quadratic(patch_weights(self.pairs, image, self.delta)).gradient(image)

    @one_program
    def surrogate(self, image: Float[Array, "x y z"]) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"]]:
        """De Pierro's surrogate, of the quadratic that touches the penalty at `image`, as its anchor and curvature."""
        return Quadratic(patch_weights(self.pairs, image, self.delta)).surrogate(image)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RelativeDifference:
    """Relative difference penalty (RDP) Σ w d² / (xⱼ + xₖ + γ |d| + ε), d = xⱼ − xₖ, for images ≥ 0.

    With ε = 0 two voxels that are both 0 add 0 to value, gradient and curvature: there the value has its minimum.

    Source: Nuyts et al., IEEE Transactions on Nuclear Science 49(1), 2002.
    """

    pairs: Neighbors
    gamma: float | Scalar = 2.0
    epsilon: float | Scalar = 1e-9

    @one_program
    def value(self, image: Float[Array, "x y z"]) -> Scalar:
        """Value Σ w d² / (xⱼ + xₖ + γ |d| + ε)."""
        return _sum_over_pairs(self.pairs, image, lambda a, b: (a - b) * self._relative(a, b, a - b))

    @one_program
    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Gradient Σ_k w d (γ |d| + xⱼ + 3 xₖ + 2ε) / (xⱼ + xₖ + γ |d| + ε)²."""

        def slope(a: Array, b: Array) -> Array:
            rest = self.gamma * jnp.abs(a - b) + a + 3 * b + 2 * self.epsilon
            return self._relative(a, b, a - b) * self._relative(a, b, rest)

        return _gather_pairs(self.pairs, image, slope)

    @one_program
    def curvature(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """The Hessian's diagonal, Σ_k w 2 (2 xₖ + ε)² / (xⱼ + xₖ + γ |d| + ε)³: never negative."""

        def curved(a: Array, b: Array) -> Array:
            return 2 * self._relative(a, b, 2 * b + self.epsilon) ** 2 * self._relative(a, b, jnp.ones_like(a))

        return _gather_pairs(self.pairs, image, curved)

    def _relative(self, a: Array, b: Array, term: Array) -> Array:
        """Term / (a + b + γ |a − b| + ε), and 0 where that is 0 / 0."""
        below = a + b + self.gamma * jnp.abs(a - b) + self.epsilon
        return jnp.where(below > 0, term / jnp.where(below > 0, below, 1), 0)


def _sum_over_pairs(pairs: Neighbors, image: Array, cost: Callable[[Array, Array], Array]) -> Scalar:
    terms = (jnp.sum(w * cost(image, shift(image, o))) for w, o in zip(pairs.weights, pairs.offsets, strict=True))
    return sum(terms, jnp.zeros((), image.dtype))


def _gather_pairs(pairs: Neighbors, image: Array, slope: Callable[[Array, Array], Array]) -> Array:
    """Σ over all neighbours k of w · slope(xⱼ, xₖ)."""
    total = jnp.zeros_like(image)
    for weight, offset in zip(pairs.weights, pairs.offsets, strict=True):
        back = tuple(-i for i in offset)
        total = (
            total + weight * slope(image, shift(image, offset)) + shift(weight, back) * slope(image, shift(image, back))
        )
    return total


def shift(image: Shaped[Array, "x y z"], offset: tuple[int, ...]) -> Shaped[Array, "x y z"]:
    """The value at j + offset, of every voxel j; 0 where that lies outside."""
    padding = [(max(-o, 0), max(o, 0), 0) for o in offset]
    window = tuple(slice(max(o, 0), max(o, 0) + n) for o, n in zip(offset, image.shape, strict=True))
    return jax.lax.pad(image, jnp.zeros((), image.dtype), padding)[window]
