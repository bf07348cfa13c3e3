"""Standard deviations of curves, drawn so that those of several curves can be told apart."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 12  # points from which on there are bands
APART = 3.0  # points (1/72 inch) between the bars of two curves


def draw_deviation(axes: "Axes", x: Any, values: Any, sd: Any, color: str, offset: float) -> None:
    """Draw ± sd of a curve: a bar at each of a few points, `offset` bars to the right of it; else an outlined band."""
    from matplotlib.colors import to_rgba
    from matplotlib.transforms import ScaledTranslation

    at, middle, half = (np.asarray(one, float) for one in (x, values, sd))
    if len(at) >= FEW:
        face, edge = to_rgba(color, 0.08), to_rgba(color, 0.6)
        axes.fill_between(at, middle - half, middle + half, facecolor=face, edgecolor=edge, lw=0.6)
        return
    bars = axes.vlines(at, middle - half, middle + half, color=color, lw=1.3, alpha=0.8)
    figure: Any = axes.get_figure()
    bars.set_transform(axes.transData + ScaledTranslation(offset * APART / 72, 0, figure.dpi_scale_trans))
