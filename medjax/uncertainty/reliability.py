"""Calibration of confidences: reliability diagram, expected (ECE), adaptive and maximum calibration error.

    diagram = reliability(confidence, correct)                   15 bins of equal width; binning="mass": of equal mass
    expected_calibration_error(diagram)                          ECE; of bins of equal mass: the adaptive one

A confidence is calibrated if of all predictions with confidence p a fraction p is correct. Both errors depend on the
bins: state number and kind. Values are weighted by `count`, so that the sums of a stream of images give the same as the
pixels themselves. NumPy in float64.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Real

from medjax.errors import ConfigError, DataError

AnyArray = Array | np.ndarray
Binning = Literal["width", "mass"]
BINS = 15


class Reliability(NamedTuple):
    """Reliability diagram: mean confidence, accuracy and number of predictions of each bin; NaN in an empty one."""

    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]
    count: Float[np.ndarray, " bin"]


def reliability(
    confidence: Real[AnyArray, " value"],
    accuracy: Real[AnyArray, " value"] | Bool[AnyArray, " value"],
    count: Real[AnyArray, " value"] | None = None,
    *,
    bins: int = BINS,
    binning: Binning = "width",
) -> Reliability:
    """Reliability diagram of confidences.

    Args:
        confidence: probability of the predicted class, or of a class.
        accuracy: whether it is the true one, 0 or 1; of values that stand for several predictions, their fraction.
        count: number of predictions that each value stands for, by default 1.
        bins: number of bins.
        binning: `width`: (k/bins, (k + 1)/bins], 0 in the first one; `mass`: as many predictions in each as in any
            other, as far as equal confidences (and the predictions of one value), which stay together, allow.

    Raises:
        ConfigError: no such binning, or no bin.
        DataError: other lengths, nothing to count, or numbers outside 0–1.

    Source: equal width: Guo et al., ICML 2017; equal mass: Nguyen & O'Connor, EMNLP 2015.
    """
    if binning not in ("width", "mass") or bins < 1:
        raise ConfigError(f"binning, bins: '{binning}', {bins}; expected width or mass, and at least 1")
    p, hit = np.asarray(confidence, np.float64), np.asarray(accuracy, np.float64)
    n = np.ones(len(p)) if count is None else np.asarray(count, np.float64)
    if not len(p) == len(hit) == len(n) or not n.sum() > 0 or (n < 0).any():
        found = f"{len(p)}, {len(hit)}, {len(n)} values, {n.sum():g} predictions"
        raise DataError(f"confidence, accuracy, count: {found}; expected as many of each, at least 1 prediction")
    for name, values in (("confidence", p), ("accuracy", hit)):
        if not ((values >= 0) & (values <= 1)).all():
            raise DataError(f"{name}: {values.min():g} to {values.max():g}; expected 0 to 1, and no NaN")
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p) if binning == "width" else _of_equal_mass(p, n, bins)
    total, of_p, of_hit = (np.bincount(index, n * values, bins) for values in (1.0, p, hit))
    with np.errstate(invalid="ignore"):
        return Reliability(of_p / total, of_hit / total, total)


def expected_calibration_error(diagram: Reliability) -> float:
    """Expected calibration error (ECE): Σ_b n_b/n · |accuracy − confidence| of bin b.

    Of bins of equal mass, that is the adaptive one. It is biased upwards where bins hold few predictions.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015.
    """
    return float(np.nansum(diagram.count * _gap(diagram)) / diagram.count.sum())


def maximum_calibration_error(diagram: Reliability) -> float:
    """Maximum calibration error (MCE): the largest |accuracy − confidence| of all bins that are not empty.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015.
    """
    return float(np.nanmax(_gap(diagram)))


def _gap(diagram: Reliability) -> np.ndarray:
    return np.abs(diagram.accuracy - diagram.confidence)


def _of_equal_mass(p: np.ndarray, n: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each value: by how many predictions are less confident, and half of those that are as confident."""
    _, same = np.unique(p, return_inverse=True)
    mass = np.bincount(same, n)
    middle = np.cumsum(mass) - mass / 2
    return np.minimum((bins * middle / mass.sum()).astype(int), bins - 1)[same]
