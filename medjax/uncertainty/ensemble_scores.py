"""Scores of samples (an ensemble) against the truth of each subject: CRPS, quantile and log score, PIT, rank histogram.

    crps(samples, truth)                          (subject,), in the biomarker's unit; of one sample: its absolute error
    rank_histogram(samples, truth).p              a small p-value: the truth is no further draw of the samples

`samples` are (subject, sample), `truth` (subject,): the true value, or a rescan's point estimate, whose own noise then
counts as error. CRPS, quantile and log score are proper: the smaller, the better, and no interval's width can be tuned
to lower them on average below those of the true distribution. NumPy in float64.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real
from scipy import stats

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.biomarker_samples import check_samples, mean_and_sd

AnyArray = Array | np.ndarray
Number = float | int
PER_BIN = 5  # subjects expected in a bin, at least, for the χ² distribution to hold


class RankHistogram(NamedTuple):
    """Number of subjects by the rank of the truth among the samples, and the χ² test that the rank is uniform."""

    count: Float[np.ndarray, " bin"]  # subjects; a truth that ties with samples counts in parts
    expected: Float[np.ndarray, " bin"]  # if the truth were a further draw of the samples
    edges: Int[np.ndarray, " edge"]  # bin b: `edges[b]` to `edges[b + 1]` − 1 samples below the truth
    statistic: float
    p: float


def check_truth(
    samples: Real[AnyArray, "subject sample"], truth: Real[AnyArray, " subject_truth"], minimum: int = 1
) -> tuple[Float[np.ndarray, "subject sample"], Float[np.ndarray, " subject"]]:
    """Samples and truth of the same subjects in float64: all finite, at least `minimum` samples of each subject.

    Raises:
        DataError: another number of subjects, none, too few samples, or a value that is not finite.
    """
    if not len(truth) or len(samples) != len(truth):
        raise DataError(f"samples, truth: {len(samples)} and {len(truth)} subjects; expected the same ones, at least 1")
    y = np.asarray(truth, np.float64)
    if (missing := ~np.isfinite(y)).any():
        raise DataError(
            f"truth: {missing.sum()} of {y.size} values are not finite, first row {np.argmax(missing)}; expected none"
        )
    return check_samples("samples", samples, minimum), y


def crps(
    samples: Real[AnyArray, "subject sample"],
    truth: Real[AnyArray, " subject_truth"],
    form: Literal["ecdf", "fair"] = "ecdf",
) -> Float[np.ndarray, " subject"]:
    """Continuous ranked probability score of each subject, in the unit of the samples; 0 is best.

        ecdf   ∫ (F(x) − 1{y ≤ x})² dx = Σᵢ |xᵢ − y|/N − Σᵢⱼ |xᵢ − xⱼ|/(2 N²), F the empirical distribution function
        fair   the same with 2 N (N − 1): the expected CRPS of the distribution that the N samples were drawn from

    Few samples raise the first one, so that methods compared at different N are only comparable by the fair one, which
    may be below 0 for a single subject.

    Raises:
        ConfigError: no such form.
        DataError: as `check_truth`; one sample only for the fair form.

    Source: Gneiting & Raftery, JASA 102(477), 2007; fair form: Ferro, QJRMS 140(683), 2014.
    """
    if form not in ("ecdf", "fair"):
        raise ConfigError(f"form: '{form}'; expected ecdf or fair")
    x, y = check_truth(samples, truth, 2 if form == "fair" else 1)
    n = x.shape[1]
    error = np.sort(x - y[:, None], axis=1)
    pairs = error @ (4 * np.arange(n) + 2 - 2.0 * n)  # Σᵢⱼ |xᵢ − xⱼ|
    return np.abs(error).mean(1) - pairs / (2 * n * (n if form == "ecdf" else n - 1))


def quantile_score(
    quantile: Real[AnyArray, " subject"], truth: Real[AnyArray, " subject"], level: Number
) -> Float[np.ndarray, " subject"]:
    """Quantile score (pinball loss) (1{y < q} − level)(q − y) of the predicted quantile q of each subject; 0 is best.

    Raises:
        DataError: other lengths, a value that is not finite, or a level outside 0–1.

    Source: Koenker & Bassett, Econometrica 46(1), 1978.
    """
    q, y = check_truth(np.asarray(quantile)[:, None], truth)
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    return ((y < q[:, 0]) - level) * (q[:, 0] - y)


def normal_log_score(
    samples: Real[AnyArray, "subject sample"], truth: Real[AnyArray, " subject_truth"]
) -> Float[np.ndarray, " subject"]:
    """Log score −ln p(y) of the normal density with mean and standard deviation (N − 1) of each subject's samples.

    Infinite where all samples are equal and the truth is another value; −infinite where it is the same.

    Raises:
        DataError: as `check_truth`, or one sample only.

    Source: Good, JRSS B 14(1), 1952.
    """
    x, y = check_truth(samples, truth, 2)
    mean, sd = mean_and_sd(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = -stats.norm.logpdf((y - mean) / sd) + np.log(sd)
    return np.where(sd > 0, score, np.where(y == mean, -np.inf, np.inf))


def pit(
    samples: Real[AnyArray, "subject sample"], truth: Real[AnyArray, " subject_truth"]
) -> Float[np.ndarray, " subject"]:
    """Probability integral transform of each subject: (samples below y + ½ + ½ samples equal to y)/(N + 1), in 0–1.

    Uniform over its N + 1 values if the truth is a further draw of the samples. Heaped at both ends: intervals too
    short; heaped in the middle: too wide; sloping: biased.

    Raises:
        DataError: as `check_truth`.
    """
    x, y = check_truth(samples, truth)
    below, equal = (x < y[:, None]).sum(1), (x == y[:, None]).sum(1)
    return (below + (1 + equal) / 2) / (x.shape[1] + 1)


def rank_histogram(
    samples: Real[AnyArray, "subject sample"], truth: Real[AnyArray, " subject_truth"], bins: int | None = None
) -> RankHistogram:
    """Histogram of the rank 0 … N of the truth among the N samples, and Pearson's χ² test that it is uniform.

    A truth equal to t samples counts 1/(t + 1) at each of its t + 1 ranks, which makes the test conservative.

    Args:
        samples: samples of each subject.
        truth: truth of each subject.
        bins: number of bins, of whole ranks; default: N + 1, or fewer so that 5 subjects are expected in each, at least
            two.

    Raises:
        DataError: as `check_truth`, or bins outside 2 … N + 1.

    Source: Hamill, Monthly Weather Review 129(3), 2001.
    """
    x, y = check_truth(samples, truth)
    ranks = x.shape[1] + 1
    number = min(ranks, max(2, len(y) // PER_BIN)) if bins is None else bins
    if not 2 <= number <= ranks:
        raise DataError(f"bins: {number}; expected 2 to {ranks}, the number of ranks among {ranks - 1} samples")
    below, equal = (x < y[:, None]).sum(1), (x == y[:, None]).sum(1)
    rank = np.arange(ranks)
    within = (rank >= below[:, None]) & (rank <= (below + equal)[:, None])
    edges = np.round(np.linspace(0, ranks, number + 1)).astype(int)
    count = np.add.reduceat((within / (1 + equal)[:, None]).sum(0), edges[:-1])
    expected = len(y) * np.diff(edges) / ranks
    statistic = float(((count - expected) ** 2 / expected).sum())
    return RankHistogram(count, expected, edges, statistic, float(stats.chi2.sf(statistic, number - 1)))
