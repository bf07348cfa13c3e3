"""Piecewise-linear (hinge) regression of a value on a covariate, with groups, and its bootstrap.

All is NumPy in float64.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Real
from scipy import stats

from medjax.errors import DataError

AnyArray = Array | np.ndarray
Number = float | int


class Regression(NamedTuple):
    """Coefficients of a least-squares regression, their standard errors, tests and intervals, one for each term."""

    terms: tuple[str, ...]
    coefficients: Float[np.ndarray, " term"]
    standard_errors: Float[np.ndarray, " term"]
    t: Float[np.ndarray, " term"]  # t statistic
    p: Float[np.ndarray, " term"]  # two-sided p-value
    low: Float[np.ndarray, " term"]  # lower end of the confidence interval
    high: Float[np.ndarray, " term"]  # upper end
    r_squared: float
    residual_sd: float  # standard deviation of the residuals
    degrees_of_freedom: int
    reference: float  # x at which intercept and group are read


def regress(
    x: Real[AnyArray, " subject"],
    y: Real[AnyArray, " subject"],
    group: Bool[AnyArray, " subject"] | None = None,
    knot: Number | None = None,
    interaction: bool = True,
    level: Number = 0.95,
    name: str = "x",
) -> Regression:
    """Piecewise-linear least-squares regression of y on x, with a group's offset and slope:

        y = β₀ + β₁ (x − r) + β₂ max(x − knot, 0) + β₃ group + β₄ group (x − r) + ε

    Without a knot β₂ is left out, without groups β₃ and β₄, without interaction β₄. r, the `reference`, is the knot or,
    without one, the mean of x: there β₀ is the first group's value and β₃ the difference between groups. The terms are
    called intercept, `name`, hinge, group and `name`×group.

    Args:
        x: covariate of each subject.
        y: value of each subject.
        group: whether a subject belongs to the second group.
        knot: x at which the slope changes.
        interaction: whether the groups have slopes of their own.
        level: probability of the confidence intervals.
        name: name of the covariate in the terms.

    Raises:
        DataError: lengths differ, a value is not finite, there are no more subjects than terms, a level outside 0–1, or
            terms that the subjects do not determine (all x on one side of the knot, one group only).
    """
    design, y, terms, reference = _problem(x, y, group, knot, interaction, name)
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    freedom = len(y) - len(terms)
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ (design.T @ y)
    residual, around = y - design @ beta, y - y.mean()
    variance = float(residual @ residual) / freedom
    errors = np.sqrt(variance * np.diag(inverse))
    t = np.divide(beta, errors, out=np.sign(beta) * np.inf, where=errors > 0)
    half = stats.t.ppf((1 + level) / 2, freedom) * errors
    total = float(around @ around)
    return Regression(
        terms=terms,
        coefficients=beta,
        standard_errors=errors,
        t=t,
        p=np.asarray(2 * stats.t.sf(np.abs(t), freedom)),
        low=beta - half,
        high=beta + half,
        r_squared=1 - float(residual @ residual) / total if total else 0.0,
        residual_sd=variance**0.5,
        degrees_of_freedom=freedom,
        reference=reference,
    )


def undefined_regression(terms: Sequence[str]) -> Regression:
    """The result of a regression of too few subjects: NaN throughout, 0 degrees of freedom."""
    unknown = np.full(len(terms), np.nan)
    return Regression(tuple(terms), *[unknown] * 6, np.nan, np.nan, 0, np.nan)  # pyrefly: ignore


def predict(
    fitted: Regression, x: Real[AnyArray, " point"], group: Bool[AnyArray, " point"] | bool = False
) -> Float[np.ndarray, " point"]:
    """Predicted mean E[y] at x, for subjects of the group or of the other one; see `regress` for the equation."""
    away = np.asarray(x, np.float64) - fitted.reference
    inside = np.broadcast_to(np.asarray(group, np.float64), away.shape)

    def column(term: str) -> np.ndarray:
        if term.endswith("×group"):
            return inside * away
        known = {"intercept": np.ones_like(away), "hinge": np.maximum(away, 0), "group": inside}  # r is the knot
        return known.get(term, away)

    return np.stack([column(term) for term in fitted.terms], axis=1) @ fitted.coefficients


def bootstrap_regression(
    seed: int,
    x: Real[AnyArray, " subject"],
    y: Real[AnyArray, " subject"],
    group: Bool[AnyArray, " subject"] | None = None,
    knot: Number | None = None,
    interaction: bool = True,
    resamples: int = 1000,
    level: Number = 0.95,
    name: str = "x",
) -> Float[np.ndarray, "term 2"]:
    """Bootstrap percentile intervals of `regress`'s coefficients; subjects are drawn with replacement within groups.

    The reference stays that of all subjects. A resample that does not determine all terms is left out.

    Args:
        seed: random seed.
        x: covariate of each subject.
        y: value of each subject.
        group: whether a subject belongs to the second group.
        knot: x at which the slope changes.
        interaction: whether the groups have slopes of their own.
        resamples: number of bootstrap resamples.
        level: probability of the intervals.
        name: name of the covariate in the terms.

    Raises:
        DataError: as `regress`; no resample, or none that determines all terms.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 9 and 13.
    """
    design, y, terms, _ = _problem(x, y, group, knot, interaction, name)
    if resamples < 1 or not 0 < level < 1:
        raise DataError(f"resamples, level: {resamples}, {level:g}; expected at least 1, and between 0 and 1")
    draw = np.random.default_rng(seed)
    groups = np.zeros(len(y), bool) if group is None else np.asarray(group)
    chosen = np.concatenate(
        [draw.choice(np.flatnonzero(groups == g), (resamples, np.sum(groups == g))) for g in np.unique(groups)], axis=1
    )
    design, y = design[chosen], y[chosen]
    full = np.linalg.matrix_rank(design) == len(terms)
    if not full.any():
        raise DataError(f"resamples: none of {resamples} tells {', '.join(terms)} apart; expected more subjects")
    design, y = design[full], y[full]
    transposed = design.swapaxes(1, 2)
    beta = np.linalg.solve(transposed @ design, transposed @ y[..., None])[..., 0]
    return np.quantile(beta, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def _problem(
    x: AnyArray, y: AnyArray, group: AnyArray | None, knot: Number | None, interaction: bool, name: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], float]:
    """Design matrix, values, names of its columns, reference."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    groups = np.zeros(x.shape) if group is None else np.asarray(group, np.float64)
    if not x.shape == y.shape == groups.shape or x.ndim != 1:
        raise DataError(f"{name}, y, group: shapes {x.shape}, {y.shape}, {groups.shape}; expected one per subject")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{name}, y: {np.sum(~np.isfinite(x + y))} subjects are not finite; expected none")
    reference = float(x.mean()) if knot is None else float(knot)
    columns = {"intercept": np.ones_like(x), name: x - reference}
    if knot is not None:
        columns["hinge"] = np.maximum(x - knot, 0)
    if group is not None:
        columns["group"] = groups
        if interaction:
            columns[f"{name}×group"] = groups * (x - reference)
    design = np.stack(list(columns.values()), axis=1)
    names = ", ".join(columns)
    if len(y) <= len(columns):
        raise DataError(f"{name}: {len(y)} subjects; expected more than the {len(columns)} terms {names}")
    if np.linalg.matrix_rank(design) < len(columns):
        raise DataError(
            f"{name}, group: {len(y)} subjects cannot tell {names} apart; "
            f"expected two groups, and {name} on both sides of the knot"
        )
    return design, y, tuple(columns), reference
