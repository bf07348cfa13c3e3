"""Repeatability of two measurements of each subject: within-subject deviation and coefficient of variation, SEM, SDC.

    found = repeatability(scan, rescan)
    found.cov                            within-subject coefficient of variation, a fraction
    found.sdc                            a change of one subject that is smaller may be error of measurement

Bland–Altman limits and intraclass correlation are in `metrics.agreement`. NumPy and SciPy in float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Real
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.agreement import ConfidenceInterval

AnyArray = Array | np.ndarray


class Repeatability(NamedTuple):
    """Repeatability of two measurements, in their unit; the coefficients of variation are fractions."""

    within_sd: float  # within-subject standard deviation s_w, with a bias between the measurements
    rc: float  # repeatability coefficient, z √2 s_w
    rc_interval: ConfidenceInterval
    sem: float  # standard error of measurement, without a bias between the measurements
    sdc: float  # smallest detectable change of one subject, z √2 SEM
    sdc_interval: ConfidenceInterval
    cov: float  # within-subject coefficient of variation, root mean square over subjects
    cov_of_mean: float  # within-subject standard deviation / mean of all measurements


def repeatability(
    first: Real[AnyArray, " subject"],
    second: Real[AnyArray, " subject"],
    level: float | int = 0.95,
    coverage: float | int = 0.95,
) -> Repeatability:
    """Repeatability of measurements x and y of n subjects, with differences d = y − x and z of `coverage` (1.96):

        s_w = √(mean d²/2)                            RC = z √2 s_w
        SEM = SD(d)/√2, SD with n − 1                 SDC = z √2 SEM
        CoV = √(mean (d²/2) / ((x + y)/2)²)           CoV of the mean = s_w / |mean of all x and y|

    s_w holds a bias between the measurements and SEM does not, so RC ≥ SDC √((n − 1)/n). Intervals of probability
    `level` are exact for normal differences: (n − 1) SEM² / σ² has a χ² distribution with n − 1 degrees of freedom, and
    n s_w² / σ², without bias, one with n. Coefficients of variation mean something for measurements on a ratio scale:
    they are NaN where the subjects' means are not all above 0, or all below it.

    Raises:
        DataError: lengths differ, fewer than two subjects, values not finite, or a level or coverage outside 0–1.

    Source: Bland & Altman, BMJ 313, 1996 (s_w, RC; CoV); de Vet et al., Journal of Clinical Epidemiology 59, 2006 (SEM,
    SDC).
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise DataError(f"shapes {x.shape}, {y.shape}; expected one value of each of two subjects or more, in both")
    if unknown := int((~np.isfinite(x)).sum() + (~np.isfinite(y)).sum()):
        raise DataError(f"first, second: {unknown} of {2 * len(x)} values are not finite; expected none")
    for name, value in (("level", level), ("coverage", coverage)):
        if not 0 < value < 1:
            raise DataError(f"{name}: {value:g}; expected between 0 and 1")
    d, mean, n = y - x, (x + y) / 2, len(x)
    variances = d**2 / 2
    within, sem = float(variances.mean() ** 0.5), float(d.std(ddof=1) / 2**0.5)
    change = float(stats.norm.ppf((1 + coverage) / 2)) * 2**0.5
    ratio = bool((mean > 0).all() or (mean < 0).all())
    return Repeatability(
        within_sd=within,
        rc=change * within,
        rc_interval=_interval(change * within, n, level),
        sem=sem,
        sdc=change * sem,
        sdc_interval=_interval(change * sem, n - 1, level),
        cov=float(np.mean(variances / mean**2) ** 0.5) if ratio else float("nan"),
        cov_of_mean=within / abs(float(mean.mean())) if ratio else float("nan"),
    )


def _interval(value: float, freedom: int, level: float | int) -> ConfidenceInterval:
    """Of a standard deviation, or a multiple of it, by its χ² distribution."""
    high, low = stats.chi2.ppf([(1 - level) / 2, (1 + level) / 2], freedom).tolist()
    return ConfidenceInterval(value * (freedom / low) ** 0.5, value * (freedom / high) ** 0.5)
