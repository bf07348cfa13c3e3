"""Labels and predictions side by side: which picture is whose, and the middle slice of volumes."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.label_pairs import label_pairs

DRAW = np.random.default_rng(0)
IMAGES = DRAW.uniform(size=(3, 8, 6, 5)).astype(np.float32)
LABELS, PREDICTION = np.zeros((2, 3, 8, 6, 5), np.int32)
LABELS[:, 2:5, 2:4], PREDICTION[:, 2:5, 2:4] = 1, 2


@pytest.mark.parametrize("slices", [slice(None), 2])
def test_each_image_comes_twice_with_its_label_first(slices):
    figure = label_pairs(IMAGES[..., slices], LABELS[..., slices], PREDICTION[..., slices], ["a" * 30, "b", "c"])
    assert [axes.get_title() for axes in figure.axes] == ["a" * 30, "network", "b", "network", "c", "network"]
    for k, axes in enumerate(figure.axes):
        np.testing.assert_array_equal(axes.images[0].get_array(), IMAGES[k // 2, ..., 2])
    colors = [axes.collections[0].get_edgecolor()[0] for axes in figure.axes]
    assert (colors[0] == colors[2]).all() and (colors[0] != colors[1]).any()


def test_names_are_as_many_as_images():
    with pytest.raises(DataError, match="expected the same number"):
        label_pairs(IMAGES, LABELS, PREDICTION, ["a"])


def test_pairs_have_the_shape_of_their_files_and_a_legend():
    voxels = np.array([[1.0, 2.0, 1.0]] * 3)
    figure = label_pairs(IMAGES, LABELS, PREDICTION, ["a", "b", "c"], voxels)
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert np.isclose(box.height / box.width, 8 / (6 * 2), rtol=0.02)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["label 1", "label 2"]
