"""Points land where they should, in a picture that is the same each time."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.points import Curve, plot_bland_altman, points


def test_points_lines_and_levels_are_drawn():
    x = np.array([1.0, 2.0, 3.0])
    made = {"one": (x, x**2), "two": (x[:2], -x[:2])}
    figure = points(made, "x", "y", curves={"one": Curve(x, x**2)}, levels=(-1.0, 0.0, 1.0), title="A title")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([x, x**2], 1))
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), np.stack([x, x**2], 1))
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()
    levels = axes.lines[3:]
    assert [line.get_ydata()[0] for line in levels] == [-1, 0, 1] and levels[1].get_linestyle() == "-"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"one", "two"}
    assert png(figure) == png(
        points(made, "x", "y", curves={"one": Curve(x, x**2)}, levels=(-1.0, 0.0, 1.0), title="A title")
    )


def test_pairs_must_be_pairs():
    with pytest.raises(DataError, match=r"lengths \[\(3, 2\)\]"):
        points({"one": (np.zeros(3), np.zeros(2))}, "x", "y")
    with pytest.raises(DataError, match=r"lengths \[\(3, 2\)\]"):
        plot_bland_altman({"one": (np.zeros(3), np.zeros(2))}, (0.0, 1.0, 2.0), "f")


def test_a_bland_altman_plot_has_differences_over_means():
    figure = plot_bland_altman({"all": (np.array([3.0, 5.0]), np.array([1.0, 6.0]))}, (-2.0, 0.5, 3.0), "f", "a − b")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[2.0, 2.0], [5.5, -1.0]])
    assert [line.get_ydata()[0] for line in axes.lines[1:]] == [-2.0, 0.5, 3.0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("mean of both, f", "a − b")
