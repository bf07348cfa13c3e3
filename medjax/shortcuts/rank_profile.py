"""Rank profiles of attribution: which regions are important to a network, over a whole data set.

    ranks = rank_regions(region_means(maps, regions))      within each image; 1 is the most important region
    profile = rank_profile(ranks)                          median over images

Source: Achara et al., OSCAR, arXiv 2512.18888, 2025.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from medjax.metrics.correlation import average_ranks

AnyArray = Array | np.ndarray
ROUNDING = 1e-9  # relative difference of means that sums over millions of voxels leave: these are equal


def rank_regions(means: Real[AnyArray, "*image region"]) -> Float[np.ndarray, "*image region"]:
    """Rank of each region within its image: 1 has the largest mean, tied regions have the average of their ranks.

    Means that differ by rounding are tied; on the host, in float64. A region whose mean is NaN has rank NaN, and the
    others are ranked without it.
    """
    means = np.asarray(means, np.float64)
    order = np.argsort(-means, axis=-1, kind="stable")  # NaN last
    falling = np.take_along_axis(means, order, -1)
    smaller = np.minimum(np.abs(falling[..., 1:]), np.abs(falling[..., :-1]))
    level = np.zeros(means.shape, np.int32)
    apart = falling[..., :-1] > falling[..., 1:] + ROUNDING * smaller
    np.put_along_axis(level, order[..., 1:], np.cumsum(apart, axis=-1), -1)
    missing = np.isnan(means)
    return np.where(missing, np.nan, average_ranks(np.where(missing, np.inf, level)))


def rank_profile(ranks: Real[AnyArray, "image region"]) -> Float[Array, " region"]:
    """Rank profile: median over the images of each region's ranks; NaN ranks are left out."""
    return jnp.nanmedian(jnp.asarray(ranks, jnp.result_type(ranks, float)), axis=0)
