"""Voxels that help each other: closer to the truth where each says little, unchanged where it says much."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.ivim.fit import fit
from medjax.ivim.hierarchical import hierarchical_fit
from medjax.ivim.signal import Ivim, signal

B = np.array([0, 10, 20, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)


def region(snr: float, number: int = 1500) -> tuple[Ivim, jnp.ndarray]:
    draw = np.random.default_rng(0)
    f = 1 / (1 + np.exp(-(np.log(0.3 / 0.7) + 0.25 * draw.normal(size=number))))
    d, fast = (middle * np.exp(0.15 * draw.normal(size=number)) for middle in (1.7e-3, 22e-3))
    truth = Ivim(*(np.float32(p) for p in (np.full(number, 100.0), f, d, fast)))
    clean = np.asarray(signal(truth, B))
    return truth, jnp.asarray(clean + 100 / snr * draw.normal(size=clean.shape), jnp.float32)


def test_errors_shrink_where_voxels_say_little():
    truth, y = region(20.0)
    single = fit(y, jnp.asarray(B)).parameters
    together = hierarchical_fit(y, B, single, 5.0)
    for name, share in (("f", 0.6), ("d", 0.7), ("d_star", 0.4)):
        errors = [
            np.sqrt(np.mean((np.log(getattr(maps, name) / getattr(truth, name))) ** 2))
            for maps in (single._replace(f=jnp.maximum(single.f, 0.01)), together.parameters)
        ]
        assert errors[1] < share * errors[0], (name, errors)
    assert float(together.mean[0]) == pytest.approx(np.log(0.3 / 0.7), abs=0.1)
    assert np.exp(float(together.mean[1])) == pytest.approx(1.7, rel=0.05)
    assert float(jnp.sqrt(together.covariance[1, 1])) == pytest.approx(0.15, abs=0.08)


def test_clear_voxels_stay_where_they_are():
    _, y = region(2000.0, 100)
    single = fit(y, jnp.asarray(B), steps=40).parameters
    together = hierarchical_fit(y, B, single, 0.05).parameters
    np.testing.assert_allclose(together.f, single.f, atol=0.005)
    np.testing.assert_allclose(together.d, single.d, rtol=0.01)


def test_a_region_needs_voxels():
    _, y = region(20.0, 8)
    with pytest.raises(DataError, match="7 voxels"):
        hierarchical_fit(y[:, :7], B, Ivim(*(p[:7] for p in fit(y, jnp.asarray(B)).parameters)), 5.0)
