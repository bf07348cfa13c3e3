"""How much of the difference between scan and rescan a model's samples explain.

    explained_difference(scan, rescan).ratio         1: differences are as large as the samples' variance says

The samples of a scan claim a predictive variance: so far may the estimate be from the truth. If that is honest, errors
of two scans are independent, and there was no true change, then estimates differ by as much as both variances together.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Real
from scipy import stats

from medjax.errors import DataError
from medjax.uncertainty.biomarker_samples import check_pair, mean_and_sd

AnyArray = Array | np.ndarray


class ExplainedDifference(NamedTuple):
    """Explained scan–rescan difference of a cohort; deviations in the biomarker's unit."""

    ratio: float  # Σ (variance of scan + of rescan) / Σ (difference of means)²: below 1 too certain, above 1 too wide
    sampling: float  # the part of the squared difference that is only the error of a mean of finitely many samples
    inside: float  # fraction of subjects whose difference is within its predictive interval, `level` if it is honest
    difference_sd: float  # root mean square difference of the means
    predicted_sd: float  # root mean square of its predicted standard deviation
    rank_correlation: float  # Spearman's, over subjects, of predicted standard deviation and size of the difference


def explained_difference(
    scan: Real[AnyArray, "subject sample"],
    rescan: Real[AnyArray, "subject_rescan sample_rescan"],
    level: float | int = 0.95,
) -> ExplainedDifference:
    """Observed against predicted difference of scan and rescan, for N samples of mean x̄ and variance s² (N − 1) each:

        ratio      Σ (s_x² + s_y²) / Σ (x̄ − ȳ)²
        sampling   Σ s_d²/N / Σ (x̄ − ȳ)², s_d² the variance of x_k − y_k; near 1, more samples would bring the scans
                   together. Where scan and rescan have other numbers, s_x²/N_x + s_y²/N_y, of independent draws
        inside     |x̄ − ȳ| ≤ t √(s_x² + s_y²), t Student's quantile with Welch and Satterthwaite's degrees of freedom

    With samples of deviation σ about means that shift from scan to scan by τ, the ratio tends to σ² / (τ² + σ²/N) and
    `inside`, for many samples, to 2 Φ(z √ratio) − 1; both are honest where τ² = σ² (1 − 1/N). A true change between the
    scans counts as difference, so ratio and `inside` are then smaller; an error that both scans share cancels, so a
    ratio of 1 does not promise coverage of the truth. Where sample k of both is one draw of the model (the same member,
    mask or transform), of correlation r, σ²/N is (1 − r) σ²/N, and `sampling` tends to 1 without a shift all the same.
    No difference at all gives an infinite ratio, or NaN where the
    samples do not vary either.

    Raises:
        DataError: fewer than two samples, one that is not finite, another number of subjects, no subject, or a level
            outside 0–1.

    Source: degrees of freedom: Satterthwaite, Biometrics Bulletin 2(6), 1946.
    """
    x, y = check_pair(scan, rescan)
    if not len(x) or not 0 < level < 1:
        raise DataError(f"scan, level: {len(x)} subjects, {level:g}; expected at least 1, and between 0 and 1")
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    size, predicted = np.abs(mean_x - mean_y), np.hypot(sd_x, sd_y)
    under = sd_x**4 / (x.shape[1] - 1) + sd_y**4 / (y.shape[1] - 1)
    freedom = np.divide(predicted**4, under, out=np.ones_like(predicted), where=under > 0)
    squares = float((size**2).sum())
    paired = x.shape == y.shape  # also right for independent draws, whose pairs are arbitrary
    of_means = mean_and_sd(x - y)[1] ** 2 / x.shape[1] if paired else sd_x**2 / x.shape[1] + sd_y**2 / y.shape[1]
    return ExplainedDifference(
        ratio=_ratio(float((predicted**2).sum()), squares),
        sampling=_ratio(float(of_means.sum()), squares),
        inside=float(np.mean(size <= stats.t.ppf((1 + level) / 2, freedom) * predicted)),
        difference_sd=float(np.mean(size**2) ** 0.5),
        predicted_sd=float(np.mean(predicted**2) ** 0.5),
        rank_correlation=_rank_correlation(predicted, size),
    )


def _ratio(over: float, under: float) -> float:
    return over / under if under else float("inf") if over else float("nan")


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where it is not defined: fewer than three subjects, or all equal."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])
