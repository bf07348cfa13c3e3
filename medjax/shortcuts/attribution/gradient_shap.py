"""GradientSHAP: expected gradients between the image and baselines drawn from a set.

    map(x) = E[(x − b) ⊙ ∇f(b + t (x − b))],   b uniform among the baselines, t ~ U(0, 1)

With one baseline it is integrated gradients by Monte Carlo. Sample n has the key `fold_in(key, n)`.

Source: Lundberg & Lee, NeurIPS 2017 (the SHAP package's GradientExplainer); Erion, Janizek, Sturmfels, Lundberg & Lee,
Nature Machine Intelligence 3, 2021 (expected gradients).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from medjax.errors import DataError
from medjax.shortcuts.attribution.samples import sum_over
from medjax.shortcuts.attribution.target import AnyArray, Attribution, Image, Score, at_image


def gradient_shap(
    key: PRNGKeyArray,
    score: Score,
    baselines: Float[AnyArray, "number *space channel"],
    samples: int = 50,
    chunk: int = 1,
) -> Attribution:
    """GradientSHAP: x → map of x's shape; NaN where the score of a sample is not finite.

    Args:
        key: random key.
        score: f(x) of one image.
        baselines: images to start from, such as some of the training set.
        samples: pairs of a baseline and a point on the way.
        chunk: gradients computed at a time; memory grows with it, and not with `samples`.

    Raises:
        DataError: (when called) baselines are none or of another shape, `samples` or `chunk` is below 1.
    """

    def attribute(x: Image) -> Image:
        x = jnp.asarray(x)
        starts = jnp.asarray(baselines, x.dtype)
        if starts.shape[1:] != x.shape or not len(starts):
            raise DataError(f"baselines: shape {starts.shape}; expected one or more of the image's {x.shape}")
        own = at_image(score, x)

        def part(n: Array) -> Array:
            which, where = jax.random.split(jax.random.fold_in(key, n))
            away = x - (start := starts[jax.random.randint(which, (), 0, len(starts))])
            value, slope = jax.value_and_grad(own)(start + jax.random.uniform(where, (), x.dtype) * away)
            return jnp.where(jnp.isfinite(value), away * slope, jnp.nan)

        return sum_over(part, samples, chunk, jnp.zeros_like(x)) / samples

    return attribute
