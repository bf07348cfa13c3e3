"""Points land where they should, in a picture that is the same each time."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.points import Curve, plot_bland_altman, plot_identity, points


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
    figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1  # above all data
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


def test_a_bland_altman_plot_shades_the_intervals_of_its_levels():
    pairs, ends = {"all": (np.array([3.0, 5.0]), np.array([1.0, 6.0]))}, [(-3.0, -1.5), (0.0, 1.0), (2.5, 3.5)]
    axes = plot_bland_altman(pairs, (-2.0, 0.5, 3.0), "f", intervals=ends).axes[0]
    assert [(one.get_y(), one.get_y() + one.get_height()) for one in axes.patches] == ends
    assert [text.get_text() for text in axes.texts] == ["lower limit\n−2", "bias\n0.5", "upper limit\n3"]
    assert axes.get_legend() is None  # one group needs no name


def test_an_identity_plot_has_the_intervals_of_both():
    a, b = np.array([1.0, 2.0]), np.array([1.5, 1.0])
    errors = {"all": (np.stack([a - 0.1, a + 0.2]), np.stack([b - 0.3, b + 0.4]))}
    axes = plot_identity({"all": (a, b)}, errors, "scan", "rescan", title="t").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([a, b], 1))
    across, upright = axes.collections
    np.testing.assert_allclose(across.get_segments(), [[[0.9, 1.5], [1.2, 1.5]], [[1.9, 1.0], [2.2, 1.0]]])
    np.testing.assert_allclose(upright.get_segments(), [[[1.0, 1.2], [1.0, 1.9]], [[2.0, 0.7], [2.0, 1.4]]])
    x, y = axes.lines[-1].get_data()
    assert tuple(x) == tuple(y) == axes.get_xlim() == axes.get_ylim()


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_a_title_stands_above_a_legend_of_several_rows(number):
    x = np.arange(3.0)
    figure = points({f"reconstruction method {k}": (x, x + k) for k in range(number)}, "x", "y", title="A title")
    figure.canvas.draw()
    [title], axes = figure.texts, figure.axes[0]
    assert title.get_window_extent().y1 <= figure.bbox.y1
    if number > 1:
        legend = axes.get_legend().get_window_extent()
        assert axes.get_window_extent().y1 - 1 <= legend.y0 and legend.y1 < title.get_window_extent().y0
        assert legend.x1 <= figure.bbox.x1
