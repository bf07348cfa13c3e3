"""Guidance with a solved step: a Gaussian posterior in closed form, targets that are met, and what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import data_step, krylov, likelihood_schedule_cg, sampler
from medjax.diffusion.dds_cg import dds_cg, denoised_variance
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.likelihood import Gaussian
from medjax.pet import em

from .conftest import BLOB, gaussian_denoiser, sample

SCALE, SHAPE, STEPS = 30.0, (16, 16, 1), 6


@pytest.fixture(scope="module")
def problem(scan):
    image = em.init(scan).image
    for _ in range(8):
        image = scan.update(image)
    return data_step.normal_equations(scan, image, SCALE), image


@jax.jit
def sampled(guided):
    times = sampler.geometric_times(vp(), STEPS, 0.8, 0.1)
    return sample(jax.random.key(0), guided, times, SHAPE, sampler.ddim(1.0), jnp.asarray(BLOB))


@jax.jit
def one_step(guided, x, t, index):
    return guided(x, t, index)


def test_a_gaussian_step_is_the_posterior_mean():
    """E[x0 | x(t), data] of voxels ~ N(1, d²) and data ~ N(x0, 0.5²), for any t."""
    d, noise, sde = 0.7, 0.5, vp()
    x, data = jnp.asarray(np.random.default_rng(0).normal(1, 1, (2, 6, 6)), jnp.float32)
    equations = data_step.normal_equations(Gaussian(data, noise), data)
    guided = dds_cg(gaussian_denoiser(1.0, d), equations, 1.0, 2, d, nonnegative=False)
    for t in (0.1, 0.4, 0.9):
        estimate, info = guided(x, jnp.asarray(t), jnp.asarray(0))
        gamma, nu = sde.marginal(t)
        precision = 1 / d**2 + gamma**2 / nu**2 + 1 / noise**2
        expected = (1 / d**2 + gamma * x / nu**2 + data / noise**2) / precision
        np.testing.assert_allclose(estimate.x0, expected, atol=2e-4)
        assert info.projector_calls == 6 and info.residual < 1e-3
    clipped, _ = dds_cg(gaussian_denoiser(1.0, d), equations, 1.0, 2, d)(x, jnp.asarray(0.1), jnp.asarray(0))
    assert clipped.x0.min() == 0


def test_the_variance_is_that_of_two_gaussians():
    np.testing.assert_allclose(denoised_variance(0.4, 2.0, 0.8), 2 / (1 / 0.4**2 + 1 / 0.8**2), rtol=1e-6)
    np.testing.assert_allclose(denoised_variance(1e3, 1.0, 0.8), 0.64, rtol=1e-4)


def test_more_variance_fits_the_data_closer(scan, prior, problem):
    images = [sampled(dds_cg(prior, problem[0], jnp.asarray(factor)))[0].x0 for factor in (0.03, 0.3, 3.0)]
    deviances = [float(scan.deviance(scan.expected(SCALE * image))) for image in images]
    assert deviances[0] > deviances[1] > deviances[2], deviances


def test_targets_are_deviances_of_mlem(scan, problem):
    equations, image = problem
    target, calls = likelihood_schedule_cg.targets_cg(equations, image, 6.0, STEPS)
    assert calls == 12 and (jnp.diff(target) <= 0).all() and target[2] == target[-1]
    path = []
    for _ in range(7):
        expected = scan.expected(image)
        path.append(float(scan.deviance(expected)))
        image = scan.update(image, expected)
    np.testing.assert_allclose(path[0] - target[:3], path[0] - np.array(path)[[2, 4, 6]], rtol=0.15)


def test_a_step_meets_its_target(scan, prior, problem):
    """The target is the deviance of a known variance: the step finds it, and the image, by no projection."""
    equations, _ = problem
    x, t, index = 0.9 * jnp.asarray(BLOB) + 0.1, jnp.asarray(0.06), jnp.asarray(0)
    denoised = jnp.maximum(prior(x[None], t[None])[0], likelihood_schedule_cg.FLOOR)
    own = denoised_variance(vp().sigma(t))
    space = krylov.krylov_space(equations, denoised, scan.expected(SCALE * denoised), own, 2, nonnegative=True)
    for factor in (0.7, 1.3):
        image, expected = krylov.combine(space, krylov.coefficients(space, factor * own))
        target = scan.deviance(expected)
        guided = likelihood_schedule_cg.likelihood_schedule_cg(prior, equations, target[None])
        estimate, info = one_step(guided, x, t, index)
        np.testing.assert_allclose(info.deviance, target, rtol=1e-5)
        np.testing.assert_allclose(info.variance, factor * own, rtol=0.03)
        np.testing.assert_allclose(estimate.x0, jnp.maximum(image, 0), atol=5e-3)
        assert info.reached_target and info.projector_calls == 5 and 0 < info.residual < 1


def test_a_step_is_the_solution_of_its_variance(prior, problem):
    equations, _ = problem
    guided = likelihood_schedule_cg.likelihood_schedule_cg(prior, equations, jnp.ones(1), dimension=6, floor=None)
    x, t, index = 0.9 * jnp.asarray(BLOB) + 0.1, jnp.asarray(0.2), jnp.asarray(0)
    estimate, info = one_step(guided, x, t, index)
    denoised = prior(x[None], t[None])[0]
    solution, _ = jax.jit(data_step.solve)(equations, denoised, info.variance, 60)
    assert not info.reached_target and info.projector_calls == 13
    assert jnp.linalg.norm(estimate.x0 - solution) < 0.4 * jnp.linalg.norm(denoised - solution)


def test_the_variance_stays_within_its_range(prior, problem):
    """Half and twice that of the denoised image, whatever the target asks for."""
    sigmas = jnp.asarray(0.8 * (0.1 / 0.8) ** (np.arange(STEPS) / STEPS))
    own = jax.vmap(denoised_variance)(sigmas)
    for target, factor in ((1e9, 0.5), (1.0, 2.0)):
        guided = likelihood_schedule_cg.likelihood_schedule_cg(prior, problem[0], jnp.full(STEPS, target))
        state, info = sampled(guided)
        np.testing.assert_allclose(info.variance, factor * own, rtol=1e-3)
        assert (info.reached_target == (factor < 1)).all() and jnp.isfinite(state.x0).all()


def test_levels_out_of_order_are_refused():
    times = sampler.geometric_times(vp(), 4, 0.8, 0.1)
    np.testing.assert_allclose(jax.vmap(vp().sigma)(times), 0.8 * (0.1 / 0.8) ** (np.arange(5) / 4), rtol=1e-4)
    for bad in ((0, 0.8, 0.1), (4, 0.1, 0.8), (4, 0.8, 0.0)):
        with pytest.raises(ConfigError, match="σ_max > σ_min > 0"):
            sampler.geometric_times(vp(), *bad)
