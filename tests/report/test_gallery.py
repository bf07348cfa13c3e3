"""Small pictures with outlines: as many as asked for, outlines where labels are, equal bytes for equal input."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.gallery import gallery, image_rows
from medjax.report.slices import Scale

IMAGES = np.random.default_rng(0).uniform(size=(5, 16, 12)).astype(np.float32)
LABELS = np.zeros((5, 16, 12), np.int32)
LABELS[:, 4:9, 3:8] = 1


def test_every_image_has_a_place_a_name_and_an_outline():
    figure = gallery(IMAGES, LABELS, [f"image {k}" for k in range(5)], columns=3)
    assert [axes.get_title() for axes in figure.axes] == [f"image {k}" for k in range(5)]
    assert all(axes.collections for axes in figure.axes)
    lefts = [round(axes.get_position().x0, 3) for axes in figure.axes]
    assert lefts[0] == lefts[3] and len(set(lefts)) == 3


def test_no_outline_without_a_label_and_equal_bytes():
    assert not any(axes.collections for axes in gallery(IMAGES, 0 * LABELS).axes)
    assert png(gallery(IMAGES, LABELS)) == png(gallery(IMAGES, LABELS))


def test_counts_must_agree():
    with pytest.raises(DataError, match="expected the same number of each"):
        gallery(IMAGES, LABELS, ["one"])
    with pytest.raises(DataError, match="at least one"):
        gallery(IMAGES[:0])


def test_rows_show_the_same_image_in_a_column_on_the_scale_of_the_row():
    gray, classes = Scale("image", "gray", -1.0, 2.0), Scale("class", "viridis", 0.0, 2.0)
    figure = image_rows(
        {"image": IMAGES, "truth": LABELS, "prediction": 2 * LABELS},
        {"image": gray, "truth": classes, "prediction": classes},
        note="Drawn",
    )
    pictures, bars = figure.axes[:15], figure.axes[15:]
    assert len(bars) == 2 and [bar.get_title(loc="left") for bar in bars] == ["image", "class"]
    for k in range(5):
        boxes = [pictures[5 * row + k].get_position() for row in range(3)]
        assert len({round(box.x0, 3) for box in boxes}) == 1 and boxes[0].y0 > boxes[1].y1 > boxes[1].y0 > boxes[2].y1
        np.testing.assert_array_equal(pictures[k].images[0].get_array(), IMAGES[k])
    assert pictures[0].images[0].get_clim() == (-1, 2) and pictures[-1].images[0].get_clim() == (0, 2)
    assert [text.get_text() for text in figure.texts] == ["image", "truth", "prediction", "Drawn"]


def test_rows_must_be_of_one_shape():
    for rows in ({}, {"image": IMAGES[:0]}, {"image": IMAGES, "truth": LABELS[:4]}):
        with pytest.raises(DataError, match="expected one shape, of at least one image"):
            image_rows(rows, dict.fromkeys(rows, Scale()))


def test_images_keep_their_aspect_and_rows_are_as_high_as_they():
    for aspect in (0.5, 1.0, 2.0):
        figure = gallery(IMAGES, LABELS, columns=3, aspects=[aspect] * 5, classes=["one", "two"])
        figure.canvas.draw()
        box = figure.axes[0].get_window_extent()  # after the aspect was applied
        assert np.isclose(box.height / box.width, aspect * IMAGES.shape[1] / IMAGES.shape[2], rtol=0.02)
        [legend] = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
        lowest = min(axes.get_window_extent().y0 for axes in figure.axes)
        assert legend.get_window_extent().y0 >= 0 and legend.get_window_extent().y1 <= lowest + 1
    outline = figure.axes[0].collections[0].get_edgecolor()[0]
    assert any(np.allclose(outline[:3], to_rgb(line.get_color())) for line in legend.get_lines())
