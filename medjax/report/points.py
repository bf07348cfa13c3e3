"""Points of groups, with lines through them or levels across: regressions, Bland–Altman plots."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Real

from medjax.errors import DataError
from medjax.report.figures import CANVAS, COLOURS, FONT, INK, QUIET, _dress, _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """A line over x, in the colour of the group of the same name, or quiet."""

    x: Real[np.ndarray, " point"]
    y: Real[np.ndarray, " point"]


def points(
    groups: Mapping[str, tuple[Real[np.ndarray, "_"], Real[np.ndarray, "_"]]],
    xlabel: str,
    ylabel: str,
    *,
    lines: Mapping[str, Line] | None = None,
    levels: Sequence[float] = (),
    title: str = "",
) -> "Figure":
    """Points (x, y) of each group in its colour, with a legend; `levels` are dashed across, the middle one drawn full.

    Raises:
        DataError: no group, or x and y of different lengths.
    """
    _check_pairs(groups)
    figure = _figure(5.2, 3.7)
    axes = figure.add_axes((0.15, 0.15, 0.81, 0.72 if title else 0.8), facecolor=CANVAS)
    for (name, (x, y)), colour in zip(groups.items(), cycle(COLOURS), strict=False):
        axes.plot(x, y, "o", color=colour, ms=4.5, alpha=0.85, mew=0, label=name)
        if lines and name in lines:
            axes.plot(*lines[name], color=colour, lw=1.6)
    for k, level in enumerate(sorted(levels)):
        axes.axhline(level, color=QUIET, lw=1.0, ls="-" if 2 * k + 1 == len(levels) else (0, (4, 3)))
    _dress(axes, xlabel, ylabel)
    axes.legend(frameon=False, labelcolor=INK, prop={"family": FONT, "size": 8}, loc="best")
    if title:
        figure.text(0.02, 0.93, title, color=INK, family=FONT, size=11, weight="bold")
    return figure


def plot_bland_altman(
    readings: Mapping[str, tuple[Real[np.ndarray, "_"], Real[np.ndarray, "_"]]],
    limits: tuple[float, float, float],
    quantity: str,
    difference: str = "difference",
) -> "Figure":
    """Bland–Altman plot of pairs (a, b) of each group: a − b over (a + b) / 2, with lower limit, bias, upper limit.

    `quantity` names what was read, with its unit, and `difference` says which reading is a.

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
