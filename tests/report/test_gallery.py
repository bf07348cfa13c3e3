"""Small pictures with outlines: as many as asked for, outlines where labels are, equal bytes for equal input."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.report.figures import png
from medjax.report.gallery import gallery

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
