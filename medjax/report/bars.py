"""Grouped bars with error bars: a quantity of several methods in several conditions."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, TEXT_COLOR, Numbers, _dress, _figure
from medjax.report.legends import draw_legend
from medjax.report.text import enumerate_names, finish, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(
    conditions: Sequence[str],
    series: Mapping[str, Numbers],
    xlabel: str,
    ylabel: str,
    *,
    sd: Mapping[str, Numbers] | None = None,
) -> "Figure":
    """Bars of every series side by side in each condition, with a legend; what is NaN is left out.

    Args:
        conditions: names of the groups of bars.
        series: heights of each series, by name, one for each condition.
        xlabel: label of the x axis.
        ylabel: label of the y axis.
        sd: standard deviation of the series that have one, by name: error bars of ± sd.

    Raises:
        DataError: no series, or not as many heights as conditions.
    """
    if not series or any(len(heights) != len(conditions) for heights in series.values()):
        lengths = [len(heights) for heights in series.values()]
        raise DataError(f"bars: lengths {lengths}; expected series of {len(conditions)}, one for each condition")
    figure = _figure(7.4, 3.9)
    axes = figure.add_axes((0.09, 0.14, 0.63, 0.82), facecolor=BACKGROUND_COLOR)
    handles = dict[str, Any]()
    width, middle = 0.84 / len(series), (len(series) - 1) / 2
    for k, ((name, heights), color) in enumerate(zip(series.items(), cycle(COLORS), strict=False)):
        x = np.arange(len(conditions)) + (k - middle) * width
        faded = 1.0 if k < len(COLORS) else 0.5  # colours come again
        handles[name] = axes.bar(x, np.asarray(heights, float), 0.9 * width, color=color, alpha=faded)
        if sd and name in sd:
            axes.errorbar(
                x, np.asarray(heights, float), np.nan_to_num(sd[name]), fmt="none", ecolor=TEXT_COLOR, elinewidth=0.9
            )
    _dress(axes, xlabel, ylabel)
    axes.set_xticks(range(len(conditions)), [*map(printable, conditions)])
    draw_legend(axes, handles, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return finish(figure, f"Bars of {ylabel} for each {xlabel}: {enumerate_names(series)}")
