"""Samplers with the exact score of Gaussian data reproduce its mean and covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import sampler
from medjax.diffusion.sde import ve, vp
from medjax.errors import ConfigError

MEAN = np.array([1.0, -0.5])
COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])


def exact_score(sde):
    mean, covariance = jnp.asarray(MEAN), jnp.asarray(COVARIANCE)

    def score(x, t):
        gamma, nu = sde.marginal(t)
        precision = jnp.linalg.inv(gamma**2 * covariance + nu**2 * jnp.eye(2))
        return -(x - gamma * mean[None]) @ precision

    return score


def drawn(sde, move, steps, corrector_snr=None, number=20_000):
    """Many samples, from the exact marginal at the first time."""
    estimator = sampler.unconditional(sde, exact_score(sde))
    corrector = None if corrector_snr is None else sampler.langevin(estimator, sde, corrector_snr)
    times = sampler.time_grid(steps, 1.0, 1e-3)
    key = jax.random.key(0)
    clean = jax.random.multivariate_normal(key, jnp.asarray(MEAN), jnp.asarray(COVARIANCE), (number,))
    state = sampler.init(jax.random.fold_in(key, 1), sde, (number, 2), 1.0, clean)

    def body(state, _):
        return sampler.step(key, state, estimator, sde, times, move, corrector)[0], None

    return np.asarray(jax.jit(lambda state: jax.lax.scan(body, state, length=steps)[0])(state).denoised)


CASES = {
    "Euler–Maruyama": (vp(), sampler.euler_maruyama, 500, None),
    "predictor–corrector": (vp(), sampler.euler_maruyama, 200, 0.1),
    "DDIM η = 0": (vp(), sampler.ddim(0.0), 100, None),
    "DDIM η = 1": (vp(), sampler.ddim(1.0), 400, None),
    "Euler–Maruyama, VE": (ve(0.01, 40.0), sampler.euler_maruyama, 1000, None),
    "DDIM η = 0, VE": (ve(0.01, 40.0), sampler.ddim(0.0), 300, None),
    "DDIM η = 1, VE": (ve(0.01, 40.0), sampler.ddim(1.0), 800, None),
}


@pytest.mark.parametrize("name", CASES)
def test_prior_is_reproduced(name):
    samples = drawn(*CASES[name])
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), COVARIANCE, atol=0.04)


def test_ddim_without_noise_is_deterministic():
    sde = vp()
    estimator = sampler.unconditional(sde, exact_score(sde))
    state = sampler.init(jax.random.key(0), sde, (4, 2))
    times = sampler.time_grid(20)
    ends = [sampler.step(jax.random.key(k), state, estimator, sde, times, sampler.ddim(0.0))[0].sample for k in (1, 2)]
    np.testing.assert_array_equal(*ends)
    ends = [sampler.step(jax.random.key(k), state, estimator, sde, times, sampler.ddim(1.0))[0].sample for k in (1, 2)]
    assert not np.allclose(*ends)


def test_ddim_with_full_noise_is_ancestral_sampling():
    """η = 1: the variance added is that of the true posterior q(x(t') | x(t), x(0))."""
    sde, t, after = vp(), jnp.asarray(0.5), jnp.asarray(0.4)
    (gamma, nu), (gamma_, nu_) = sde.marginal(t), sde.marginal(after)
    variance = nu_**2 / nu**2 * (nu**2 - (gamma / gamma_) ** 2 * nu_**2)
    zero = jnp.zeros(200_000)
    x = sampler.ddim(1.0)(sde, jax.random.key(0), zero, sampler.Estimate(zero, zero), t, after)
    np.testing.assert_allclose(x.var(), variance, rtol=0.02)


def test_a_loop_from_python_is_the_scan():
    sde, times, key = vp(), sampler.time_grid(7), jax.random.key(3)
    estimator = sampler.unconditional(sde, exact_score(sde))
    scanned, _ = sampler.run(key, estimator, sde, times, (5, 2), sampler.ddim(0.5))
    step = jax.jit(lambda key, state: sampler.step(key, state, estimator, sde, times, sampler.ddim(0.5)))
    looped, _ = sampler.loop(key, step, sampler.init(jax.random.fold_in(key, 0), sde, (5, 2), times[0]), 7)
    np.testing.assert_allclose(scanned.denoised, looped.denoised, rtol=1e-5)
    assert int(looped.index) == 7


@pytest.mark.parametrize(("steps", "first", "last"), [(0, 1.0, 0.1), (5, 0.1, 0.5), (5, 1.5, 0.1), (5, 1.0, 0.0)])
def test_times_out_of_order_are_refused(steps, first, last):
    with pytest.raises(ConfigError, match="first > last"):
        sampler.time_grid(steps, first, last)
