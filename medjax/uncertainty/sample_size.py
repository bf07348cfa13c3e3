"""How figures of samples depend on the number of samples N: curves over N by sub-sampling.

    def figures(scan, rescan):
        return {"overlap": np.mean(interval_overlap(intervals(scan), intervals(rescan)) > 0.5)}

    curve_over_n(0, scan, rescan, figures, [5, 10, 20])["overlap"].mean          one value for each N

Overlap, significance, widths of intervals and coverage depend on N, so methods are compared at equal N. Sub-sampling
shows what a figure would have been with fewer samples.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from medjax.errors import DataError
from medjax.uncertainty.biomarker_samples import check_pair

AnyArray = Array | np.ndarray
Figures = Callable[[np.ndarray, np.ndarray], Mapping[str, float | int]]


class Curve(NamedTuple):
    """A figure at each number of samples: mean and standard deviation (n − 1) over draws that it is defined in."""

    samples: Int[np.ndarray, " number"]
    mean: Float[np.ndarray, " number"]
    sd: Float[np.ndarray, " number"]  # 0 where all samples are used: there is one such draw


def curve_over_n(
    seed: int,
    scan: Real[AnyArray, "subject sample"],
    rescan: Real[AnyArray, "subject_rescan sample_rescan"],
    figures: Figures,
    numbers: Sequence[int],
    draws: int = 20,
) -> dict[str, Curve]:
    """Curve of each figure over the number of samples n: its mean and deviation over random subsets of n samples.

    Subsets are drawn without replacement. A subset is of sample *numbers* and the same for all subjects, as n members
    of an ensemble would be; where scan and rescan have equally many samples also the same for both, so that sample k
    stays paired. Subsets of one N_max overlap, so near it the deviation is smaller than that of new samples.

    Args:
        seed: random seed.
        scan: samples of the scan.
        rescan: samples of the rescan.
        figures: (scan, rescan) → name → number, of samples of all subjects.
        numbers: numbers of samples n.
        draws: number of subsets of each n below the number of samples.

    A figure that is NaN in a draw is left out of its mean; where it always is, mean and deviation are NaN.

    Raises:
        DataError: a sample that is not finite, another number of subjects, no number, a number below 1 or above the
            smaller number of samples, or no draw.
    """
    x, y = check_pair(scan, rescan, minimum=1)
    largest = min(x.shape[1], y.shape[1])
    if not numbers or min(numbers) < 1 or max(numbers) > largest:
        raise DataError(f"numbers: {list(numbers)}; expected one or more, from 1 to {largest}, the number of samples")
    if draws < 1:
        raise DataError(f"draws: {draws}; expected at least 1")
    rng, rows = np.random.default_rng(seed), list[list[Mapping[str, float | int]]]()
    for n in numbers:
        one_subset = n == x.shape[1] == y.shape[1]
        rows.append([figures(*_subset(rng, x, y, n)) for _ in range(1 if one_subset else draws)])
    return {name: _curve(numbers, [[float(row[name]) for row in draw] for draw in rows]) for name in rows[0][0]}


def _subset(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.sort(rng.permutation(x.shape[1])[:n])
    second = first if x.shape == y.shape else np.sort(rng.permutation(y.shape[1])[:n])
    return np.take(x, first, axis=1), np.take(y, second, axis=1)  # in the order of rows, so that sums round alike


def _curve(numbers: Sequence[int], draws: Sequence[Sequence[float]]) -> Curve:
    known = [np.asarray(one, np.float64)[~np.isnan(one)] for one in draws]
    means = [one.mean() if len(one) else np.nan for one in known]
    sds = [one.std(ddof=1) if len(one) > 1 else np.nan if len(draw) > 1 or not len(one) else 0.0
           for one, draw in zip(known, draws, strict=True)]  # fmt: skip
    return Curve(np.array(numbers), np.array(means), np.array(sds))
