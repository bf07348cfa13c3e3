"""Legends that cover neither data nor title, with every name, one that begins with an underscore too."""

from collections.abc import Iterable, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

from medjax.report.figures import FONT, TEXT_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 8  # points
LETTER, MARK, ROW = 0.56 * SIZE / 72, 0.4, 1.55 * SIZE / 72  # inches: mean letter, mark with its distances, line
MAX_COLUMNS = 4


def legend_columns(names: Iterable[str], width: float) -> int:
    """Number of columns of a legend that is at most `width` inches wide: 1 to `MAX_COLUMNS`."""
    widest = MARK + LETTER * max((len(name) for name in names), default=0)
    return max(1, min(MAX_COLUMNS, int(width / widest)))


def legend_height(names: Iterable[str], width: float) -> float:
    """Height in inches of a legend that is at most `width` inches wide; 0 of a single name, which needs none."""
    listed = list(names)
    return ROW * ceil(len(listed) / legend_columns(listed, width)) if len(listed) > 1 else 0.0


def draw_legend(where: "Axes | Figure", handles: Mapping[str, Any], **place: Any) -> None:
    """Draw a legend of Matplotlib artists by name; `place` is what Matplotlib's `legend` takes."""
    font = {"family": FONT, "size": SIZE}
    where.legend([*handles.values()], [*handles], frameon=False, labelcolor=TEXT_COLOR, prop=font, **place)
