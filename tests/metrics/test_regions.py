"""Statistics of regions against NumPy, dilated and eroded masks against SciPy's morphology."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medjax.errors import DataError
from medjax.metrics.regions import boundary_sensitivity, dilate, region_statistics


def maps(shape=(12, 11, 8), seed=0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    ranges = {"f": (0, 1), "d": (1e-3, 3e-3), "d_star": (1e-2, 0.1)}
    return {name: draw.uniform(*ends, shape).astype(np.float32) for name, ends in ranges.items()}


def ball(shape=(12, 11, 8), spacing=(2.0, 2.0, 4.0), radius=7.0):
    places = (np.indices(shape).T - (np.array(shape) - 1) / 2) * spacing
    return (np.linalg.norm(places, axis=-1) <= radius).T


# ── regions ──


def test_statistics_are_numpys():
    every, mask = maps(), ball()
    found = region_statistics(every, mask)
    assert found.voxels == mask.sum()
    assert list(found.maps) == list(every)
    for name, values in every.items():
        inside = np.float64(values[mask])
        low, high = np.percentile(inside, [25, 75])
        expected = [np.median(inside), inside.mean(), inside.std(ddof=1), high - low]
        np.testing.assert_allclose(found.maps[name], expected, rtol=1e-6)


def test_only_usable_voxels_are_read():
    every, mask = maps(), ball()
    usable = every["f"] < 0.5
    found = region_statistics(every, mask, usable)
    assert found.voxels == (mask & usable).sum() and found.maps["f"].mean == pytest.approx(
        every["f"][mask & usable].mean()
    )
    every["d"][tuple(np.argwhere(mask)[0])] = np.nan  # a fit that failed
    assert region_statistics(every, mask).voxels == mask.sum() - 1


def test_one_voxel_has_no_spread():
    found = region_statistics({"f": np.array([0.3])}, np.array([True]))
    assert found == (1, {"f": (0.3, 0.3, 0, 0)})


# ── outlines ──


@pytest.mark.parametrize("distance", [2.0, 3.0, 4.5, 6.1])
def test_dilation_and_erosion_are_by_an_ellipsoid_of_voxels(distance):
    mask, spacing = ball(), (2.0, 2.0, 4.0)
    reach = [int(distance // step) for step in spacing]
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1) * spacing
    element = np.linalg.norm(offsets, axis=-1) <= distance
    np.testing.assert_array_equal(dilate(mask, spacing, distance), ndimage.binary_dilation(mask, element))
    np.testing.assert_array_equal(
        dilate(mask, spacing, -distance), ndimage.binary_erosion(mask, element, border_value=1)
    )


@given(distance=st.floats(0.1, 9), seed=st.integers(0, 99))
def test_erosion_is_dilation_of_what_is_outside(distance, seed):
    mask = np.random.default_rng(seed).random((7, 6, 5)) < 0.5
    np.testing.assert_array_equal(dilate(mask, (1.5, 2.0, 3.0), -distance), ~dilate(~mask, (1.5, 2.0, 3.0), distance))
    assert (dilate(mask, (1.5, 2.0, 3.0), 0.1) == mask).all()


def test_sensitivity_reads_dilated_and_eroded_masks():
    every, mask, spacing = maps(), ball(), (2.0, 2.0, 4.0)
    found = boundary_sensitivity(every, mask, spacing)
    assert list(found) == [-2, -1, 0, 1, 2]
    assert found[0.0] == region_statistics(every, mask) == found[1.0] == found[-1.0]  # less than a voxel
    for distance in (-2.0, 2.0):
        assert found[distance] == region_statistics(every, dilate(mask, spacing, distance))
    assert found[-2.0].voxels < found[0.0].voxels < found[2.0].voxels


def test_sensitivity_shows_what_is_around():
    """An organ of f 0.4 in surroundings of 0.1: too large a mask reads less, too small a one the same."""
    mask = ball()
    every = {"f": np.where(mask, 0.4, 0.1)}
    found = boundary_sensitivity(every, mask, (2.0, 2.0, 4.0), (-2, 0, 2, 6))
    means = [found[mm].maps["f"].mean for mm in (-2, 0, 2, 6)]
    assert means[0] == pytest.approx(0.4) == means[1] and means[1] > means[2] > means[3] > 0.1
    fraction = mask.sum() / found[2].voxels
    assert means[2] == pytest.approx(0.4 * fraction + 0.1 * (1 - fraction))


def test_a_mask_may_vanish():
    found = boundary_sensitivity(maps(), ball(), (2.0, 2.0, 4.0), (-30.0, 0.0))
    assert found[-30.0].voxels == 0 and np.isnan(found[-30.0].maps["f"]).all() and found[0.0].voxels > 0


# ── bad input ──


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_statistics(maps(), ball() & False), "none of them usable"),
        (lambda: region_statistics(maps() | {"f": np.full((12, 11, 8), np.nan)}, ball()), "none of them usable"),
        (lambda: region_statistics(maps() | {"f": np.full((12, 11, 8), np.nan)}, ball(), ball()), "not finite"),
        (lambda: region_statistics(maps(), ball((5, 5, 5))), "mask: shape"),
        (lambda: boundary_sensitivity(maps(), ball() & False, (1.0, 1.0, 1.0)), "at least one voxel"),
        (lambda: boundary_sensitivity(maps(), ball(), (1.0, 1.0)), "spacing"),
        (lambda: boundary_sensitivity(maps(), ball(), (1.0, 0.0, 1.0)), "spacing"),
        (lambda: region_statistics({}, ball()), "maps: none"),
        (lambda: region_statistics(maps() | {"b": np.ones((5, 5, 5))}, ball()), "expected one shape"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
