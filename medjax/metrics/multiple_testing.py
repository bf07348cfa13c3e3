"""Adjustment of p-values for multiple tests: Holm (family-wise error) and Benjamini–Hochberg (false discovery rate).

    holm(p) <= 0.05                     rejected; the chance of any false rejection is at most 5 %, however they depend
    benjamini_hochberg(p) <= 0.05       rejected; at most 5 % false among them on average, if tests are independent or
                                        positively dependent

The last axis is the family of tests. A NaN p-value is a test that was not made: it stays NaN and is not counted. All is
NumPy in float64.
"""

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray


def holm(p: Real[AnyArray, "*batch test"]) -> Float[np.ndarray, "*batch test"]:
    """Holm's step-down adjusted p-values: max over j ≤ i of (m − j + 1) p₍ⱼ₎, at most 1, for the i-th smallest of m.

    Raises:
        DataError: a p-value outside 0–1.

    Source: Holm, Scandinavian Journal of Statistics 6(2), 1979.
    """
    p, order, count = _sorted(p)
    steps = np.arange(p.shape[-1])
    return _unsorted(np.maximum.accumulate((count - steps) * np.take_along_axis(p, order, -1), -1), order)


def benjamini_hochberg(p: Real[AnyArray, "*batch test"]) -> Float[np.ndarray, "*batch test"]:
    """Benjamini and Hochberg's step-up adjusted p-values: min over j ≥ i of (m / j) p₍ⱼ₎, for the i-th smallest of m.

    Raises:
        DataError: a p-value outside 0–1.

    Source: Benjamini & Hochberg, Journal of the Royal Statistical Society B 57(1), 1995.
    """
    p, order, count = _sorted(p)
    scaled = np.take_along_axis(p, order, -1) * count / np.arange(1, p.shape[-1] + 1)
    smallest = np.fmin.accumulate(scaled[..., ::-1], -1)[..., ::-1]  # past the NaNs, which are sorted last
    return _unsorted(np.where(np.isnan(scaled), np.nan, smallest), order)


def _sorted(p: AnyArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p-values in float64, their order with NaN last, and how many of each family are not NaN."""
    p = np.asarray(p, np.float64)
    if (outside := (p < 0) | (p > 1)).any():
        raise DataError(f"p: {p[outside][0]:g}; expected p-values between 0 and 1")
    return p, np.argsort(p, -1), (~np.isnan(p)).sum(-1, keepdims=True)


def _unsorted(adjusted: np.ndarray, order: np.ndarray) -> np.ndarray:
    back = np.empty_like(adjusted)
    np.put_along_axis(back, order, np.minimum(adjusted, 1), -1)
    return back
