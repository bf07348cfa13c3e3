"""Bootstrap confidence intervals of any metric of groups, by resampled weights of subjects; paired between two models.

    bootstrap(key, fairness.worst_group_accuracy, data)                        Interval(estimate, low, high, undefined)
    bootstrap(key, fairness.summary, data, subject=subject)["auroc_gap"]       an interval for each number
    bootstrap(key, fairness.summary, biased, baseline)["auroc_gap"]            of the difference biased − baseline

The interval is of the final number, so a gap or a worst group has one like any other metric: each resample looks anew
which group is the worst. A resample is the number of times that each subject is drawn; all scans of a subject come
with it, and both models are measured on the same resample.

Metrics that noise makes larger (gaps, calibration errors) are larger still in resamples, and worst groups worse, so
their intervals lie too far out; the signed difference of two groups, or of two models, has hardly such a bias.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Scalar, Shaped

from medjax.errors import DataError
from medjax.shortcuts.group_metrics import GroupedPredictions

Metric = Callable[[GroupedPredictions, Array], PyTree]
CHUNK, CHUNK_WEIGHTS = 64, 2**22  # resamples in memory at once, and the largest number of their weights


class Interval(NamedTuple):
    """An estimate and its bootstrap confidence interval."""

    estimate: Float[Array, "*number"]
    low: Float[Array, "*number"]
    high: Float[Array, "*number"]
    undefined: Float[Array, "*number"]  # fraction of resamples left out because the metric was NaN


def bootstrap(
    key: PRNGKeyArray,
    metric: Metric,
    data: GroupedPredictions,
    baseline: GroupedPredictions | None = None,
    *,
    subject: Shaped[Array | np.ndarray, " case"] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> PyTree:
    """Percentile bootstrap intervals, quantiles (1 ± level)/2 over resampled subjects: an `Interval` for each number.

    Resamples where a number is NaN, as when they lack a small group, are left out for it; `undefined` is their
    fraction. An interval with many of them is not to be trusted. Compiled once for a metric and a number of cases.

    Args:
        key: random key.
        metric: (cases, weights) → a number, an array or a dict of them.
        data: cases of a classifier.
        baseline: the same cases, in the same order, of another one: intervals are of the metric's differences
            data − baseline.
        subject: subject of each case; default: each case is a subject.
        resamples: number of bootstrap resamples.
        level: probability of the interval.

    Raises:
        DataError: no resample, a level outside 0–1, subjects of another number, or cases of the baseline with other
            labels or groups.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; subjects as clusters: Davison &
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    cases = data.positive.shape[0]
    if resamples < 1 or not 0 < level < 1:
        raise DataError(f"resamples, level: {resamples}, {level}; expected at least 1, and between 0 and 1")
    if subject is not None and np.shape(subject) != (cases,):
        raise DataError(f"subject: shape {np.shape(subject)}; expected one for each of {cases} cases")
    if baseline is not None and not _same_cases(data, baseline):
        raise DataError("baseline: other labels or groups; expected the same cases in the same order")
    number = np.arange(cases) if subject is None else np.unique(np.asarray(subject), return_inverse=True)[1]
    return _bootstrap(key, metric, data, baseline, jnp.asarray(number), int(number.max()) + 1, resamples, level)


@partial(jax.jit, static_argnames=("metric", "subjects", "resamples"))
def _bootstrap(
    key: PRNGKeyArray,
    metric: Metric,
    data: GroupedPredictions,
    baseline: GroupedPredictions | None,
    number: Int[Array, " case"],
    subjects: int,
    resamples: int,
    level: float | Scalar,
) -> PyTree:
    def value(weights: Float[Array, " case"]) -> PyTree:
        own = metric(data, weights)
        return own if baseline is None else jax.tree.map(jnp.subtract, own, metric(baseline, weights))

    def resampled(number_and_key: tuple[Array, PRNGKeyArray]) -> Float[Array, " number"]:
        k, own_key = number_and_key
        drawn = jax.random.randint(own_key, (subjects,), 0, subjects)
        times = jnp.zeros(subjects, data.score.dtype).at[drawn].add(1)
        return ravel_pytree(value(jnp.where(k < resamples, times, 1)[number]))[0]

    # The estimate is one more "resample" and chunks are of one size, so that the metric is compiled once.
    chunk = min(resamples + 1, max(1, min(CHUNK, CHUNK_WEIGHTS // number.size)))
    rows = jnp.arange(-(-(resamples + 1) // chunk) * chunk)
    keys = jax.random.split(key, resamples)[rows % resamples]
    values = lax.map(resampled, (rows, keys), batch_size=chunk)
    estimate, values = values[resamples], values[:resamples]
    low, high = jnp.nanquantile(values, jnp.stack([(1 - level) / 2, (1 + level) / 2]), axis=0)
    _, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, jax.eval_shape(value, data.score)))
    return jax.tree.map(Interval, *map(unravel, (estimate, low, high, jnp.mean(jnp.isnan(values), axis=0))))


def _same_cases(data: GroupedPredictions, baseline: GroupedPredictions) -> bool:
    pairs = ((data.positive, baseline.positive), (data.member, baseline.member))
    return all(np.array_equal(one, other) for one, other in pairs)
