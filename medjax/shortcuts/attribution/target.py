"""What is attributed: a score, one number of one image. Here the logit of a class, and the split that Grad-CAM needs.

    score = class_score(model, params, target=1)             score(x) → logit of class 1
    features, head = class_features(model, params)           head(features(x)) → logit of the model's own class

A method that evaluates a score away from the image (on a path, with noise, occluded) must stay with the class of the
image. `target=None` is that class: methods take it by `at_image(score, x)`, which any score with a method `at(x)` has
a say in; a plain function is taken as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.errors import DataError
from medjax.models.model import Network, require

AnyArray = Array | np.ndarray
Image = Float[AnyArray, "*space channel"]
Score = Callable[[Image], Scalar]  # f(x) of one image
Attribution = Callable[[Image], Image]  # x → map
Target = int | Int[Array, ""] | None


@dataclass(frozen=True)
class ClassScore:
    """Logit (or softmax probability) of one class of a network for one image; see `class_score`."""

    model: Network
    params: PyTree
    target: Target = None  # None: the class of the largest logit
    probability: bool = False

    def __call__(self, x: Image) -> Scalar:
        """Score of the image `x`."""
        return _class_value(self._logits(x), self.target, self.probability)

    def at(self, x: Image) -> "ClassScore":
        """Score of the class of `x`, whatever image it is then evaluated on."""
        return self if self.target is not None else replace(self, target=jnp.argmax(self._logits(x)))

    def _logits(self, x: Image) -> Array:
        return _one_row(self.model.apply(self.params, jnp.asarray(x)[None]))


def class_score(model: Network, params: PyTree, target: Target = None, probability: bool = False) -> ClassScore:
    """Score of a classifier for one image (*space, channel): the logit of class `target`.

    Args:
        model: its `apply(params, images)` gives logits (batch, class).
        params: its parameters.
        target: class, 0 …; None: the class with the largest logit for the image that is explained.
        probability: softmax probability in place of the logit.

    Raises:
        DataError: (when called) there is no class `target` (NaN where it is traced), or the output is not
            (batch, class).
    """
    return ClassScore(model, params, target, probability)


def class_features(
    model: Network, params: PyTree, target: Target = None
) -> tuple[Callable[[Image], Array], Callable[[Array], Scalar]]:
    """Split of a classifier for one image: features(x) → (*coarse, channel), and head(features) → logit of `target`.

    Raises:
        ConfigError: the model has no `features` or no `head`.
        DataError: (when called) as for `class_score`; features are not one array.
    """
    last_map = require(model, "features", "a feature map")
    logits = require(model, "head", "a feature map")

    def features(x: Image) -> Array:
        maps = last_map(params, jnp.asarray(x)[None])
        if not hasattr(maps, "ndim") or maps.ndim != x.ndim + 1:
            found = getattr(maps, "shape", f"a {type(maps).__name__}")
            raise DataError(f"features: {found} for an image of {x.shape}; expected one map (batch, *space, channel)")
        return maps[0]

    def head(maps: Array) -> Scalar:
        return _class_value(_one_row(logits(params, maps[None])), target, probability=False)

    return features, head


def at_image(score: Score, x: Image) -> Score:
    """The score of the class of `x`, where the score has a method `at`; it is checked to be one number.

    Raises:
        DataError: (when called) the score of an image is not a scalar.
    """
    fixed = score.at(x) if hasattr(score, "at") else score

    def scalar(image: Image) -> Scalar:
        value = fixed(image)
        if jnp.shape(value) != ():
            raise DataError(f"score: shape {jnp.shape(value)} for one image; expected one number")
        return value

    return scalar


def _one_row(logits: Any) -> Array:
    shape = getattr(logits, "shape", f"a {type(logits).__name__}")
    if not hasattr(logits, "ndim") or logits.ndim != 2:
        raise DataError(f"the network gives {shape} for one image; expected logits (batch, class)")
    return logits[0]


def _class_value(logits: Array, target: Target, probability: bool) -> Scalar:
    classes = logits.shape[0]
    if isinstance(target, int | np.integer) and not 0 <= target < classes:
        raise DataError(f"target: class {target}; the network has classes 0 … {classes - 1}")
    chosen = jnp.argmax(logits) if target is None else jnp.asarray(target)
    values = jax.nn.softmax(logits) if probability else logits
    return jnp.where((chosen >= 0) & (chosen < classes), values[chosen], jnp.nan)
