"""Layer-wise relevance propagation (LRP): the logit of a class, handed back layer by layer to the voxels.

    attribute = lrp(model, params, epsilon_plus_flat())
    relevance = attribute(x)                     x (*space, channel); relevance of the same shape
    ratio = conservation(model, params, epsilon_plus_flat())(x)      Σ relevance / logit, 1 where it is conserved

A composite chooses a rule of `lrp_rules` for each layer by its kind. Relevance starts as the class's logit, so that
positive relevance is evidence for the class also where its logit is negative. It is conserved but for what biases take
(a norm has one: see `models.relevance`), what ε takes, and what outputs without contributions lose. Both functions may
be jitted and mapped over images.

Source: Bach et al., PLoS ONE 10(7), 2015; composites: Kohlbrenner et al., IJCNN 2020, and Anders et al., Zennit, 2021.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Scalar

from medjax.errors import DataError
from medjax.models import require
from medjax.models.relevance import Layer
from medjax.shortcuts.attribution import lrp_rules
from medjax.shortcuts.attribution.lrp_rules import STABILIZER, Rule
from medjax.shortcuts.attribution.target import Attribution, Image, Target


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Composite:
    """Rules of a network by kind of layer: a pytree, hashable, and equal to another one built equally."""

    convolution: Rule
    dense: Rule
    first: Rule | None = None  # of the first layer with a kernel, whatever its kind
    epsilon: float | Array = STABILIZER  # stabiliser of residual sums, pooling and norms

    def rule(self, layer: Layer) -> Rule:
        """Rule of a layer."""
        if layer.number == 0 and self.first is not None:
            return self.first
        return self.dense if layer.kind == "dense" else self.convolution


def epsilon_plus_flat(epsilon: float | Array = STABILIZER) -> Composite:
    """Composite EpsilonPlusFlat: flat for the first layer, z⁺ for convolutions, ε for dense layers."""
    return Composite(lrp_rules.z_plus(), lrp_rules.epsilon(epsilon), lrp_rules.flat())


def epsilon_gamma_flat(gamma: float | Array = 0.25, epsilon: float | Array = STABILIZER) -> Composite:
    """Composite of γ for convolutions, ε for dense layers, and flat for the first layer."""
    return Composite(lrp_rules.gamma(gamma), lrp_rules.epsilon(epsilon), lrp_rules.flat())


def uniform(rule: Rule) -> Composite:
    """Composite of one rule for all layers."""
    return Composite(rule, rule)


def lrp(model: Any, params: PyTree, composite: Any, target: Target = None) -> Attribution:
    """Relevance map of the logit of class `target`, or of the model's arg-max class: x (*space, channel) → map.

    `composite` is a `Composite`, or any pytree with its `rule(layer)` and `epsilon`.

    Raises:
        ConfigError: the model has no `relevance`; (when called) a layer without a rule, which the message names.
        DataError: (when called) there is no class `target`, or the output is not (batch, class).
    """
    propagate = _propagation(model, params, composite, target)

    def attribute(x: Image) -> Image:
        return propagate(x)[0]

    return attribute


def conservation(model: Any, params: PyTree, composite: Any, target: Target = None) -> Callable[[Image], Scalar]:
    """Σ relevance / logit of an image, x (*space, channel) → ratio: 1 where relevance is conserved.

    Raises:
        ConfigError, DataError: see `lrp`.
    """
    propagate = _propagation(model, params, composite, target)

    def ratio(x: Image) -> Scalar:
        relevance, logit = propagate(x)
        return jnp.sum(relevance) / logit

    return ratio


def _propagation(model: Any, params: PyTree, composite: Any, target: Target) -> Callable[[Image], tuple[Array, Array]]:
    relevance = require(model, "relevance", "LRP")

    def propagate(x: Image) -> tuple[Array, Array]:
        logits, pullback = jax.vjp(lambda images: relevance(params, images, composite), jnp.asarray(x)[None])
        if getattr(logits, "ndim", 0) != 2:
            found = getattr(logits, "shape", f"a {type(logits).__name__}")
            raise DataError(f"the network gives {found} for one image; LRP expects logits (batch, class)")
        classes = logits.shape[1]
        if isinstance(target, int | np.integer) and not 0 <= target < classes:
            raise DataError(f"target: class {target}; the network has classes 0 … {classes - 1}")
        chosen = jnp.argmax(logits[0]) if target is None else target
        start = jnp.where(jnp.arange(classes) == chosen, logits, 0)
        (relevance_of_x,) = pullback(start)
        known = (chosen >= 0) & (chosen < classes)  # where the class is traced
        return jnp.where(known, relevance_of_x[0], jnp.nan), jnp.where(known, jnp.sum(start), jnp.nan)

    return propagate
