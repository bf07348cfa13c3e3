"""Diffusions against closed forms and against each other's definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.sde import (
    Sde,
    coefficients,
    noise_from_x0,
    sample_prior,
    score_from_x0,
    time_of_sigma,
    tweedie,
    ve,
    vp,
)

TIMES = (1e-3, 0.1, 0.5, 1.0)


@pytest.mark.parametrize("t", TIMES)
def test_vp_is_the_published_one(t):
    gamma, nu = vp(0.1, 10.0).marginal(t)
    expected = np.exp(-(t**2) * 9.9 / 4 - 0.1 * t / 2)
    np.testing.assert_allclose(gamma, expected, rtol=1e-6)
    np.testing.assert_allclose(nu, np.sqrt(1 - expected**2), rtol=1e-5)


@pytest.mark.parametrize("t", TIMES)
def test_ve_is_the_published_one(t):
    gamma, nu = ve(0.01, 40.0).marginal(t)
    assert gamma == 1
    np.testing.assert_allclose(nu, 0.01 * 4000**t, rtol=1e-5)


@pytest.mark.parametrize("t", TIMES[1:])
def test_coefficients_are_those_of_the_equations(t):
    beta = 0.1 + t * 9.9
    drift, diffusion = coefficients(vp(0.1, 10.0), t)
    np.testing.assert_allclose(drift, -beta / 2, rtol=1e-5)
    np.testing.assert_allclose(diffusion, np.sqrt(beta), rtol=1e-4)
    drift, diffusion = coefficients(ve(0.01, 40.0), t)
    assert drift == 0
    np.testing.assert_allclose(diffusion, 0.01 * 4000**t * np.sqrt(2 * np.log(4000)), rtol=1e-4)


def test_a_tenth_of_the_image_is_left_at_the_end_of_vp():
    assert 0.07 < vp().marginal(1.0)[0] < 0.09


@pytest.mark.parametrize("sde", [vp(), ve()])
def test_tweedie_is_exact_for_gaussians(sde):
    """x₀ ~ N(m, v): E[x₀ | x] = m + v γ (x − γ m) / (γ² v + ν²)."""
    mean, variance, t, x = 0.7, 0.3, 0.4, jnp.linspace(-2, 2, 9)
    gamma, nu = sde.marginal(t)
    score = -(x - gamma * mean) / (gamma**2 * variance + nu**2)
    expected = mean + variance * gamma * (x - gamma * mean) / (gamma**2 * variance + nu**2)
    np.testing.assert_allclose(tweedie(sde, x, score, t), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score_from_x0(sde, x, expected, t), score, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(noise_from_x0(sde, x, expected, t), -nu * score, rtol=1e-3, atol=1e-4)


def test_samples_start_with_the_deviation_of_the_marginal():
    np.testing.assert_allclose(sample_prior(ve(), jax.random.key(0), (200_000,)).std(), 40.0, rtol=0.01)


def test_noise_levels_have_their_time():
    """A schedule of one's own, σ = p t, γ = 1; beyond the ends the nearer one."""
    sde = Sde((3.0,), lambda t, parameters: (0 * t, (parameters[0] * t) ** 2))
    assert sde.log_mean_coefficient(0.3) == 0
    np.testing.assert_allclose(sde.sigma(0.3), 0.9, rtol=1e-6)
    for sigma, t in ((0.9, 0.3), (3e-3, 1e-3), (9.0, 1.0)):
        np.testing.assert_allclose(time_of_sigma(sde, sigma), t, rtol=1e-5)
