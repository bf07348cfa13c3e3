"""Integrated gradients: the gradient averaged along the straight path from a baseline to the image.

    map(x) = (x − b) ⊙ ∫₀¹ ∇f(b + t (x − b)) dt          Σ map = f(x) − f(b), completeness

The integral is by Gauss–Legendre quadrature, exact for polynomials of degree 2 · steps − 1; networks with ReLUs are
none, and there the sum is off by a per cent or so at 50 steps (`faithfulness.completeness` measures it).

Source: Sundararajan, Taly & Yan, Axiomatic attribution for deep networks, ICML 2017.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax.errors import DataError
from medjax.shortcuts.attribution.baseline import Baseline, baseline_image
from medjax.shortcuts.attribution.samples import sum_over
from medjax.shortcuts.attribution.target import Attribution, Image, Score, at_image


def integrated_gradients(score: Score, steps: int = 50, baseline: Baseline = 0.0, chunk: int = 1) -> Attribution:
    """Integrated gradients: x → map of x's shape; NaN where the score of the image is not finite.

    Args:
        score: f(x) of one image.
        steps: nodes of the quadrature.
        baseline: b, a number, an image or a function of x.
        chunk: gradients computed at a time; memory grows with it, and not with `steps`.

    Raises:
        DataError: `steps` or `chunk` is below 1; (when called) the baseline has another shape.
    """
    if steps < 1:
        raise DataError(f"steps: {steps}; expected 1 or more")
    roots, weights = np.polynomial.legendre.leggauss(steps)  # on −1 … 1

    def attribute(x: Image) -> Image:
        x = jnp.asarray(x)
        start = baseline_image(baseline, x)
        own = at_image(score, x)
        at, weight = (jnp.asarray(each, x.dtype) for each in ((roots + 1) / 2, weights / 2))

        def slope(n: Array) -> Array:
            value, gradient = jax.value_and_grad(own)(start + at[n] * (x - start))
            return jnp.where(jnp.isfinite(value), weight[n] * gradient, jnp.nan)

        return (x - start) * sum_over(slope, steps, chunk, jnp.zeros_like(x))

    return attribute
