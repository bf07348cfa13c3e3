"""Agreement of paired measurements of the same subjects, such as manual and automatic ones.

    found = paired_agreement(manual, automatic, margin=0.15)
    found.tost_p < 0.05                            equivalent within 15 % of the manual mean
    found.paired_p > 0.05                          "no difference found", which says little without the next line
    found.detectable                               the difference that this test could have found

The statistics are those of `metrics.agreement`, in float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import stats

from medjax.errors import DataError
from medjax.metrics.agreement import (
    bland_altman,
    detectable_difference,
    icc,
    power_of_paired_test,
    power_of_tost,
    tost,
)

AnyArray = Array | np.ndarray
MIN_SUBJECTS = 3  # subjects needed for any statistic


class PairedAgreement(NamedTuple):
    """Agreement statistics of differences measured − reference, as fractions of the mean of the reference."""

    bias: float  # mean difference
    lower: float  # lower limit of agreement
    upper: float  # upper limit of agreement
    icc: float  # form 2,1: absolute agreement
    tost_p: float  # p-value of the equivalence test (TOST) within the margin
    tost_power: float  # power of TOST where there is no true difference
    paired_p: float  # p-value of the paired t test of a difference
    detectable: float  # detectable difference of the paired t test, at a power of 0.8
    paired_power: float  # power of the paired t test for a true difference of `difference`


class Accuracy(NamedTuple):
    """Accuracy of measurements of known truth: mean and SD of the relative error measured / truth − 1, Pearson's r."""

    bias: float  # mean relative error
    error_sd: float  # standard deviation of the relative error over subjects
    correlation: float  # Pearson's r


def accuracy(truth: Real[AnyArray, " subject"], measured: Real[AnyArray, " subject"]) -> Accuracy:
    """Bias and standard deviation of the relative error over subjects, and the correlation with the truth.

    A correlation near 0 at a small bias means that the measurements do not distinguish subjects.
    """
    true, found = (np.asarray(values, np.float64) for values in (truth, measured))
    off = found / true - 1
    return Accuracy(float(off.mean()), float(off.std(ddof=1)), float(np.corrcoef(found, true)[0, 1]))


def paired_agreement(
    reference: Real[AnyArray, " subject"], measured: Real[AnyArray, " subject"], margin: float, difference: float
) -> PairedAgreement:
    """Bland–Altman limits, intraclass correlation, equivalence within ±`margin`, and the power of a paired t test.

    `margin` and `difference` are fractions of the reference's mean m: equivalence is tested within ±margin · m, and
    `paired_power` is that of a true difference of difference · m. With fewer than three subjects every value is NaN.

    Raises:
        DataError: a value is not finite, all differences are equal, or the mean, the margin or the
            difference is not above 0.
    """
    one, other = (np.asarray(values, np.float64) for values in (reference, measured))
    if len(one) < MIN_SUBJECTS:
        return PairedAgreement(*[float("nan")] * len(PairedAgreement._fields))
    mean, number = _mean(one, margin, difference), len(one)
    limits = bland_altman(other, one)
    return PairedAgreement(
        bias=limits.bias / mean,
        lower=limits.lower / mean,
        upper=limits.upper / mean,
        icc=icc(np.stack([one, other], 1)).value,
        tost_p=tost(other - one, margin * mean).p,
        tost_power=power_of_tost(number, limits.sd, margin * mean),
        paired_p=float(stats.ttest_rel(other, one).pvalue),
        detectable=detectable_difference(number, limits.sd) / mean,
        paired_power=power_of_paired_test(number, limits.sd, difference * mean),
    )


def _mean(reference: Float[np.ndarray, "*subjects"], margin: float, difference: float) -> float:
    mean = float(reference.mean())
    for name, value in (("mean of the reference", mean), ("margin", margin), ("difference", difference)):
        if not value > 0 and not np.isnan(value):
            raise DataError(f"{name}: {value:g}; expected above 0")
    return mean
