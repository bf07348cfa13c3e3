"""RISE, randomized input sampling for explanation: masks weighted by the score of the image under them.

    map(x) = 1 / (p N) Σ_n f(x ⊙ m_n + b ⊙ (1 − m_n)) m_n

A mask is a grid of `cells` along each axis, each 1 with probability p, upsampled linearly to one cell more than the
image has, and cropped at a random offset. Any number of axes; mask n has the key `fold_in(key, n)`.

A score with a large mean over masks gives a noisy map: the published score is a softmax probability, which is
`class_score(…, probability=True)` here.

Source: Petsiuk, Das & Saenko, RISE, BMVC 2018.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from medjax.errors import DataError
from medjax.shortcuts.attribution.baseline import Baseline, baseline_image
from medjax.shortcuts.attribution.samples import sum_over
from medjax.shortcuts.attribution.target import Attribution, Image, Score, at_image


def rise(
    key: PRNGKeyArray,
    score: Score,
    samples: int = 1000,
    cells: int = 7,
    probability: float = 0.5,
    baseline: Baseline = 0.0,
    chunk: int = 1,
) -> Attribution:
    """RISE: x → map (*space, 1).

    Args:
        key: random key.
        score: f(x) of one image.
        samples: masks.
        cells: cells of a mask's grid along each axis.
        probability: p, of a cell to be kept.
        baseline: what a masked voxel is: a number, an image or a function of x; 0 as published.
        chunk: masked images at a time; memory grows with it, and not with `samples`.

    Raises:
        DataError: `probability` is not in 0–1; (when called) an axis has fewer voxels than `cells`, or `samples` or
            `chunk` is below 1.
    """
    if not 0 < probability <= 1:
        raise DataError(f"probability: {probability}; expected above 0, up to 1")

    def attribute(x: Image) -> Float[Array, "*space 1"]:
        x = jnp.asarray(x)
        nothing, own = baseline_image(baseline, x), at_image(score, x)

        def weighted(n: Array) -> Array:
            mask = rise_mask(jax.random.fold_in(key, n), x.shape[:-1], cells, probability)[..., None].astype(x.dtype)
            return mask * own(nothing + mask * (x - nothing))

        zero = jnp.zeros((*x.shape[:-1], 1), x.dtype)
        return sum_over(weighted, samples, chunk, zero) / (samples * probability)

    return attribute


def rise_mask(key: PRNGKeyArray, space: tuple[int, ...], cells: int, probability: float) -> Float[Array, "..."]:
    """One mask of RISE, values in 0–1, of shape `space`.

    Raises:
        DataError: `cells` is below 1, or an axis has fewer voxels.
    """
    if not 1 <= cells <= min(space):
        raise DataError(f"cells: {cells}; expected 1 up to the image's shortest side, {min(space)} voxels")
    draw, crop = jax.random.split(key)
    kept = jax.random.bernoulli(draw, probability, (cells ** len(space),)).reshape([cells] * len(space))
    mask = kept.astype(jnp.result_type(float))
    for axis, each in enumerate(jax.random.split(crop, len(space))):
        size = space[axis]
        side = -(-size // cells)
        weights = jax.image.resize(jnp.eye(cells), ((cells + 1) * side, cells), "linear")  # of an axis
        rows = jax.lax.dynamic_slice_in_dim(weights, jax.random.randint(each, (), 0, side), size)
        mask = jnp.moveaxis(jnp.tensordot(rows, mask, (1, axis), precision="highest"), 0, axis)
    return mask
