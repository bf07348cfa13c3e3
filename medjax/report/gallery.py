"""Galleries of many small images: with outlines of their labels, or in rows such as image, truth and prediction.

They are what a reader must see before believing a table of Dice.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Real

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, BAR, COLORS, EDGE, FONT, MUTED_COLOR, TEXT_COLOR, draw_bars
from medjax.report.slices import Scale
from medjax.report.text import enumerate_names, finish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL, HEAD = 1.35, 0.22  # inches


def gallery(
    images: Float[np.ndarray, "image row column"],
    labels: Int[np.ndarray, "image row column"] | None = None,
    names: Sequence[str] | None = None,
    columns: int = 8,
    note: str = "",
) -> "Figure":
    """Gallery of images in grey, each from 0 to its maximum, with the outlines of its labels and its name above.

    Args:
        images: images, rows downwards.
        labels: label maps; the outline of class c has colour c.
        names: titles of the images.
        columns: images in a row.
        note: a line at the foot.

    Raises:
        DataError: no image, or not as many labels or names as images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = [len(images), *(len(more) for more in (labels, names) if more is not None)]
    if min(lengths) != max(lengths) or not lengths[0]:
        raise DataError(f"gallery: {lengths} images, labels, names; expected the same number of each, at least one")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = rows * (CELL + HEAD) + (0.3 if note else 0.05)
    figure = Figure(figsize=(columns * CELL, height), facecolor=BACKGROUND_COLOR)
    FigureCanvasAgg(figure)
    for k, image in enumerate(images):
        row, column = divmod(k, columns)
        bottom = (height - (row + 1) * (CELL + HEAD)) / height
        axes = figure.add_axes((column / columns, bottom, 0.97 / columns, CELL / height))
        axes.imshow(image, cmap="gray", vmin=0, vmax=max(float(image.max()), 1e-6), interpolation="nearest")
        axes.set_axis_off()
        if labels is not None:
            for c in range(1, int(labels[k].max()) + 1):
                if (labels[k] == c).any():
                    axes.contour(labels[k] == c, levels=[0.5], colors=[COLORS[(c - 1) % len(COLORS)]], linewidths=1.0)
        if names is not None:
            axes.set_title(names[k], color=TEXT_COLOR, family=FONT, fontsize=6.5, pad=2)
    if note:
        figure.text(0.01, 0.08 / height, note, color=MUTED_COLOR, family=FONT, size=6.5)
    outlined = "" if labels is None else " with the outlines of their labels"
    return finish(figure, f"{len(images)} images{outlined}: {enumerate_names(names or [])}".removesuffix(": "))


def image_rows(
    rows: Mapping[str, Real[np.ndarray, "image row column"]], scales: Mapping[str, Scale], note: str = ""
) -> "Figure":
    """Rows of small images, such as image, truth and prediction, by name; each column is one case.

    `scales` are those of the rows, by name; rows of equal scales, such as two label maps, have one colour bar.

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
    width, height = 2 * EDGE + number * CELL, EDGE + len(rows) * (CELL + HEAD) + foot
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
    draw_bars(figure, list(dict.fromkeys(scales[name] for name in rows)), 0.2 if note else 0.0)
    if note:
        figure.text(EDGE / width, 0.12 / height, note, color=MUTED_COLOR, family=FONT, size=6.5)
    return finish(figure, f"Rows of {number} images: {enumerate_names(rows)}")
