"""Surrogate maps: random profiles over regions with the variogram of a given one, for atlases, SLIC and smooth grids.

    distances = centroid_distances(labels, regions)
    maps = surrogate_maps(key, u, distances, 1000)          (map, region); then null_p(u, v, maps)

The variogram of a profile, γ(h), is half the mean squared difference of regions a distance h apart. A surrogate is a
permutation of the profile x, smoothed over each region's nearest neighbours into s, scaled and with noise:

    x' = √β s + √α n,   n ~ N(0, 1),   γ_x(h) ≈ α + β γ_s(h)  by least squares over the lags h, α, β ≥ 0

with the number of neighbours, 10–90 % of all regions, whose fit is best. As published α and β may be negative and lose
their signs in √|β| and √|α|; a smooth map then gets noise that it does not have (`scripts/calibration_nulls.py` has the
false-positive rates of both).

Source: Burt, Helmer, Shinn, Anticevic & Murray, Generative modeling of brain maps with spatial autocorrelation,
NeuroImage 220, 2020; the method and the kernel of the variogram are of Viladomat et al., Biometrics 70(2), 2014.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import Precision
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from medjax.errors import ConfigError, DataError

AnyArray = Array | np.ndarray
NEIGHBORS = tuple(n / 10 for n in range(1, 10))  # fractions of all regions
LAGS = 25
PERCENTILE = 25  # of the pairs' distances: the variogram is matched below it
MAX_REGIONS = 4096  # whose `geometry` is 1.6 GB
QUARTILE = 2.68  # a Gaussian of standard deviation 1 / 2.68 has its quartiles at ±0.25


class Geometry(NamedTuple):
    """What the distances between regions determine."""

    pairs: Int[np.ndarray, "2 pair"]  # pairs of regions below the percentile
    lags: Float[np.ndarray, " lag"]  # distances h
    lag_weights: Float[np.ndarray, "lag pair"]  # weight of each pair at each lag; rows sum to 1
    smoothing: Float[np.ndarray, "neighbourhood region region"]  # weights of neighbours; rows sum to 1


class Fit(NamedTuple):
    """Permuted maps smoothed over each neighbourhood, and the regression of the variogram on theirs."""

    smoothed: Float[Array, "neighbourhood region map"]
    intercept: Float[Array, "neighbourhood map"]  # α
    slope: Float[Array, "neighbourhood map"]  # β
    error: Float[Array, "neighbourhood map"]  # sum of squared residuals


def surrogate_maps(
    key: PRNGKeyArray,
    profile: Real[AnyArray, " region"],
    distances: Real[AnyArray, "region region"] | Geometry,
    number: int,
    neighbors: tuple[float, ...] = NEIGHBORS,
    nonnegative: bool = True,
    chunk: int = 50,
) -> Float[Array, "{number} region"]:
    """Random maps of mean 0 with the profile's variogram; map b is drawn with `fold_in(key, b)` in any chunk.

    NaN throughout if the profile is constant or has a NaN.

    Args:
        key: random key.
        profile: value of each region.
        distances: distance between regions, such as `centroid_distances`, or the `geometry` of distances.
        number: number of maps.
        neighbors: fractions of the regions to try as neighbourhood.
        nonnegative: whether α and β are kept from being negative; False is the published method.
        chunk: maps at once; it bounds memory, of 2 · chunk · neighbourhoods · pairs numbers.

    Raises:
        ConfigError: no map, a chunk below 1, or a fraction outside 0–1.
        DataError: distances that are not finite, symmetric and zero on the diagonal, or that fit no variogram; more
            than `MAX_REGIONS`.
    """
    if number < 1 or chunk < 1 or not neighbors or not all(0 < fraction <= 1 for fraction in neighbors):
        raise ConfigError(
            f"number, chunk, neighbors: {number}, {chunk}, {neighbors}; expected 1 or more maps, and fractions"
        )
    space = distances if isinstance(distances, Geometry) else geometry(distances, neighbors)
    return _surrogate_maps(key, jnp.asarray(profile), space, number, min(chunk, number), nonnegative)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _surrogate_maps(key: Array, profile: Array, space: Geometry, number: int, chunk: int, nonnegative: bool) -> Array:
    profile = jnp.asarray(profile, jnp.result_type(profile, float))
    profile = profile - profile.mean()
    target = variogram(profile[:, None], space)[:, 0]

    def draw(number: Array) -> tuple[Array, Array]:
        order, noise = jax.random.split(jax.random.fold_in(key, number))
        return jax.random.permutation(order, profile), jax.random.normal(noise, (profile.size,), profile.dtype)

    def some(numbers: Array) -> Array:
        permuted, noise = (each.T for each in jax.vmap(draw)(numbers))
        fits = fit(permuted, target, space, nonnegative)
        best = jnp.argmin(fits.error, axis=0)[None]
        scale, floor = (jnp.take_along_axis(each, best, 0) for each in (fits.slope, fits.intercept))
        smoothed = jnp.take_along_axis(fits.smoothed, best[:, None], 0)[0]
        maps = jnp.sqrt(jnp.abs(scale)) * smoothed + jnp.sqrt(jnp.abs(floor)) * noise
        return (maps - maps.mean(0, keepdims=True)).T

    chunks = -(-number // chunk)
    size = -(-number // chunks)
    every = lax.map(some, jnp.arange(chunks * size).reshape(chunks, size))
    return every.reshape(-1, profile.size)[:number]


def geometry(distances: Real[AnyArray, "region region"], neighbors: tuple[float, ...] = NEIGHBORS) -> Geometry:
    """Pairs and lags of the variogram and weights of the neighbourhoods, from distances between regions.

    Lags are evenly spaced between the smallest and the largest distance below the 25th percentile; a pair at distance d
    weighs exp(−½ (2.68 (d − h) / b)²), b three spacings. A neighbour at distance d of the k nearest ones, the farthest
    at D, weighs exp(−d / D).

    Raises:
        DataError: as `surrogate_maps`.
    """
    distances = np.asarray(distances, np.float64)
    _check_number(len(distances))
    if not np.isfinite(distances).all() or np.diag(distances).any() or not np.allclose(distances, distances.T):
        raise DataError("distances: expected finite ones, symmetric, with zeros on the diagonal")
    regions = len(distances)
    pairs, apart, near = _near_pairs(distances)
    if not has_variogram(distances, neighbors):
        raise DataError(f"distances: {regions} regions; too few, or too equally spaced, for a variogram")
    pairs, apart = pairs[:, near], apart[near]
    lags = np.linspace(apart.min(), apart.max(), LAGS)
    weights = np.exp(-0.5 * (QUARTILE * (apart - lags[:, None]) / (3 * (lags[1] - lags[0]))) ** 2)
    order = np.argsort(distances + np.diag(np.full(regions, -1.0)), axis=1, kind="stable")[:, 1:]  # itself left out
    sorted_distances = np.take_along_axis(distances, order, 1)
    smoothing = np.zeros((len(neighbors), regions, regions))
    for matrix, fraction in zip(smoothing, neighbors, strict=True):
        nearest = sorted_distances[:, : int(fraction * regions)]
        kernel = np.exp(-nearest / np.maximum(nearest[:, -1:], np.finfo(float).tiny))  # centroids may coincide
        np.put_along_axis(matrix, order[:, : nearest.shape[1]], kernel / kernel.sum(1, keepdims=True), 1)
    return Geometry(pairs, lags, weights / weights.sum(1, keepdims=True), smoothing)


def has_variogram(distances: Real[AnyArray, "region region"], neighbors: tuple[float, ...] = NEIGHBORS) -> bool:
    """Whether regions are enough, and at distances different enough, for `geometry`."""
    _, apart, near = _near_pairs(np.asarray(distances, np.float64))
    return len(np.unique(apart[near])) > 1 and len(distances) * min(neighbors) >= 1


def variogram(maps: Float[Array, "region map"], space: Geometry) -> Float[Array, "lag map"]:
    """Smoothed variogram γ(h) = Σ w(h) ½ (xᵢ − xⱼ)² of each map, over pairs of regions."""
    first, second = space.pairs
    weights = jnp.asarray(space.lag_weights, maps.dtype)
    return jnp.matmul(weights, (maps[first] - maps[second]) ** 2 / 2, precision=Precision.HIGHEST)


def fit(
    permuted: Float[Array, "region map"], target: Float[Array, " lag"], space: Geometry, nonnegative: bool = True
) -> Fit:
    """Smooth permuted maps over every neighbourhood and regress the target variogram on each of theirs.

    With `nonnegative` coefficients, where the least squares have one below 0, it is 0 and the other fitted alone.
    """
    weights = jnp.asarray(space.smoothing, permuted.dtype)
    smoothed = jnp.einsum("nij,jm->inm", weights, permuted, precision=Precision.HIGHEST)
    regions, neighbourhoods, maps = smoothed.shape
    of_smoothed = variogram(smoothed.reshape(regions, -1), space).reshape(-1, neighbourhoods, maps)
    mean, around = of_smoothed.mean(0), of_smoothed - of_smoothed.mean(0, keepdims=True)
    target_mean, target = target.mean(), target[:, None, None]
    target_around = target - target_mean
    slope = (around * target_around).sum(0) / (around**2).sum(0)
    intercept = target_mean - slope * mean
    if nonnegative:
        through_zero = (of_smoothed * target).sum(0) / (of_smoothed**2).sum(0)
        slope, intercept = (
            jnp.where(slope < 0, 0, jnp.where(intercept < 0, through_zero, slope)),
            jnp.where(slope < 0, target_mean, jnp.maximum(intercept, 0)),
        )
    error = ((target - intercept[None] - slope[None] * of_smoothed) ** 2).sum(0)
    return Fit(jnp.moveaxis(smoothed, 0, 1), intercept, slope, error)


def centroid_distances(
    labels: Int[AnyArray, "..."], regions: int, spacing: tuple[float, ...] | None = None
) -> Float[np.ndarray, "{regions} {regions}"]:
    """Euclidean distances between the regions' centroids, in units of `spacing`, the distance between voxels.

    Args:
        labels: region of each voxel, 0 to regions − 1; others belong to none.
        regions: their number.
        spacing: distance between voxels along each axis; 1 if None.

    Raises:
        DataError: a region with no voxels, another number of spacings than of axes, or more than `MAX_REGIONS`.
    """
    _check_number(regions)
    labels = np.asarray(labels)
    step = np.ones(labels.ndim) if spacing is None else np.asarray(spacing, np.float64)
    if step.shape != (labels.ndim,):
        raise DataError(f"spacing: {len(step)} numbers; expected {labels.ndim}, one for each axis of the labels")
    inside = (labels >= 0) & (labels < regions)
    where, region = np.nonzero(inside), labels[inside]
    count = np.bincount(region, minlength=regions)
    if not count.all():
        raise DataError(f"labels: region {np.flatnonzero(count == 0)[0]} has no voxels")
    along = [np.bincount(region, axis, regions) / count for axis in where]
    centroids = np.stack(along, 1) * step
    return np.linalg.norm(centroids[:, None] - centroids[None], axis=-1)


def _check_number(regions: int) -> None:
    if regions > MAX_REGIONS:
        raise DataError(f"{regions} regions; expected {MAX_REGIONS} or fewer, for distances between all of them")


def _near_pairs(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of regions, their distances, and which of them are below the percentile."""
    pairs = np.stack(np.triu_indices(len(distances), 1))
    apart = distances[tuple(pairs)]
    return pairs, apart, apart < np.percentile(apart, PERCENTILE) if apart.size else np.zeros(0, bool)
