"""Scatter plots of groups, with curves or horizontal levels: regressions, Bland–Altman plots."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Real

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """A curve over x, such as a regression, in the colour of the group of the same name."""

    x: Real[np.ndarray, " point"]
    y: Real[np.ndarray, " point"]


def points(
    groups: Mapping[str, tuple[Real[np.ndarray, "_"], Real[np.ndarray, "_"]]],
    xlabel: str,
    ylabel: str,
    *,
    curves: Mapping[str, Curve] | None = None,
    levels: Sequence[float] = (),
    labels: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
) -> "Figure":
    """Scatter plot of points (x, y) of each group in its colour, with a legend.

    Args:
        groups: x and y of each group, by name.
        xlabel: label of the x axis.
        ylabel: label of the y axis.
        curves: a curve for each group that has one, by name.
        levels: horizontal lines, dashed; the middle one of an odd number is solid.
        labels: texts beside some points, with their positions.
        title: title of the figure.

    Raises:
        DataError: no group, or x and y of different lengths.
    """
    _check_pairs(groups)
    figure = _figure(5.2, 3.7)
    axes = figure.add_axes((0.15, 0.15, 0.81, 0.72 if title else 0.8), facecolor=BACKGROUND_COLOR)
    for (name, (x, y)), color in zip(groups.items(), cycle(COLORS), strict=False):
        axes.plot(x, y, "o", color=color, ms=4.5, alpha=0.85, mew=0, label=name)
        if curves and name in curves:
            axes.plot(*curves[name], color=color, lw=1.6)
    for k, level in enumerate(sorted(levels)):
        axes.axhline(level, color=MUTED_COLOR, lw=1.0, ls="-" if 2 * k + 1 == len(levels) else (0, (4, 3)))
    for text, where in (labels or {}).items():
        axes.annotate(text, where, xytext=(4, 3), textcoords="offset points", color=TEXT_COLOR, family=FONT, size=6.5)
    _dress(axes, xlabel, ylabel)
    axes.legend(frameon=False, labelcolor=TEXT_COLOR, prop={"family": FONT, "size": 8}, loc="best")
    if title:
        figure.text(0.02, 0.93, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return figure


def plot_bland_altman(
    readings: Mapping[str, tuple[Real[np.ndarray, "_"], Real[np.ndarray, "_"]]],
    limits: tuple[float, float, float],
    quantity: str,
    difference: str = "difference",
) -> "Figure":
    """Bland–Altman plot of pairs (a, b) of each group: a − b over (a + b) / 2, with lower limit, bias, upper limit.

    `quantity` is what was measured, with its unit, and `difference` the label of a − b.

    Raises:
        DataError: as `points`.
    """
    _check_pairs(readings)
    pairs = {name: ((a + b) / 2, a - b) for name, (a, b) in readings.items()}
    return points(pairs, f"mean of both, {quantity}", difference, levels=limits)


def _check_pairs(groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    if not groups or any(len(x) != len(y) for x, y in groups.values()):
        raise DataError(
            f"points: lengths {[(len(x), len(y)) for x, y in groups.values()]}; expected groups of pairs (x, y)"
        )
