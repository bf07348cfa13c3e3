"""Forest plots: estimates with their confidence intervals, a panel for each quantity and a line for each group."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure
from medjax.report.text import enumerate_names, finish, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4  # panels in a row


class Estimate(NamedTuple):
    """A number with its confidence interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def plot_intervals(
    panels: Mapping[str, Mapping[str, Estimate]],
    *,
    colors: Mapping[str, int] | None = None,
    reference: float | None = None,
    title: str = "",
) -> "Figure":
    """Forest plot of estimates with intervals: one panel for each quantity, one line for each name, top to bottom.

    What is not defined is a dash.

    Args:
        panels: estimates by quantity and name; every panel has the same names.
        colors: number of the colour of each name; default: one after the other.
        reference: value of a vertical line, such as 0 for differences.
        title: title of the figure.

    Raises:
        DataError: no panel, or panels of different names.
    """
    names = [list(panel) for panel in panels.values()]
    if not names or not names[0] or any(one != names[0] for one in names):
        raise DataError(f"panels: names {names}; expected at least one panel, all with the same names")
    lines, marks = names[0], [*map(printable, names[0])]
    rows, columns = -(-len(panels) // COLUMNS), min(COLUMNS, len(panels))
    side, head, foot, step = 0.12 + 0.078 * max(map(len, lines)), 0.42 if title else 0.1, 0.08, 0.24
    panel_width, panel_height = 1.75, 0.62 + step * len(lines)
    width, height = side + columns * panel_width + 0.1, head + rows * panel_height + foot
    figure = _figure(width, height)
    numbers = colors or dict(zip(lines, cycle(range(len(COLORS))), strict=False))
    for k, (quantity, panel) in enumerate(panels.items()):
        row, column = divmod(k, COLUMNS)
        left = (side + column * panel_width + 0.08) / width
        bottom = (foot + (rows - 1 - row) * panel_height + 0.3) / height
        size = ((panel_width - 0.2) / width, step * len(lines) / height)
        axes = figure.add_axes((left, bottom, *size), facecolor=BACKGROUND_COLOR)
        _draw(axes, panel, numbers)
        _dress(axes, "", "")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=MUTED_COLOR, lw=0.4, alpha=0.4)
        if reference is not None:
            axes.axvline(reference, color=MUTED_COLOR, lw=1.0, ls=(0, (4, 3)))
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_yticks(range(len(lines)), marks if column == 0 else [""] * len(lines), family=FONT, color=TEXT_COLOR)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(quantity, loc="left", color=TEXT_COLOR, family=FONT, size=8.5)
    if title:
        figure.text(0.1 / width, 1 - 0.27 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return finish(figure, f"Intervals of {enumerate_names(panels)}: {enumerate_names(lines)}")


def _draw(axes: "Axes", panel: Mapping[str, Estimate], colors: Mapping[str, int]) -> None:
    ends = np.array([one for one in panel.values()], float)
    middle = float(np.nanmean(ends)) if np.isfinite(ends).any() else 0.5
    for line, (name, (value, low, high)) in enumerate(panel.items()):
        color = COLORS[colors[name] % len(COLORS)]
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [line, line], color=color, lw=1.6, solid_capstyle="round")
        if np.isfinite(value):
            axes.plot([value], [line], "o", color=color, ms=4.5, mew=0)
        else:
            axes.text(middle, line, "–", color=MUTED_COLOR, family=FONT, size=8, ha="center", va="center")
