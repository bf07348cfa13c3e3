"""Bootstrap confidence intervals of figures of a cohort, resampled by level: cohorts or seeds, subjects, samples.

    hierarchical_bootstrap(0, lambda inside: {"coverage": inside.mean()}, inside)            subjects are resampled
    hierarchical_bootstrap(0, lambda x: {"mean": x.mean()}, values, levels=2)                and samples within each

The leading axes of the arrays are the levels, outermost first: (subject, …), (subject, sample) or (seed, subject, …).
What is resampled is what the interval generalises to: new subjects only, or also new samples, or networks of new seeds.

Resampling *samples* repeats some of them. Means stand that; figures of the distribution do not: repeated samples have
narrower intervals, ties and smaller p-values. For overlaps, tests and distances resample subjects (`levels=1`) and give
the dependence on N by `sample_size.curve_over_n`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Shaped

from medjax.errors import DataError

AnyArray = Array | np.ndarray


class CohortInterval(NamedTuple):
    """A figure of a cohort and its bootstrap confidence interval."""

    estimate: float
    low: float
    high: float
    undefined: float  # fraction of resamples left out because the figure was NaN or infinite


def hierarchical_bootstrap(
    seed: int,
    figures: Callable[..., Mapping[str, float | int]],
    *arrays: Shaped[AnyArray, "..."],
    levels: int = 1,
    crossed: Sequence[int] = (),
    resamples: int = 1000,
    level: float | int = 0.95,
) -> dict[str, CohortInterval]:
    """Percentile bootstrap intervals of figures, quantiles (1 ± level)/2 over resamples of nested levels.

    A resample draws as many units of axis 0 as there are, with replacement; within each of them as many units of axis
    1; and so on. All arrays are resampled alike, so that what belongs to a subject stays together.

    Args:
        seed: random seed.
        figures: (*arrays) → name → number.
        arrays: values; the first `levels` axes have the same lengths in all of them.
        levels: number of leading axes that are resampled.
        crossed: axes (from 1) whose unit k is the same unit in all units of the outer axes, such as subject k under
            every training seed, or member k in every subject: they are drawn once for all. The others are nested, such
            as subjects of different cohorts.
        resamples: number of bootstrap resamples.
        level: probability of the interval.

    Raises:
        DataError: no array, other lengths of the levels, an empty level, a crossed axis that is no inner level, no
            resample, or a level outside 0–1.

    Source: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    values = [np.asarray(one) for one in arrays]
    shape = _shape(values, levels)
    if not set(crossed) <= set(range(1, levels)):
        raise DataError(f"crossed: {list(crossed)}; expected axes from 1 to {levels - 1}, inner levels")
    if resamples < 1 or not 0 < level < 1:
        raise DataError(f"resamples, level: {resamples}, {level:g}; expected at least 1, and between 0 and 1")
    rng, estimate = np.random.default_rng(seed), figures(*values)
    rows = np.empty((resamples, len(estimate)))
    for row in rows:
        index = _resample(rng, shape, crossed)
        row[:] = list(figures(*(one[index] for one in values)).values())
    return {
        name: _interval(float(value), column, level)
        for (name, value), column in zip(estimate.items(), rows.T, strict=True)
    }


def _shape(values: Sequence[np.ndarray], levels: int) -> tuple[int, ...]:
    shapes = {one.shape[:levels] for one in values}
    if levels < 1 or len(shapes) != 1 or len(shape := next(iter(shapes))) < levels or 0 in shape:
        raise DataError(
            f"arrays: shapes {[one.shape for one in values]}; expected {max(levels, 1)} leading axes of the "
            "same lengths, none of them empty"
        )
    return shape


def _resample(rng: np.random.Generator, shape: tuple[int, ...], crossed: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Index of a resample: that of each level depends on the units of the outer levels, unless it is crossed."""
    index = list[np.ndarray]()
    for axis, length in enumerate(shape):
        outer = (1,) * axis if axis in crossed else shape[:axis]
        drawn = rng.integers(length, size=(*outer, length))
        index.append(drawn.reshape(*drawn.shape, *(1,) * (len(shape) - axis - 1)))
    return tuple(index)


def _interval(estimate: float, values: np.ndarray, level: float | int) -> CohortInterval:
    known = values[np.isfinite(values)]
    undefined = 1 - len(known) / len(values)
    if not len(known):
        return CohortInterval(estimate, np.nan, np.nan, undefined)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return CohortInterval(estimate, low, high, undefined)
