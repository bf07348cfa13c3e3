"""Relaxation, alone and with diffusion: what went in comes out."""

import jax.numpy as jnp
import numpy as np
from scipy import optimize

from medjax.ivim.t2 import t2, t2_ivim


def test_t2_is_scipys():
    echo = np.float32([10, 20, 40, 60, 90, 120])
    s0, time = np.float32([100, 50, 400]), np.float32([45, 120, 80])
    y = (s0 * np.exp(-echo[:, None] / time) + np.random.default_rng(0).normal(size=(6, 3))).astype(np.float32)
    found = np.asarray(t2(jnp.asarray(y), jnp.asarray(echo)))
    for k in range(3):
        best, _ = optimize.curve_fit(lambda t, a, c: a * np.exp(-t / c), echo, y[:, k], (100, 60))
        np.testing.assert_allclose(found[:, k], best, rtol=1e-3)


def test_t2_ivim_parts_blood_from_its_relaxation():
    b = np.float32([0, 20, 50, 100, 200, 400, 600] * 3)
    echo = np.repeat(np.float32([60, 120, 200]), 7)
    truth = np.float32([[800, 0.3, 1.5e-3, 20e-3, 90, 240], [500, 0.15, 1.1e-3, 40e-3, 60, 150]]).T
    s0, f, d, fast, slow_time, fast_time = truth[:, None]
    slow = (1 - f) * np.exp(-b[:, None] * d - echo[:, None] / slow_time)
    y = s0 * (slow + f * np.exp(-b[:, None] * fast - echo[:, None] / fast_time))
    found = np.stack(t2_ivim(jnp.asarray(y), jnp.asarray(b), jnp.asarray(echo), steps=200))
    np.testing.assert_allclose(found, truth, rtol=0.05)
