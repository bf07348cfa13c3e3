"""Deletion and insertion: the score while voxels, or regions, are taken from the image or put back, highest first.

    deletion     from the image to the baseline; a faithful map makes the score fall soon: a small area
    insertion    from the baseline to the image; a faithful map makes it rise soon: a large area

    evaluate = deletion(score, steps=50)
    curve = evaluate(x, map)                          curve.fraction, curve.score, curve.area

Areas are means of the score along the curve, and so are comparable only for one score and one baseline. The published
score is a softmax probability: `class_score(…, probability=True)`. A map that is equal everywhere orders nothing:
its curve is NaN, as that of a map with NaN is. Tied voxels (the zeros of a ReLU) follow in the order of their index.

Source: Petsiuk, Das & Saenko, RISE, BMVC 2018; by region: Samek et al., IEEE TNNLS 28(11), 2017 (region perturbation).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from medjax.errors import DataError
from medjax.shortcuts.attribution.baseline import Baseline, baseline_image
from medjax.shortcuts.attribution.occlusion import check_labels
from medjax.shortcuts.attribution.samples import values_over
from medjax.shortcuts.attribution.target import AnyArray, Image, Score, at_image


class Curve(NamedTuple):
    """Score against the fraction of voxels that are deleted, or inserted."""

    fraction: Float[Array, "step"]  # 0 first; 1 last, or the fraction of voxels in regions
    score: Float[Array, "step"]
    area: Scalar  # ∫ score d(fraction) / last fraction, by trapezoids


Evaluate = Callable[[Image, Float[AnyArray, "..."]], Curve]  # (x, map (*space) or (*space, channel)) → Curve


def deletion(score: Score, steps: int = 50, baseline: Baseline = 0.0, chunk: int = 1) -> Evaluate:
    """Deletion curve, the highest voxels of a map replaced first: (x, map) → Curve of steps + 1 points.

    Args:
        score: f(x) of one image.
        steps: equal numbers of voxels, to rounding, that are replaced one after the other.
        baseline: what replaces them: a number, an image or a function of x.
        chunk: images evaluated at a time.

    Raises:
        DataError: `steps` is below 1; (when called) shapes differ, or `chunk` is below 1.
    """
    return _by_voxel(score, steps, baseline, chunk, insert=False)


def insertion(score: Score, steps: int = 50, baseline: Baseline = 0.0, chunk: int = 1) -> Evaluate:
    """Insertion curve, the highest voxels of a map put into the baseline first. Arguments as `deletion`.

    The published baseline is a blurred image, whose edges are no evidence: `baseline.gaussian_blur` with sigma = 5.

    Raises:
        DataError: as `deletion`.
    """
    return _by_voxel(score, steps, baseline, chunk, insert=True)


def region_deletion(
    score: Score, labels: Int[AnyArray, "*space"], regions: int, baseline: Baseline = 0.0, chunk: int = 1
) -> Evaluate:
    """Deletion curve by region, that of the highest mean first: (x, map) → Curve of regions + 1 points.

    Args:
        score: f(x) of one image.
        labels: region 0 … regions − 1 of each voxel; −1 in none, which stays as it is in the image.
        regions: number of regions; one with no voxel comes last and changes nothing.
        baseline: what replaces a region.
        chunk: images evaluated at a time.

    Raises:
        DataError: labels are out of range; (when called) shapes differ, `regions` or `chunk` is below 1.
    """
    return _by_region(score, labels, regions, baseline, chunk, insert=False)


def region_insertion(
    score: Score, labels: Int[AnyArray, "*space"], regions: int, baseline: Baseline = 0.0, chunk: int = 1
) -> Evaluate:
    """Insertion curve by region, that of the highest mean first. Arguments as `region_deletion`.

    Raises:
        DataError: as `region_deletion`.
    """
    return _by_region(score, labels, regions, baseline, chunk, insert=True)


def spatial_map(values: Float[AnyArray, "..."], x: Image) -> Float[Array, "*space"]:
    """A map of the image `x` as (*space): its channels summed, where it has any.

    Raises:
        DataError: it is neither (*space) nor (*space, channel).
    """
    if values.shape not in (x.shape[:-1], x.shape, (*x.shape[:-1], 1)):
        raise DataError(f"map: shape {values.shape}; expected {x.shape[:-1]}, or {x.shape} as the image")
    values = jnp.asarray(values)
    return values if values.ndim == x.ndim - 1 else values.sum(-1)


def _by_voxel(score: Score, steps: int, baseline: Baseline, chunk: int, insert: bool) -> Evaluate:
    if steps < 1:
        raise DataError(f"steps: {steps}; expected 1 or more")

    def evaluate(x: Image, values: Float[AnyArray, "..."]) -> Curve:
        own = spatial_map(values, x)
        number = jnp.asarray(np.round(np.linspace(0, own.size, steps + 1)).astype(np.int32))
        position = _positions(own.ravel()).reshape(own.shape)
        return _curve(score, jnp.asarray(x), own, position, number, baseline, chunk, insert)

    return evaluate


def _by_region(
    score: Score, labels: Int[AnyArray, "*space"], regions: int, baseline: Baseline, chunk: int, insert: bool
) -> Evaluate:
    check_labels(labels, regions)

    def evaluate(x: Image, values: Float[AnyArray, "..."]) -> Curve:
        own, where = spatial_map(values, x), jnp.asarray(labels)
        if where.shape != own.shape:
            raise DataError(f"labels: shape {where.shape}; the image has {own.shape}")
        index = jnp.where(where < 0, regions, where).ravel()
        total = jax.ops.segment_sum(own.ravel(), index, regions + 1)[:regions]
        count = jax.ops.segment_sum(jnp.ones(own.size, own.dtype), index, regions + 1)[:regions]
        means = jnp.where(count > 0, total / jnp.maximum(count, 1), -jnp.inf)
        position = jnp.append(_positions(means), regions)[index].reshape(own.shape)
        return _curve(score, jnp.asarray(x), own, position, jnp.arange(regions + 1), baseline, chunk, insert)

    return evaluate


def _positions(values: Array) -> Array:
    """Position of each value in descending order, 0 first."""
    order = jnp.argsort(-values)
    return jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))


def _curve(
    score: Score, x: Array, own: Array, position: Array, number: Array, baseline: Baseline, chunk: int, insert: bool
) -> Curve:
    """Scores with what has `position` below each of `number` changed; what has one not below the last stays."""
    nothing, fixed = baseline_image(baseline, x), at_image(score, x)

    def value(step: Array) -> tuple[Scalar, Scalar]:
        changed = position < number[step]
        present = ~changed if not insert else changed | (position >= number[-1])
        return jnp.mean(changed, dtype=x.dtype), fixed(jnp.where(present[..., None], x, nothing))

    fraction, scores = values_over(value, len(number), chunk)
    ordered = jnp.isfinite(own).all() & (jnp.min(own) < jnp.max(own))
    scores = jnp.where(ordered, scores, jnp.nan)
    return Curve(fraction, scores, jnp.trapezoid(scores, fraction) / fraction[-1])
