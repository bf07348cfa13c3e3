"""Curves in small panels, one for each quantity, with the same abscissa and the same series."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medjax.errors import DataError
from medjax.report.deviations import draw_deviation
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, Numbers, _dress, _figure
from medjax.report.legends import ROW, draw_legend, legend_columns, legend_height
from medjax.report.text import enumerate_names, finish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4  # panels in a row
PANEL_WIDTH, PANEL_HEIGHT = 2.1, 1.75  # inches, with their labels


def plot_curve_panels(
    x: Numbers,
    panels: Mapping[str, Mapping[str, Numbers]],
    xlabel: str,
    ylabel: str,
    *,
    sd: Mapping[str, Mapping[str, Numbers]] | None = None,
    limits: tuple[float, float] | None = None,
    reference: float | None = None,
    title: str = "",
) -> "Figure":
    """Curves over x: a panel for each quantity, a line for each series; what is NaN is left out.

    Args:
        x: common abscissa.
        panels: values by quantity and series; every panel has the same series.
        xlabel: label of the x axes.
        ylabel: label of the y axes.
        sd: standard deviations by quantity and series, of those that have one: bars of ± sd, or bands of many points.
        limits: ends of the y axes; default: each panel's own.
        reference: value of a horizontal line, such as the nominal level.
        title: title of the figure.

    Raises:
        DataError: no panel, panels of different series, or a curve that is not as long as `x`.
    """
    names = [list(panel) for panel in panels.values()]
    if not names or not names[0] or any(one != names[0] for one in names):
        raise DataError(f"panels: series {names}; expected at least one panel, all with the same series")
    if wrong := [len(y) for panel in panels.values() for y in panel.values() if len(y) != len(x)]:
        raise DataError(f"panels: a curve of {wrong[0]} values; expected {len(x)}, one for each x")
    rows, columns = -(-len(panels) // COLUMNS), min(COLUMNS, len(panels))
    left = 0.6
    width = max(left + columns * PANEL_WIDTH + 0.1, 4.2)
    room = width - left
    head = (0.37 if title else 0.01) + max(legend_height(names[0], room), ROW)
    height = head + rows * PANEL_HEIGHT + 0.3
    figure, handles = _figure(width, height), dict[str, Any]()
    for k, (quantity, panel) in enumerate(panels.items()):
        row, column = divmod(k, COLUMNS)
        corner = (left + column * PANEL_WIDTH) / width, (0.5 + (rows - 1 - row) * PANEL_HEIGHT) / height
        size = ((PANEL_WIDTH - 0.35) / width, (PANEL_HEIGHT - 0.55) / height)
        axes = figure.add_axes((*corner, *size), facecolor=BACKGROUND_COLOR)
        for number, (name, y) in enumerate(panel.items()):
            color, values = COLORS[number % len(COLORS)], np.asarray(y, float)
            [handles[name]] = axes.plot(x, values, color=color, lw=1.5, marker="o", ms=3.0)
            if sd and name in sd.get(quantity, {}):
                several = list(sd[quantity])
                draw_deviation(axes, x, values, sd[quantity][name], color, several.index(name) - (len(several) - 1) / 2)
        if reference is not None:
            axes.axhline(reference, color=MUTED_COLOR, lw=1.0, ls=(0, (4, 3)))
        if limits is not None:
            axes.set_ylim(*limits)
        _dress(axes, xlabel if k + COLUMNS >= len(panels) else "", ylabel if column == 0 else "", x)
        axes.set_title(quantity, loc="left", color=TEXT_COLOR, family=FONT, size=8.5)
    corner = (left - 0.1) / width, 1 - (0.4 if title else 0.05) / height
    draw_legend(
        figure, handles, loc="upper left", ncols=legend_columns(handles, room), bbox_to_anchor=corner, borderaxespad=0
    )
    if title:
        figure.text(0.12 / width, 1 - 0.3 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return finish(
        figure, f"Curves of {ylabel} against {xlabel}, panels {enumerate_names(panels)}: {enumerate_names(names[0])}"
    )
