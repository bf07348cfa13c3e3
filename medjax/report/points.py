"""Scatter plots of groups, with curves or horizontal levels: regressions, Bland–Altman and identity plots."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Real

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure
from medjax.report.legends import draw_legend, legend_columns, legend_height
from medjax.report.text import enumerate_names, finish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT, FOOT, WIDTH, HEIGHT = 0.78, 0.55, 4.2, 2.75  # inches: margins, and the axes


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
    bands: Sequence[tuple[float, float]] = (),
    labels: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
) -> "Figure":
    """Scatter plot of points (x, y) of each group in its colour, with a legend above where there are several.

    Args:
        groups: x and y of each group, by name.
        xlabel: label of the x axis.
        ylabel: label of the y axis.
        curves: a curve for each group that has one, by name.
        levels: horizontal lines, dashed; the middle one of an odd number is solid.
        bands: lower and upper ends of horizontal bands, such as the intervals of the levels.
        labels: texts beside some points, with their positions.
        title: title of the figure.

    Raises:
        DataError: no group, or x and y of different lengths.
    """
    _check_pairs(groups)
    head = legend_height(groups, WIDTH) + (0.4 if title else 0.12)
    figure, handles = _figure(5.2, FOOT + HEIGHT + head), dict[str, Any]()
    width, height = figure.get_size_inches()
    box = (LEFT / width, FOOT / height, WIDTH / width, HEIGHT / height)
    axes = figure.add_axes(box, facecolor=BACKGROUND_COLOR)
    for (name, (x, y)), color in zip(groups.items(), cycle(COLORS), strict=False):
        [handles[name]] = axes.plot(x, y, "o", color=color, ms=4.5, alpha=0.85, mew=0)
        if curves and name in curves:
            axes.plot(*curves[name], color=color, lw=1.6)
    for low, high in bands:
        axes.axhspan(low, high, color=MUTED_COLOR, alpha=0.22, lw=0, zorder=0.5)
    for k, level in enumerate(sorted(levels)):
        axes.axhline(level, color=MUTED_COLOR, lw=1.0, ls="-" if 2 * k + 1 == len(levels) else (0, (4, 3)))
    for text, where in (labels or {}).items():
        axes.annotate(text, where, xytext=(4, 3), textcoords="offset points", color=TEXT_COLOR, family=FONT, size=6.5)
    _dress(axes, xlabel, ylabel)
    axes.locator_params(axis="x", nbins=6)
    if len(groups) > 1:
        draw_legend(
            axes, handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=legend_columns(groups, WIDTH),
            borderaxespad=0.2, handletextpad=0.3, columnspacing=1.2,
        )  # fmt: skip
    if title:
        figure.text(0.02, 1 - 0.25 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return finish(figure, f"Points of {ylabel} against {xlabel}: {enumerate_names(groups)}")


def plot_bland_altman(
    readings: Mapping[str, tuple[Real[np.ndarray, "_"], Real[np.ndarray, "_"]]],
    limits: tuple[float, float, float],
    quantity: str,
    difference: str = "difference",
    *,
    intervals: Sequence[tuple[float, float]] = (),
    title: str = "",
) -> "Figure":
    """Bland–Altman plot of pairs (a, b) of each group: a − b over (a + b) / 2, with lower limit, bias, upper limit.

    Args:
        readings: a and b of each group, by name.
        limits: lower limit of agreement, bias, upper limit.
        quantity: what was measured, with its unit.
        difference: label of a − b.
        intervals: confidence intervals of the three, shaded.
        title: title of the figure.

    Raises:
        DataError: as `points`.
    """
    _check_pairs(readings)
    pairs = {name: ((a + b) / 2, a - b) for name, (a, b) in readings.items()}
    figure = points(pairs, f"mean of both, {quantity}", difference, levels=limits, bands=intervals, title=title)
    axes = figure.axes[0]
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width - 0.13, box.height))
    for name, level in zip(("lower limit", "bias", "upper limit"), limits, strict=True):
        axes.annotate(
            f"{name}\n{level:.3g}".replace("-", "−"), (1.0, level), xycoords=axes.get_yaxis_transform(), xytext=(4, 0),
            textcoords="offset points", va="center", color=MUTED_COLOR, family=FONT, size=7, annotation_clip=False,
        )  # fmt: skip
    return finish(
        figure, f"Bland–Altman plot of {quantity}, {difference} against mean of both: {enumerate_names(readings)}"
    )


def plot_identity(
    readings: Mapping[str, tuple[Real[np.ndarray, "_"], Real[np.ndarray, "_"]]],
    errors: Mapping[str, tuple[Real[np.ndarray, "2 _"], Real[np.ndarray, "2 _"]]],
    xlabel: str,
    ylabel: str,
    *,
    title: str = "",
) -> "Figure":
    """Scatter plot of b over a with the line of identity, and a bar from low to high of each interval of a and b.

    Args:
        readings: a and b of each group, by name.
        errors: ends (low, high) of the intervals of a and of b of those groups that have some.
        xlabel: label of a.
        ylabel: label of b.
        title: title of the figure.

    Raises:
        DataError: as `points`.
    """
    figure = points(readings, xlabel, ylabel, title=title)
    axes = figure.axes[0]
    for name, color in zip(readings, cycle(COLORS), strict=False):
        if name in errors:
            a, b = readings[name]
            (left, right), (bottom, top) = errors[name]
            axes.hlines(b, left, right, color=color, lw=0.9, alpha=0.6)
            axes.vlines(a, bottom, top, color=color, lw=0.9, alpha=0.6)
    ends = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot(ends, ends, color=MUTED_COLOR, lw=1.0, zorder=1)
    axes.set(xlim=ends, ylim=ends)
    return finish(figure, f"Points of {ylabel} against {xlabel} with the line of identity: {enumerate_names(readings)}")


def _check_pairs(groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    if not groups or any(len(x) != len(y) for x, y in groups.values()):
        raise DataError(
            f"points: lengths {[(len(x), len(y)) for x, y in groups.values()]}; expected groups of pairs (x, y)"
        )
