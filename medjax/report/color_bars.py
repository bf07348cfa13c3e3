"""Colour bars at the foot of a figure: of quantities, with arrows where values lie beyond, or of classes."""

from typing import TYPE_CHECKING

import numpy as np

from medjax.report.slices import Scale
from medjax.report.text import FONT, wrap
from medjax.report.theme import EDGE, LINE_COLOR, MUTED_COLOR, TEXT_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, APART, ARROW, CLASS = 2.2, 0.085, 0.35, 0.09, 0.55  # inches; of the field of a class


def bars_width(scales: list[Scale]) -> float:
    """Width in inches of a figure in which the names of classes have room below their fields."""
    widest = CLASS * max(len(scale.classes) for scale in scales)
    return 2 * EDGE + len(scales) * (min(widest, WIDTH) + APART) - APART if widest else 0.0


def draw_bars(figure: "Figure", scales: list[Scale], above: float) -> None:
    """Draw a colour bar for each intensity scale, side by side at the foot, `above` inches from it."""
    width, height = figure.get_size_inches()
    room = (width - 2 * EDGE + APART) / len(scales) - APART
    size = min(room, WIDTH)
    for number, scale in enumerate(scales):
        left = EDGE + number * (size + APART)
        bar = figure.add_axes((left / width, (EDGE + above + 0.18) / height, size / width, HEIGHT / height))
        bar.set_yticks([])
        sides = _draw_classes(bar, scale) if scale.classes else _draw_range(bar, scale, ARROW / size)
        bar.tick_params(colors=MUTED_COLOR, length=0, pad=2.5)
        for label, side in zip(bar.get_xticklabels(), sides, strict=True):
            room_of_name = size / len(scale.classes) - 0.04 if scale.classes else size
            label.set(
                family=FONT, horizontalalignment=side, fontsize=wrap(label.get_text(), room_of_name, 6.5, max_rows=1)[1]
            )
        for edge in bar.spines.values():
            edge.set(color=LINE_COLOR, linewidth=0.6)
        unit, points = wrap(scale.unit, room + 0.1, 7.0, max_rows=1)  # that of the next bar begins behind it
        bar.set_title(unit, loc="left", color=TEXT_COLOR, family=FONT, size=points, pad=3)


def _draw_range(bar: "Axes", scale: Scale, arrow: float) -> tuple[str, ...]:
    """The colours from low to high, with an arrow at both ends if values lie beyond; returns the labels' alignment."""
    from matplotlib import colormaps

    bar.imshow(np.linspace(0, 1, 256)[None], cmap=scale.colormap, aspect="auto", extent=(0, 1, 0, 1))
    high = 1.0 if scale.high is None else scale.high
    bar.set_xticks([0, 0.5, 1], [f"{scale.low + fraction * (high - scale.low):.3g}" for fraction in (0, 0.5, 1)])
    if scale.clipped:
        for end, tip in ((0.0, -arrow), (1.0, 1 + arrow)):
            color = colormaps[scale.colormap](end)
            bar.fill([end, tip, end], [0, 0.5, 1], facecolor=color, edgecolor=LINE_COLOR, lw=0.6, clip_on=False)
        bar.set(xlim=(0, 1), ylim=(0, 1))
    return ("left", "center", "right")


def _draw_classes(bar: "Axes", scale: Scale) -> tuple[str, ...]:
    """A field for each class, with its name below; returns the labels' alignment."""
    number = len(scale.classes)
    bar.imshow(
        np.arange(number)[None], scale.colormap, vmin=scale.low, vmax=scale.high, aspect="auto", extent=(0, 1, 0, 1)
    )
    bar.set_xticks((np.arange(number) + 0.5) / number, scale.classes)
    return ("center",) * number
