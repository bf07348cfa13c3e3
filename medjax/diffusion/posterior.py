"""Posterior samples: drawing many by one program, what they say, whether they are calibrated and have mixed.

summarize, coverage, sharpness, error_bins      of samples (sample, *space): `space` may begin with an axis of scans
recalibration_factor, recalibrate               one factor on deviations from the mean, from validation scans
split_rhat, effective_sample_size               of chains (chain, draw, *space), voxel by voxel
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree, Scalar

from medjax.errors import DataError
from medjax.one_program import one_program

AnyArray = Array | np.ndarray
MIN_DRAWS = 4  # of a chain: each half needs two for a variance


class Summary(NamedTuple):
    """Mean, standard deviation and coefficient of variation of a set of samples, as images."""

    mean: Float[Array, "*space"]
    standard_deviation: Float[Array, "*space"]  # over samples, with n − 1
    coefficient_of_variation: Float[
        Array, "*space"
    ]  # standard deviation / mean, 0 where the mean is below 1 % of its maximum


def draw_samples(sample: Callable[..., PyTree], keys: Key[Array, " sample"], *data: PyTree, chunk: int = 1) -> PyTree:
    """Samples sample(key, *datum) of every key and datum along the first axes of `data`, `chunk` at once.

    All are one program. Seeds × realisations: repeat the data for each seed. On an accelerator a chunk is a batch; on
    CPU 1 is as fast.
    """
    if chunk == 1:
        return jax.lax.map(lambda one: sample(*one), (keys, *data))
    return jax.lax.map(lambda one: sample(*one), (keys, *data), batch_size=chunk)


@one_program
def summarize(samples: Float[Array, "sample *space"]) -> Summary:
    """Mean, standard deviation and coefficient of variation of the samples.

    Raises:
        DataError: fewer than two samples.
    """
    _require_samples(samples)
    mean, deviation = jnp.mean(samples, axis=0), jnp.std(samples, axis=0, ddof=1)
    seen = mean > 0.01 * jnp.max(mean)
    return Summary(mean, deviation, jnp.where(seen, deviation / jnp.where(seen, mean, 1), 0))


@one_program
def coverage(
    samples: Float[Array, "sample *space"],
    truth: Float[Array, "*space"],
    mask: Bool[Array, "*space"],
    levels: Float[Array, " level"],
) -> Float[Array, " level"]:
    """Coverage: fraction of the mask's voxels whose truth lies in the central credible interval of each level.

    Equal to the level if calibrated. Intervals lie between order statistics, interpolated, such that a truth drawn like
    the n samples falls in with exactly that probability: rank u of the truth among them is uniform, and the interval is
    |2u − 1| ≤ level. NaN for levels above (n − 1) / (n + 1), whose interval is wider than all samples.
    """
    low, high, tail = _intervals(samples, levels)

    def inside(low: Array, high: Array, tail: Scalar) -> Scalar:
        return jnp.where(tail < 0, jnp.nan, jnp.mean((truth >= low) & (truth <= high), where=mask))

    return jax.vmap(inside)(low, high, tail)


@one_program
def sharpness(
    samples: Float[Array, "sample *space"], mask: Bool[Array, "*space"], levels: Float[Array, " level"]
) -> Float[Array, " level"]:
    """Sharpness: mean width in the mask of the central credible interval of each level, those of `coverage`.

    Of two methods that are calibrated the one with narrower intervals knows more. NaN where `coverage` is.

    Source: Gneiting, Balabdaoui & Raftery, Journal of the Royal Statistical Society B 69, 2007.
    """
    low, high, tail = _intervals(samples, levels)
    return jax.vmap(lambda wide, tail: jnp.where(tail < 0, jnp.nan, jnp.mean(wide, where=mask)))(high - low, tail)


def _intervals(samples: Array, levels: Array) -> tuple[Array, Array, Array]:
    """Ends of the central credible intervals, and the rank of the lower one: below 0 there is none."""
    number = len(samples)
    ordered = jnp.sort(samples, axis=0)
    tail = (1 - levels) / 2 * (number + 1) - 1  # as an index
    low, high = jnp.clip(tail, 0, number - 1), jnp.clip(number - 1 - tail, 0, number - 1)
    between = jax.vmap(lambda rank: _between(ordered, rank))
    return between(low), between(high), tail


def _between(ordered: Array, rank: Scalar) -> Array:
    below = jnp.floor(rank).astype(int)
    above = jnp.minimum(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


# ── error and uncertainty ──


class ErrorBins(NamedTuple):
    """Voxels in bins of predicted standard deviation, for an error–uncertainty plot: calibrated where both agree."""

    standard_deviation: Float[np.ndarray, " bin"]  # root mean square of the standard deviation predicted of the error
    error: Float[np.ndarray, " bin"]  # root mean square of mean − truth


def error_bins(
    samples: Float[AnyArray, "sample *space"],
    truth: Float[AnyArray, "*space"],
    mask: Bool[AnyArray, "*space"],
    bins: int = 10,
) -> ErrorBins:
    """Error of the samples' mean against its predicted standard deviation, in `bins` of equally many voxels.

    The mean of n samples misses a truth drawn like them by a variance of (1 + 1/n) times theirs.

    Raises:
        DataError: fewer than two samples, or fewer voxels in the mask than bins.
    """
    variance, squares = _variance_and_squares(samples, truth, mask)
    if not 1 <= bins <= len(variance):
        raise DataError(f"bins: {bins} for {len(variance)} voxels in the mask; expected 1 to as many as voxels")
    parts = np.array_split(np.argsort(variance, kind="stable"), bins)
    return ErrorBins(*(np.sqrt([each[part].mean() for part in parts]) for each in (variance, squares)))


def recalibration_factor(
    samples: Float[AnyArray, "sample *space"], truth: Float[AnyArray, "*space"], mask: Bool[AnyArray, "*space"]
) -> float:
    """Factor s on deviations from the mean that makes them as large as errors: s² = Σ (mean − truth)² / Σ variance.

    The variance is that predicted of the mean's error. Above 1 where samples are overconfident. A ratio of sums, for
    the few samples of a voxel may agree by chance. NaN if samples do not differ. Estimate it on validation scans, not
    on those that are judged.

    Raises:
        DataError: fewer than two samples, or an empty mask.

    Source: scaling of predicted deviations by one factor: Laves et al., MIDL 2020.
    """
    variance, squares = _variance_and_squares(samples, truth, mask)
    if not variance.size:
        raise DataError("mask: no voxel; expected one or more")
    return float(np.sqrt(squares.sum() / variance.sum())) if variance.sum() > 0 else float("nan")


def recalibrate(samples: Float[AnyArray, "sample *space"], factor: float | Scalar) -> Float[Array, "sample *space"]:
    """Samples whose deviations from their mean are multiplied by `factor`; the mean stays. Values may be negative."""
    mean = jnp.mean(jnp.asarray(samples), axis=0, keepdims=True)
    return mean + factor * (samples - mean)


def _variance_and_squares(samples: AnyArray, truth: AnyArray, mask: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted variance and square of the mean's error, of each voxel in the mask."""
    _require_samples(samples)
    inside = np.asarray(samples, float)[:, np.asarray(mask)]
    variance = inside.var(axis=0, ddof=1) * (1 + 1 / len(inside))
    return variance, (inside.mean(axis=0) - np.asarray(truth, float)[np.asarray(mask)]) ** 2


def _require_samples(samples: AnyArray) -> None:
    if len(samples) < 2:
        raise DataError(f"samples: {len(samples)}; expected two or more")


# ── chains ──


def split_rhat(draws: Float[AnyArray, "chain draw *space"]) -> Float[np.ndarray, "*space"]:
    """Rank-normalized split R̂ of each voxel: about 1 where chains have mixed; above 1.01 they have not.

    The larger one of two, of the draws' ranks and of their distances' from the median. NaN where draws do not differ,
    as in the background, or are not finite.

    Raises:
        DataError: fewer than four draws of a chain.

    Source: Vehtari et al., Bayesian Analysis 16(2), 2021, equations 4 and 14.
    """
    halves = _halves(draws)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.maximum(_rhat(_rank_normalize(halves)), _rhat(_rank_normalize(folded)))


def effective_sample_size(draws: Float[AnyArray, "chain draw *space"]) -> Float[np.ndarray, "*space"]:
    """Bulk effective sample size of each voxel: independent draws that tell as much of its distribution's centre.

    Of rank-normalized half chains, with autocorrelations up to Geyer's initial monotone sequence. NaN as in
    `split_rhat`; at most n log₁₀ n for n draws.

    Raises:
        DataError: fewer than four draws of a chain.

    Source: Vehtari et al., Bayesian Analysis 16(2), 2021, equations 10 to 14.
    """
    z = _rank_normalize(_halves(draws))
    number = z.shape[1]
    within, total = _variances(z)
    centered = z - z.mean(axis=1, keepdims=True)

    def correlation(lag: int) -> np.ndarray:
        covariance = (centered[:, : number - lag] * centered[:, lag:]).sum(axis=1).mean(axis=0) / number
        return 1 - (within - covariance) / total

    with np.errstate(invalid="ignore", divide="ignore"):
        even, pair = np.ones_like(total), 1 + correlation(1)
        total_pairs, smallest, active = np.zeros_like(total), np.full_like(total, np.inf), pair > 0
        for lag in range(2, number - 2, 2):
            smallest = np.where(active, np.minimum(smallest, pair), smallest)
            total_pairs += np.where(active, smallest, 0)
            after, odd = correlation(lag), correlation(lag + 1)
            even, pair = np.where(active, after, even), np.where(active, after + odd, pair)
            active &= pair > 0
        size = z.shape[0] * number
        time = -1 + 2 * total_pairs + np.where((even > 0) | (pair >= 0), even, 0)
        return np.where(total > 0, size / np.maximum(time, 1 / np.log10(size)), np.nan)


def _halves(draws: AnyArray) -> np.ndarray:
    """First and second half of each chain, as chains of their own."""
    values = np.asarray(draws, float)
    if values.ndim < 2 or values.shape[1] < MIN_DRAWS or values.shape[0] < 1:
        raise DataError(
            f"draws: shape {values.shape}; expected (chain, draw, …) with {MIN_DRAWS} or more draws a chain"
        )
    half = values.shape[1] // 2
    return np.concatenate([values[:, :half], values[:, -half:]])


def _rank_normalize(values: np.ndarray) -> np.ndarray:
    """Normal scores Φ⁻¹((r − 3/8) / (n + 1/4)) of ranks among n draws; NaN where all are equal or one is not finite."""
    from scipy import special, stats

    flat = values.reshape(-1, *values.shape[2:])
    finite = np.isfinite(flat).all(axis=0)
    ranks = stats.rankdata(np.where(finite, flat, 0), axis=0)
    scores = special.ndtri((ranks - 0.375) / (len(flat) + 0.25))
    return np.where(finite & (np.ptp(ranks, axis=0) > 0), scores, np.nan).reshape(values.shape)


def _variances(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance within chains, and the total that overestimates the marginal one until chains have mixed."""
    number = values.shape[1]
    within = values.var(axis=1, ddof=1).mean(axis=0)
    between = values.mean(axis=1).var(axis=0, ddof=1)
    return within, within * (number - 1) / number + between


def _rhat(values: np.ndarray) -> np.ndarray:
    within, total = _variances(values)
    return np.sqrt(np.divide(total, within, out=np.full_like(total, np.nan), where=within > 0))
