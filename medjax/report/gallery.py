"""Galleries of many small images: with outlines of their labels, or in rows such as image, truth and prediction.

They are what a reader must see before believing a table of Dice.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Real

from medjax.errors import DataError
from medjax.report.color_bars import bars_width, draw_bars
from medjax.report.legends import draw_legend
from medjax.report.slices import Scale
from medjax.report.text import FONT, enumerate_names, finish, wrap
from medjax.report.theme import BACKGROUND_COLOR, BAR, COLORS, EDGE, MUTED_COLOR, TEXT_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

CELL, HEAD, NAME_LINE, LEGEND = 1.35, 0.22, 0.15, 0.3  # inches
NAME_ROWS = 2  # lines of a name, at most


def gallery(
    images: Float[np.ndarray, "image row column"],
    labels: Int[np.ndarray, "image row column"] | None = None,
    names: Sequence[str] | None = None,
    columns: int = 8,
    note: str = "",
    *,
    classes: Sequence[str] = (),
    aspects: Sequence[float] | None = None,
    cell: float = CELL,
) -> "Figure":
    """Gallery of images in grey, each from 0 to its maximum, with the outlines of its labels and its name above.

    An outline is the inner border of its label, so that labels that touch have two lines side by side.

    Args:
        images: images, rows downwards.
        labels: label maps; the outline of class c has colour c.
        names: titles of the images.
        columns: images in a row.
        note: a line at the foot.
        classes: names of classes 1, 2, …, for a legend of the outlines' colours on top.
        aspects: height of a pixel over its width, of each image; default: 1.
        cell: width of an image in inches, and its greatest height.

    Raises:
        DataError: no image, or not as many labels or names as images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = [len(images), *(len(more) for more in (labels, names, aspects) if more is not None)]
    if min(lengths) != max(lengths) or not lengths[0]:
        raise DataError(f"gallery: {lengths} images, labels, names; expected the same number of each, at least one")
    columns = min(columns, len(images))
    rows, foot, top = -(-len(images) // columns), 0.3 if note else 0.05, LEGEND if classes else 0.0
    titles = [wrap(name, 0.95 * cell, 6.5 * max(1.0, cell / CELL / 1.3), max_rows=NAME_ROWS) for name in names or []]
    head = HEAD + NAME_LINE * max((title.count("\n") for title, _ in titles), default=0)
    ratios = [images.shape[1] / images.shape[2] * aspect for aspect in aspects or [1.0]]
    tall = cell * min(max(ratios), 1.0)
    width, height = columns * cell, top + rows * (tall + head) + foot
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND_COLOR)
    FigureCanvasAgg(figure)
    for k, image in enumerate(images):
        row, column = divmod(k, columns)
        bottom = (height - top - (row + 1) * (tall + head)) / height
        axes = figure.add_axes((column / columns, bottom, 0.97 / columns, tall / height))
        aspect = 1.0 if aspects is None else aspects[k]
        scale: dict[str, Any] = {"vmin": 0, "vmax": max(float(image.max()), 1e-6), "aspect": aspect}
        axes.imshow(image, cmap="gray", interpolation="nearest", **scale)
        axes.set_axis_off()
        if labels is not None:
            _draw_outlines(axes, labels[k])
        if titles:
            axes.set_title(titles[k][0], color=TEXT_COLOR, family=FONT, fontsize=titles[k][1], pad=2)
    if classes:
        handles = {name: _outline(number) for number, name in enumerate(classes, 1)}
        place = (0.01, 1 - 0.05 / height)
        draw_legend(figure, handles, loc="upper left", bbox_to_anchor=place, ncols=len(handles), borderaxespad=0)
    if note:
        figure.text(0.01, 0.08 / height, note, color=MUTED_COLOR, family=FONT, size=6.5)
    outlined = "" if labels is None else " with the outlines of their labels"
    return finish(figure, f"{len(images)} images{outlined}: {enumerate_names(names or [])}".removesuffix(": "))


def _draw_outlines(axes: "Axes", labels: np.ndarray) -> None:
    for number in range(1, int(labels.max()) + 1):
        inside = labels == number
        if inside.any():
            line = axes.contour(inside, levels=[0.5], colors=[_color(number)], linewidths=2.6)
            area = axes.contourf(inside, levels=[0.5, 1.5])
            line.set_clip_path(area.get_paths()[0], axes.transData)  # the inner half of the line is seen
            area.remove()


def _color(number: int) -> str:
    return COLORS[(number - 1) % len(COLORS)]


def _outline(number: int) -> "Line2D":
    from matplotlib.lines import Line2D

    return Line2D([], [], color=_color(number), lw=1.5)


def image_rows(
    rows: Mapping[str, Real[np.ndarray, "image row column"]], scales: Mapping[str, Scale], note: str = ""
) -> "Figure":
    """Rows of small images, such as image, truth and prediction, by name; each column is one case.

    `scales` are those of the rows, by name; rows of equal scales, such as two label maps, have one colour bar,
    or one legend of `Scale.classes`.

    Raises:
        DataError: no image, or rows of different shapes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shapes = {images.shape for images in rows.values()}
    number = min((shape[0] for shape in shapes), default=0)
    if len(shapes) != 1 or not number:
        raise DataError(f"image_rows: shapes {sorted(shapes)}; expected one shape, of at least one image")
    foot = BAR + EDGE + (0.2 if note else 0)
    shown = list(dict.fromkeys(scales[name] for name in rows))
    width, height = max(2 * EDGE + number * CELL, bars_width(shown)), EDGE + len(rows) * (CELL + HEAD) + foot
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND_COLOR)
    FigureCanvasAgg(figure)
    for row, (name, images) in enumerate(rows.items()):
        bottom, scale = height - EDGE - (row + 1) * (CELL + HEAD), scales[name]
        figure.text(EDGE / width, (bottom + CELL + 0.05) / height, name, color=TEXT_COLOR, family=FONT, size=8)
        for column, image in enumerate(images):
            left = EDGE + column * CELL
            axes = figure.add_axes((left / width, bottom / height, 0.97 * CELL / width, CELL / height))
            axes.imshow(image, scale.colormap, vmin=scale.low, vmax=scale.high, interpolation="nearest")
            axes.set_axis_off()
    draw_bars(figure, shown, 0.2 if note else 0.0)
    if note:
        figure.text(EDGE / width, 0.12 / height, note, color=MUTED_COLOR, family=FONT, size=6.5)
    return finish(figure, f"Rows of {number} images: {enumerate_names(rows)}")
