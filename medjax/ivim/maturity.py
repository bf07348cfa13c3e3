"""What is read from IVIM maps of an organ: its statistics, their sensitivity to its outline, their course with age.

The perfusion fraction of the fetal lung rises with gestational age, its diffusivities do not: f, D, D* and f · D*
within a mask are summed up (`region_statistics`), read again with the mask grown and shrunk (`boundary_sensitivity`:
do two masks give the same because they agree, or because the outline does not matter?), and regressed on age and group
(`regress`).

Ages are in weeks. All is NumPy in float64.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Real
from scipy import ndimage, stats

from medjax.errors import DataError
from medjax.ivim.signal import Ivim

AnyArray = Array | np.ndarray
Number = float | int
KNOT = 26.0  # weeks, where the canalicular stage ends and the saccular begins


class Spread(NamedTuple):
    """Of one parameter over voxels."""

    median: float
    mean: float
    sd: float  # over n − 1; 0 for one voxel
    iqr: float  # between quartiles


class Region(NamedTuple):
    """Of a region; D and D* in mm²/s, D* in the maps' own convention."""

    voxels: int
    f: Spread
    d: Spread
    d_star: Spread
    f_d_star: Spread  # the product, voxel by voxel


class Regression(NamedTuple):
    """Least squares: one entry a term."""

    terms: tuple[str, ...]
    coefficients: Float[np.ndarray, " term"]
    errors: Float[np.ndarray, " term"]  # standard
    t: Float[np.ndarray, " term"]
    p: Float[np.ndarray, " term"]  # two-sided
    low: Float[np.ndarray, " term"]
    high: Float[np.ndarray, " term"]
    r_squared: float
    residual_sd: float
    freedom: int
    reference: float  # age at which intercept and group are read


def region_statistics(
    maps: Ivim, mask: Bool[AnyArray, "*voxels"], usable: Bool[AnyArray, "*voxels"] | None = None
) -> Region:
    """Statistics over the mask's voxels that are usable (default: where f, D and D* are finite).

    Raises:
        DataError: shapes differ, no voxel is left, or a usable one is not finite.
    """
    f, d, d_star, inside = _checked(maps, mask, usable)
    if not inside.any():
        raise DataError(f"mask: {np.sum(np.asarray(mask))} voxels, none of them usable; expected at least one")
    return _region(f, d, d_star, inside)


def boundary_sensitivity(
    maps: Ivim,
    mask: Bool[AnyArray, "*space"],
    spacing: Sequence[Number],
    distances_mm: Sequence[Number] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    usable: Bool[AnyArray, "*space"] | None = None,
) -> dict[float, Region]:
    """`region_statistics` of the mask grown (positive) or shrunk (negative) by each distance, 0 the mask itself.

    Distances are between middles of voxels: growing takes in what is no further than that from a voxel of the mask,
    shrinking removes what is no further than that from a voxel outside. Less than a voxel along an axis changes nothing
    along it: thick slices stay. What lies beyond the image is not outside. A region without a usable voxel has 0 voxels
    and NaN statistics.

    Raises:
        DataError: shapes differ, the mask is empty, a usable voxel is not finite, or the spacing is not one positive
            number per axis.
    """
    f, d, d_star, usable = _checked(maps, np.ones(mask.shape, bool), usable)
    mask = np.asarray(mask)
    if mask.shape != f.shape or not mask.any():
        raise DataError(f"mask: shape {mask.shape}, {mask.sum()} voxels; expected {f.shape}, and at least one voxel")
    if len(spacing) != mask.ndim or not min(spacing) > 0:
        raise DataError(f"spacing: {tuple(spacing)}; expected {mask.ndim} sizes above 0 mm")
    return {float(mm): _region(f, d, d_star, moved(mask, spacing, mm) & usable) for mm in distances_mm}


def moved(
    mask: Bool[np.ndarray, "*space"], spacing: Sequence[Number], distance_mm: Number
) -> Bool[np.ndarray, "*space"]:
    """The mask grown by a distance, or shrunk by a negative one; see `boundary_sensitivity`."""
    start = ~mask if distance_mm > 0 else mask
    if distance_mm == 0 or start.all():
        return mask.copy()
    away = np.asarray(ndimage.distance_transform_edt(start, sampling=spacing))
    return away <= distance_mm if distance_mm > 0 else away > -distance_mm


def regress(
    age: Real[AnyArray, " subject"],
    value: Real[AnyArray, " subject"],
    group: Bool[AnyArray, " subject"] | None = None,
    knot: Number | None = KNOT,
    interaction: bool = True,
    level: Number = 0.95,
) -> Regression:
    """Least squares of a value on age, in two pieces, with a group's offset and its own slope:

        value = β₀ + β₁ (age − r) + β₂ max(age − knot, 0) + β₃ group + β₄ group (age − r) + ε

    Without a knot β₂ is left out, without groups β₃ and β₄, without interaction β₄. r, the `reference`, is the knot or,
    without one, the mean age: there β₀ is the first group's value and β₃ the difference between groups.

    Raises:
        DataError: lengths differ, a value is not finite, there are no more subjects than terms, a level outside 0–1, or
            terms that the subjects cannot tell apart (all ages on one side of the knot, one group only).
    """
    x, y, terms, reference = _problem(age, value, group, knot, interaction)
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    freedom = len(y) - len(terms)
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ (x.T @ y)
    residual, around = y - x @ beta, y - y.mean()
    variance = float(residual @ residual) / freedom
    errors = np.sqrt(variance * np.diag(inverse))
    t = np.divide(beta, errors, out=np.sign(beta) * np.inf, where=errors > 0)
    half = stats.t.ppf((1 + level) / 2, freedom) * errors
    total = float(around @ around)
    return Regression(
        terms=terms,
        coefficients=beta,
        errors=errors,
        t=t,
        p=np.asarray(2 * stats.t.sf(np.abs(t), freedom)),
        low=beta - half,
        high=beta + half,
        r_squared=1 - float(residual @ residual) / total if total else 0.0,
        residual_sd=variance**0.5,
        freedom=freedom,
        reference=reference,
    )


def bootstrap(
    seed: int,
    age: Real[AnyArray, " subject"],
    value: Real[AnyArray, " subject"],
    group: Bool[AnyArray, " subject"] | None = None,
    knot: Number | None = KNOT,
    interaction: bool = True,
    resamples: int = 1000,
    level: Number = 0.95,
) -> Float[np.ndarray, "term 2"]:
    """Percentile intervals of `regress`'s coefficients, over subjects drawn with replacement within their group.

    The reference age stays that of all subjects. A draw that cannot tell the terms apart is left out.

    Raises:
        DataError: as `regress`; no resample, or none that tells the terms apart.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 9 and 13.
    """
    x, y, terms, _ = _problem(age, value, group, knot, interaction)
    if resamples < 1 or not 0 < level < 1:
        raise DataError(f"resamples, level: {resamples}, {level:g}; expected at least 1, and between 0 and 1")
    draw = np.random.default_rng(seed)
    groups = np.zeros(len(y), bool) if group is None else np.asarray(group)
    chosen = np.concatenate(
        [draw.choice(np.flatnonzero(groups == g), (resamples, np.sum(groups == g))) for g in np.unique(groups)], axis=1
    )
    x, y = x[chosen], y[chosen]
    told = np.linalg.matrix_rank(x) == len(terms)
    if not told.any():
        raise DataError(f"resamples: none of {resamples} tells {', '.join(terms)} apart; expected more subjects")
    x, y = x[told], y[told]
    transposed = x.swapaxes(1, 2)
    beta = np.linalg.solve(transposed @ x, transposed @ y[..., None])[..., 0]
    return np.quantile(beta, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def _checked(
    maps: Ivim, mask: AnyArray, usable: AnyArray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """f, D, D* in float64 and the voxels to read."""
    f, d, d_star = (np.asarray(p, np.float64) for p in maps[1:])
    finite = np.isfinite(f) & np.isfinite(d) & np.isfinite(d_star)
    for name, array in (("mask", mask), ("usable", mask if usable is None else usable)):
        if array.shape != f.shape:
            raise DataError(f"{name}: shape {array.shape}; the maps have {f.shape}")
    inside = np.asarray(mask) & (finite if usable is None else np.asarray(usable))
    if not finite[inside].all():
        raise DataError(f"maps: {np.sum(~finite[inside])} usable voxels are not finite; expected none")
    return f, d, d_star, inside


def _region(f: np.ndarray, d: np.ndarray, d_star: np.ndarray, inside: np.ndarray) -> Region:
    values = (f, d, d_star, f * d_star)
    return Region(int(inside.sum()), *(_spread(value[inside]) for value in values))


def _spread(values: np.ndarray) -> Spread:
    if not values.size:
        return Spread(np.nan, np.nan, np.nan, np.nan)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(middle, float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0, high - low)


def _problem(
    age: AnyArray, value: AnyArray, group: AnyArray | None, knot: Number | None, interaction: bool
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], float]:
    """Design matrix, values, names of its columns, reference age."""
    weeks, y = np.asarray(age, np.float64), np.asarray(value, np.float64)
    groups = np.zeros(weeks.shape) if group is None else np.asarray(group, np.float64)
    if not weeks.shape == y.shape == groups.shape or weeks.ndim != 1:
        raise DataError(f"age, value, group: shapes {weeks.shape}, {y.shape}, {groups.shape}; expected one per subject")
    if not (np.isfinite(weeks).all() and np.isfinite(y).all()):
        raise DataError(f"age, value: {np.sum(~np.isfinite(weeks + y))} subjects are not finite; expected none")
    reference = float(weeks.mean()) if knot is None else float(knot)
    columns = {"intercept": np.ones_like(weeks), "age": weeks - reference}
    if knot is not None:
        columns["hinge"] = np.maximum(weeks - knot, 0)
    if group is not None:
        columns["group"] = groups
        if interaction:
            columns["age×group"] = groups * (weeks - reference)
    x = np.stack(list(columns.values()), axis=1)
    names = ", ".join(columns)
    if len(y) <= len(columns):
        raise DataError(f"age: {len(y)} subjects; expected more than the {len(columns)} terms {names}")
    if np.linalg.matrix_rank(x) < len(columns):
        raise DataError(
            f"age, group: {len(y)} subjects cannot tell {names} apart; expected ages either side, two groups"
        )
    return x, y, tuple(columns), reference
