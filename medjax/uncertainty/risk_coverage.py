"""Does uncertainty rank errors: risk–coverage curve and its area (AURC), of subjects or pixels.

    curve = risk_coverage(sd, 1 - dice)                 risk of the fraction of subjects that is least uncertain
    aurc(sd, 1 - dice)                                  Aurc(area, optimal, excess, random, normalized)

Refusing the most uncertain predictions leaves a fraction (coverage) with a mean risk, such as 1 − Dice or the absolute
error of a volume. An uncertainty that ranks errors perfectly gives the optimal area; one that is a constant the mean
risk. Seen from the other end, the fraction refused, the curve is the sparsification plot, and the excess area the
area under the sparsification error (AUSE).

Where uncertainties tie, any of the tied may be refused first: curve and area are the expectation over these orders,
without drawing any. NumPy in float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import special

from medjax.errors import DataError

AnyArray = Array | np.ndarray


class RiskCoverage(NamedTuple):
    """Mean risk of the least uncertain fraction (coverage) of all, up to each distinct uncertainty, ascending.

    Where the lowest uncertainty is of several predictions, the curve begins at one of them, with their mean risk.
    """

    coverage: Float[np.ndarray, " point"]
    risk: Float[np.ndarray, " point"]


class Aurc(NamedTuple):
    """Area under the risk–coverage curve, and those it lies between."""

    area: float
    optimal: float  # if uncertainty ranked the risks perfectly
    excess: float  # area − optimal (E-AURC)
    random: float  # mean risk, the expected area of an uncertainty that says nothing
    normalized: float  # excess / (random − optimal): 0 perfect, 1 random; NaN where all risks are equal


def risk_coverage(
    uncertainty: Real[AnyArray, " value"],
    risk: Real[AnyArray, " value_risk"],
    count: Real[AnyArray, " value_count"] | None = None,
) -> RiskCoverage:
    """Risk–coverage curve.

    Args:
        uncertainty: of each prediction, high where it should be refused: standard deviation, entropy.
        risk: of each prediction: 1 − Dice, absolute error, 0 or 1.
        count: number of predictions that each value stands for, by default 1.

    Raises:
        DataError: nothing, other lengths, or a value that is not finite.

    Source: El-Yaniv & Wiener, JMLR 11, 2010; sparsification: Ilg et al., ECCV 2018.
    """
    number, total = _ties(*_check(uncertainty, risk, count))
    below = np.cumsum(number)
    accepted, mean = below / below[-1], np.cumsum(total) / below
    if number[0] > 1:
        accepted, mean = np.append(1 / below[-1], accepted), np.append(mean[0], mean)
    return RiskCoverage(accepted, mean)


def aurc(
    uncertainty: Real[AnyArray, " value"],
    risk: Real[AnyArray, " value_risk"],
    count: Real[AnyArray, " value_count"] | None = None,
) -> Aurc:
    """Area under the risk–coverage curve, 1/n Σₖ (mean risk of the k least uncertain), and its reference areas.

    Raises:
        DataError: as `risk_coverage`, or counts that are not whole.

    Source: Geifman, Uziel & El-Yaniv, ICLR 2019; normalized: Cattelan & Silva, UAI 2024.
    """
    u, r, n = _check(uncertainty, risk, count)
    if (n != np.round(n)).any():
        raise DataError("count: fractions of predictions; expected whole numbers")
    area, optimal, random = _area(u, r, n), _area(r, r, n), float((n * r).sum() / n.sum())
    excess, room = area - optimal, random - optimal
    return Aurc(area, optimal, excess, random, excess / room if np.ptp(r[n > 0]) > 0 else float("nan"))


def _area(u: np.ndarray, r: np.ndarray, n: np.ndarray) -> float:
    """Sum of the mean risks, over n: of m ties of mean t after K others of sum S, Σᵢ (S + i t)/(K + i), i = 1 … m.

    That is m t + (S − K t)(H(K + m) − H(K)), with harmonic numbers H.
    """
    number, total = _ties(u, r, n)
    before, sum_before = np.cumsum(number) - number, np.cumsum(total) - total
    mean = total / number
    harmonic = special.digamma(before + number + 1) - special.digamma(before + 1)
    return float((total + (sum_before - before * mean) * harmonic).sum() / number.sum())


def _ties(u: np.ndarray, r: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number and summed risk of each distinct uncertainty, ascending."""
    _, same = np.unique(u, return_inverse=True)
    number, total = np.bincount(same, n), np.bincount(same, n * r)
    return number[number > 0], total[number > 0]


def _check(uncertainty: AnyArray, risk: AnyArray, count: AnyArray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, r = np.asarray(uncertainty, np.float64), np.asarray(risk, np.float64)
    n = np.ones(len(u)) if count is None else np.asarray(count, np.float64)
    if not len(u) == len(r) == len(n) or not n.sum() > 0 or (n < 0).any():
        found = f"{len(u)}, {len(r)}, {len(n)} values, {n.sum():g} predictions"
        raise DataError(f"uncertainty, risk, count: {found}; expected as many of each, at least 1 prediction")
    for name, values in (("uncertainty", u), ("risk", r)):
        if not np.isfinite(values).all():
            raise DataError(f"{name}: {(~np.isfinite(values)).sum()} of {values.size} values not finite; expected none")
    return u, r, n
