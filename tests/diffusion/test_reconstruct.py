"""The recipe of sampling: a loop by hand, a posterior in closed form, and weights that are free of units."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.diffusion import reconstruct
from medjax.diffusion.denoiser import Denoiser
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.likelihood import Gaussian
from medjax.pet import em

SHORT = reconstruct.SamplerSettings(steps=4)
KEY = jax.random.key(3)
METHODS = {
    "naive": lambda problem, weight: reconstruct.naive(problem, 100 * weight),
    "dps": lambda problem, weight: reconstruct.dps(problem, 30 * weight),
    "dds": lambda problem, weight: reconstruct.dds(problem, 0.1 * weight, 2),
    "dds_delta": lambda problem, weight: reconstruct.dds_delta(problem, 0.3 * weight),
    "likelihood_schedule": lambda problem, weight: reconstruct.likelihood_schedule(problem, 12 * weight, SHORT.steps),
    "dds_cg": lambda problem, weight: reconstruct.dds_cg(problem, weight, SHORT.steps),
    "likelihood_schedule_cg": lambda problem, weight: reconstruct.likelihood_schedule_cg(
        problem, reconstruct.mlem_iterations(problem, 0.5 * weight), SHORT.steps
    ),
}


def begun(scan, prior):
    return reconstruct.inverse_problem(scan, prior, em.init(scan).image, scan.sensitivity)


@partial(jax.jit, static_argnums=0)
def sampled(name, scan, prior, weight=1.0, key=KEY):
    problem = begun(scan, prior)
    return reconstruct.sample(key, problem, METHODS[name](problem, weight), SHORT)


@jax.jit
def dds_written_out(scan, prior):
    image = em.init(scan).image
    for _ in range(8):
        image = scan.update(image)
    scale = jnp.mean(image, where=image > 0.01 * image.max())
    proximal_weight = 0.1 * scan.sensitivity.mean() / scale
    draws, start = jax.random.fold_in(KEY, 1), jax.random.fold_in(KEY, 0)
    times = jnp.linspace(0.5, 0.01, 5)
    gamma, nu = vp().marginal(times[0])
    x = gamma * image / scale + nu * jax.random.normal(start, image.shape)
    for n, (t, after) in enumerate(pairwise(times)):
        (gamma, nu), (gamma_, nu_) = vp().marginal(t), vp().marginal(after)
        x0 = prior(x[None], t[None])[0]
        noise, z0 = (x - gamma * x0) / nu, scale * jnp.maximum(x0, 0)
        z = z0
        for _ in range(2):
            ascent = scan.gradient(z) - proximal_weight * (z - z0)
            z = jnp.maximum(z + jnp.where(scan.sensitivity > 0, z / scan.sensitivity, 0) * ascent, 0)
        deviation = nu_ / nu * jnp.sqrt(nu**2 - (gamma / gamma_ * nu_) ** 2)  # of DDIM with η = 1
        fresh = jax.random.normal(jax.random.fold_in(draws, n), x.shape)
        x = gamma_ * z / scale + jnp.sqrt(nu_**2 - deviation**2) * noise + deviation * fresh
    return z


def test_dds_is_this_loop(scan, prior):
    made = sampled("dds", scan, prior)
    np.testing.assert_allclose(made.image, dds_written_out(scan, prior), rtol=1e-4, atol=1e-3)
    assert made.projector_calls == 2 * 8 + 4 * 2 * 2


def test_a_prior_of_one_image_and_gaussian_data_have_the_posteriors_mean():
    """DDS holds x to the prior's image m with precision λ = anchor · sensitivity / scale; data ~ N(x, 0.5²)."""
    mean, noise, proximal_weight, sensitivity = 1.0, 0.5, 2.0, 6.0
    data = jnp.asarray(np.random.default_rng(0).uniform(3, 5, (6, 6)), jnp.float32)
    sure = Denoiser(jax.tree_util.Partial(lambda x, t: jnp.full_like(x, mean)), vp())
    problem = reconstruct.inverse_problem(Gaussian(data, noise), sure, jnp.ones_like(data), sensitivity)
    np.testing.assert_allclose(problem.early_image, data, rtol=1e-6)  # A is the identity: the first update is the last
    scale = float(data.mean())
    precision = proximal_weight * sensitivity / scale
    made = reconstruct.sample(KEY, problem, reconstruct.dds(problem, proximal_weight, 200), SHORT)
    expected = (data / noise**2 + precision * scale * mean) / (1 / noise**2 + precision)
    np.testing.assert_allclose(made.image, expected, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_free_of_units_and_may_be_swept(name, scan, prior):
    """The same counts from activity in other units: the same image in those units."""
    made = sampled(name, scan, prior)
    other = replace(scan, multiplicative=500 * scan.multiplicative, sensitivity=500 * scan.sensitivity)
    rescaled = sampled(name, other, prior)
    np.testing.assert_allclose(500 * rescaled.image, made.image, rtol=2e-3, atol=2e-2)
    assert made.image.min() >= 0
    if name == "likelihood_schedule_cg":  # here all targets are beyond the range of its variance
        return
    swept = jax.vmap(lambda weight: sampled(name, scan, prior, weight))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(swept.image[1], made.image, rtol=2e-3, atol=2e-2)
    assert not np.allclose(swept.image[0], swept.image[1], rtol=2e-3)
    assert swept.projector_calls.shape == (2,)


def test_a_schedule_ends_with_the_deviance_of_mlem(scan, prior):
    image = em.init(scan).image
    path = [float(scan.deviance(scan.expected(image)))]
    for _ in range(20):
        image = scan.update(image)
        path.append(float(scan.deviance(scan.expected(image))))
    made = sampled("likelihood_schedule", scan, prior)
    assert float(scan.deviance(scan.expected(made.image))) == pytest.approx(path[12], rel=1e-4)
    assert made.projector_calls == 2 * 8 + 2 * 12 + made.info.projector_calls.sum()
    problem = begun(scan, prior)
    assert reconstruct.discrepancy_iterations(problem, path[7]) == pytest.approx(7, abs=0.05)
    assert reconstruct.discrepancy_iterations(problem, (path[7] + path[8]) / 2) == pytest.approx(7.5, abs=0.05)


def test_a_loop_on_the_host_makes_the_same_steps(scan, prior):
    problem = begun(scan, prior)
    method = reconstruct.dps(problem, 30.0)
    algorithm = reconstruct.algorithm(problem, method, SHORT)
    state = algorithm.init(KEY, problem.early_image.shape, problem.early_image / problem.scale)
    state = iterate.last(iterate.loop(algorithm, state, SHORT.steps, every=2), state)
    np.testing.assert_allclose(
        reconstruct.image(problem, state), sampled("dps", scan, prior).image, rtol=1e-3, atol=1e-2
    )


def test_what_cannot_be_sampled_is_refused(scan):
    with pytest.raises(ConfigError, match="expected a callable"):
        begun(scan, 3)
    with pytest.raises(ConfigError, match="expected 1 ≥ t_max > t_min > 0"):
        problem = reconstruct.inverse_problem(scan, Denoiser(jnp.negative, vp()), em.init(scan).image, 1.0)
        reconstruct.algorithm(problem, reconstruct.dps(problem, 1.0), SHORT._replace(t_max=0.0))
