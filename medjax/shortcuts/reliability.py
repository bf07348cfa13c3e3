"""Split-half reliability of a rank profile: whether other images would give the same one.

    reliability = split_half_reliability(key, ranks)        ranks (image, region)

A profile that is noise cannot confirm a shortcut, and one that serves as covariate removes too little of what it
measures: partial correlations given it are biased towards the pairwise ones.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Real, Scalar

from medjax.errors import ConfigError, DataError
from medjax.metrics.correlation import pearson
from medjax.shortcuts.median_bootstrap import percentile_interval, sort_columns, weighted_medians

AnyArray = Array | np.ndarray


class Reliability(NamedTuple):
    """Spearman–Brown reliability over random splits into halves."""

    median: Scalar
    low: Scalar  # 2.5th percentile over splits: their spread, not a confidence interval
    high: Scalar  # 97.5th


def split_half_reliability(key: PRNGKeyArray, ranks: Real[AnyArray, "image region"], splits: int = 200) -> Reliability:
    """Spearman–Brown reliability 2r / (1 + r) of median profiles; r is Pearson's between those of two random halves.

    It estimates the correlation with the profile of as many other images. An odd image is left out of each split. NaN
    if a region has a NaN; splits with a constant half are left out. −∞ is possible, where r = −1.

    Raises:
        ConfigError: no split.
        DataError: fewer than 2 images.

    Source: Spearman, British Journal of Psychology 3(3), 1910; Brown, ibid.
    """
    if splits < 1:
        raise ConfigError(f"splits: {splits}; expected 1 or more")
    if ranks.shape[0] < 2:
        raise DataError(f"ranks: {ranks.shape[0]} images; expected at least 2")
    return _split_half_reliability(key, jnp.asarray(ranks), splits)


@partial(jax.jit, static_argnums=2)
def _split_half_reliability(key: Array, ranks: Array, splits: int) -> Reliability:
    half = ranks.shape[0] // 2
    columns = sort_columns(ranks.T)
    place = jax.vmap(partial(jax.random.permutation, x=ranks.shape[0]))(jax.random.split(key, splits)).T
    halves = (place < half, (place >= half) & (place < 2 * half))
    first, second = (weighted_medians(each.astype(jnp.int16), columns, half) for each in halves)
    r = pearson(first, second)
    reliability = 2 * r / (1 + r)
    interval = percentile_interval(reliability)
    return Reliability(jnp.nanmedian(reliability), interval.low, interval.high)
