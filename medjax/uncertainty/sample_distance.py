"""Distances of the samples of two scans of each subject: overlap of the distributions, Bhattacharyya, Wasserstein, d.

    overlap_coefficient(scan, rescan)             1 for equal normal distributions, 0 for disjoint ones
    wasserstein(scan, rescan)                     in the biomarker's unit
    standardized_difference(scan, rescan)         in standard deviations of the samples

Unlike p-values they estimate something that does not depend on the number of samples N, though few samples bias them:
the samples of two equal distributions differ, so Wasserstein's distance is above 0, and the coefficients below 1.

Samples that are all equal have no density. Two such scans have the coefficients 1 where they are equal, else 0; so has
one such scan against one that varies: 0.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import special

from medjax.errors import ConfigError
from medjax.uncertainty.biomarker_samples import check_pair, mean_and_sd

AnyArray = Array | np.ndarray
Density = Literal["normal", "kde"]
GRID, REACH = 512, 8  # points of the integral over a kernel density; its tails, in bandwidths


def overlap_coefficient(
    scan: Real[AnyArray, "*batch sample"],
    rescan: Real[AnyArray, "*batch_rescan sample_rescan"],
    density: Density = "normal",
) -> Float[np.ndarray, "*batch"]:
    """Overlap coefficient OVL = ∫ min(f, g) dx of the densities of scan and rescan.

    `normal`: both have the samples' mean and standard deviation (n − 1). In units of the narrower one, with the wider
    at δ ≥ 0 and r ≥ 1 times as wide, the densities cross where (r² − 1) x² + 2 δ x = δ² + 2 r² ln r, at x₋ ≤ x₊, and
    OVL = Φ(x₋) + Φ(−x₊) + Φ((x₊ − δ)/r) − Φ((x₋ − δ)/r); for r = 1 it is 2 Φ(−δ/2).
    `kde`: Gaussian kernels with Scott's bandwidth, n^(−1/5) times the standard deviation, as SciPy's; integrated over a
    grid, to about 1e-4.

    Raises:
        ConfigError: no such density.
        DataError: fewer than two samples, one that is not finite, or another number of subjects.

    Source: Inman & Bradley, Communications in Statistics: Theory and Methods 18(10), 1989.
    """
    x, y = check_pair(scan, rescan)
    if density == "kde":
        return _kde_integral(x, y, np.minimum)
    if density != "normal":
        raise ConfigError(f"density: '{density}'; expected normal or kde")
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    narrow, wide = np.minimum(sd_x, sd_y), np.maximum(sd_x, sd_y)
    known = (narrow > 0) & ~((mean_x == mean_y) & (sd_x == sd_y))
    unit = np.where(known, narrow, 1)
    r, delta = np.where(known, wide / unit, 1), np.where(known, np.abs(mean_y - mean_x) / unit, 1)
    a, c = (r - 1) * (r + 1), delta**2 + 2 * r**2 * np.log(r)
    q = delta + np.sqrt(delta**2 + a * c)  # the larger of −x₋ a and c / x₊, so that no digits cancel
    right, left = c / q, np.divide(-q, a, out=np.full_like(q, -np.inf), where=a > 0)
    cdf = special.ndtr
    found = cdf(left) + cdf(-right) + cdf((right - delta) / r) - cdf((left - delta) / r)
    return np.where(known, found, _of_points(mean_x, sd_x, mean_y, sd_y))


def bhattacharyya_distance(
    scan: Real[AnyArray, "*batch sample"], rescan: Real[AnyArray, "*batch_rescan sample_rescan"]
) -> Float[np.ndarray, "*batch"]:
    """Bhattacharyya distance of normal distributions, (x̄ − ȳ)² / (4 (s² + t²)) + ½ ln((s² + t²) / (2 s t)).

    The mean and standard deviation (n − 1) are the samples'. It is infinite where the samples of one scan are all equal
    and those of the other are not all that value.

    Raises:
        DataError: fewer than two samples, one that is not finite, or another number of subjects.

    Source: Bhattacharyya, Bulletin of the Calcutta Mathematical Society 35, 1943.
    """
    x, y = check_pair(scan, rescan)
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    known = (sd_x > 0) & (sd_y > 0)
    one, other = np.where(known, sd_x, 1), np.where(known, sd_y, 1)
    both = one**2 + other**2
    found = (mean_x - mean_y) ** 2 / (4 * both) + np.log(both / (2 * one * other)) / 2
    return np.where(known, found, np.where(_of_points(mean_x, sd_x, mean_y, sd_y) == 1, 0.0, np.inf))


def bhattacharyya_coefficient(
    scan: Real[AnyArray, "*batch sample"],
    rescan: Real[AnyArray, "*batch_rescan sample_rescan"],
    density: Density = "normal",
) -> Float[np.ndarray, "*batch"]:
    """Bhattacharyya coefficient ∫ √(f g) dx: exp(−distance) of normal densities, or of kernel densities (`kde`).

    Raises:
        ConfigError: no such density.
        DataError: fewer than two samples, one that is not finite, or another number of subjects.
    """
    if density == "normal":
        return np.exp(-bhattacharyya_distance(scan, rescan))
    if density != "kde":
        raise ConfigError(f"density: '{density}'; expected normal or kde")
    return _kde_integral(*check_pair(scan, rescan), lambda f, g: np.sqrt(f * g))


def wasserstein(
    scan: Real[AnyArray, "*batch sample"], rescan: Real[AnyArray, "*batch_rescan sample_rescan"]
) -> Float[np.ndarray, "*batch"]:
    """Wasserstein-1 distance ∫ |F − G| dx of the samples' distribution functions, in the biomarker's unit; exact.

    Two scans of one sample each are as far apart as these are. Few samples raise it: N normal ones of the same
    distribution are about 1.7 s/√N apart.

    Raises:
        DataError: no sample, one that is not finite, or another number of subjects.
    """
    values, difference = cdf_difference(*check_pair(scan, rescan, minimum=1))
    return (np.abs(difference[..., :-1]) * np.diff(values)).sum(-1)


def cdf_difference(
    scan: Float[np.ndarray, "*batch sample"], rescan: Float[np.ndarray, "*batch sample_rescan"]
) -> tuple[np.ndarray, np.ndarray]:
    """All samples in ascending order, and the difference F − G of the distribution functions after each of them.

    Among equal values only the last one's difference is that of the functions.
    """
    n, m = scan.shape[-1], rescan.shape[-1]
    both = np.concatenate([scan, rescan], -1)
    order = np.argsort(both, -1, kind="stable")
    first = order < n
    # whole numbers, so that the difference is exact: multiples of 1 / (n m)
    return np.take_along_axis(both, order, -1), np.cumsum(np.where(first, m, -n), -1) / (n * m)


def standardized_difference(
    scan: Real[AnyArray, "*batch sample"], rescan: Real[AnyArray, "*batch_rescan sample_rescan"], unbiased: bool = True
) -> Float[np.ndarray, "*batch"]:
    """Standardised difference rescan − scan, in pooled standard deviations of the samples: Hedges' g, or Cohen's d.

    Cohen's d = (ȳ − x̄) / s, s² = ((n − 1) s_x² + (m − 1) s_y²) / ν, ν = n + m − 2; Hedges' g (`unbiased`) is
    d Γ(ν/2) / (√(ν/2) Γ((ν − 1)/2)), which has no bias for normal samples. It says how far the scans are apart in units
    of the model's own standard deviation. Samples that are all equal within both scans give 0 or ±∞.

    Raises:
        DataError: fewer than two samples, one that is not finite, or another number of subjects.

    Source: Hedges, Journal of Educational Statistics 6(2), 1981.
    """
    x, y = check_pair(scan, rescan)
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    n, m = x.shape[-1], y.shape[-1]
    freedom, difference = n + m - 2, mean_y - mean_x
    pooled = np.sqrt(((n - 1) * sd_x**2 + (m - 1) * sd_y**2) / freedom)
    d = np.divide(
        difference, pooled, out=np.where(difference == 0, 0.0, np.copysign(np.inf, difference)), where=pooled > 0
    )
    if not unbiased:
        return d
    return d * np.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / (freedom / 2) ** 0.5


def _of_points(mean_x: np.ndarray, sd_x: np.ndarray, mean_y: np.ndarray, sd_y: np.ndarray) -> np.ndarray:
    """Coefficient where a density is a point, or where both are equal."""
    return np.where((mean_x == mean_y) & (sd_x == sd_y), 1.0, 0.0)


def _kde_integral(x: np.ndarray, y: np.ndarray, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Integral of combine(f, g) over kernel densities, where both are above 0."""
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    known = (sd_x > 0) & (sd_y > 0)
    widths = [np.where(known, sd, 1) * samples.shape[-1] ** -0.2 for sd, samples in ((sd_x, x), (sd_y, y))]
    low = np.maximum(*(one.min(-1) - REACH * width for one, width in zip((x, y), widths, strict=True)))
    high = np.minimum(*(one.max(-1) + REACH * width for one, width in zip((x, y), widths, strict=True)))
    # the common support is no wider than the narrower density's, which the grid therefore resolves
    step = np.maximum(high - low, 0) / (GRID - 1)
    grid = low[..., None] + step[..., None] * np.arange(GRID)
    densities = [_kde(one, width, grid) for one, width in zip((x, y), widths, strict=True)]
    found = combine(*densities)
    found = (found.sum(-1) - (found[..., 0] + found[..., -1]) / 2) * step
    return np.where(known, np.minimum(found, 1), _of_points(mean_x, sd_x, mean_y, sd_y))


def _kde(samples: np.ndarray, width: np.ndarray, grid: np.ndarray) -> np.ndarray:
    total = np.zeros_like(grid)
    for k in range(samples.shape[-1]):  # one sample at a time: subjects × grid × samples would not fit
        total += np.exp(-(((grid - samples[..., k, None]) / width[..., None]) ** 2) / 2)
    return total / (samples.shape[-1] * width[..., None] * (2 * np.pi) ** 0.5)
