"""Tests whether the samples of two scans of a subject have the same distribution, for all subjects at once.

    p = scan_rescan_tests(scan, rescan)                     {"ks": …, "mann_whitney": …, "welch": …, "paired": …}
    significant_fraction(p["ks"], 0.05, "holm")             fraction of subjects

READ THIS BEFORE THE P-VALUES. Samples are draws of a model, not independent measurements of a patient. The tests ask
whether the model gives both *scans* the same distribution, and every scan moves that distribution a little, so with
enough draws every pair is significant: N is the user's choice, and p depends on it (pseudo-replication). A large
fraction of significant subjects says nothing of a biomarker's precision unless N is reported beside it, with an effect
size (`standardized_difference`, `wasserstein`), and compared at equal N. And with few samples a rank test cannot be
significant at all after a correction for many subjects: `min_p`.

Samples of scan and rescan are often COUPLED: sample k of both is the same member, dropout mask or transform, and they
are positively correlated. `ks`, `mann_whitney` and `welch` assume independent samples, and are then conservative: with
a correlation of 0.9 and no shift they reject next to never, not in 5 %, and they miss shifts. `paired` is the one to
read there. The others then compare methods by how strongly their draws are coupled, not by precision.
"""

import warnings
from typing import Literal, get_args

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import special, stats

from medjax.errors import ConfigError, DataError
from medjax.metrics.multiple_testing import benjamini_hochberg, holm
from medjax.uncertainty.biomarker_samples import check_pair, mean_and_sd
from medjax.uncertainty.sample_distance import cdf_difference

AnyArray = Array | np.ndarray
Correction = Literal["none", "holm", "bh"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)
ADJUST = {"none": np.asarray, "holm": holm, "bh": benjamini_hochberg}


def scan_rescan_tests(
    scan: Real[AnyArray, "subject sample"], rescan: Real[AnyArray, "subject_rescan sample_rescan"], paired: bool = True
) -> dict[str, Float[np.ndarray, " subject"]]:
    """Two-sided p-values (not adjusted) of each subject; they depend on N, and the draws are not replicates: see above.

        ks             two-sample Kolmogorov–Smirnov; exact, as SciPy's
        mann_whitney   rank sum; exact where a scan has at most 8 samples and none are equal, else normal with tie and
                       continuity correction, as SciPy's
        welch          t test of the means, variances not assumed equal
        paired         t test of the differences of sample k: only where both scans have equally many samples; the one
                       to read where sample k is one draw of the model, of which the others are conservative

    Args:
        scan: samples of the scan.
        rescan: samples of the rescan of the same subjects in the same order.
        paired: whether sample k of both scans is one draw of the model (the same ensemble member, dropout mask or
            test-time transform). If it is not, pairing means nothing, and the test is left out.

    Samples that are all equal within both scans: t tests give p = 0 where the two values differ, and NaN (no test)
    where they do not, as the paired one does where all differences are 0; ks and mann_whitney give 1 there.

    Raises:
        DataError: fewer than two samples, one that is not finite, or another number of subjects.

    Source: Hodges, Arkiv för Matematik 3(43), 1958 (ks); Mann & Whitney, Annals of Mathematical Statistics 18(1), 1947;
    Welch, Biometrika 34(1–2), 1947.
    """
    x, y = check_pair(scan, rescan)
    found = {"ks": _kolmogorov_smirnov(x, y), "mann_whitney": _mann_whitney(x, y), "welch": _welch(x, y)}
    return found | {"paired": _paired_t(x, y)} if paired and x.shape == y.shape else found


def significant_fraction(
    p: Real[AnyArray, " subject"], alpha: float | int = 0.05, correction: Correction = "holm"
) -> float:
    """Fraction of subjects whose p-value, adjusted over subjects, is at most α.

    Holm bounds the probability of any false rejection, Benjamini–Hochberg (`bh`) the expected fraction of them. A NaN,
    no test, is not counted in the adjustment, and is a subject that is not significant.

    Raises:
        ConfigError: no such correction.
        DataError: no subject, α outside 0–1, or a p-value outside 0–1.
    """
    if correction not in ADJUST:
        raise ConfigError(f"correction: '{correction}'; expected one of {', '.join(CORRECTIONS)}")
    if not 0 < alpha < 1 or np.size(p) == 0:
        raise DataError(f"alpha, p: {alpha:g}, {np.size(p)} p-values; expected between 0 and 1, and one or more")
    return float(np.mean(ADJUST[correction](np.asarray(p, np.float64)) <= alpha))


def min_p(samples: int, samples_rescan: int) -> dict[str, float]:
    """Smallest p-value that each test can have with these numbers of samples.

    For rank tests that is where all samples of one scan are above all of the other, 2 / C(n + m, n): 0.008 for 5 and 5.
    Of S subjects with 5 samples none can be significant after Holm's correction where S · 0.008 > α. That of t tests
    is 0.

    Raises:
        DataError: fewer than two samples.
    """
    n, m = samples, samples_rescan
    if min(n, m) < 2:
        raise DataError(f"samples, samples_rescan: {n}, {m}; expected at least 2")
    apart = np.arange(n, dtype=np.float64), np.arange(m) + float(n)
    rank_sum = float(stats.mannwhitneyu(*apart).pvalue)
    return {"ks": float(stats.ks_2samp(*apart).pvalue), "mann_whitney": rank_sum, "welch": 0.0, "paired": 0.0}


def _kolmogorov_smirnov(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    values, difference = cdf_difference(x, y)
    last = np.concatenate([np.diff(values) > 0, np.ones_like(values[:, :1], bool)], -1)  # of equal values
    cells = x.shape[1] * y.shape[1]
    statistic = np.rint(np.abs(np.where(last, difference, 0)).max(-1) * cells).astype(int)
    # p depends on the statistic only, which has few values: SciPy is asked once for each
    _, subject, which = np.unique(statistic, return_index=True, return_inverse=True)
    with warnings.catch_warnings():  # SciPy warns where a p-value near 1 is the asymptotic one
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.array([stats.ks_2samp(x[k], y[k]).pvalue for k in subject])[which]


def _mann_whitney(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SciPy chooses one method for all rows, normal if any has ties, so these are tested by themselves."""
    ties = (np.diff(np.sort(np.concatenate([x, y], -1), -1), axis=-1) == 0).any(-1)
    p = np.empty(len(x))
    for rows in (ties, ~ties):
        if rows.any():
            p[rows] = stats.mannwhitneyu(x[rows], y[rows], axis=-1).pvalue
    return p


def _welch(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (mean_x, sd_x), (mean_y, sd_y) = mean_and_sd(x), mean_and_sd(y)
    of_x, of_y = sd_x**2 / x.shape[1], sd_y**2 / y.shape[1]
    both = of_x + of_y
    under = of_x**2 / (x.shape[1] - 1) + of_y**2 / (y.shape[1] - 1)
    freedom = np.divide(both**2, under, out=np.ones_like(both), where=under > 0)
    return _two_sided(mean_x - mean_y, np.sqrt(both), freedom)


def _paired_t(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    mean, sd = mean_and_sd(x - y)
    return _two_sided(mean, sd / x.shape[1] ** 0.5, np.full_like(mean, x.shape[1] - 1))


def _two_sided(difference: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    never = np.where(difference == 0, np.nan, np.inf)
    t = np.divide(np.abs(difference), error, out=never, where=error > 0)
    return 2 * special.stdtr(freedom, -t)
