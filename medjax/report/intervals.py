"""Estimates with their confidence intervals, one a row (forest plot)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Real

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure
from medjax.report.text import enumerate_names, finish, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.34  # inches


def intervals(
    names: Sequence[str],
    estimates: Real[np.ndarray, " row"],
    low: Real[np.ndarray, " row"],
    high: Real[np.ndarray, " row"],
    xlabel: str,
    *,
    notes: Sequence[str] = (),
    reference: float = 0.0,
    title: str = "",
) -> "Figure":
    """Forest plot: each estimate as a point on its interval, first row at the top; what is NaN is left out.

    Args:
        names: name of each row, at the left.
        estimates, low, high: values and bounds of the intervals.
        xlabel: label of the x axis.
        notes: text at the right of each row, such as its p-value.
        reference: value of a vertical line, such as no effect.
        title: title of the figure.

    Raises:
        DataError: no row, or not as many of each.
    """
    lengths = {len(one) for one in (names, estimates, low, high, *([notes] if notes else []))}
    if len(lengths) != 1 or not len(names):
        raise DataError(f"intervals: lengths {sorted(lengths)}; expected one for each row, at least one")
    head, foot = (0.42 if title else 0.12), 0.55
    height = head + foot + ROW * len(names)
    figure = _figure(6.4, height)
    right = 0.76 if notes else 0.96
    axes = figure.add_axes((0.2, foot / height, right - 0.2, ROW * len(names) / height), facecolor=BACKGROUND_COLOR)
    rows = np.arange(len(names))[::-1]
    axes.axvline(reference, color=MUTED_COLOR, lw=1.0, ls=(0, (4, 3)))
    axes.hlines(rows, low, high, color=COLORS[0], lw=2.0)
    axes.plot(estimates, rows, "o", color=TEXT_COLOR, ms=5.0, mew=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
    _dress(axes, xlabel, "")
    axes.grid(visible=False, axis="y")
    axes.set_yticks(rows, [*map(printable, names)])
    for label in axes.get_yticklabels():
        label.set(color=TEXT_COLOR, family=FONT, size=8.5)
    for row, note in zip(rows, notes, strict=False):
        y = (row + 0.6) / (len(names) + 0.2)
        axes.text(1.03, y, note, transform=axes.transAxes, color=MUTED_COLOR, family=FONT, size=7.5, va="center")
    if title:
        figure.text(0.02, 1 - 0.3 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return finish(figure, f"Intervals of {xlabel}: {enumerate_names(names)}")
