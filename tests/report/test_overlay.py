"""Overlays, forest plots and labelled points: what is drawn where, equal bytes, and what is refused."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.intervals import intervals
from medjax.report.overlay import overlay
from medjax.report.points import points

SPACE = (6, 8, 5)


def test_an_overlay_of_volumes_has_three_planes_through_the_largest_value():
    scores = np.zeros(SPACE)
    scores[1, 6, 2] = 3.0  # at the left, in front, where x grows to the right
    image = np.arange(240.0).reshape(SPACE)
    figure = overlay({"RCS": scores, "half": scores / 2}, image, np.diag([2.0, 2.0, 2.0, 1.0]), unit="score")
    axes = figure.axes[:9]
    axial = axes[1].images[-1].get_array()  # rows downwards: front at the top
    assert axial.shape == (8, 6) and axial[1, 1] == 3 and axial.sum() == 3
    assert [one.images[-1].get_array().max() for one in axes[1::3]] == [3, 3, 3]
    assert [one.images[-1].get_array().max() for one in axes[2::3]] == [1.5, 1.5, 1.5]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), image[:, :, 2].T[::-1])
    assert [text.get_text() for text in axes[0].texts] == ["L", "R"]
    mirrored = overlay({"RCS": scores[::-1]}, None, np.diag([-2.0, 2.0, 2.0, 1.0]))  # x grows to the left in memory
    np.testing.assert_array_equal(mirrored.axes[0].images[-1].get_array(), axial)
    assert png(figure) == png(
        overlay({"RCS": scores, "half": scores / 2}, image, np.diag([2.0] * 3 + [1]), unit="score")
    )


def test_an_overlay_of_images_keeps_rows_and_columns():
    scores = np.arange(12.0).reshape(3, 4) - 6
    figure = overlay({"RCS": scores}, title="title", note="note")
    image = figure.axes[0].images[-1]
    np.testing.assert_array_equal(image.get_array(), scores)
    assert image.get_clim() == (-6, 6) and image.get_alpha()[1, 2] == 0  # zero is transparent


def test_overlays_are_refused():
    with pytest.raises(DataError, match="expected maps of one 2-D or 3-D shape"):
        overlay({"one": np.zeros((3, 4))}, np.zeros((4, 3)))
    with pytest.raises(DataError, match="expected maps"):
        overlay({})
    with pytest.raises(DataError, match="NaN or infinite"):
        overlay({"one": np.full((3, 4), np.nan)})


def test_a_forest_plot_has_the_first_row_at_the_top():
    values = np.array([0.5, -0.2, np.nan])
    figure = intervals(["a", "b", "c"], values, values - 0.1, values + 0.1, "r", notes=["x", "y", "z"], title="title")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    points_drawn = axes.lines[-1].get_xydata()
    np.testing.assert_array_equal(points_drawn, [[0.5, 2], [-0.2, 1], [np.nan, 0]])
    assert [text.get_text() for text in axes.texts] == ["x", "y", "z"]
    assert len(png(figure)) > 1000
    with pytest.raises(DataError, match=r"lengths \[2, 3\]"):
        intervals(["a", "b"], values, values, values, "r")
    with pytest.raises(DataError, match="at least one"):
        intervals([], values[:0], values[:0], values[:0], "r")


def test_points_are_labelled():
    figure = points({"all": (np.arange(3.0), np.arange(3.0))}, "x", "y", labels={"corner": (2.0, 2.0)})
    (text,) = figure.axes[0].texts
    assert text.get_text() == "corner" and text.xy == (2.0, 2.0)
