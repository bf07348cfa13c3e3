"""Split Gibbs sampling of Gaussians against their exact posterior; the denoising posterior's variance; settings."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from medjax import iterate
from medjax.diffusion import data_step, split_gibbs
from medjax.diffusion.denoiser import from_score
from medjax.diffusion.denoising_posterior import denoising_posterior, noise_levels
from medjax.diffusion.reconstruct import InverseProblem, inverse_problem
from medjax.diffusion.sde import vp
from medjax.diffusion.split_gibbs import SplitGibbsSettings, annealing_schedule, chains, default_rho
from medjax.errors import ConfigError
from medjax.likelihood import Gaussian

from .conftest import BLOB, SIDE, gaussian_denoiser, pet_scan

SDE, VOXELS, PRIOR_SD, NOISE_SD = vp(), 32, 0.5, 0.5
TRUTH = 1 + PRIOR_SD * np.random.default_rng(0).standard_normal(VOXELS)
DATA = (TRUTH + NOISE_SD * np.random.default_rng(1).standard_normal(VOXELS)).astype(np.float32)
NARROW = SplitGibbsSettings(chains=800, nonnegative=False)


@pytest.fixture(scope="module")
def problem() -> InverseProblem:
    likelihood = Gaussian(jnp.asarray(DATA), NOISE_SD, curvature=2.0)
    return InverseProblem(likelihood, gaussian_denoiser(1.0, PRIOR_SD), likelihood.data, likelihood.data, 1.0)


@pytest.fixture(scope="module")
def draws(problem):
    """Draws (knob, chain, voxel) at half, once and twice the default ρ, one program."""
    sample = jax.jit(lambda key, rho: chains(key, problem, NARROW, rho, PRIOR_SD))
    return [sample(jax.random.key(n), rho) for n, rho in enumerate((0.5, 1.0, 2.0))]


def test_draws_are_of_the_posterior_at_every_rho(draws):
    exact = (1 + DATA) / 2
    for made in draws:
        images = np.asarray(made.images[:, 0])
        bias = (images.mean(axis=0) - exact) @ (DATA - 1) / ((DATA - 1) @ (DATA - 1))  # of the data's weight, 1/2
        assert abs(bias) < 0.02
        assert images.std(axis=0).mean() == pytest.approx(np.sqrt(0.125), rel=0.05)
        correlation = np.corrcoef(images.T)[np.triu_indices(VOXELS, 1)]
        assert np.abs(correlation).mean() < 0.05


def test_cost_and_coupling_are_told(problem, draws):
    rounds, info = NARROW.rounds, draws[1].info
    assert info.rho.shape == (800, rounds)
    default = default_rho(data_step.normal_equations(problem.likelihood, jnp.asarray(DATA)), PRIOR_SD)
    np.testing.assert_allclose(default, np.sqrt(0.1 * PRIOR_SD * NOISE_SD), rtol=1e-5)
    np.testing.assert_allclose(info.rho[0], np.geomspace(1.2, default, rounds), rtol=1e-5)
    assert (info.residual < 1e-3).all()  # the preconditioner is exact here
    correction = 2 + 2 * NARROW.correction_iterations
    each = rounds * (2 + 2 * NARROW.iterations + correction) + correction  # the last for the conditional mean
    np.testing.assert_allclose(draws[1].projector_calls, 800 * each + data_step.SETUP_CALLS)


def test_conditional_means_have_the_same_mean_and_less_variance(draws):
    """Given z a draw is N(mean, v): the law of total variance, and a nearer estimate of the posterior mean."""
    exact = (1 + DATA) / 2
    for made in draws[1:]:  # at half of ρ next to all of the variance is z's
        images, means = np.asarray(made.images[:, 0]), np.asarray(made.means[:, 0])
        assert np.abs(means.mean(axis=0) - images.mean(axis=0)).max() < 0.05
        within = (images - means).var(axis=0).mean()
        assert within > 0.01
        assert means.var(axis=0).mean() + within == pytest.approx(images.var(axis=0).mean(), rel=0.05)
        errors = [np.linalg.norm(each[:16].mean(axis=0) - exact) for each in (images, means)]
        assert errors[1] < errors[0]


def test_a_chain_goes_on_where_it_stopped(problem):
    settings = SplitGibbsSettings(reverse_steps=2, rounds=2, draws=2)
    equations = data_step.normal_equations(problem.likelihood, problem.early_image)
    chain = split_gibbs.split_gibbs(problem.denoiser, equations, annealing_schedule(0.2, settings), settings)
    run = jax.jit(lambda state: iterate.step(chain, state)[0])
    state = first = run(chain.init(jax.random.key(0), problem.early_image))
    for _ in range(3):
        state = run(state)
    assert state.step == 4 and np.isfinite(state.image).all()
    again = run(run(run(first)))
    np.testing.assert_array_equal(again.image, state.image)
    assert not np.allclose(run(state).image, state.image)  # beyond its schedule it still draws


def test_scans_are_vmapped_and_one_without_counts_gives_nan(prior):
    """A scan's draws do not depend on those beside it; where data show no activity there is no scale, so no image."""
    settings = SplitGibbsSettings(chains=2, rounds=2, reverse_steps=2, draws=2, iterations=2)
    full = pet_scan()
    empty = replace(full, counts=jnp.zeros_like(full.counts), additive=jnp.zeros_like(full.additive))

    @jax.jit
    @jax.vmap
    def sample(key, scan):
        problem = inverse_problem(scan, prior, jnp.full((SIDE, SIDE, 1), 1.0), scan.sensitivity)
        return chains(key, problem, settings)

    keys = jax.random.split(jax.random.key(0), 2)
    first = sample(keys, jax.tree.map(lambda *each: jnp.stack(each), full, empty))
    second = sample(keys[::-1], jax.tree.map(lambda *each: jnp.stack(each), empty, full))
    assert first.images.shape == (2, 2, 2, SIDE, SIDE, 1) and first.info.rho.shape == (2, 2, 3)
    np.testing.assert_allclose(first.images[0], second.images[1], rtol=1e-4, atol=1e-3)
    assert np.isnan(first.images[1]).all() and (np.asarray(first.images[0]) >= 0).all()
    error = np.linalg.norm(first.images[0].mean(axis=(0, 1)) - 30 * BLOB)
    assert error < 0.4 * np.linalg.norm(30 * BLOB)


def test_likelihoods_without_a_gaussian_approximation_are_refused(problem):
    with pytest.raises(ConfigError, match="solved data step"):
        chains(jax.random.key(0), problem._replace(likelihood=Partial(abs)))


COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])


def posterior_samples(denoiser, sigma, steps, shape=(2,), number=20_000):
    """Draws of p(x0 | z) at one z."""
    keys = jax.random.split(jax.random.key(0), number)
    z = jnp.asarray([1.0, -0.2])[: shape[0]]
    run = jax.jit(jax.vmap(lambda key, sigma: denoising_posterior(key, denoiser, z, sigma, steps), in_axes=(0, None)))
    return np.asarray(z), np.asarray(run(keys, sigma))


def correlated_score(x, t):
    gamma, nu = SDE.marginal(t[0])
    return -x @ jnp.linalg.inv(gamma**2 * jnp.asarray(COVARIANCE) + nu**2 * jnp.eye(2))


def test_denoising_posterior_of_a_correlated_gaussian():
    sigma = 0.6
    z, samples = posterior_samples(from_score(correlated_score, SDE), sigma, 6)
    gain = COVARIANCE @ np.linalg.inv(COVARIANCE + sigma**2 * np.eye(2))
    exact = COVARIANCE - gain @ COVARIANCE
    np.testing.assert_allclose(samples.mean(axis=0), gain @ z, atol=0.01)
    np.testing.assert_allclose(np.cov(samples.T), exact, atol=0.12 * exact.max())


def mixture_score(x, t):
    """Two components N(±1, 0.2²) in every voxel."""
    gamma, nu = SDE.marginal(t[0])

    def log_density(x):
        return jax.nn.logsumexp(-((x - gamma * jnp.asarray([-1.0, 1.0])) ** 2) / 2 / (0.04 * gamma**2 + nu**2))

    return jax.vmap(jax.vmap(jax.grad(log_density)))(x)


def test_denoising_posterior_of_a_mixture_has_both_components():
    z, samples = posterior_samples(from_score(mixture_score, SDE), 1.0, 6, (1,))
    odds = np.exp(2 * z[0] / 1.04)  # N(z; 1, 1.04) / N(z; −1, 1.04)
    right = samples[:, 0] > 0
    assert right.mean() == pytest.approx(odds / (1 + odds), abs=0.05)
    assert samples[right, 0].std() == pytest.approx(0.2 / np.sqrt(1.04), rel=0.25)


def test_one_step_is_the_posterior_mean():
    z = jnp.ones(4)
    x0 = denoising_posterior(jax.random.key(0), gaussian_denoiser(0.0, 0.5), z, 0.5, 1)
    np.testing.assert_allclose(x0, 0.5, rtol=1e-4)


def test_settings_below_one_are_refused():
    with pytest.raises(ConfigError, match="0 chains"):
        annealing_schedule(0.3, SplitGibbsSettings(chains=0))
    with pytest.raises(ConfigError, match="0 steps"):
        noise_levels(0.3, 0)
    np.testing.assert_allclose(annealing_schedule(2.0, SplitGibbsSettings(rounds=3)), 2.0, rtol=1e-6)  # never rises
    np.testing.assert_allclose(annealing_schedule(0.3, SplitGibbsSettings(rounds=1)), 0.3, rtol=1e-6)
    levels = np.asarray(noise_levels(0.6, 5))
    np.testing.assert_allclose(levels[[0, -1]], [0.6, 0.05], rtol=1e-5)
    assert (np.diff(np.log(levels)) < 0).all()
