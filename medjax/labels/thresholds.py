"""From scores to flags: which images are suspect, without knowing how many are wrong.

Every function takes scores (high: suspect) and gives flags; any such function is a threshold. Scores that do not
separate have no right threshold: `otsu` and `mixture` cut somewhere all the same.

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


def highest(scores: Scores, fraction: float | int) -> Flags:
    """The round(fraction · images) highest."""
    _check(scores)
    flags = np.zeros(len(scores), bool)
    flags[np.argsort(-scores, kind="stable")[: round(fraction * len(scores))]] = True
    return flags


def otsu(scores: Scores) -> Flags:
    """Above the cut that leaves the least variance within the two parts; none where all scores are equal."""
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


def mad(scores: Scores, times: float | int = 3.0) -> Flags:
    """More than `times` robust standard deviations (1.4826 · median |s − median|) above the median."""
    _check(scores)
    middle = np.median(scores)
    return scores > middle + times * 1.4826 * np.median(np.abs(scores - middle))


class Mixture(NamedTuple):
    """Two normal distributions; arrays of two, the lower mean first."""

    weight: Float[np.ndarray, "2"]
    mean: Float[np.ndarray, "2"]
    deviation: Float[np.ndarray, "2"]

    def upper(self, scores: Scores) -> Float[np.ndarray, " image"]:
        """Probability that a score comes from the component of the higher mean."""
        z = (scores[:, None] - self.mean) / self.deviation
        log = np.log(self.weight) - np.log(self.deviation) - z**2 / 2
        return 1 / (1 + np.exp(np.clip(log[:, 0] - log[:, 1], -700, 700)))


def fit_mixture(scores: Scores, steps: int = 100) -> Mixture:
    """Maximum likelihood by a fixed number of EM steps, from the halves of the sorted scores."""
    s = scores.astype(float)
    floor = 1e-3 * max(float(s.std()), 1e-12)
    upper = (s > np.median(s)).astype(float) if (s > np.median(s)).any() else np.full(len(s), 0.5)
    fitted = Mixture(*np.ones((3, 2)))
    for _ in range(steps):
        parts = np.stack([1 - upper, upper], axis=1)
        total = parts.sum(axis=0) + 1e-12
        means = parts.T @ s / total
        spread = np.sqrt((parts * (s[:, None] - means) ** 2).sum(axis=0) / total)
        fitted = Mixture(total / total.sum(), means, np.maximum(spread, floor))
        upper = fitted.upper(s)
    return fitted if fitted.mean[0] <= fitted.mean[1] else Mixture(*(part[::-1] for part in fitted))


def mixture(scores: Scores, certainty: float | int = 0.5) -> Flags:
    """From the lowest score on that is with more than this probability of a two-component mixture's upper component."""
    _check(scores)
    fitted = fit_mixture(scores)
    sure = (fitted.upper(scores) > certainty) & (scores > fitted.mean[0])
    return scores >= scores[sure].min() if sure.any() else sure


def orient(scores: Scores, trusted: Int[np.ndarray, " some"], corrupted: Bool[np.ndarray, " some"]) -> Scores:
    """The scores, negated if low scores are the wrong labels in a trusted set: a few images whose labels were checked.

    When more than half of the labels are wrong in the same way, the true ones are the outliers and every score of
    training dynamics turns round: nothing but a look at some labels can tell. Look at ten from each tail.

    Raises:
        DataError: the trusted images are all right or all wrong.
    """
    if corrupted.all() or not corrupted.any():
        found = f"{corrupted.sum()} of {len(corrupted)} labels wrong"
        raise DataError(f"trusted set: {found}; expected some wrong and some right")
    good, poor = scores[trusted[~corrupted]], scores[trusted[corrupted]]
    wins = np.mean((poor[:, None] > good).astype(float) + 0.5 * (poor[:, None] == good))
    return scores if wins >= 0.5 else -scores


def _check(scores: Scores) -> None:
    if not len(scores) or not np.isfinite(scores).all():
        raise DataError(f"scores: {int((~np.isfinite(scores)).sum())} of {len(scores)} not finite; expected numbers")


THRESHOLDS = {"otsu": otsu, "mixture": mixture, "mad": mad}


def by_name(text: str, option: str = "threshold") -> Callable[[Scores], Flags]:
    """The threshold of that name, or `highest` of a fraction such as "0.1"; `option` is what a message calls it.

    Raises:
        ConfigError: it is neither.
    """
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if text not in THRESHOLDS and not 0 < fraction < 1:
        raise ConfigError(f"{option} {text}; expected {', '.join(THRESHOLDS)} or a fraction such as 0.1")
    return THRESHOLDS.get(text) or partial(highest, fraction=fraction)
