"""The loss is least at the true score; scaling; guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import score_matching as sm
from medjax.diffusion.sde import vp
from medjax.errors import DataError

CENTRES, WIDTH = jnp.asarray([-1.0, 0.5, 1.5]), 0.3


def mixture_score(sde, bend=0.0):
    """∇ log p(x, t) of a mixture of three Gaussians, voxel by voxel; `bend` spoils it."""

    def log_density(x, t):
        gamma, nu = sde.marginal(t)
        spread = gamma**2 * WIDTH**2 + nu**2
        return jax.scipy.special.logsumexp(-((x - gamma * CENTRES) ** 2) / (2 * spread))

    one = jax.vmap(jax.grad(log_density), (0, None))

    def score(x, t):
        flat = jax.vmap(one)(x.reshape(len(x), -1), t).reshape(x.shape)
        return flat * (1 + bend) + bend * jnp.sin(3 * x)

    return score


def test_loss_is_least_at_the_true_score():
    sde, key = vp(), jax.random.key(0)
    picked = jax.random.choice(jax.random.fold_in(key, 2), CENTRES, (256, 16, 16, 1))
    images = picked + WIDTH * jax.random.normal(jax.random.fold_in(key, 1), picked.shape)
    losses = {
        b: float(sm.denoising_loss(jax.random.key(5), sde, mixture_score(sde, b), images))
        for b in (-0.2, -0.05, 0.0, 0.05, 0.2)
    }
    assert losses[0.0] == min(losses.values())
    assert losses[0.2] > losses[0.05] and losses[-0.2] > losses[-0.05]


def test_preconditioning_starts_at_the_gaussian_answer():
    """A network that says 0 gives the exact score of N(0, spread²) data."""
    sde, spread = vp(), 0.8
    score = sm.preconditioned(lambda y, level: jnp.zeros_like(y), sde, spread)
    x, t = jnp.linspace(-2, 2, 8).reshape(2, 4, 1), jnp.asarray([0.1, 0.9])
    gamma, nu = (v.reshape(-1, 1, 1) for v in jax.vmap(sde.marginal)(t))
    np.testing.assert_allclose(score(x, t), -x / (gamma**2 * spread**2 + nu**2), rtol=1e-4)


def test_network_sees_and_owes_unit_variance():
    sde, spread, seen = vp(), 0.5, []
    sm.preconditioned(lambda y, level: seen.append(y) or y, sde, spread)  # not called yet
    images = spread * jax.random.normal(jax.random.key(0), (4096, 8, 1))
    for t in (0.01, 0.5, 1.0):
        gamma, nu = sde.marginal(t)
        x = gamma * images + nu * jax.random.normal(jax.random.key(1), images.shape)
        sm.preconditioned(lambda y, level: seen.append(y) or y, sde, spread)(x, jnp.full(4096, t))
        np.testing.assert_allclose(seen[-1].std(), 1, rtol=0.02)


def test_intensity_scale_is_the_mean_of_what_emits():
    image = jnp.zeros((8, 8)).at[2:4, 2:4].set(3.0).at[5, 5].set(0.01)
    assert sm.intensity_scale(image) == 3
    assert sm.intensity_scale(0 * image) == 0
    np.testing.assert_allclose(sm.scaled(7 * image).max(), 1)
    with pytest.raises(DataError, match="no voxel is above 0"):
        sm.scaled(0 * image)


def test_condition_is_dropped_for_a_share_of_the_batch():
    dropped = sm.dropped(jax.random.key(0), jnp.ones((2000, 4, 1)), 0.1)
    whole = dropped.reshape(2000, -1)
    assert set(np.unique(whole.sum(axis=1))) == {0.0, 4.0}
    assert 0.07 < (whole[:, 0] == 0).mean() < 0.13


def test_guidance_extrapolates_from_without_to_with():
    guided = sm.classifier_free(lambda x, t, c: x + c, jnp.asarray([2.0]), 0.5)
    np.testing.assert_allclose(guided(jnp.asarray([1.0]), jnp.asarray(0.3)), [1.5 * 3 - 0.5 * 1])
