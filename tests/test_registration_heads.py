"""Heads that a registration network learns from: deformed, aligned, held-out ones of subjects of their own."""

import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.io.nifti import grid_affine
from medjax.phantoms.heads import deformation, source_voxels
from medjax.tools import registration_heads
from medjax.tools.registration_heads import simulated_heads, without_affine


def test_a_deformation_without_its_affine_map_is_followed_by_it():
    change = deformation(3, strength=2.0)
    affine = grid_affine((6, 7, 5), (20.0,) * 3, (0.0, -18.0, 10.0))
    whole, rest = (source_voxels(one, (6, 7, 5), affine, np.eye(4)) for one in (change, without_affine(change)))
    middle = change.center_mm.reshape(3, 1, 1, 1)
    moved = np.tensordot(change.matrix, rest - middle, 1) + middle + change.shift_mm.reshape(3, 1, 1, 1)
    np.testing.assert_allclose(moved, whole, atol=1e-3)
    assert np.abs(rest - whole).max() > 2  # mm: there was something to take away


def test_simulated_heads(monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.setattr(registration_heads, "ANATOMY_MM", 4.0)
    heads = simulated_heads(6, shape=(20, 24, 20), voxel_mm=9.0)
    assert heads.images.shape == (6, 20, 24, 20) and heads.images.dtype == np.uint8 and heads.voxel_mm == 9
    assert set(np.unique(heads.labels)) == {0, 1, 2, 3}
    # two of one subject and four of others, of which no two are alike; all are aligned
    shares = np.array([[np.mean(one == other) for other in heads.labels] for one in heads.labels])
    apart = shares[~np.eye(6, dtype=bool)]
    assert apart.max() < 0.99 and apart.min() > 0.6
    with pytest.raises(ConfigError, match="heads: 5; expected 6 or more, 4 of them held out"):
        simulated_heads(5)
