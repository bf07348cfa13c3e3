"""Figures of an audit, the map of its region scores, and the table of its regions.

plot_correlations(found), plot_residuals(found), plot_profiles(found), plot_scores(found, regions, mean_image)
paint(found.scores, regions)             the score of each voxel's region
table_of_regions(found)                  profiles, residuals, score and quadrant of each region

A figure is Matplotlib's, for `report.figures.png` or `running.workdir.save_figure`.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.report.html import Table
from medjax.report.intervals import intervals
from medjax.report.overlay import overlay
from medjax.report.points import points
from medjax.shortcuts.oscar import SYMBOLS, standardized_residuals
from medjax.shortcuts.oscar_audit import Audit
from medjax.shortcuts.regions import Regions

AnyArray = Array | np.ndarray
QUADRANTS = {
    "both_more": "more to TS and SA",
    "both_less": "less to both",
    "ts_more": "more to TS",
    "sa_more": "more to SA",
}
LABELED = 6  # regions named in a scatter plot


def plot_correlations(audit: Audit) -> Any:
    """Correlations with their bootstrap intervals and spatial p-values."""
    estimates, low, high = (
        np.array([float(getattr(one, name)) for name in SYMBOLS]) for one in (audit.correlations, audit.low, audit.high)
    )
    notes = [f"p = {getattr(audit.p_spatial, name):.2g}" for name in SYMBOLS]
    return intervals([*SYMBOLS.values()], estimates, low, high, "correlation of rank profiles", notes=notes)


def plot_residuals(audit: Audit) -> Any:
    """Importance of each region to TS and to SA beyond what BA's profile predicts: −u over −v, by quadrant."""
    u, v = (-np.asarray(one) for one in standardized_residuals(*audit.profiles))
    which = np.array(_quadrant_names(audit))
    groups = {label: (v[which == name], u[which == name]) for name, label in QUADRANTS.items() if name in which}
    ylabel = "importance to TS beyond BA's, SD"
    labels = _labels(audit, v, u)
    return points(groups, "importance to SA beyond BA's, SD", ylabel, levels=[0.0], labels=labels)


def plot_profiles(audit: Audit) -> Any:
    """Rank profiles of TS and SA over that of BA."""
    ts, ba, sa = audit.profiles
    groups = {"TS against BA": (ba, ts), "SA against BA": (ba, sa)}
    return points(groups, "median rank, BA (1: most important)", "median rank", labels=_labels(audit, ba, ts))


def plot_scores(
    audit: Audit,
    regions: Regions,
    mean_image: Real[np.ndarray, "*space"] | None = None,
    affine: Float[np.ndarray, "4 4"] | None = None,
) -> Any:
    """Region contribution scores, and those of regions more important to both TS and SA, over the mean image.

    2-D images are (row, column), or (x, y) if there is an affine; the planes of a volume go through the highest of the
    latter scores.

    Raises:
        DataError: an image of another shape than the regions.
    """
    maps = {"RCS": paint(audit.scores, regions), "more important to both": paint(audit.quadrants.both_more, regions)}
    if regions.labels.ndim == 2 and affine is not None:
        maps, affine = {name: one.T[::-1] for name, one in maps.items()}, None
        mean_image = None if mean_image is None else mean_image.T[::-1]
    peak = maps["more important to both"]
    at = np.array(np.unravel_index(int(peak.argmax()), peak.shape))
    return overlay(maps, mean_image, affine, unit="region contribution score", at=at)


def paint(scores: Real[AnyArray, " region"], regions: Regions) -> Float[np.ndarray, "*space"]:
    """Score of each voxel's region; 0 in no region, and where it is undefined."""
    labels = regions.labels
    return np.where(labels < 0, 0, np.nan_to_num(np.asarray(scores))[labels]).astype(np.float32)


def table_of_regions(audit: Audit) -> Table:
    """Table of the regions, highest score first; the quadrant is named as in `QUADRANTS`."""
    u, v = (np.asarray(one) for one in standardized_residuals(*audit.profiles))
    columns = (*audit.profiles, u, v, audit.scores)
    quadrants = _quadrant_names(audit)
    header = ["region", "rank_ts", "rank_ba", "rank_sa", "residual_ts", "residual_sa", "rcs", "quadrant"]
    order = np.argsort(-audit.scores, kind="stable")
    rows = [[audit.regions[k], *(float(one[k]) for one in columns), quadrants[k]] for k in order]
    caption = "Ranks: median over images, 1 the most important. Residuals given BA, in standard deviations."
    return Table(header, rows, caption)


def _quadrant_names(audit: Audit) -> list[str]:
    sizes = np.stack(audit.quadrants).T
    return [[*QUADRANTS][int(one.argmax())] if np.isfinite(one).all() and one.any() else "" for one in sizes]


def _labels(audit: Audit, x: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float]]:
    """Names and positions of the regions that contribute most to a shortcut."""
    scores = np.nan_to_num(audit.quadrants.both_more)
    highest = np.argsort(-scores, kind="stable")[:LABELED]
    return {audit.regions[k]: (float(x[k]), float(y[k])) for k in highest if scores[k] > 0}
