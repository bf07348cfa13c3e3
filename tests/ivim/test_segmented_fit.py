"""The two-step fit and the ADC, against NumPy and SciPy."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from medjax.errors import DataError
from medjax.ivim.adc import adc
from medjax.ivim.segmented_fit import log_linear, segmented_fit
from medjax.ivim.signal import Ivim, signal

B = np.array([0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800], np.float32)


def voxels(number: int, snr: float, fast: float = 80e-3) -> tuple[Ivim, np.ndarray]:
    draw = np.random.default_rng(0)
    truth = Ivim(*(draw.uniform(a, b, number).astype(np.float32) for a, b in ((9, 11), (0.1, 0.4), (1e-3, 2e-3))), None)
    truth = truth._replace(d_star=np.full(number, fast, np.float32))
    clean = np.asarray(signal(truth, B))
    return truth, (clean + 10 * draw.normal(size=clean.shape) / snr).astype(np.float32)


def test_exact_where_the_fast_decay_is_over():
    truth, y = voxels(40, np.inf)
    found = segmented_fit(jnp.asarray(y), B).parameters
    np.testing.assert_allclose(found.f, truth.f, atol=1e-4)
    np.testing.assert_allclose(found.d, truth.d, rtol=1e-3)
    np.testing.assert_allclose(found.d_star, truth.d_star, rtol=5e-3)
    np.testing.assert_allclose(found.s0, truth.s0, rtol=1e-5)
    excess = segmented_fit(jnp.asarray(y), B, convention="excess").parameters
    np.testing.assert_allclose(excess.d_star, found.d_star - found.d, rtol=1e-5)


def test_a_slow_perfusion_leaks_into_diffusion():
    truth, y = voxels(40, np.inf, fast=8e-3)
    assert (np.asarray(segmented_fit(jnp.asarray(y), B).parameters.d) > 1.02 * truth.d).all()


def test_the_line_is_numpys_after_its_weights_have_settled():
    _, y = voxels(5, 30.0)
    y, b = y[9:], B[9:] / 1000
    slope, intercept = log_linear(jnp.asarray(y), b)
    for k in range(5):
        weight = y[:, k] ** 2
        for _ in range(50):
            line = np.polyfit(b, np.log(y[:, k]), 1, w=np.sqrt(weight))
            weight = np.exp(2 * np.polyval(line, b))
        np.testing.assert_allclose([slope[k], intercept[k]], line, rtol=2e-3)


def test_adc_is_scipys():
    _, y = voxels(6, 20.0)
    found = adc(jnp.asarray(y), B)
    for k in range(6):
        best, _ = optimize.curve_fit(lambda b, s, d: s * np.exp(-b * d / 1000), B, y[:, k], (10, 1))
        np.testing.assert_allclose([found.s0[k], 1000 * found.adc[k]], best, rtol=1e-3)


def test_weights_count_measurements():
    """A frame of weight 3 is that frame three times, one of weight 0 is not there."""
    _, y = voxels(6, 20.0)
    weights = np.ones(16, np.float32)
    weights[4], weights[9] = 3, 0
    times = np.repeat(np.arange(16), weights.astype(int))
    for function in (adc, segmented_fit):
        weighted = function(jnp.asarray(y), B, weights=jnp.asarray(weights))
        repeated = function(jnp.asarray(y[times]), B[times])
        chex.assert_trees_all_close(weighted, repeated, rtol=2e-3)


def test_silent_and_spoilt_voxels_stay_finite():
    _, y = voxels(4, 20.0)
    y[:, 0], y[3, 1], y[:, 2] = 0, np.nan, -y[:, 2]
    for maps in (segmented_fit(jnp.asarray(y), B).parameters, adc(jnp.asarray(y), B)):
        assert all(np.isfinite(value).all() for value in maps)
    assert float(adc(jnp.asarray(y), B).adc[0]) == 0


def test_b_0_is_not_needed():
    truth, y = voxels(40, np.inf)
    found = segmented_fit(jnp.asarray(y[1:]), B[1:]).parameters
    np.testing.assert_allclose(found.f, truth.f, atol=0.01)


@pytest.mark.parametrize("kept", [B[8:], B[:10]])
def test_too_few_b_values_are_refused(kept):
    with pytest.raises(DataError, match="a segmented fit needs two of each"):
        segmented_fit(jnp.ones((len(kept), 3)), kept)
