"""Adapters against the closed form of a Gaussian prior; one convention; what is no denoiser is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from medjax.diffusion import denoiser as dn
from medjax.diffusion.sde import ve, vp
from medjax.errors import ConfigError
from medjax.models.model import Model

MEAN, VARIANCE = 0.7, 0.3
X, T = jnp.linspace(-2, 2, 24).reshape(3, 4, 2), jnp.asarray([0.1, 0.4, 0.9])
SDES = {"vp": vp(), "ve": ve(0.01, 40.0)}


def marginals(sde):
    return (value.reshape(-1, 1, 1) for value in jax.vmap(sde.marginal)(T))


def exact(sde):
    """x0 ~ N(m, v): E[x0 | x] = m + v γ (x − γ m) / (γ² v + ν²)."""
    gamma, nu = marginals(sde)
    return MEAN + VARIANCE * gamma * (X - gamma * MEAN) / (gamma**2 * VARIANCE + nu**2)


def of_score(sde):
    def score(x, t):
        gamma, nu = (value.reshape(-1, 1, 1) for value in jax.vmap(sde.marginal)(t))
        return -(x - gamma * MEAN) / (gamma**2 * VARIANCE + nu**2)

    return dn.from_score(score, sde)


def of_epsilon(sde):
    def epsilon(x, t):
        gamma, nu = (value.reshape(-1, 1, 1) for value in jax.vmap(sde.marginal)(t))
        return nu * (x - gamma * MEAN) / (gamma**2 * VARIANCE + nu**2)

    return dn.from_epsilon(epsilon, sde)


def of_edm(sde):
    """D(y; σ) = m + v (y − m) / (v + σ²)."""

    def network(y, sigma):
        return MEAN + VARIANCE * (y - MEAN) / (VARIANCE + sigma.reshape(-1, 1, 1) ** 2)

    return dn.from_edm(network, sde)


def of_preconditioned_model(sde):
    """The network that owes what a Gaussian with another mean and variance than sigma_data needs."""
    d = 0.8

    def apply(params, z, level, key=None):
        sigma = jnp.exp(4 * level).reshape(-1, 1, 1)
        total = sigma**2 + d**2
        y = z * jnp.sqrt(total)
        x0 = params + VARIANCE * (y - params) / (VARIANCE + sigma**2)
        return (x0 - d**2 / total * y) * jnp.sqrt(total) / (sigma * d)

    return dn.from_model(Model(lambda key: None, apply), jnp.asarray(MEAN), sde, sigma_data=d)


def of_plain_model(sde):
    def apply(params, x, t, key=None):
        gamma, nu = (value.reshape(-1, 1, 1, 1) for value in jax.vmap(sde.marginal)(t))
        return params + VARIANCE * gamma * (x - gamma * params) / (gamma**2 * VARIANCE + nu**2)

    return dn.from_model(Model(lambda key: None, apply), jnp.asarray(MEAN), sde, channel=True)


ADAPTERS = [of_score, of_epsilon, of_edm, of_preconditioned_model, of_plain_model]


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_give_the_posterior_mean_of_a_gaussian(adapter, sde):
    denoiser = adapter(SDES[sde])
    np.testing.assert_allclose(jax.jit(lambda d: d(X, T))(denoiser), exact(SDES[sde]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(dn.denoise(denoiser, X[1], 0.4), exact(SDES[sde])[1], rtol=2e-4, atol=2e-4)


def test_a_denoiser_is_compiled_once_and_vmapped_over_its_parameters():
    traced = []

    def apply(params, x, t, key=None):
        traced.append(1)
        return params * x

    model = Model(lambda key: None, apply)
    run = jax.jit(lambda denoiser: denoiser(X, T))
    for scale in (2.0, 3.0):
        np.testing.assert_allclose(run(dn.from_model(model, jnp.asarray(scale), vp())), scale * X)
    assert len(traced) == 1
    many = jax.vmap(lambda scale: dn.from_model(model, scale, vp())(X, T))(jnp.arange(3.0))
    np.testing.assert_allclose(many[2], 2 * X)


def test_inputs_that_are_bound_reach_the_network():
    def apply(params, x, level, orientation, key=None):
        return x + orientation.sum(axis=1).reshape(-1, 1, 1)

    one = dn.from_model(Model(lambda key: None, apply), {}, vp(), jnp.asarray([[1.0, 2.0]]))
    np.testing.assert_allclose(one(X, T), X + 3)


def test_preconditioning_starts_at_the_gaussian_answer():
    """A network that says 0 gives the exact denoiser of N(0, sigma_data²) data."""
    sde, d = vp(), 0.8
    gamma, nu = marginals(sde)
    found = dn.edm_denoise(lambda y, level: jnp.zeros_like(y), sde, d, X, T)
    np.testing.assert_allclose(found, gamma * d**2 / (gamma**2 * d**2 + nu**2) * X, rtol=1e-4)


def test_network_sees_and_owes_unit_variance():
    sde, d, seen = vp(), 0.5, []
    images = d * jax.random.normal(jax.random.key(0), (4096, 8, 1))
    for t in (0.01, 0.5, 1.0):
        gamma, nu = sde.marginal(t)
        x = gamma * images + nu * jax.random.normal(jax.random.key(1), images.shape)
        dn.edm_denoise(lambda y, level: seen.append(y) or y, sde, d, x, jnp.full(4096, t))
        np.testing.assert_allclose(seen[-1].std(), 1, rtol=0.02)


def test_classifier_free_guidance_extrapolates_from_without_to_with():
    x, t = jnp.asarray([[1.0]]), jnp.asarray([0.3])
    found = dn.classifier_free_guidance(lambda x, t, c: x + c, jnp.asarray([[2.0]]), 0.5, x, t)
    np.testing.assert_allclose(found, [[1.5 * 3 - 0.5 * 1]])


class Foreign:
    """A denoiser written elsewhere: no pytree, no base class."""

    sde = vp()

    def __call__(self, x, t):
        return 0.5 * x


def test_any_callable_with_an_sde_is_a_denoiser():
    foreign = Foreign()
    taken = dn.as_denoiser(foreign)
    assert isinstance(foreign, dn.DenoiserLike) and isinstance(taken, dn.Denoiser)
    np.testing.assert_allclose(jax.jit(lambda d: d(X, T))(taken), 0.5 * X)
    assert dn.as_denoiser(taken) is taken


@pytest.mark.parametrize("wrong", [lambda x, t: x, vp(), Partial(lambda x, t: x)])
def test_what_is_no_denoiser_is_refused(wrong):
    with pytest.raises(ConfigError, match="with an `sde`"):
        dn.as_denoiser(wrong)
