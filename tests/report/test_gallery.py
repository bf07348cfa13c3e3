"""Small pictures with outlines: as many as asked for, outlines where labels are, equal bytes for equal input."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from medjax.errors import DataError
from medjax.report.figures import COLORS, png
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
        highest = max(axes.get_window_extent().y1 for axes in figure.axes)
        assert highest - 1 <= legend.get_window_extent().y0 and legend.get_window_extent().y1 <= figure.bbox.y1
    outline = figure.axes[0].collections[0].get_edgecolor()[0]
    assert any(np.allclose(outline[:3], to_rgb(line.get_color())) for line in legend.get_lines())


def test_labels_that_touch_have_two_lines_side_by_side():
    labels = np.zeros((1, 16, 16), np.int32)
    labels[:, 4:12, 2:8], labels[:, 4:12, 8:14] = 1, 2
    figure = gallery(np.zeros((1, 16, 16), np.float32), labels, cell=3.0)
    figure.set_dpi(300)
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    across = pixels[int(figure.bbox.height - (box.y0 + box.y1) / 2)]  # the row of pixels through the middle
    near = [np.abs(across - to_rgb(COLORS[number])).max(axis=-1) < 0.2 for number in (0, 1)]
    middle = round((box.x0 + box.x1) / 2)
    assert near[0][middle - 6 : middle + 1].any() and near[1][middle - 1 : middle + 6].any()
    assert all(np.diff(np.flatnonzero(one)).max() > 50 for one in near)  # both ends of both


def test_long_names_go_to_a_second_line_and_keep_their_size():
    names = ["1 · a_rather_long_name_of_a_case · flagged", "2 · b"]
    figure = gallery(IMAGES[:2], LABELS[:2], names, cell=2.2)
    titles = [axes.title for axes in figure.axes]
    assert titles[0].get_text().count("\n") == 1 and titles[0].get_fontsize() == titles[1].get_fontsize()
    figure.canvas.draw()
    assert titles[0].get_window_extent().y1 <= figure.bbox.y1


def test_label_maps_have_a_legend_of_classes():
    classes = Scale("class", "viridis", 0.0, 2.0, classes=("background", "one", "two"))
    figure = image_rows({"truth": LABELS[:1], "image": IMAGES[:1]}, {"truth": classes, "image": Scale("image", "gray")})
    figure.canvas.draw()
    bar = figure.axes[-2]
    boxes = [label.get_window_extent() for label in bar.get_xticklabels()]
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < boxes[2].x0  # of one narrow image, too
    assert [label.get_text() for label in bar.get_xticklabels()] == ["background", "one", "two"]
    assert bar.images[0].get_array().tolist() == [[0, 1, 2]] and bar.images[0].get_clim() == (0, 2)
