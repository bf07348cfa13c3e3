"""Figures of calibration: reliability diagram, coverage over nominal level, risk over coverage; one line a method."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Real

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure
from medjax.report.legends import draw_legend
from medjax.report.text import enumerate_names, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[str, tuple[Real[np.ndarray, " _"], ...]]


def plot_reliability(
    diagrams: Series, xlabel: str = "confidence", ylabel: str = "accuracy", *, title: str = ""
) -> "Figure":
    """Reliability diagram: accuracy over mean confidence of each bin, and below the fraction of predictions in it.

    A point below the diagonal is a bin that is too sure.

    Args:
        diagrams: (confidence, accuracy, count) of the bins, by name; NaN in empty bins.
        xlabel: label of the confidence.
        ylabel: label of the accuracy.
        title: title of the figure.

    Raises:
        DataError: no diagram, or arrays of different lengths.
    """
    _check(diagrams, 3)
    figure = _figure(4.2, 4.9)
    axes = figure.add_axes((0.15, 0.31, 0.81, 0.6 if title else 0.66), facecolor=BACKGROUND_COLOR)
    below = figure.add_axes((0.15, 0.1, 0.81, 0.16), facecolor=BACKGROUND_COLOR)
    _draw_diagonal(axes)
    handles = dict[str, Any]()
    for (name, (x, y, count)), color in zip(diagrams.items(), cycle(COLORS), strict=False):
        some = count > 0
        [handles[name]] = axes.plot(x[some], y[some], color=color, lw=1.6, marker="o", ms=3.5)
        below.plot(x[some], count[some] / count.sum(), color=color, lw=1.2, marker="o", ms=2.5)
    _finish(figure, axes, handles, "", ylabel, title)
    axes.tick_params(labelbottom=False)
    below.set_xlim(0, 1)
    below.set_yscale("log")
    _dress(below, xlabel, "fraction")
    return finish(figure, f"Reliability diagram, {ylabel} against {xlabel}: {enumerate_names(diagrams)}")


def plot_coverage(curves: Series, *, title: str = "") -> "Figure":
    """Coverage curve: empirical over nominal coverage, with a band of its confidence interval.

    Below the diagonal intervals hold the truth less often than they claim.

    Args:
        curves: (nominal, empirical) or (nominal, empirical, low, high), by name.
        title: title of the figure.

    Raises:
        DataError: no curve, or arrays of different lengths.
    """
    _check(curves, 2, 4)
    figure = _figure(4.2, 4.2)
    axes = figure.add_axes((0.15, 0.13, 0.81, 0.76 if title else 0.83), facecolor=BACKGROUND_COLOR)
    _draw_diagonal(axes)
    handles = dict[str, Any]()
    for (name, (x, y, *band)), color in zip(curves.items(), cycle(COLORS), strict=False):
        [handles[name]] = axes.plot(x, y, color=color, lw=1.6, marker="o", ms=3.0)
        if band:
            axes.fill_between(x, band[0], band[1], color=color, alpha=0.15, lw=0)
    _finish(figure, axes, handles, "nominal coverage", "empirical coverage", title)
    return finish(figure, f"Empirical against nominal coverage: {enumerate_names(curves)}")


def plot_risk_coverage(curves: Series, risk: str = "risk", *, title: str = "") -> "Figure":
    """Risk–coverage curve: mean risk of the fraction that is least uncertain; flat: uncertainty says nothing.

    Args:
        curves: (coverage, risk), by name; say, of a method and of the optimal order.
        risk: label of the risk, such as 1 − Dice.
        title: title of the figure.

    Raises:
        DataError: no curve, or arrays of different lengths.
    """
    _check(curves, 2)
    figure = _figure(5.2, 3.7)
    axes = figure.add_axes((0.15, 0.15, 0.81, 0.72 if title else 0.8), facecolor=BACKGROUND_COLOR)
    handles = dict[str, Any]()
    for (name, (x, y)), color in zip(curves.items(), cycle(COLORS), strict=False):
        [handles[name]] = axes.plot(x, y, color=color, lw=1.6, marker="o" if len(x) < 12 else "", ms=3.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    _finish(figure, axes, handles, "coverage (fraction kept)", risk, title)
    return finish(figure, f"{risk} against coverage: {enumerate_names(curves)}")


def _draw_diagonal(axes: "Axes") -> None:
    axes.plot([0, 1], [0, 1], color=MUTED_COLOR, lw=1.0, ls=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _finish(figure: "Figure", axes: "Axes", handles: Mapping[str, Any], xlabel: str, ylabel: str, title: str) -> None:
    _dress(axes, xlabel, ylabel)
    draw_legend(axes, handles, loc="best")
    if title:
        figure.text(0.02, 0.94, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")


def _check(series: Series, *columns: int) -> None:
    if not series or any(len(one) not in columns or len(set(map(len, one))) != 1 for one in series.values()):
        lengths = [tuple(map(len, one)) for one in series.values()]
        number = " or ".join(map(str, columns))
        raise DataError(f"series of lengths {lengths}; expected at least one, each of {number} arrays of one length")
