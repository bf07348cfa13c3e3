"""Gradient of a score (saliency), and input × gradient.

    map(x) = ∇f(x)                  gradient
    map(x) = x ⊙ ∇f(x)              input × gradient

The absolute value, which some call saliency, is the caller's: `jnp.abs(map)`.
"""

import jax
import jax.numpy as jnp

from medjax.shortcuts.attribution.target import Attribution, Image, Score


def gradient(score: Score) -> Attribution:
    """Gradient ∇f(x) of a score: x → map of x's shape.

    NaN where the score is not finite: a ReLU would make a gradient of 0 of it.

    Source: Simonyan, Vedaldi & Zisserman, ICLR workshop 2014.
    """

    def attribute(x: Image) -> Image:
        value, slope = jax.value_and_grad(score)(jnp.asarray(x))
        return jnp.where(jnp.isfinite(value), slope, jnp.nan)

    return attribute


def input_times_gradient(score: Score) -> Attribution:
    """Input × gradient x ⊙ ∇f(x): x → map of x's shape; NaN where the score is not finite.

    Source: Shrikumar, Greenside, Shcherbina & Kundaje, arXiv 1605.01713, 2016.
    """

    def attribute(x: Image) -> Image:
        return jnp.asarray(x) * gradient(score)(x)

    return attribute
