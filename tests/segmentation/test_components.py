"""Largest pieces: lungs and specks drawn by hand, scikit-image's labels, and what never changes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import ConfigError
from medjax.segmentation.components import keep_largest

measure = pytest.importorskip("skimage.measure")


def lungs(*sides: str) -> np.ndarray:
    """Two lungs of 60 and 48 voxels, class 1, or one of them, and a heart of 12, class 2."""
    labels = np.zeros((12, 8, 8), np.int32)
    if "left" in sides:
        labels[1:4, 1:5, 1:6] = 1
    if "right" in sides:
        labels[8:11, 1:5, 2:6] = 1
    labels[5:7, 2:5, 2:4] = 2
    return labels


def specks(labels: np.ndarray) -> np.ndarray:
    spoilt = labels.copy()
    spoilt[0, 7, 7] = spoilt[11, 7, 0:2] = 1
    spoilt[6, 7, 7] = 2
    return spoilt


def test_two_lungs_and_a_heart_lose_their_specks():
    clean = lungs("left", "right")
    np.testing.assert_array_equal(keep_largest(specks(clean), {1: 2, 2: 1}), clean)
    np.testing.assert_array_equal(keep_largest(jnp.asarray(specks(clean)), 2), clean)


def test_one_lung_has_no_speck_for_a_second():
    clean = lungs("left")
    np.testing.assert_array_equal(keep_largest(specks(clean), {1: 2, 2: 1}), clean)
    assert (keep_largest(specks(clean), {1: 2}, min_fraction=0.0) == 1).sum() == 62


def test_one_piece_is_one_lung():
    np.testing.assert_array_equal(keep_largest(specks(lungs("left", "right"))), lungs("left"))


def test_classes_that_are_not_named_stay_and_the_labels_given_do_too():
    given = specks(lungs("left", "right"))
    before = given.copy()
    found = keep_largest(given, {1: 1, 3: 1})
    np.testing.assert_array_equal(found == 2, given == 2)
    np.testing.assert_array_equal(given, before)
    assert found.dtype == given.dtype


def test_corners_join_pieces_only_in_full():
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(keep_largest(labels), labels)
    np.testing.assert_array_equal(keep_largest(labels, full_connectivity=False), [[0, 0, 0], [0, 1, 1], [0, 0, 0]])


@given(st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_what_stays_are_scikit_images_largest_pieces(seed, keep, full):
    labels = np.random.default_rng(seed).choice(3, (6, 5, 4), p=[0.7, 0.2, 0.1])
    found = keep_largest(labels, keep, 0.0, full)
    for name in (1, 2):
        pieces = measure.label(labels == name, connectivity=3 if full else 1)
        sizes = sorted(np.bincount(pieces.ravel())[1:], reverse=True)
        assert (found == name).sum() == sum(sizes[:keep])
    assert set(np.unique(np.where(found == labels, 0, found))) == {0}
    np.testing.assert_array_equal(keep_largest(found, keep, 0.0, full), found)


def test_nothing_and_nonsense():
    nothing = np.zeros((3, 3), np.int64)
    np.testing.assert_array_equal(keep_largest(nothing, {1: 2}), nothing)
    for wrong in (0, {1: 0}, {0: 1}):
        with pytest.raises(ConfigError, match=r"keep: .*expected at least 1 component"):
            keep_largest(lungs("left"), wrong)
    with pytest.raises(ConfigError, match=r"min_fraction: 2\.0; expected"):
        keep_largest(nothing, min_fraction=2.0)
