"""Paired bootstrap over images of median profiles: the interval of any statistic of several models' rank profiles.

    medians = bootstrap_medians(key, ranks, 10_000)         ranks (model, image, region) → (resample, model, region)
    partial = jax.vmap(lambda m: partial_correlation(m[0], m[2], m[1]))(medians)
    interval = percentile_interval(partial)

A resample draws images with replacement, the same ones for all models, so its median is a weighted one: each column
(region of a model) is sorted once, and the median of a resample is where the counts, added in that order, cross half.
The counts of all resamples of a chunk are added at once, in 16-bit integers. The windowed version begins
`window` images before the middle of the sorted column, the counts before them being one matrix product, and its flag
tells whether the crossing lay within; a chunk with one that did not is computed again in full, so results are equal.
The crossing's position has a standard deviation of √images / 2: a window of 2.5 √images is five of them.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real

from medjax.errors import ConfigError, DataError

AnyArray = Array | np.ndarray


class SortedColumns(NamedTuple):
    """Columns of values over images, each in ascending order; NaN throughout where an image's value is NaN."""

    order: Int[Array, "column image"]
    values: Float[Array, "column image"]


class WindowedMedians(NamedTuple):
    """Weighted medians, right where `ok`: elsewhere the median lies outside the window."""

    medians: Float[Array, "resample column"]
    ok: Bool[Array, "resample column"]


class Interval(NamedTuple):
    """Percentile interval of a statistic over resamples."""

    low: Float[Array, "..."]
    high: Float[Array, "..."]
    undefined: Float[Array, "..."]  # fraction of resamples left out because the statistic was NaN


def bootstrap_medians(
    key: PRNGKeyArray,
    ranks: Real[AnyArray, "model image region"],
    resamples: int,
    window: int | None = None,
    chunk: int = 5000,
) -> Float[Array, "resample model region"]:
    """Medians over resampled images of each model's regions; resample b draws with `fold_in(key, b)` in any chunk.

    A region with a NaN for any image of a model is NaN in all resamples. Beyond the result, memory is
    `chunk` · (images + 4 · models · regions) numbers of 2 bytes or so.

    Args:
        key: random key.
        ranks: within-image ranks, or any values, of each model on the same images in the same order.
        resamples: number of bootstrap resamples.
        window: images on each side of the middle to look for the median in, with a fall-back to all; None for all.
        chunk: resamples at once; it bounds memory.

    Raises:
        ConfigError: no resample, or a window or chunk below 1.
        DataError: no image.
    """
    if resamples < 1 or chunk < 1 or (window is not None and window < 1):
        raise ConfigError(f"resamples, window, chunk: {resamples}, {window}, {chunk}; expected 1 or more of each")
    if ranks.shape[1] == 0:
        raise DataError(f"ranks: shape {ranks.shape}; expected at least one image")
    return _bootstrap_medians(key, jnp.asarray(ranks), resamples, window, min(chunk, resamples))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _bootstrap_medians(key: Array, ranks: Array, resamples: int, window: int | None, chunk: int) -> Array:
    models, images, regions = ranks.shape
    columns = sort_columns(jnp.moveaxis(ranks, 1, 2).reshape(-1, images))

    def medians(numbers: Array) -> Array:
        counts = resample_counts(key, images, numbers)
        if window is None:
            return weighted_medians(counts, columns, images)
        quick = windowed_medians(counts, columns, images, window)
        return lax.cond(quick.ok.all(), lambda: quick.medians, lambda: weighted_medians(counts, columns, images))

    chunks = -(-resamples // chunk)
    size = -(-resamples // chunks)
    every = lax.map(medians, jnp.arange(chunks * size).reshape(chunks, size))
    return every.reshape(-1, models, regions)[:resamples]


def resample_counts(
    key: PRNGKeyArray, images: int, numbers: Int[AnyArray, " resample"]
) -> Int[Array, "image resample"]:
    """How often each image is drawn in resamples of these numbers: one `randint` of `fold_in(key, number)` each."""
    drawn = jax.vmap(lambda number: jax.random.randint(jax.random.fold_in(key, number), (images,), 0, images))(numbers)
    counts = jnp.zeros((images, drawn.shape[0]), jnp.int16 if images < 2**15 else jnp.int32)
    return counts.at[drawn, jnp.arange(drawn.shape[0])[:, None]].add(1)


def sort_columns(values: Real[AnyArray, "column image"]) -> SortedColumns:
    """Each column sorted, with the image that each value is of."""
    values = jnp.asarray(values, jnp.result_type(values, float))
    order = jnp.argsort(values, axis=1)
    sorted_values = jnp.take_along_axis(values, order, axis=1)
    return SortedColumns(order, jnp.where(jnp.isnan(sorted_values[:, -1:]), jnp.nan, sorted_values))


def weighted_medians(
    counts: Int[Array, "image resample"], columns: SortedColumns, total: int
) -> Float[Array, "resample column"]:
    """Median of each column with each image taken `counts` times: the mean of the two middle values if `total` is even.

    Every resample's counts sum to `total`.
    """
    none = jnp.zeros((columns.order.shape[0], counts.shape[1]), counts.dtype)
    return _add_up(counts, columns, total, none, (0, counts.shape[0]))[0]


def windowed_medians(
    counts: Int[Array, "image resample"], columns: SortedColumns, total: int, window: int
) -> WindowedMedians:
    """`weighted_medians`, looking only at `window` sorted images on each side of the middle, with a flag."""
    images = counts.shape[0]
    start, stop = max((images - 1) // 2 - window, 0), min(images // 2 + window + 1, images)
    rank = jnp.argsort(columns.order, axis=1)  # of each image in its column
    first = (rank < start).astype(jnp.float32)
    before = jnp.matmul(first, counts.astype(jnp.float32), precision=lax.Precision.HIGHEST).astype(counts.dtype)
    medians, after = _add_up(counts, columns, total, before, (start, stop))
    return WindowedMedians(medians, ((before <= (total - 1) // 2) & (after > total // 2)).T)


def _add_up(
    counts: Array, columns: SortedColumns, total: int, before: Array, positions: tuple[int, int]
) -> tuple[Array, Array]:
    """Medians (resample, column) and the counts (column, resample) up to the last of the sorted positions."""

    def one_column(column: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        order, values, before = column

        def add(position: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            below, lower, upper = state
            below = below + lax.dynamic_index_in_dim(counts, order[position], keepdims=False)
            lower, upper = (
                place + (below <= middle).astype(place.dtype)
                for place, middle in ((lower, (total - 1) // 2), (upper, total // 2))
            )
            return below, lower, upper

        start = jnp.full_like(before, positions[0])
        after, lower, upper = lax.fori_loop(*positions, add, (before, start, start))
        return (values[lower] + values[upper]) / 2, after

    inputs = (*columns, before)
    medians, after = lax.platform_dependent(
        inputs,
        cpu=partial(lax.map, one_column),  # a column's counts stay in the cache
        default=jax.vmap(one_column),
    )
    return medians.T, after


def percentile_interval(statistic: Float[AnyArray, "resample *batch"], level: float = 0.95) -> Interval:
    """Percentile interval: quantiles (1 ± level)/2 over resamples; those that are NaN are left out and counted.

    Raises:
        ConfigError: a level outside 0–1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level: {level}; expected between 0 and 1")
    low, high = jnp.nanquantile(statistic, jnp.array([(1 - level) / 2, (1 + level) / 2]), axis=0)
    return Interval(low, high, jnp.isnan(statistic).mean(0))
