"""Thresholds of label scores: Otsu's, of a two-component mixture, of the median absolute deviation, a top fraction.

Every threshold is a function from scores (high: suspect) to flags, without knowing how many labels are wrong. Scores
that do not separate have no right threshold: `otsu` and `mixture` cut somewhere all the same.

Raises, all of them: DataError, for no scores or scores that are not finite.

Source: Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979; a mixture over losses as in Arazo et al.,
ICML 2019; median absolute deviation as in Leys et al., Journal of Experimental Social Psychology 49(4), 2013.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import ConfigError, DataError

Scores = Float[np.ndarray, " image"]
Flags = Bool[np.ndarray, " image"]


def top_fraction(scores: Scores, fraction: float | int) -> Flags:
    """Flags of the round(fraction · images) highest scores."""
    _check(scores)
    flags = np.zeros(len(scores), bool)
    flags[np.argsort(-scores, kind="stable")[: round(fraction * len(scores))]] = True
    return flags


def otsu(scores: Scores) -> Flags:
    """Flags above Otsu's threshold (least variance within the two classes); none where all scores are equal."""
    _check(scores)
    ordered = np.sort(scores.astype(float))
    if ordered[0] == ordered[-1]:
        return np.zeros(len(scores), bool)
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
    between = below * (len(ordered) - below) * (high - low) ** 2
    cut = int(np.argmax(np.where(np.diff(ordered) > 0, between, -np.inf)))
    return scores > (ordered[cut] + ordered[cut + 1]) / 2


def mad(scores: Scores, deviations: float | int = 3.0) -> Flags:
    """Flags of outliers: more than `deviations` robust SDs (1.4826 · median |s − median|) above the median."""
    _check(scores)
    middle = np.median(scores)
    return scores > middle + deviations * 1.4826 * np.median(np.abs(scores - middle))


class GaussianMixture(NamedTuple):
    """Two-component Gaussian mixture of scores; arrays of two, the lower mean first."""

    weight: Float[np.ndarray, "2"]  # mixing proportion of each component
    mean: Float[np.ndarray, "2"]
    sd: Float[np.ndarray, "2"]  # standard deviation of each component

    def upper_probability(self, scores: Scores) -> Float[np.ndarray, " image"]:
        """Probability of every score to be of the component of the higher mean."""
        z = (scores[:, None] - self.mean) / self.sd
        log = np.log(self.weight) - np.log(self.sd) - z**2 / 2
        return 1 / (1 + np.exp(np.clip(log[:, 0] - log[:, 1], -700, 700)))


def fit_mixture(scores: Scores, steps: int = 100) -> GaussianMixture:
    """Maximum-likelihood Gaussian mixture by a fixed number of EM steps, from the halves of the sorted scores."""
    s = scores.astype(float)
    floor = 1e-3 * max(float(s.std()), 1e-12)
    upper = (s > np.median(s)).astype(float) if (s > np.median(s)).any() else np.full(len(s), 0.5)
    fitted = GaussianMixture(*np.ones((3, 2)))
    for _ in range(steps):
        parts = np.stack([1 - upper, upper], axis=1)
        total = parts.sum(axis=0) + 1e-12
        means = parts.T @ s / total
        sd = np.sqrt((parts * (s[:, None] - means) ** 2).sum(axis=0) / total)
        fitted = GaussianMixture(total / total.sum(), means, np.maximum(sd, floor))
        upper = fitted.upper_probability(s)
    return fitted if fitted.mean[0] <= fitted.mean[1] else GaussianMixture(*(part[::-1] for part in fitted))


def mixture(scores: Scores, min_probability: float | int = 0.5) -> Flags:
    """Flags by a two-component Gaussian mixture.

    They begin at the lowest score whose probability of the upper component exceeds `min_probability`.
    """
    _check(scores)
    fitted = fit_mixture(scores)
    sure = (fitted.upper_probability(scores) > min_probability) & (scores > fitted.mean[0])
    return scores >= scores[sure].min() if sure.any() else sure


def orient(scores: Scores, trusted: Int[np.ndarray, " some"], corrupted: Bool[np.ndarray, " some"]) -> Scores:
    """Scores, negated where low ones are the wrong labels of a trusted set: a few images whose labels were checked.

    When more than half of the labels are wrong in the same way, the true ones are the outliers and every score is
    inverted, which only a check of some labels shows. Check ten from each end of the ranking.

    Raises:
        DataError: the trusted images are all right or all wrong.
    """
    if corrupted.all() or not corrupted.any():
        found = f"{corrupted.sum()} of {len(corrupted)} labels wrong"
        raise DataError(f"trusted set: {found}; expected some wrong and some right")
    correct, wrong = scores[trusted[~corrupted]], scores[trusted[corrupted]]
    wins = np.mean((wrong[:, None] > correct).astype(float) + 0.5 * (wrong[:, None] == correct))
    return scores if wins >= 0.5 else -scores


def _check(scores: Scores) -> None:
    if not len(scores) or not np.isfinite(scores).all():
        raise DataError(f"scores: {int((~np.isfinite(scores)).sum())} of {len(scores)} not finite; expected numbers")


THRESHOLDS = {"otsu": otsu, "mixture": mixture, "mad": mad}


def by_name(text: str, option: str = "threshold") -> Callable[[Scores], Flags]:
    """Threshold by name, or `top_fraction` of a number such as "0.1"; error messages name it `option`.

    Raises:
        ConfigError: neither a name nor a fraction.
    """
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if text not in THRESHOLDS and not 0 < fraction < 1:
        raise ConfigError(f"{option} {text}; expected {', '.join(THRESHOLDS)} or a fraction such as 0.1")
    return THRESHOLDS.get(text) or partial(top_fraction, fraction=fraction)
