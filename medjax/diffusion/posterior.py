"""Posterior samples: drawing many by one program, their mean and standard deviation, and coverage of the truth."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Scalar

from medjax.errors import DataError
from medjax.one_program import one_program


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
    if len(samples) < 2:
        raise DataError(f"samples: {len(samples)}; expected two or more")
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
    number = len(samples)
    ordered = jnp.sort(samples, axis=0)
    tail = (1 - levels) / 2 * (number + 1) - 1  # as an index
    low, high = jnp.clip(tail, 0, number - 1), jnp.clip(number - 1 - tail, 0, number - 1)

    def inside(low: Scalar, high: Scalar, tail: Scalar) -> Scalar:
        within = (truth >= _between(ordered, low)) & (truth <= _between(ordered, high))
        return jnp.where(tail < 0, jnp.nan, jnp.mean(within, where=mask))

    return jax.vmap(inside)(low, high, tail)


def _between(ordered: Array, rank: Scalar) -> Array:
    below = jnp.floor(rank).astype(int)
    above = jnp.minimum(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])
