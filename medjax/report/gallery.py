"""Many small pictures: with the outlines of their labels, or a row of each thing that is shown of the same images.

They are what a reader must see before believing a table of Dice.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Real

from medjax.errors import DataError
from medjax.report.figures import BAR, CANVAS, COLOURS, EDGE, FONT, INK, QUIET, draw_bars
from medjax.report.slices import Scale

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
    """Images, rows downwards, in grey from 0 to each one's maximum; outlines of label c in colour c; a name above.

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
    figure = Figure(figsize=(columns * CELL, height), facecolor=CANVAS)
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
                    axes.contour(labels[k] == c, levels=[0.5], colors=[COLOURS[(c - 1) % len(COLOURS)]], linewidths=1.0)
        if names is not None:
            axes.set_title(names[k], color=INK, family=FONT, fontsize=6.5, pad=2)
    if note:
        figure.text(0.01, 0.08 / height, note, color=QUIET, family=FONT, size=6.5)
    return figure


def image_rows(
    rows: Mapping[str, Real[np.ndarray, "image row column"]], scales: Mapping[str, Scale], note: str = ""
) -> "Figure":
    """A named row of small pictures of each thing (say image, truth, prediction), the same image in each column.

    `scales` are of the names; those of rows that are drawn alike, as two label maps, are equal and share a colour bar.

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
    figure = Figure(figsize=(width, height), facecolor=CANVAS)
    FigureCanvasAgg(figure)
    for row, (name, images) in enumerate(rows.items()):
        bottom, scale = height - EDGE - (row + 1) * (CELL + HEAD), scales[name]
        figure.text(EDGE / width, (bottom + CELL + 0.05) / height, name, color=INK, family=FONT, size=8)
        for column, image in enumerate(images):
            left = EDGE + column * CELL
            axes = figure.add_axes((left / width, bottom / height, 0.97 * CELL / width, CELL / height))
            axes.imshow(image, scale.colormap, vmin=scale.low, vmax=scale.high, interpolation="nearest")
            axes.set_axis_off()
    draw_bars(figure, list(dict.fromkeys(scales[name] for name in rows)), 0.2 if note else 0.0)
    if note:
        figure.text(EDGE / width, 0.12 / height, note, color=QUIET, family=FONT, size=6.5)
    return figure
