"""Bias against standard deviation: a panel for each region, a curve for each method, with confidence bands."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure
from medjax.report.legends import ROW, draw_legend, legend_columns, legend_height
from medjax.report.text import enumerate_names, finish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # panels in a row
PANEL_WIDTH, PANEL_HEIGHT = 2.6, 2.3  # inches, with their labels
Points = Float[np.ndarray, " point"]
Ends = Float[np.ndarray, "end point"]


class Curve(NamedTuple):
    """Points of a curve, one after the other (iterations, or a penalty's weights), with their intervals (low, high)."""

    sd: Points
    bias: Points
    sd_interval: Ends
    bias_interval: Ends


def plot_bias_sd(
    panels: Mapping[str, Mapping[str, Curve]], *, unit: str = "", title: str = "", note: str = ""
) -> "Figure":
    """Bias over standard deviation: a band over the bias, and a bar over the standard deviation at each point.

    The first point of a curve is an open circle.

    Args:
        panels: curves by region and method; every panel has the same methods.
        unit: unit of both axes, such as "%".
        title: title of the figure.
        note: a line at the foot.

    Raises:
        DataError: no panel, panels of different methods, or a curve whose arrays differ in length.
    """
    names = [list(panel) for panel in panels.values()]
    if not names or not names[0] or any(one != names[0] for one in names):
        raise DataError(f"panels: methods {names}; expected at least one panel, all with the same methods")
    for panel in panels.values():
        for name, curve in panel.items():
            if len({np.shape(values)[-1] for values in curve}) > 1:
                raise DataError(
                    f"{name}: arrays of {[np.shape(values)[-1] for values in curve]} points; expected equal"
                )
    rows, columns, left, foot = -(-len(panels) // COLUMNS), min(COLUMNS, len(panels)), 0.35, 0.2 if note else 0.05
    width = max(left + columns * PANEL_WIDTH + 0.1, 4.2)
    head = (0.37 if title else 0.01) + max(legend_height(names[0], width - left), ROW)
    height = head + rows * PANEL_HEIGHT + foot
    figure, handles = _figure(width, height), dict[str, Any]()
    for k, (region, panel) in enumerate(panels.items()):
        row, column = divmod(k, COLUMNS)
        corner = (left + 0.2 + column * PANEL_WIDTH) / width, (foot + 0.42 + (rows - 1 - row) * PANEL_HEIGHT) / height
        size = ((PANEL_WIDTH - 0.5) / width, (PANEL_HEIGHT - 0.75) / height)
        axes = figure.add_axes((*corner, *size), facecolor=BACKGROUND_COLOR)
        for number, (name, curve) in enumerate(panel.items()):
            handles[name] = _draw(axes, curve, COLORS[number % len(COLORS)])
        axes.axhline(0, color=MUTED_COLOR, lw=1.0, ls=(0, (4, 3)))
        ending = f" ({unit})" if unit else ""
        _dress(axes, f"standard deviation{ending}", f"bias{ending}" if column == 0 else "")
        axes.set_title(region, loc="left", color=TEXT_COLOR, family=FONT, size=8.5)
    corner = (left - 0.1) / width, 1 - (0.4 if title else 0.05) / height
    draw_legend(
        figure,
        handles,
        loc="upper left",
        ncols=legend_columns(handles, width - left),
        bbox_to_anchor=corner,
        borderaxespad=0,
    )
    if title:
        figure.text(0.12 / width, 1 - 0.3 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    if note:
        figure.text(0.12 / width, 0.08 / height, note, color=MUTED_COLOR, family=FONT, size=6.5)
    return finish(figure, f"Bias against standard deviation in {enumerate_names(panels)}: {enumerate_names(names[0])}")


def _draw(axes: Any, curve: Curve, color: str) -> Any:
    x, y, across, band = (np.asarray(values, float) for values in curve)
    if len(x) > 1:
        axes.fill_between(x, band[0], band[1], color=color, alpha=0.25, lw=0)
    else:
        axes.vlines(x, band[0], band[1], color=color, lw=1.0, alpha=0.6)
    axes.hlines(y, across[0], across[1], color=color, lw=0.8, alpha=0.5)
    [line] = axes.plot(x, y, color=color, lw=1.5, marker="o", ms=3.0)
    axes.plot(x[:1], y[:1], "o", ms=4.5, mfc=BACKGROUND_COLOR, mec=color, mew=1.2)
    return line
