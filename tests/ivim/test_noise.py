"""Noise models against SciPy's densities, and what they are for: low SNR and spoilt frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import ive

from medjax.errors import ConfigError
from medjax.ivim.fit import fit
from medjax.ivim.noise import (
    frame_misfit,
    noise_model,
    rician,
    sigma_of_background,
    sigma_of_region,
    sigma_of_residuals,
    student,
)
from medjax.ivim.signal import UM2_PER_MS, Ivim, signal

B = np.array([0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800], np.float32)
LUNG = Ivim(*(np.float32(v) for v in (1.0, 0.32, 1.7e-3, 22e-3)))


def many(number: int) -> Ivim:
    return Ivim(*(np.full(number, v, np.float32) for v in LUNG))


def magnitudes(number: int, snr: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    clean = np.asarray(signal(many(number), B))
    real, imaginary = draw.normal(size=(2, *clean.shape)) / snr
    return np.hypot(clean + real, imaginary).astype(np.float32)


def test_losses_are_densities():
    """Differences of 2σ² (−log p) between predictions, against scipy.stats."""
    y, m, other, sigma = *(jnp.array(v) for v in ([0.3, 1.0, 2.2], [0.2, 1.4, 2.0], [1.0, 0.5, 0.1])), 0.4
    for loss, density in (
        (rician(sigma).loss, lambda m: stats.rice(m / sigma, scale=sigma).logpdf(y)),
        (student(sigma, 4.0).loss, lambda m: stats.t(4.0, m, sigma).logpdf(y)),
    ):
        factor = 2 * sigma**2
        np.testing.assert_allclose(loss(y, m) - loss(y, other), factor * (density(other) - density(m)), rtol=1e-4)


@pytest.mark.parametrize("kind", ["gaussian", "rician", "student"])
def test_the_stand_in_touches_and_lies_above(kind):
    noise = noise_model(kind, 0.5)
    y, m = jnp.linspace(0.05, 3, 7)[:, None], jnp.linspace(0.1, 2.5, 9)[None]
    y, m = jnp.broadcast_arrays(y, m)
    target, weight = noise.surrogate(y, m)
    slope = jax.vmap(jax.vmap(jax.grad(noise.loss, argnums=1)))(y, m)
    np.testing.assert_allclose(2 * weight * (m - target), slope, atol=2e-5)
    for other in (m * 0.5, m + 0.7):
        rise = weight * ((target - other) ** 2 - (target - m) ** 2)
        assert (rise - (noise.loss(y, other) - noise.loss(y, m)) > -1e-5).all()


def test_rician_fits_are_scipys_and_less_biased():
    sigma = 0.1
    y = magnitudes(4, 10.0)
    found = fit(jnp.asarray(y), jnp.asarray(B), noise="rician", sigma=sigma, steps=60).parameters

    def nll(p, k):
        m = p[0] * ((1 - p[1]) * np.exp(-B * p[2] * UM2_PER_MS) + p[1] * np.exp(-B * p[3] * UM2_PER_MS))
        z = y[:, k] * m / sigma**2
        return float(np.sum((y[:, k] - m) ** 2 / (2 * sigma**2) - np.log(ive(0, z))))

    for k in range(4):
        ours = nll([float(p[k]) / (1 if j < 2 else UM2_PER_MS) for j, p in enumerate(found)], k)
        starts = [(1, f, d, s) for f in (0.2, 0.5) for d, s in ((1.0, 40.0), (2.0, 10.0))]
        bounds = [(0, 9), (0, 1), (0.1, 6), (3, 500)]
        theirs = min(optimize.minimize(nll, x, args=(k,), bounds=bounds, method="L-BFGS-B").fun for x in starts)
        assert ours < theirs + 1e-3 * max(theirs, 1)
    y = jnp.asarray(magnitudes(2048, 10.0))
    plain = np.median(fit(y, jnp.asarray(B)).parameters.d)
    better = np.median(fit(y, jnp.asarray(B), noise="rician", sigma=sigma, steps=30).parameters.d)
    assert plain < 0.87 * 1.7e-3 and abs(better - 1.7e-3) < 0.6 * abs(plain - 1.7e-3)


def test_a_spoilt_frame_counts_little_and_is_named():
    clean = np.asarray(signal(many(500), B))
    y = (clean + np.random.default_rng(0).normal(size=clean.shape) / 50).astype(np.float32)
    y[9] *= 0.5  # b = 200
    plain = fit(jnp.asarray(y), jnp.asarray(B)).parameters
    robust = fit(jnp.asarray(y), jnp.asarray(B), noise="student", sigma=0.02, steps=40).parameters
    for name, worst in (("f", 0.1), ("d", 0.05)):
        truth = float(getattr(LUNG, name))
        off = [abs(float(np.median(getattr(maps, name))) / truth - 1) for maps in (plain, robust)]
        assert off[1] < worst and off[1] < 0.3 * off[0], name
    said = frame_misfit(y, signal(robust, B), 0.02)
    assert said.misfit.argmax() == said.outlier_fraction.argmax() == said.weight.argmin() == 9
    assert said.outlier_fraction[9] > 0.9 and np.delete(said.outlier_fraction, 9).max() < 0.05


@pytest.mark.parametrize("noise", ["rician", "student"])
def test_a_mean_of_four_has_half_the_noise(noise):
    """Four measurements a frame, of σ each, are as one of σ / 2."""
    y, b = jnp.asarray(magnitudes(50, 12.0)), jnp.asarray(B)
    four = fit(y, b, noise=noise, sigma=0.08, weights=jnp.full(16, 4.0), steps=60)
    one = fit(y, b, noise=noise, sigma=0.04, steps=60)
    np.testing.assert_allclose(four.parameters.d, one.parameters.d, rtol=1e-3)
    np.testing.assert_allclose(four.cost, 4 * one.cost, rtol=1e-3)


def test_sigma_comes_from_residuals_or_air():
    y = np.asarray(signal(many(4096), B)) + np.random.default_rng(1).normal(size=(16, 4096)) / 50
    found = fit(jnp.asarray(y, jnp.float32), jnp.asarray(B), steps=20)
    estimates = np.asarray(sigma_of_residuals(found.cost, 16))
    assert np.sqrt(np.mean(estimates**2)) == pytest.approx(0.02, rel=0.03)
    assert sigma_of_region(estimates, 12) == pytest.approx(0.02, rel=0.01) and np.median(estimates) < 0.0197
    real, imaginary = np.random.default_rng(2).normal(size=(2, 20_000)) * 7
    assert sigma_of_background(np.hypot(real, imaginary)) == pytest.approx(7, rel=0.02)
    with pytest.raises(ConfigError, match="4 measurements, 4 parameters"):
        sigma_of_residuals(found.cost, 4)
    with pytest.raises(ConfigError, match=r"expected 1.06, of air alone"):
        sigma_of_background(np.concatenate([np.hypot(real, imaginary), np.full(20_000, 30.0)]))
    with pytest.raises(ConfigError, match="most magnitudes are 0"):
        sigma_of_background(np.zeros(9))
