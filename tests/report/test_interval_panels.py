"""Forest plots: one line a name in every panel, undefined estimates as dashes."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.interval_panels import Estimate, plot_intervals

NAN = float("nan")


def test_lines_dots_and_dashes():
    panels = {
        "AUROC": {"F": Estimate(0.8, 0.7, 0.9), "M": Estimate(NAN, NAN, NAN)},
        "gap": {"F": Estimate(0.1, NAN, NAN), "M": Estimate(-0.1, -0.2, 0.1)},
    }
    figure = plot_intervals(panels, reference=0.0, title="two")
    first, second = figure.axes
    assert [list(line.get_xdata()) for line in first.lines] == [[0.7, 0.9], [0.8], [0, 0]]
    assert [text.get_text() for text in first.texts] == ["–"] and not second.texts
    assert [label.get_text() for label in first.get_yticklabels()] == ["F", "M"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # top to bottom
    assert png(figure) == png(plot_intervals(panels, reference=0.0, title="two"))


def test_many_panels_take_several_rows():
    panel = {"a": Estimate(0.5, 0.4, 0.6)}
    axes = plot_intervals({str(k): panel for k in range(7)}).axes
    tops = sorted({round(one.get_position().y1, 6) for one in axes})
    assert len(axes) == 7 and len(tops) == 2
    assert all(0 <= edge <= 1 for one in axes for edge in np.ravel(one.get_position().get_points()))


def test_panels_of_other_names_are_refused():
    with pytest.raises(DataError, match="same names"):
        plot_intervals({"a": {"x": Estimate(0, 0, 0)}, "b": {"y": Estimate(0, 0, 0)}})
    with pytest.raises(DataError, match="at least one panel"):
        plot_intervals({})
