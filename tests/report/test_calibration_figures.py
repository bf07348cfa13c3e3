"""Figures of calibration have their points where they should, and leave out bins that are empty."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.calibration import plot_coverage, plot_reliability, plot_risk_coverage
from medjax.report.figures import png

X = np.array([0.2, 0.5, 0.9])


def test_reliability_leaves_out_empty_bins():
    diagram = np.array([0.2, np.nan, 0.9]), np.array([0.3, np.nan, 0.7]), np.array([1.0, 0.0, 3.0])
    figure = plot_reliability({"one": diagram, "two": (X, X, X)}, title="A title")
    axes, below = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [[0.2, 0.3], [0.9, 0.7]])
    np.testing.assert_array_equal(below.lines[0].get_xydata(), [[0.2, 0.25], [0.9, 0.75]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert png(figure)


def test_coverage_has_a_band_where_there_is_one():
    figure = plot_coverage({"one": (X, X**2, X**2 - 0.1, X**2 + 0.1), "two": (X, X)})
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), np.stack([X, X**2], 1))
    assert len(axes.collections) == 1 and len(axes.lines) == 3
    assert png(figure)


def test_risk_starts_at_zero():
    figure = plot_risk_coverage({"sd": (X, X / 10), "optimal": (X, X / 20)}, "1 − Dice")
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([X, X / 10], 1))
    assert axes.get_ylim()[0] == 0 and axes.get_ylabel() == "1 − Dice"
    assert png(figure)


@pytest.mark.parametrize("plot", [plot_reliability, plot_coverage, plot_risk_coverage])
def test_unusable_series_are_refused(plot):
    with pytest.raises(DataError, match=r"lengths \[\]"):
        plot({})
    with pytest.raises(DataError, match=r"lengths \[\(3, 2\)\]"):
        plot({"one": (X, X[:2])})
