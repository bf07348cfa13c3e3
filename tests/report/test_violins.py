"""Violins stand in the order of the means, with the mean and the truth where they are, and densities are SciPy's."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.violins import HALF, plot_paired_violins

DRAW = np.random.default_rng(0)
SCAN = np.array([[200.0], [100.0], [150.0]]) + DRAW.normal(0, 5, (3, 20))
RESCAN = SCAN + 4 + DRAW.normal(0, 1, (3, 20))
ORDER = [1, 2, 0]


def means(axes):
    """Mean bars by (position, side)."""
    return {
        (float(line.get_xdata()[0]), float(np.sign(line.get_xdata()[1] - line.get_xdata()[0]))): line.get_ydata()[0]
        for line in axes.lines
        if len(line.get_xdata()) == 2 and line.get_linestyle() == "-" and line.get_color() == "#eceef0"
    }


def test_halves_stand_in_the_order_of_the_means():
    figure = plot_paired_violins(SCAN, RESCAN, "LVEDV, ml", ["a", "b", "c"], names=("test", "retest"), title="t")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "c", "a"]
    found = means(axes)
    assert len(found) == 6
    for at, subject in enumerate(ORDER):
        assert found[at, -1.0] == pytest.approx(SCAN[subject].mean())
        assert found[at, 1.0] == pytest.approx(RESCAN[subject].mean())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["test", "retest", "mean"]
    assert axes.get_ylabel() == "LVEDV, ml"
    again = plot_paired_violins(SCAN, RESCAN, "LVEDV, ml", ["a", "b", "c"], names=("test", "retest"), title="t")
    assert png(figure, 50) == png(again, 50)


def test_a_half_is_the_kernel_density_of_its_samples():
    axes = plot_paired_violins(SCAN, RESCAN, "ml", ["a", "b", "c"]).axes[0]
    for number, (samples, side) in enumerate([(SCAN[1], -1), (RESCAN[1], 1)]):  # of the first subject
        outline = axes.collections[number].get_paths()[0].vertices
        y = outline[np.abs(outline[:, 0]) > 1e-6, 1]
        x = outline[np.abs(outline[:, 0]) > 1e-6, 0]
        assert np.sign(x).tolist() == [side] * len(x) and np.abs(x).max() == pytest.approx(HALF)
        density = gaussian_kde(samples)(y)
        np.testing.assert_allclose(np.abs(x), HALF * density / density.max(), atol=1e-12)
        assert y.min() < samples.min() and y.max() > samples.max()


def test_deviations_from_the_mean_and_the_truth():
    truth = np.array([[201.0, 203.0], [np.nan, np.nan], [149.0, 152.0]])
    axes = plot_paired_violins(SCAN, RESCAN, "ml", ["a", "b", "c"], truth=truth, centered=True).axes[0]
    middle = (SCAN.mean(1) + RESCAN.mean(1)) / 2
    assert axes.get_xticklabels()[0].get_text() == f"b ({middle[1]:.3g})"
    assert means(axes)[2.0, -1.0] == pytest.approx(SCAN[0].mean() - middle[0])
    diamonds = [line.get_ydata() for line in axes.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(diamonds, truth[ORDER] - middle[ORDER, None])
    assert axes.get_legend().get_texts()[-1].get_text() == "truth"


def test_few_or_equal_samples_are_points():
    axes = plot_paired_violins(SCAN[:, :2], np.full((3, 4), 7.0), "ml", ["a", "b", "c"]).axes[0]
    assert not axes.collections
    dots = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    assert {len(one) for one in dots} == {2, 4}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match=r"\[3, 3, 2\] subjects; expected one number"):
        plot_paired_violins(SCAN, RESCAN, "ml", ["a", "b"])
    with pytest.raises(DataError, match="finite samples"):
        plot_paired_violins(np.where(SCAN > 190, np.nan, SCAN), RESCAN, "ml", ["a", "b", "c"])
