"""Agreement of two measurement methods: Bland–Altman, intraclass and concordance correlation, equivalence, power.

That a test finds no difference says little: few or noisy subjects hide any. `tost` asks whether the difference is
within a margin that does not matter, and `detectable_difference` which difference the other test could have found.

One value a subject. NumPy and SciPy in float64; confidence intervals have probability `level`, 0.95 unless you choose.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float, Real
from scipy import integrate, optimize, stats

from medjax.errors import ConfigError, DataError

AnyArray = Array | np.ndarray
Number = float | int
Form = Literal["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"]


class ConfidenceInterval(NamedTuple):
    """A confidence interval: its lower and upper end."""

    low: float
    high: float


class BlandAltman(NamedTuple):
    """Bland–Altman analysis of differences a − b: bias, SD and limits of agreement, with confidence intervals."""

    bias: float  # mean difference
    sd: float  # standard deviation of the differences
    lower: float  # lower limit of agreement
    upper: float  # upper limit of agreement
    bias_interval: ConfidenceInterval
    lower_interval: ConfidenceInterval
    upper_interval: ConfidenceInterval


class Icc(NamedTuple):
    """Intraclass correlation coefficient (ICC), its confidence interval, and the F test that it is 0."""

    value: float  # the coefficient
    low: float  # lower end of its confidence interval
    high: float  # upper end
    f: float  # F statistic
    p: float  # p-value of the F test


class Tost(NamedTuple):
    """Equivalence by two one-sided tests (TOST) of a mean difference; `low` to `high`: its 1 − 2α interval."""

    mean: float  # mean difference
    p_lower: float  # p-value of the test against a mean at or below −margin
    p_upper: float  # p-value of the test against a mean at or above margin
    p: float  # p-value of equivalence, the larger of both
    low: float
    high: float
    equivalent: bool  # p < α, that is −margin < low and high < margin


class Concordance(NamedTuple):
    """Lin's concordance correlation coefficient and its confidence interval."""

    value: float
    low: float
    high: float


def bland_altman(
    a: Real[AnyArray, " subject"], b: Real[AnyArray, " subject"], level: Number = 0.95, coverage: Number = 0.95
) -> BlandAltman:
    """Bland–Altman bias d̄ and limits of agreement d̄ ± z s, which hold the fraction `coverage` of differences a − b.

    The bias's interval is Student's; those of the limits are exact for normal differences: (d̄ + z s) has the interval
    d̄ + s t′ / √n, t′ the quantiles of the noncentral t with n − 1 degrees of freedom and noncentrality z √n.

    Raises:
        DataError: lengths differ, fewer than two subjects, a value that is not finite, or a level outside 0–1.

    Source: Bland & Altman, The Lancet 327, 1986; intervals: Carkeet, Optometry and Vision Science 92(3), 2015.
    """
    d = _paired(a, b)
    _within("level", level)
    n, mean, sd = len(d), float(d.mean()), float(d.std(ddof=1))
    z = float(stats.norm.ppf((1 + _within("coverage", coverage)) / 2))
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    bias = mean + sd / n**0.5 * stats.t.ppf(tails, n - 1)
    far = sd / n**0.5 * stats.nct.ppf(tails, n - 1, z * n**0.5)
    lower, upper = mean - far[::-1], mean + far
    return BlandAltman(
        mean, sd, mean - z * sd, mean + z * sd, *(ConfidenceInterval(*pair.tolist()) for pair in (bias, lower, upper))
    )


def icc(ratings: Real[AnyArray, "subject rater"], form: Form = "2,1", level: Number = 0.95) -> Icc:
    """Intraclass correlation coefficient (ICC): the fraction of variance that is between subjects.

    With mean squares B between n subjects, W within them, J between k raters and E of the residual:

        1,1   (B − W) / (B + (k − 1) W)                       raters differ from subject to subject
        2,1   (B − E) / (B + (k − 1) E + k (J − E) / n)       raters are a sample: absolute agreement
        3,1   (B − E) / (B + (k − 1) E)                       these raters: consistency, their bias left out

    and `1,k`, `2,k`, `3,k` for the mean of k raters. Negative values are not clipped. Intervals come from F; that
    of form 2 is Satterthwaite's approximation.

    Raises:
        ConfigError: no such form.
        DataError: fewer than two subjects or raters, a value that is not finite, ratings that are all equal, or a level
            outside 0–1.

    Source: Shrout & Fleiss, Psychological Bulletin 86(2), 1979; McGraw & Wong, Psychological Methods 1(1), 1996.
    """
    if form not in get_args(Form):
        raise ConfigError(f"form: '{form}'; expected one of {', '.join(get_args(Form))}")
    x = _finite("ratings", ratings)
    n, k = x.shape
    if min(n, k) < 2 or np.ptp(x) == 0:
        raise DataError(f"ratings: {n} subjects, {k} raters; expected two or more of each, and values that differ")
    tail = (1 + _within("level", level)) / 2
    rows, columns, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    b = float(k * ((rows - mean) ** 2).sum() / (n - 1))
    j = float(n * ((columns - mean) ** 2).sum() / (k - 1))
    e = float(((x - rows[:, None] - columns + mean) ** 2).sum() / ((n - 1) * (k - 1)))
    w = float(((x - rows[:, None]) ** 2).sum() / (n * (k - 1)))
    below, freedom = (w, n * (k - 1)) if form[0] == "1" else (e, (n - 1) * (k - 1))
    f = _ratio(b, below)
    if form[0] == "2":
        single = _ratio(b - e, b + (k - 1) * e + k * (j - e) / n)
        low, high = _absolute_interval(b, j, e, n, k, single, tail)
    else:
        bounds = f / stats.f.ppf(tail, n - 1, freedom), f * stats.f.ppf(tail, freedom, n - 1)
        single, low, high = (1.0 if np.isinf(g) else float((g - 1) / (g + k - 1)) for g in (f, *bounds))
    if form[2] == "k":
        single, low, high = (_averaged(r, k) for r in (single, low, high))
    return Icc(single, low, high, f, float(stats.f.sf(f, n - 1, freedom)))


def tost(differences: Real[AnyArray, " subject"], margin: Number, alpha: Number = 0.05) -> Tost:
    """Equivalence test (TOST) of a mean difference within ±margin: Student's test against either end, at level α.

    Raises:
        DataError: fewer than two subjects, values not finite or all equal, a margin not above 0, or α outside 0–0.5.

    Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.
    """
    d = _paired(differences, np.zeros(len(differences)))
    _margin(margin, alpha)
    if np.ptp(d) == 0:
        raise DataError(f"differences: all are {d[0]:g}; expected values that differ")
    p_lower = float(stats.ttest_1samp(d, -margin, alternative="greater").pvalue)
    p_upper = float(stats.ttest_1samp(d, margin, alternative="less").pvalue)
    half = float(stats.sem(d) * stats.t.ppf(1 - alpha, len(d) - 1))
    mean, p = float(d.mean()), max(p_lower, p_upper)
    return Tost(mean, p_lower, p_upper, p, mean - half, mean + half, p < alpha)


def power_of_tost(subjects: int, sd: Number, margin: Number, difference: Number = 0.0, alpha: Number = 0.05) -> float:
    """Power of `tost`: probability that it finds equivalence for this number of `subjects`.

    Differences are normal; the probability is integrated over the distribution of their sample deviation.

    Args:
        subjects: number of subjects.
        sd: standard deviation of the differences.
        margin: equivalence margin, in the unit of the differences.
        difference: true mean difference.
        alpha: significance level of either test.

    Raises:
        DataError: fewer than two subjects, a deviation or margin that is not above 0, or α outside 0–0.5.
    """
    _margin(margin, alpha)
    freedom, error = _design(subjects, sd), sd / subjects**0.5
    t = stats.t.ppf(1 - alpha, freedom)

    def density(u: float) -> float:  # u = (s / sd)² · freedom, with its density
        room = margin - t * error * (u / freedom) ** 0.5
        inside = stats.norm.cdf((room - difference) / error) - stats.norm.cdf((-room - difference) / error)
        return float(inside * stats.chi2.pdf(u, freedom))

    largest = freedom * (margin / (t * error)) ** 2  # beyond it there is no room
    ends = np.clip(stats.chi2.ppf([1e-12, 1 - 1e-12], freedom), 0, largest).tolist()
    return float(integrate.quad(density, *ends, limit=200)[0]) if ends[1] > ends[0] else 0.0


def power_of_paired_test(subjects: int, sd: Number, difference: Number, alpha: Number = 0.05) -> float:
    """Power of the two-sided paired t test for a true mean difference d: its t is noncentral, δ = √n d / sd.

    Raises:
        DataError: fewer than two subjects, a deviation that is not above 0, or α outside 0–1.
    """
    freedom = _design(subjects, sd)
    t = stats.t.isf(_within("alpha", alpha) / 2, freedom)
    shift = abs(difference) / sd * subjects**0.5
    # below −t only where δ is small; SciPy's distribution function is inaccurate for a large one
    other = stats.nct.cdf(-t, freedom, shift) if shift < 8 else 0.0
    return float(min(stats.nct.sf(t, freedom, shift) + other, 1.0)) if shift else float(alpha)


def detectable_difference(subjects: int, sd: Number, power: Number = 0.8, alpha: Number = 0.05) -> float:
    """Detectable difference: the true mean difference that the two-sided paired t test finds with this `power`.

    Raises:
        DataError: fewer than two subjects, an sd not above 0, α outside 0–1, or a power not between α and 1.
    """
    if not _within("alpha", alpha) < power < 1:
        raise DataError(f"power: {power:g}; expected between alpha, {alpha:g}, and 1")
    freedom, error = _design(subjects, sd), sd / subjects**0.5
    enough = (stats.t.isf(alpha / 2, freedom) + stats.t.ppf(max(power, 0.5), freedom) + 1) * error

    def missing(difference: Number) -> float:
        return power_of_paired_test(subjects, sd, difference, alpha) - power

    while missing(enough) < 0:
        enough *= 2
    return float(optimize.root_scalar(missing, bracket=(0.0, enough), xtol=1e-12 * sd).root)


def concordance(a: Real[AnyArray, " subject"], b: Real[AnyArray, " subject"], level: Number = 0.95) -> Concordance:
    """Lin's concordance correlation ρc = 2 s_ab / (s_a² + s_b² + (ā − b̄)²), moments over n; interval by Fisher's z.

    Raises:
        DataError: lengths differ, fewer than three subjects, values not finite or all equal, or a level outside 0–1.

    Source: Lin, Biometrics 45(1), 1989, with the variance as corrected in Biometrics 56(1), 2000.
    """
    n = len(_paired(a, b))
    x, y = _finite("a", a), _finite("b", b)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise DataError(f"a, b: {n} subjects; expected three or more, whose values differ")
    z = stats.norm.ppf((1 + _within("level", level)) / 2)
    between = 2 * float(np.mean((x - x.mean()) * (y - y.mean())))
    rho = between / float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    r, u = float(np.corrcoef(x, y)[0, 1]), float((x.mean() - y.mean()) ** 2 / (x.std() * y.std()))
    if abs(rho) >= 1 - 1e-15 or r == 0:
        return Concordance(rho, rho, rho)
    variance = (1 - r**2) * rho**2 / ((1 - rho**2) * r**2)
    variance += 2 * rho**3 * (1 - rho) * u / (r * (1 - rho**2) ** 2) - rho**4 * u**2 / (2 * r**2 * (1 - rho**2) ** 2)
    half = z * (max(variance, 0.0) / (n - 2)) ** 0.5
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half])).tolist()
    return Concordance(rho, low, high)


def _absolute_interval(b: float, j: float, e: float, n: int, k: int, value: float, tail: float) -> tuple[float, float]:
    """Of ICC(2,1): the raters' and the residual variance together have about `freedom` degrees of freedom."""
    if b == 0 or e == j == 0:
        return value, value
    ours, rest = k * value * j, (n * (1 + (k - 1) * value) - k * value) * e
    under = ours**2 / (k - 1) + rest**2 / ((n - 1) * (k - 1))
    freedom = (ours + rest) ** 2 / under if under else 1.0
    others = k * j + (k * n - k - n) * e
    f_low, f_high = stats.f.ppf(tail, n - 1, freedom), stats.f.ppf(tail, freedom, n - 1)
    low = n * (b - f_low * e) / (f_low * others + n * b)
    high = n * (f_high * b - e) / (others + n * f_high * b)
    return float(low), float(high)


def _averaged(single: float, k: int) -> float:
    """Spearman–Brown: the mean of k raters."""
    under = 1 + (k - 1) * single
    return k * single / under if under > 0 else -np.inf


def _ratio(over: float, under: float) -> float:
    return over / under if under else float(np.copysign(np.inf, over) if over else np.nan)


def _finite(name: str, values: AnyArray) -> Float[np.ndarray, "*shape"]:
    out = np.asarray(values, np.float64)
    if not np.isfinite(out).all():
        raise DataError(f"{name}: {np.sum(~np.isfinite(out))} of {out.size} values are not finite; expected none")
    return out


def _paired(a: AnyArray, b: AnyArray) -> Float[np.ndarray, " subject"]:
    """a − b of two subjects or more."""
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise DataError(f"shapes {a.shape}, {b.shape}; expected one value for each of two subjects or more, in both")
    return _finite("a", a) - _finite("b", b)


def _within(name: str, value: Number) -> Number:
    if not 0 < value < 1:
        raise DataError(f"{name}: {value:g}; expected between 0 and 1")
    return value


def _margin(margin: Number, alpha: Number) -> None:
    if not (margin > 0 and 0 < alpha < 0.5):
        raise DataError(f"margin, alpha: {margin:g}, {alpha:g}; expected above 0, and between 0 and 0.5")


def _design(subjects: int, sd: Number) -> int:
    """Degrees of freedom."""
    if subjects < 2 or not sd > 0:
        raise DataError(f"subjects, sd: {subjects}, {sd:g}; expected two subjects or more, and above 0")
    return subjects - 1
