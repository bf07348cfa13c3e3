"""Rules of layer-wise relevance propagation for linear layers: how relevance of outputs is split among inputs.

    R_i = Σ_j z_ij / z_j · R_j      z_ij = x_i w_ij for `epsilon`; other rules count other contributions

    rule = gamma(0.25)
    relevance of x = rule(operation, kernel, bias, x, relevance of outputs)     y = operation(kernel, x) + bias

`operation` is bilinear, a convolution of any number of axes or a matrix product, so a rule is written once for all. A
bias takes its part of the relevance. Denominators are z + ε sign(z), sign(0) = +1, ε = `stabilizer`. A rule of one's
own is a `Rule` of a function of (operation, kernel, bias, x, relevance, *settings). Settings may be traced.

Source: Bach et al., PLoS ONE 10(7), 2015 (ε, αβ); Montavon et al., Pattern Recognition 65, 2017 (z⁺, w², z-box);
Lapuschkin et al., Nature Communications 10, 2019 (flat); Montavon et al., Layer-Wise Relevance Propagation: An
Overview, 2019 (γ), and Andéol et al., 2021 (γ for inputs of both signs).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import ConfigError
from medjax.models.relevance import Operation, redistribute

STABILIZER = 1e-6
Term = tuple[Array, Array]  # kernel and input of one of the operations that are summed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rule:
    """A rule and its settings: a pytree, hashable, and equal to another one built equally."""

    function: Callable[..., Array] = field(metadata={"static": True})
    settings: tuple[Any, ...] = ()

    def __call__(
        self, operation: Operation, kernel: Array, bias: Array, x: Float[Array, "*in"], relevance: Float[Array, "*out"]
    ) -> Float[Array, "*in"]:
        """Relevance of x."""
        return self.function(operation, kernel, bias, x, relevance, *self.settings)


def epsilon(epsilon: float | Array = STABILIZER) -> Rule:
    """LRP-ε: z_ij = x_i w_ij. For ε → 0 it is input × gradient in a network of ReLUs (LRP-0)."""
    return Rule(_epsilon, (_positive(epsilon, "epsilon"),))


def gamma(gamma: float | Array = 0.25, stabilizer: float | Array = STABILIZER) -> Rule:
    """LRP-γ: contributions of the output's sign count 1 + γ times: z_ij + γ z_ij⁺ where z_j > 0, else z_ij + γ z_ij⁻.

    It is LRP-ε for γ = 0, and where z_j > 0 it tends to z⁺ for large γ. For inputs ≥ 0 and outputs > 0 it is Montavon's
    w + γ w⁺.
    """
    return Rule(_gamma, (_positive(gamma, "gamma", or_zero=True), _positive(stabilizer, "stabilizer")))


def alpha_beta(alpha: float | Array = 1.0, beta: float | Array = 0.0, stabilizer: float | Array = STABILIZER) -> Rule:
    """LRP-αβ: α times the split by positive contributions − β times that by negative ones; α − β = 1.

    Raises:
        ConfigError: α − β is not 1, or β is below 0.
    """
    if not isinstance(alpha, Array) and not isinstance(beta, Array) and abs(alpha - beta - 1) > 1e-6:
        raise ConfigError(f"alpha, beta: {alpha}, {beta}; expected alpha - beta = 1, else relevance is not conserved")
    return Rule(_alpha_beta, (alpha, _positive(beta, "beta", or_zero=True), _positive(stabilizer, "stabilizer")))


def z_plus(stabilizer: float | Array = STABILIZER) -> Rule:
    """LRP-z⁺: positive contributions alone, z_ij⁺; for inputs of both signs those of x⁺ w⁺ and x⁻ w⁻ (= α1β0).

    Relevance of an output without positive contributions is lost.
    """
    return Rule(_z_plus, (_positive(stabilizer, "stabilizer"),))


def flat(stabilizer: float | Array = STABILIZER) -> Rule:
    """LRP-flat: equal parts to all inputs of an output."""
    return Rule(_flat, (_positive(stabilizer, "stabilizer"),))


def w_square(stabilizer: float | Array = STABILIZER) -> Rule:
    """LRP-w²: w_ij², whatever the input."""
    return Rule(_w_square, (_positive(stabilizer, "stabilizer"),))


def z_box(low: float | Array, high: float | Array, stabilizer: float | Array = STABILIZER) -> Rule:
    """LRP-z-box (zᴮ) for the first layer of images within [low, high]: x_i w_ij − low w_ij⁺ − high w_ij⁻ (≥ 0)."""
    return Rule(_z_box, (low, high, _positive(stabilizer, "stabilizer")))


def _positive(value: float | Array, name: str, or_zero: bool = False) -> float | Array:
    if not isinstance(value, Array) and (value < 0 or (value == 0 and not or_zero)):
        raise ConfigError(f"{name}: {value}; expected {'0 or more' if or_zero else 'more than 0'}")
    return value


def _split(
    operation: Operation, terms: Sequence[Term], bias: Array | float, relevance: Array, stabilizer: Any
) -> Array:
    """R_i = Σ_t x_i w_ij / z_j · R_j over the terms t of z = Σ_t operation(w, x) + bias."""
    kernels, xs = zip(*terms, strict=True)

    def total(*xs: Array) -> Array:
        return jax.tree.reduce(jnp.add, [operation(kernel, x) for kernel, x in zip(kernels, xs, strict=True)]) + bias

    return jax.tree.reduce(jnp.add, redistribute(total, xs, relevance, stabilizer))


def _signed(kernel: Array, x: Array, sign: int) -> list[Term]:
    """Terms of the contributions of one sign: x⁺ w⁺ + x⁻ w⁻, or x⁺ w⁻ + x⁻ w⁺."""
    like, other = (_part(kernel, sign), _part(kernel, -sign))
    return [(like, _part(x, 1)), (other, _part(x, -1))]


def _part(x: Array, sign: int) -> Array:
    """Positive or negative part."""
    return jnp.maximum(x, 0) if sign > 0 else jnp.minimum(x, 0)


def _epsilon(operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, epsilon: Any) -> Array:
    return _split(operation, [(kernel, x)], bias, relevance, epsilon)


def _gamma(
    operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, gamma: Any, stabilizer: Any
) -> Array:
    positive = operation(kernel, x) + bias > 0

    def split(sign: int, relevance: Array) -> Array:
        more = [(gamma * kernel, x) for kernel, x in _signed(kernel, x, sign)]
        return _split(operation, [(kernel, x), *more], bias + gamma * _part(bias, sign), relevance, stabilizer)

    return split(1, jnp.where(positive, relevance, 0)) + split(-1, jnp.where(positive, 0, relevance))


def _alpha_beta(
    operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, alpha: Any, beta: Any, stabilizer: Any
) -> Array:
    positive, negative = (
        _split(operation, _signed(kernel, x, sign), _part(bias, sign), relevance, stabilizer) for sign in (1, -1)
    )
    return alpha * positive - beta * negative


def _z_plus(operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, stabilizer: Any) -> Array:
    return _split(operation, _signed(kernel, x, 1), _part(bias, 1), relevance, stabilizer)


def _flat(operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, stabilizer: Any) -> Array:
    return _split(operation, [(jnp.ones_like(kernel), jnp.ones_like(x))], 0.0, relevance, stabilizer)


def _w_square(operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, stabilizer: Any) -> Array:
    return _split(operation, [(kernel**2, jnp.ones_like(x))], 0.0, relevance, stabilizer)


def _z_box(
    operation: Operation, kernel: Array, bias: Array, x: Array, relevance: Array, low: Any, high: Any, stabilizer: Any
) -> Array:
    limits = ((_part(kernel, 1), jnp.full_like(x, low)), (_part(kernel, -1), jnp.full_like(x, high)))
    return _split(operation, [(kernel, x), *((-w, limit) for w, limit in limits)], 0.0, relevance, stabilizer)
