"""Michelograms: the numbers of real scanners, and every pair of rings in one plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import ConfigError
from medjax.io.siemens_listmode import sinogram_rings
from medjax.pet.michelogram import Michelogram, Segment, michelogram, oblique_lors


def test_span_11_of_the_mmr():
    """837 planes in 11 segments, as its sinograms have."""
    planes = michelogram(64, 11, 60)
    assert planes.planes_per_segment == (127, 115, 115, 93, 93, 71, 71, 49, 49, 27, 27) and planes.planes == 837
    assert [segment.ring_difference for segment in planes.segments][:5] == [0, 11, -11, 22, -22]
    assert planes.ring_pairs.sum() == 4084 and planes.ring_pairs.max() == 6


def test_span_1_is_the_order_of_siemens_list_mode():
    planes = michelogram(64, 1, 60)
    sums, distances = sinogram_rings(64, 60)
    np.testing.assert_array_equal(np.concatenate(planes.positions), sums)
    np.testing.assert_array_equal(np.abs(np.diff(planes.plane_rings, axis=1)[:, 0]), distances)
    assert planes.planes == 4084 and np.all(planes.ring_pairs == 1)


@given(st.integers(1, 9), st.sampled_from([1, 3, 5, 7]), st.data())
def test_each_pair_of_rings_is_in_the_plane_of_its_band(rings: int, span: int, data: st.DataObject):
    largest = data.draw(st.integers(0, rings - 1))
    planes = michelogram(rings, span, largest)
    first, second = np.indices((rings, rings))
    held = planes.plane_of_pair >= 0
    np.testing.assert_array_equal(held, np.abs(second - first) <= largest)
    positions = np.concatenate(planes.positions)
    np.testing.assert_array_equal(positions[planes.plane_of_pair[held]], (first + second)[held])
    assert planes.ring_pairs.sum() == held.sum() and planes.ring_pairs.min() >= 1
    np.testing.assert_array_equal(planes.mirrored[planes.plane_of_pair[held]], planes.plane_of_pair.T[held])
    np.testing.assert_allclose(planes.plane_rings.sum(axis=1), positions)


def test_end_points_lie_on_their_rings():
    ends = oblique_lors(np.zeros((2, 3, 2, 2)), michelogram(4, 1).plane_rings, 5.0, 4)
    assert ends.shape == (2, 3, 16, 2, 3)
    np.testing.assert_allclose(ends[0, 0, :4, 0, 2], [-7.5, -2.5, 2.5, 7.5])
    np.testing.assert_allclose(ends[1, 2, 4, :, 2], [-7.5, -2.5])  # segment +1: from ring 0 to ring 1


@pytest.mark.parametrize(
    ("rings", "span", "largest", "message"),
    [
        (8, 2, 3, "span 2; expected an odd number"),
        (8, 0, 3, "span 0"),
        (8, 3, 8, "maximum ring difference 8; .* 0 to 7"),
    ],
)
def test_spans_that_cannot_be(rings: int, span: int, largest: int, message: str):
    with pytest.raises(ConfigError, match=message):
        michelogram(rings, span, largest)


def test_segments_that_cannot_be():
    for segments in ((), (Segment(0, 2), Segment(2, 3)), (Segment(9, 9),), (Segment(1, -1),)):
        with pytest.raises(ConfigError, match="segment"):
            Michelogram(8, segments)
