"""The region of interest of a cine lies about the heart."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.phantoms.cine import PROTOCOLS, cine, random_heart
from medjax.segmentation.cine_roi import heart_center, square_box


@pytest.mark.parametrize("protocol", ["A", "C"])
def test_what_moves_is_the_heart(protocol):
    """The middle between the ends of the labels, which a patch of 120 mm about it holds."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scan = cine(rng, random_heart(rng), PROTOCOLS[protocol], "ed_es")
        heart = np.argwhere(scan.labels[..., scan.ed].any(axis=2))
        away = heart_center(scan.image, scan.spacing) - (heart.min(0) + heart.max(0)) / 2
        assert np.linalg.norm(away * scan.spacing[:2]) < 8  # mm


def test_a_disk_that_shrinks_is_found_to_a_pixel_whatever_the_voxels():
    x, y = np.meshgrid(np.arange(60) * 1.5, np.arange(40) * 2.0, indexing="ij")
    distance = np.hypot(x - 48.0, y - 30.0)
    frames = np.stack([(distance < radius).astype(float) for radius in (24, 15)], axis=-1)[:, :, None]
    np.testing.assert_allclose(heart_center(frames, (1.5, 2.0)), (32, 15), atol=0.5)


def test_the_box_is_moved_inside_and_is_whole_where_the_image_is_small():
    assert square_box((100, 100), np.array([50.0, 3.0]), (2.0, 2.0), 40) == (slice(40, 60), slice(0, 20))
    assert square_box((100, 100), np.array([98.0, 50.0]), (2.0, 1.0), 40) == (slice(80, 100), slice(30, 70))
    assert square_box((10, 100), np.array([5.0, 50.0]), (2.0, 2.0), 40)[0] == slice(0, 10)


def test_frames_that_do_not_move_are_refused():
    frames = np.ones((20, 20, 2, 3))
    with pytest.raises(DataError, match="nothing moves"):
        heart_center(frames, (1.5, 1.5))
    with pytest.raises(DataError, match="1; expected two or more"):
        heart_center(frames[..., :1], (1.5, 1.5))
