"""Penalties: what an algorithm asks of one, and those on differences between neighbouring voxels.

A `Penalty` has `value(x)` and `gradient(x)`, without its weight, and, where it has one, `surrogate(x)` (De Pierro's
separable bound, for MAP-EM) and `curvature(x)` (the Hessian's diagonal). Any function of x becomes one by
`from_function`. The same object goes into MAP-EM, BSREM and DDS; an algorithm that needs more refuses it (`require`).

A sum over pairs of neighbours j, k with weights w ∝ 1 / distance:

    Quadratic(neighbours(…))            ½ w (xⱼ − xₖ)²
    Quadratic(bowsher(…, MR))           the same, with w = 0 unless the MR image says that j and k are alike
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
from jaxtyping import Array, Float, Scalar

from medjax.errors import ConfigError, DataError


@runtime_checkable
class Penalty(Protocol):
    """R(x), to be weighted by the algorithm that takes it. Arrays are pytree leaves."""

    def value(self, image: Array) -> Scalar:
        """R(x)."""
        ...

    def gradient(self, image: Array) -> Array:
        """∂ R / ∂ x."""
        ...


def require(penalty: Any, use: str, *methods: str) -> None:
    """Pass a penalty that has the methods that `use` needs.

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
    """Any function of the image, with the gradient by automatic differentiation."""

    function: Callable[[Array], Scalar]  # a `Partial`

    def value(self, image: Float[Array, "*space"]) -> Scalar:
        """The function's value."""
        return self.function(image)

    def gradient(self, image: Float[Array, "*space"]) -> Float[Array, "*space"]:
        """Its derivative."""
        return jax.grad(self.function)(image)


def from_function(function: Callable[[Array], Scalar]) -> FunctionPenalty:
    """The penalty of a function of the image; a `jax.tree_util.Partial` keeps its arrays traced."""
    return FunctionPenalty(function if isinstance(function, Partial) else Partial(function))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Neighbours:
    """Pairs of neighbours and their weights; 0 where a pair would leave the image."""

    weights: Float[Array, "*stack offset x y z"]
    offsets: tuple[tuple[int, int, int], ...] = field(metadata={"static": True})


def neighbours(shape: tuple[int, int, int], voxel_mm: tuple[float, float, float]) -> Neighbours:
    """All pairs in a 3 × 3 × 3 neighbourhood (3 × 3 in a single slice), weighted by 1 / distance.

    The weights around a voxel inside add up to 1, so that a penalty's strength does not depend on the neighbourhood.
    """
    reach = [range(-1, 2) if n > 1 else range(1) for n in shape]
    offsets = tuple((i, j, k) for i, j, k in product(*reach) if (i, j, k) > (0, 0, 0))
    weight = 1 / np.linalg.norm(np.multiply(offsets, voxel_mm), axis=1)
    weight = weight / (2 * weight.sum())
    inside = np.pad(np.ones(shape), 1)
    there = [inside[tuple(slice(1 + i, 1 + i + n) for i, n in zip(o, shape, strict=True))] for o in offsets]
    return Neighbours(jnp.asarray(np.stack([w * t for w, t in zip(weight, there, strict=True)])), offsets)


def bowsher(plain: Neighbours, guide: Float[Array, "x y z"], similar: int = 4) -> Neighbours:
    """Keep, for each voxel, the `similar` neighbours whose `guide` (MR) value is nearest to its own; symmetrised.

    The weight of a pair is the mean of what its two voxels say, so the penalty has a gradient and De Pierro's form
    holds. Neighbours that are equally near share what is left to choose: a flat region is smoothed alike in all
    directions.

    Raises:
        DataError: shapes differ, a guide value is not finite, or `similar` is not between 1 and the number of
        neighbours.

    Source: Bowsher et al., IEEE Nuclear Science Symposium Conference Record, 2004; symmetrised as in Schramm et al.
    2018.
    """
    if guide.shape != plain.weights.shape[1:]:
        raise DataError(f"guide image: shape {guide.shape}; expected {plain.weights.shape[1:]}")
    if not np.all(np.isfinite(guide)):
        raise DataError("guide image: holds values that are not finite")
    number = 2 * len(plain.offsets)
    if not 1 <= similar <= number:
        raise DataError(f"similar: {similar}; expected 1 to {number}")
    return _similar_only(plain, guide, similar)


@jax.jit
def _similar_only(plain: Neighbours, guide: Array, similar: Array) -> Neighbours:
    both = [*plain.offsets, *(tuple(-i for i in o) for o in plain.offsets)]
    inside = [_shift(jnp.ones(guide.shape, bool), o) for o in both]
    difference = jnp.stack(
        [jnp.where(i, jnp.abs(guide - _shift(guide, o)), jnp.inf) for i, o in zip(inside, both, strict=True)]
    )
    chosen = [_share(difference, one, similar) for one in difference[:, None]]
    half = len(plain.offsets)
    pairs = zip(plain.weights, chosen[:half], chosen[half:], plain.offsets, strict=True)
    return replace(plain, weights=jnp.stack([w * (there + _shift(back, o)) / 2 for w, there, back, o in pairs]))


def _share(difference: Array, one: Array, similar: Array) -> Array:
    """1 for a neighbour among the `similar` nearest, 0 for one that is not, a fraction where some tie for the rest."""
    nearer, tied = jnp.sum(difference < one, axis=0), jnp.sum(difference == one, axis=0)
    return jnp.clip((similar - nearer) / tied, 0.0, 1.0)


def patch_weights(pairs: Neighbours, image: Float[Array, "x y z"], delta: float | Scalar) -> Neighbours:
    """Weights with which the quadratic penalty touches the patch-based one at `image`, and lies above it elsewhere.

    The penalty is Σ w ψ(t), ψ(t) = δ² (t / δ − log(1 + t / δ)), t² the mean over a 3 × 3 (× 3) patch of the squared
    differences between the patches around j and k. So w is multiplied by the patch mean of 1 / (1 + t / δ).

    Source: Wang & Qi, IEEE Transactions on Medical Imaging 31(12), 2012.
    """
    weights = []
    for weight, offset in zip(pairs.weights, pairs.offsets, strict=True):
        weights.append(weight * _patch_mean(delta / (delta + _patch_distance(weight, offset, image))))
    return replace(pairs, weights=jnp.stack(weights))


def _patch_distance(weight: Array, offset: tuple[int, ...], image: Array) -> Array:
    square = _patch_mean(jnp.where(weight > 0, (image - _shift(image, offset)) ** 2, 0))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)  # whose gradient at 0 is 0, not NaN


def _patch_mean(image: Array) -> Array:
    for axis, side in enumerate(image.shape):
        if side > 1:
            ahead = tuple(int(k == axis) for k in range(3))
            image = (image + _shift(image, ahead) + _shift(image, tuple(-i for i in ahead))) / 3
    return image


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quadratic:
    """½ Σ w (xⱼ − xₖ)²."""

    pairs: Neighbours

    def value(self, image: Float[Array, "x y z"]) -> Scalar:
        """½ Σ w (xⱼ − xₖ)²."""
        return _sum_over_pairs(self.pairs, image, lambda a, b: (a - b) ** 2 / 2)

    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Σ_k w (xⱼ − xₖ)."""
        return _gather_pairs(self.pairs, image, lambda a, b: a - b)

    def surrogate(self, image: Float[Array, "x y z"]) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"]]:
        """Anchor and curvature of De Pierro's separable bound at `image`.

        ½ Σ curvature (x − anchor)², up to a constant, touches the penalty there and lies above it elsewhere:
        anchor_j = Σ_k w (xⱼ + xₖ) / (2 Wⱼ), curvature_j = 2 Wⱼ, Wⱼ = Σ_k w. A voxel without neighbours is its own
        anchor.
        """
        total = self.curvature(image)
        mixed = _gather_pairs(self.pairs, image, lambda a, b: b)
        anchor = jnp.where(total > 0, (image + mixed / jnp.where(total > 0, total, 1)) / 2, image)
        return anchor, 2 * total

    def curvature(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """The Hessian's diagonal, Wⱼ = Σ_k w."""
        return _gather_pairs(self.pairs, image, lambda a, b: jnp.ones_like(a))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Patch:
    """Σ w ψ(t), ψ(t) = δ² (t / δ − log(1 + t / δ)), t the distance between the patches around j and k.

    t² is the mean over a 3 × 3 (× 3) patch of the squared differences. Gradient and surrogate are those of the
    quadratic that `patch_weights` gives at the image: the gradient is exact where all weights of a patch are equal,
    as they are away from the border.

    Source: Wang & Qi, IEEE Transactions on Medical Imaging 31(12), 2012.
    """

    pairs: Neighbours
    delta: float | Scalar

    def value(self, image: Float[Array, "x y z"]) -> Scalar:
        """Σ w ψ(t)."""
        total = jnp.zeros((), image.dtype)
        for weight, offset in zip(self.pairs.weights, self.pairs.offsets, strict=True):
            ratio = _patch_distance(weight, offset, image) / self.delta
            total = total + jnp.sum(weight * self.delta**2 * (ratio - jnp.log1p(ratio)))
        return total

    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """That of the quadratic that touches it at `image`."""
        return Quadratic(patch_weights(self.pairs, image, self.delta)).gradient(image)

    def surrogate(self, image: Float[Array, "x y z"]) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"]]:
        """De Pierro's bound of the quadratic that touches it at `image`."""
        return Quadratic(patch_weights(self.pairs, image, self.delta)).surrogate(image)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RelativeDifference:
    """Σ w d² / (xⱼ + xₖ + γ |d| + ε), d = xⱼ − xₖ, for images ≥ 0.

    Source: Nuyts et al., IEEE Transactions on Nuclear Science 49(1), 2002.
    """

    pairs: Neighbours
    gamma: float | Scalar = 2.0
    epsilon: float | Scalar = 1e-9

    def value(self, image: Float[Array, "x y z"]) -> Scalar:
        """Σ w d² / (xⱼ + xₖ + γ |d| + ε)."""
        return _sum_over_pairs(self.pairs, image, lambda a, b: (a - b) ** 2 / self._below(a, b))

    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Σ_k w d (γ |d| + xⱼ + 3 xₖ + 2ε) / (xⱼ + xₖ + γ |d| + ε)²."""

        def slope(a: Array, b: Array) -> Array:
            return (a - b) * (self.gamma * jnp.abs(a - b) + a + 3 * b + 2 * self.epsilon) / self._below(a, b) ** 2

        return _gather_pairs(self.pairs, image, slope)

    def curvature(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """The Hessian's diagonal, Σ_k w 2 (2 xₖ + ε)² / (xⱼ + xₖ + γ |d| + ε)³: never negative."""
        return _gather_pairs(self.pairs, image, lambda a, b: 2 * (2 * b + self.epsilon) ** 2 / self._below(a, b) ** 3)

    def _below(self, a: Array, b: Array) -> Array:
        return a + b + self.gamma * jnp.abs(a - b) + self.epsilon


def _sum_over_pairs(pairs: Neighbours, image: Array, cost: Callable[[Array, Array], Array]) -> Scalar:
    terms = (jnp.sum(w * cost(image, _shift(image, o))) for w, o in zip(pairs.weights, pairs.offsets, strict=True))
    return sum(terms, jnp.zeros((), image.dtype))


def _gather_pairs(pairs: Neighbours, image: Array, slope: Callable[[Array, Array], Array]) -> Array:
    """Σ over all neighbours k of w · slope(xⱼ, xₖ)."""
    total = jnp.zeros_like(image)
    for weight, offset in zip(pairs.weights, pairs.offsets, strict=True):
        back = tuple(-i for i in offset)
        total = (
            total
            + weight * slope(image, _shift(image, offset))
            + _shift(weight, back) * slope(image, _shift(image, back))
        )
    return total


def _shift(image: Array, offset: tuple[int, ...]) -> Array:
    """The value at j + offset, 0 where that lies outside."""
    padding = [(max(-o, 0), max(o, 0), 0) for o in offset]
    window = tuple(slice(max(o, 0), max(o, 0) + n) for o, n in zip(offset, image.shape, strict=True))
    return jax.lax.pad(image, jnp.zeros((), image.dtype), padding)[window]
