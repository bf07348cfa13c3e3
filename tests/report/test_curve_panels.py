"""Small panels of curves: each has its values, its band and its name."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.curve_panels import plot_curve_panels
from medjax.report.figures import png

X = [3, 5, 10]
PANELS = {f"q{k}": {"iou": np.array([0.1, 0.2, np.nan]) * k, "dice": np.array([0.4, 0.5, 0.6])} for k in range(1, 6)}


def test_curves_bands_and_names():
    sd = {"q2": {"iou": np.array([0.01, 0.02, 0.03])}}
    figure = plot_curve_panels(X, PANELS, "N", "fraction", sd=sd, limits=(0.0, 1.0), reference=0.5, title="A title")
    assert [axes.get_title("left") for axes in figure.axes] == list(PANELS)
    axes = figure.axes[1]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.2, 0.4, np.nan])
    np.testing.assert_allclose(axes.lines[1].get_xydata(), np.stack([X, [0.4, 0.5, 0.6]], 1))
    assert axes.lines[2].get_ydata()[0] == 0.5 and axes.get_ylim() == (0, 1)
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()[:2]])
    assert band[:, 1].min() == pytest.approx(0.19) and band[:, 1].max() == pytest.approx(0.42)
    assert not figure.axes[0].collections
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["iou", "dice"]
    tops = {round(axes.get_position().y1, 6) for axes in figure.axes}
    assert len(tops) == 2  # five panels in two rows
    again = plot_curve_panels(X, PANELS, "N", "fraction", sd=sd, limits=(0.0, 1.0), reference=0.5, title="A title")
    assert png(figure, 50) == png(again, 50)


def test_wrong_panels_are_refused():
    with pytest.raises(DataError, match="same series"):
        plot_curve_panels(X, {"a": {"x": [1, 2, 3]}, "b": {"y": [1, 2, 3]}}, "N", "f")
    with pytest.raises(DataError, match="at least one panel"):
        plot_curve_panels(X, {}, "N", "f")
    with pytest.raises(DataError, match="a curve of 2 values; expected 3"):
        plot_curve_panels(X, {"a": {"x": [1, 2]}}, "N", "f")
