"""The loss is least at the true score; weights; scaling."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import score_matching as sm
from medjax.diffusion.denoiser import Denoiser, from_score
from medjax.diffusion.sde import ve, vp
from medjax.errors import DataError
from tests.diffusion.conftest import gaussian_denoiser

CENTRES, WIDTH = jnp.asarray([-1.0, 0.5, 1.5]), 0.3


def mixture_score(sde, bend=0.0):
    """∇ log p(x, t) of a mixture of three Gaussians, voxel by voxel; `bend` spoils it."""

    def log_density(x, t):
        gamma, nu = sde.marginal(t)
        spread = gamma**2 * WIDTH**2 + nu**2
        return jax.scipy.special.logsumexp(-((x - gamma * CENTRES) ** 2) / (2 * spread))

    one = jax.vmap(jax.grad(log_density), (0, None))

    @jax.jit
    def score(x, t):
        flat = jax.vmap(one)(x.reshape(len(x), -1), t).reshape(x.shape)
        return flat * (1 + bend) + bend * jnp.sin(3 * x)

    return score


@partial(jax.jit, static_argnums=1)
def mixture(key, number):
    picked = jax.random.choice(jax.random.fold_in(key, 2), CENTRES, (number, 16, 16, 1))
    return picked + WIDTH * jax.random.normal(jax.random.fold_in(key, 1), picked.shape)


def test_loss_is_least_at_the_true_score():
    sde = vp()
    images = mixture(jax.random.key(0), 256)

    @jax.jit
    def loss(bend):
        return sm.denoising_loss(jax.random.key(5), from_score(mixture_score(sde, bend), sde), images)

    losses = {bend: float(loss(bend)) for bend in (-0.2, -0.05, 0.0, 0.05, 0.2)}
    assert losses[0.0] == min(losses.values())
    assert losses[0.2] > losses[0.05] and losses[-0.2] > losses[-0.05]


def test_loss_is_that_of_the_score_with_its_weight():
    """E w(t) ‖ν s + z‖², drawn by hand with the same keys."""
    sde, images, key = vp(), mixture(jax.random.key(1), 8), jax.random.key(5)
    score, weight = mixture_score(sde), sm.edm_weight(sde, 0.6)
    key_t, key_z = jax.random.split(key)
    t = 1e-3 + (1 - 1e-3) * (jnp.arange(8) + jax.random.uniform(key_t, (8,))) / 8
    z, total = jax.random.normal(key_z, images.shape), 0.0
    clean, noise, times = map(np.asarray, (images, z, t))
    for k in range(8):
        gamma, nu = map(np.asarray, sde.marginal(times[k]))
        s = np.asarray(score((gamma * clean[k] + nu * noise[k])[None], times[k : k + 1])[0])
        total += ((nu / gamma) ** 2 + 0.6**2) / 0.6**2 * float(np.mean((nu * s + noise[k]) ** 2)) / 8
    loss = jax.jit(lambda key, images: sm.denoising_loss(key, from_score(score, sde), images, weight))
    np.testing.assert_allclose(loss(key, images), total, rtol=1e-4)


def test_intensity_scale_is_the_mean_of_what_emits():
    image = np.zeros((8, 8), np.float32)
    image[2:4, 2:4], image[5, 5] = 3.0, 0.01
    image = jnp.asarray(image)
    assert sm.intensity_scale(image) == 3
    assert sm.intensity_scale(0 * image) == 0
    np.testing.assert_allclose(sm.normalize_intensity(7 * image).max(), 1)
    with pytest.raises(DataError, match="no voxel is above 0"):
        sm.normalize_intensity(0 * image)


def test_condition_is_dropped_for_a_fraction_of_the_batch():
    dropped = sm.drop_condition(jax.random.key(0), jnp.ones((2000, 4, 1)), 0.1)
    whole = dropped.reshape(2000, -1)
    assert set(np.unique(whole.sum(axis=1))) == {0.0, 4.0}
    assert 0.07 < (whole[:, 0] == 0).mean() < 0.13


def test_log_uniform_times_are_quantiles_of_the_noise_level():
    """σ at a fraction f of the times is 0.03^(1 − f) · 4^f, of either diffusion."""
    fraction = jnp.linspace(0, 1, 9)
    for sde in (vp(), ve(0.01, 40.0)):
        sigma = jax.vmap(sde.sigma)(sm.log_uniform_times(sde)(fraction))
        np.testing.assert_allclose(sigma, 0.03 ** (1 - fraction) * 4.0**fraction, rtol=2e-3)
    narrow = jax.vmap(vp().sigma)(sm.log_uniform_times(vp(), (0.5, 2.0))(fraction))
    np.testing.assert_allclose(narrow[::4], [0.5, 1, 2], rtol=2e-3)


def test_the_loss_draws_its_times_from_the_quantiles():
    """At one time only, the loss is the one by hand at that time."""
    sde, images, key = vp(), mixture(jax.random.key(1), 8), jax.random.key(5)
    zero = Denoiser(lambda x, t: jnp.zeros_like(x), sde)
    sigma = 0.5
    times = sm.log_uniform_times(sde, (sigma, sigma))
    expected = float(jnp.mean(images**2)) / sigma**2
    np.testing.assert_allclose(sm.denoising_loss(key, zero, images, times=times), expected, rtol=5e-3)


def test_denoising_errors_are_relative_to_the_gaussian_answer():
    """1 of the exact denoiser of white Gaussian images; of 0, 1 + d² / σ²; of the noisy image, 1 + σ² / d²."""
    sde, d, sigmas = vp(), 0.6, jnp.asarray([0.05, 0.3, 0.6, 3.0])
    images = d * jax.random.normal(jax.random.key(3), (64, 16, 16))
    exact, nothing, noisy = (
        sm.denoising_errors(jax.random.key(4), denoiser, images, d, sigmas)
        for denoiser in (
            gaussian_denoiser(0.0, d, sde),
            Denoiser(lambda x, t: jnp.zeros_like(x), sde),
            Denoiser(lambda x, t: x / jax.vmap(sde.marginal)(t)[0][:, None, None], sde),
        )
    )
    np.testing.assert_allclose(exact, 1, atol=0.04)
    np.testing.assert_allclose(nothing, jnp.mean(images**2) * (1 / sigmas**2 + 1 / d**2), rtol=1e-3)
    np.testing.assert_allclose(noisy, 1 + sigmas**2 / d**2, rtol=0.04)
    known = noisy / (1 + sigmas**2 / d**2)
    np.testing.assert_allclose(known, known[0], rtol=2e-3)  # the same noise at every level
