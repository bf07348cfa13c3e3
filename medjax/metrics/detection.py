"""Detection metrics of scores: ROC curve and its area (AUROC), average precision, bootstrap confidence interval.

`scores` are higher for images more likely to be positive (say, wrongly labelled), `positive` says which are. Scores are
compared in JAX's precision: float64 ones that differ by less than float32 sees are ties without `jax_enable_x64`. With
only one class present, or a score that is NaN, nothing is defined and every result is NaN. All functions jit and vmap.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Real, Scalar

from medjax.errors import DataError

AnyArray = Array | np.ndarray
Number = float | int | Real[AnyArray, ""]


class RocCurve(NamedTuple):
    """ROC curve from (0, 0) to (1, 1), one point for each score; tied scores repeat theirs."""

    false_positive_rate: Float[Array, "point"]
    true_positive_rate: Float[Array, "point"]
    threshold: Float[Array, "point"]  # an image with this score or more is flagged; infinity at the first point


class BootstrapInterval(NamedTuple):
    """An estimate and its bootstrap confidence interval."""

    estimate: Scalar
    low: Scalar
    high: Scalar
    undefined: Scalar  # fraction of resamples left out because the metric was NaN


@partial(jax.jit, inline=True)
def auroc(scores: Real[AnyArray, "image"], positive: Bool[AnyArray, "image"]) -> Scalar:
    """Area under the ROC curve (AUROC): P(a positive scores above a negative) + ½ P(they tie); 0.5 is chance.

    NaN if only one class is present.

    Raises:
        DataError: `positive` is not boolean, shapes differ, or there is no image.

    Source: Hanley & McNeil, Radiology 143(1), 1982.
    """
    ranking = _ranking(scores, positive)
    below = (ranking.true_at_least + ranking.true_above) / 2  # positives above each score, ties counted half
    return jnp.mean(below, where=~ranking.positive) / ranking.positives


@partial(jax.jit, inline=True)
def average_precision(scores: Real[AnyArray, "image"], positive: Bool[AnyArray, "image"]) -> Scalar:
    """Average precision Σₙ (Rₙ − Rₙ₋₁) Pₙ over distinct thresholds, with recall R and precision P.

    Chance is the fraction of positives. Not interpolated, as in scikit-learn; NaN if only one class is present.

    Raises:
        DataError: `positive` is not boolean, shapes differ, or there is no image.
    """
    ranking = _ranking(scores, positive)
    precision = ranking.true_at_least / (ranking.true_at_least + ranking.false_at_least)
    return jnp.mean(precision, where=ranking.positive)


@partial(jax.jit, inline=True)
def roc_curve(scores: Real[AnyArray, "image"], positive: Bool[AnyArray, "image"]) -> RocCurve:
    """ROC curve: rates of false and true positives when every image with a score ≥ threshold is flagged.

    One point for each score, highest threshold first, and one before them. NaN if only one class is present.

    Raises:
        DataError: `positive` is not boolean, shapes differ, or there is no image.
    """
    ranking = _ranking(scores, positive)
    start = ranking.positives[None] * 0  # NaN where the rates are
    false_positive_rate = jnp.flip(ranking.false_at_least / ranking.false_at_least[0])
    true_positive_rate = jnp.flip(ranking.true_at_least / ranking.positives)
    return RocCurve(
        jnp.concatenate([start, false_positive_rate]),
        jnp.concatenate([start, true_positive_rate]),
        jnp.concatenate([start + jnp.inf, jnp.flip(ranking.scores)]),
    )


def bootstrap_interval(
    key: PRNGKeyArray,
    metric: Callable[[Array, Array], Array],
    scores: Real[AnyArray, "image"],
    positive: Bool[AnyArray, "image"],
    *,
    resamples: int = 1000,
    level: Number = 0.95,
) -> BootstrapInterval:
    """Percentile bootstrap confidence interval: quantiles (1 ± level)/2 over resampled images.

    Resamples whose metric is NaN, such as those with one class only, are left out; `undefined` is their fraction. An
    interval with many of them is not to be trusted.

    Args:
        key: random key.
        metric: (scores, positive) → metric, such as `auroc` or `average_precision`.
        scores: score of each image.
        positive: whether each image is positive.
        resamples: number of bootstrap resamples.
        level: probability of the interval.

    Raises:
        DataError: `positive` is not boolean, shapes differ, there is no image, no resample, or a level outside 0–1
            (under jit: NaN bounds).

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    scores, positive = _checked(scores, positive)
    if resamples < 1 or (not isinstance(level, jax.core.Tracer) and not 0 < level < 1):
        raise DataError(f"resamples, level: {resamples}, {level}; expected at least 1, and between 0 and 1")

    def resampled(key: Array) -> Array:
        chosen = jax.random.randint(key, scores.shape, 0, scores.size)
        return metric(scores[chosen], positive[chosen])

    # In batches, for the memory of a few; of one size, since a smaller last one would compile the metric once more.
    batch = max(size for size in range(1, 65) if resamples % size == 0)
    values = lax.map(resampled, jax.random.split(key, resamples), batch_size=batch)
    level = jnp.asarray(level, values.dtype)
    bounds = jnp.nanquantile(values, jnp.stack([(1 - level) / 2, (1 + level) / 2]))
    low, high = jnp.where((level > 0) & (level < 1), bounds, jnp.nan)  # nanquantile alone would clip the level
    return BootstrapInterval(metric(scores, positive), low, high, jnp.mean(jnp.isnan(values)))


class _Ranking(NamedTuple):
    """Images in the order of their scores, lowest first, with counts at each score; NaN counts if one class only."""

    scores: Float[Array, "image"]
    positive: Bool[Array, "image"]
    true_at_least: Float[Array, "image"]  # positives with this score or more
    true_above: Float[Array, "image"]  # positives with more
    false_at_least: Float[Array, "image"]  # negatives with this score or more
    positives: Scalar


def _ranking(scores: AnyArray, positive: AnyArray) -> _Ranking:
    scores, positive = _checked(scores, positive)
    order = jnp.argsort(scores)
    scores, positive = scores[order], positive[order]
    first, end = (jnp.searchsorted(scores, scores, side=side) for side in ("left", "right"))
    true_before = jnp.append(0, jnp.cumsum(positive))
    positives, count = true_before[-1], scores.size
    defined = (positives > 0) & (positives < count) & ~jnp.isnan(scores).any()
    true_at_least, true_above = positives - true_before[first], positives - true_before[end]
    counts = (true_at_least, true_above, count - first - true_at_least, positives)
    return _Ranking(scores, positive, *(jnp.where(defined, each, jnp.nan) for each in counts))


def _checked(scores: AnyArray, positive: AnyArray) -> tuple[Array, Array]:
    """As JAX arrays, scores in floating point."""
    if scores.shape != positive.shape or scores.ndim != 1 or scores.size == 0:
        raise DataError(f"scores, positive: shapes {scores.shape}, {positive.shape}; expected one of each per image")
    if positive.dtype != bool and not _is_zero_or_one(positive):  # -1 for negative would be true
        raise DataError(f"positive: an array of {positive.dtype}; expected a boolean one, such as labels == 1")
    return jnp.asarray(scores, jnp.result_type(scores, float)), jnp.asarray(positive, bool)


def _is_zero_or_one(values: AnyArray) -> bool:
    """Whether all values are 0 or 1, which traced ones cannot tell."""
    return not isinstance(values, jax.core.Tracer) and bool(np.isin(np.asarray(values), (0, 1)).all())
