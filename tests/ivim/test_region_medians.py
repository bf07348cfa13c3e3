"""Regions are read as NumPy's median, and as the signal of voxels that are all the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.ivim.regions import fit_mean_signal, region_medians
from medjax.ivim.signal import Ivim, signal

B = np.array([0.0, 10, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)
DRAW = np.random.default_rng(0)
MAPS = Ivim(*(DRAW.uniform(low, 2 * low, (4, 5, 3)) for low in (100.0, 0.2, 1e-3, 2e-2)))


def test_medians_are_those_of_the_voxels_inside():
    mask = DRAW.uniform(size=(4, 5, 3)) < 0.5
    found = region_medians(MAPS, mask)
    expected = [np.median(values[mask]) for values in (*MAPS[1:], MAPS.f * MAPS.d_star)]
    assert list(found) == ["f", "d", "d_star", "f_d_star"]
    np.testing.assert_allclose(list(found.values()), expected)


def test_the_mean_of_equal_decays_tells_their_parameters():
    """S0 may differ from voxel to voxel; what lies outside does not count."""
    equal = Ivim(jnp.asarray(MAPS.s0), *(jnp.full(MAPS.s0.shape, value) for value in (0.3, 1.5e-3, 20e-3)))
    signals, mask = np.asarray(signal(equal, B)), np.zeros((4, 5, 3), bool)
    mask[1:3, 2:4] = True
    found = fit_mean_signal(np.where(mask, signals, 7.0), B, mask)
    np.testing.assert_allclose(list(found.values()), [0.3, 1.5e-3, 20e-3, 6e-3], rtol=2e-3)


def test_an_empty_region_is_unknown_and_a_wrong_one_refused():
    empty = np.zeros((4, 5, 3), bool)
    assert np.isnan(list(region_medians(MAPS, empty).values())).all()
    assert np.isnan(list(fit_mean_signal(np.ones((10, 4, 5, 3), np.float32), B, empty).values())).all()
    with pytest.raises(DataError, match="shape"):
        region_medians(MAPS, np.ones((4, 5), bool))
