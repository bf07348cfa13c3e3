"""Samplers with the exact score of Gaussian data reproduce its mean and covariance; orders; grids of times; drivers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.diffusion import guidance, langevin, sampler
from medjax.diffusion.denoiser import from_score
from medjax.diffusion.sde import sample_prior, ve, vp
from medjax.errors import ConfigError, DataError

from .conftest import gaussian_denoiser

MEAN = np.array([1.0, -0.5])
COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])


def exact(sde):
    """The guided denoiser of the prior alone, of images (point, 2)."""
    mean, covariance = jnp.asarray(MEAN), jnp.asarray(COVARIANCE)

    def score(x, t):
        gamma, nu = sde.marginal(t[0])
        precision = jnp.linalg.inv(gamma**2 * covariance + nu**2 * jnp.eye(2))
        return -(x - gamma * mean[None, None]) @ precision

    return guidance.prior_only(from_score(score, sde))


def drawn(sde, solver, steps, corrector_snr=None, number=20_000):
    """Many samples, from the exact marginal at the first time."""
    guided = exact(sde)
    corrector = None if corrector_snr is None else langevin.langevin(guided, sde, corrector_snr)
    key = jax.random.key(0)
    clean = jax.random.multivariate_normal(key, jnp.asarray(MEAN), jnp.asarray(COVARIANCE), (number,))
    algorithm = sampler.sampler(guided, sde, sampler.uniform_times(steps, 1.0, 1e-3), solver, corrector)
    state = algorithm.init(jax.random.fold_in(key, 1), (number, 2), clean)
    return np.asarray(jax.jit(lambda a, s: iterate.repeat(a, s, steps))(algorithm, state).x0)


CASES = {
    "Euler–Maruyama": (vp(), sampler.euler_maruyama, 500, None),
    "predictor–corrector": (vp(), sampler.euler_maruyama, 200, 0.1),
    "DDIM η = 0": (vp(), sampler.ddim(0.0), 100, None),
    "DDIM η = 1": (vp(), sampler.ddim(1.0), 400, None),
    "Heun": (vp(), sampler.heun, 25, None),
    "Euler–Maruyama, VE": (ve(0.01, 40.0), sampler.euler_maruyama, 1000, None),
    "DDIM η = 0, VE": (ve(0.01, 40.0), sampler.ddim(0.0), 300, None),
    "DDIM η = 1, VE": (ve(0.01, 40.0), sampler.ddim(1.0), 800, None),
}


@pytest.mark.parametrize("name", CASES)
def test_prior_is_reproduced(name):
    samples = drawn(*CASES[name])
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), COVARIANCE, atol=0.04)


def ode_error(sde, solver, times):
    """Of the probability-flow ODE's end: x / γ − m is proportional to √(s² + σ²) for data N(m, s²)."""
    mean, deviation = 0.5, 0.7
    guided = guidance.prior_only(gaussian_denoiser(jnp.asarray(mean), deviation, sde))
    algorithm = sampler.sampler(guided, sde, times, solver)
    start, stop = np.asarray(times)[[0, -1]]
    x = np.linspace(-3, 3, 13) * np.asarray(sde.marginal(start)[1])
    state = algorithm.init(jax.random.key(0), x.shape)._replace(sample=jnp.asarray(x))
    end = np.asarray(jax.jit(iterate.repeat, static_argnums=2)(algorithm, state, len(times) - 1).sample)
    (first, _), (last, _) = (map(np.asarray, sde.marginal(t)) for t in (start, stop))
    sigma, sigma_ = np.asarray(sde.sigma(start)), np.asarray(sde.sigma(stop))
    shrinkage = np.sqrt((deviation**2 + sigma_**2) / (deviation**2 + sigma**2))
    return float(np.abs(end / last - (mean + (x / first - mean) * shrinkage)).max())


@pytest.mark.parametrize("sde", [vp(), ve(0.02, 10.0)])
@pytest.mark.parametrize(("solver", "order"), [(sampler.ddim(0.0), 1), (sampler.heun, 2)])
def test_solvers_of_the_ode_converge_with_their_order(solver, order, sde, x64):
    coarse, fine = (ode_error(sde, solver, sampler.karras_times(sde, n, 7.0, 1.0, 0.05)) for n in (40, 80))
    assert order - 0.25 < np.log2(coarse / fine) < order + 0.35


def test_heun_asks_twice_and_adds_up_what_that_costs():
    asked = []

    def guided(x, t, index):
        asked.append(1)
        return guidance.Estimate(x, 0 * x, 1.0), guidance.Info(jnp.asarray(2.0))

    t, after, index = jnp.asarray(0.5), jnp.asarray(0.4), jnp.asarray(0)
    sample, _, info = sampler.heun(guided, vp(), jax.random.key(0), jnp.zeros(3), t, after, index)
    assert len(asked) == 2 and info.projector_calls == 4
    np.testing.assert_allclose(sample, 1.0)  # the mean of two shifts of 1


def test_ddim_without_noise_is_deterministic():
    def end(key, eta):
        algorithm = sampler.sampler(exact(vp()), vp(), sampler.uniform_times(20), sampler.ddim(eta))
        state = algorithm.init(jax.random.key(0), (4, 2))._replace(key=jax.random.key(key))
        return iterate.step(algorithm, state)[0].sample

    np.testing.assert_array_equal(end(1, 0.0), end(2, 0.0))
    assert not np.allclose(end(1, 1.0), end(2, 1.0))


def test_ddim_with_full_noise_is_ancestral_sampling():
    """η = 1: the variance added is that of the true posterior q(x(t') | x(t), x(0))."""
    sde, t, after = vp(), jnp.asarray(0.5), jnp.asarray(0.4)
    (gamma, nu), (gamma_, nu_) = sde.marginal(t), sde.marginal(after)
    variance = nu_**2 / nu**2 * (nu**2 - (gamma / gamma_) ** 2 * nu_**2)
    zero = jnp.zeros(200_000)

    def guided(x, t, index):
        return guidance.Estimate(x, x), ()

    step = jax.jit(lambda key, x, t, after: sampler.ddim(1.0)(guided, sde, key, x, t, after, jnp.asarray(0))[0])
    x = step(jax.random.key(0), zero, t, after)
    np.testing.assert_allclose(x.var(), variance, rtol=0.02)


def test_draws_are_those_of_the_key():
    """The start draws with fold_in(key, 0), step n with fold_in(fold_in(key, 1), n): ancestral sampling by hand."""
    sde, times, key, shape = vp(), sampler.uniform_times(3), jax.random.key(3), (5, 2)
    algorithm = sampler.sampler(exact(sde), sde, times, sampler.ddim(1.0))
    state, _ = iterate.scan(algorithm, algorithm.init(key, shape), 3)
    x, denoised = sample_prior(sde, jax.random.fold_in(key, 0), shape, times[0]), jax.jit(exact(sde))
    for n in range(3):
        (gamma, nu), (gamma_, nu_) = sde.marginal(times[n]), sde.marginal(times[n + 1])
        estimate, _ = denoised(x, times[n], jnp.asarray(n))
        deviation = nu_ / nu * jnp.sqrt(nu**2 - (gamma / gamma_ * nu_) ** 2)
        z = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 1), n), shape)
        x = gamma_ * estimate.x0 + jnp.sqrt(nu_**2 - deviation**2) * estimate.noise + deviation * z
    np.testing.assert_allclose(state.sample, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.x0, estimate.x0, rtol=1e-4, atol=1e-5)


def test_all_drivers_agree_and_resume():
    sde, times = vp(), sampler.uniform_times(7)
    algorithm = sampler.sampler(exact(sde), sde, times, sampler.ddim(0.5), langevin.langevin(exact(sde), sde))
    start = algorithm.init(jax.random.key(3), (5, 2))
    scanned, info = iterate.scan(algorithm, start, 7)
    assert int(scanned.step) == 7 and info.projector_calls.shape == (7,)
    half = iterate.repeat(algorithm, start, 3)
    for other in (
        iterate.repeat(algorithm, half, 4),
        iterate.last(iterate.loop(algorithm, start, 7), start),
        iterate.last(iterate.loop(algorithm, half, 4), half),
    ):
        np.testing.assert_allclose(scanned.x0, other.x0, rtol=1e-5)
        assert int(other.step) == 7


def test_a_sweep_is_one_vmap():
    sde, times = vp(), sampler.uniform_times(5)

    def run(eta):
        algorithm = sampler.sampler(exact(sde), sde, times, sampler.ddim(eta))
        return iterate.scan(algorithm, algorithm.init(jax.random.key(0), (3, 2)), 5)[0].x0

    swept = np.asarray(jax.jit(jax.vmap(run))(jnp.asarray([0.0, 0.7])))
    np.testing.assert_allclose(swept[1], jax.jit(run)(0.7), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sde", "time_of"),
    [
        (ve(0.01, 40.0), lambda sigma: np.log(sigma / 0.01) / np.log(4000)),
        (vp(0.1, 10.0), lambda sigma: (np.sqrt(0.1**2 + 2 * 9.9 * np.log1p(sigma**2)) - 0.1) / 9.9),
    ],
)
@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_times_are_the_closed_inverses(sde, time_of, rho):
    first, last, n = 0.9, 0.05, 12
    high, low = (float(sde.sigma(t)) ** (1 / rho) for t in (first, last))
    sigmas = (high + np.linspace(0, 1, n + 1) * (low - high)) ** rho
    times = sampler.karras_times(sde, n, rho, first, last)
    np.testing.assert_allclose(times, time_of(sigmas), rtol=2e-4, atol=1e-5)
    assert times[0] == np.float32(first) and times[-1] == np.float32(last)
    assert (np.diff(times) < 0).all()


@pytest.mark.parametrize(("steps", "first", "last"), [(0, 1.0, 0.1), (5, 0.1, 0.5), (5, 1.5, 0.1), (5, 1.0, 0.0)])
def test_times_out_of_order_are_refused(steps, first, last):
    with pytest.raises(ConfigError, match="t_max > t_min"):
        sampler.uniform_times(steps, first, last)
    with pytest.raises(ConfigError, match="t_max > t_min"):
        sampler.karras_times(vp(), steps, 7.0, first, last)


def test_a_step_past_the_last_time_changes_nothing_and_says_so():
    """Also where a part of a batch is past it; `iterate.loop` stops there."""
    algorithm = sampler.sampler(exact(vp()), vp(), sampler.uniform_times(3), sampler.ddim(1.0))
    start = algorithm.init(jax.random.key(0), (4, 2))
    done, infos = iterate.scan(algorithm, start, 3)
    more, over = jax.jit(lambda state: iterate.scan(algorithm, state, 5))(start)
    jax.tree.map(np.testing.assert_array_equal, more._replace(key=0), done._replace(key=0))
    assert more.step == 3 and jnp.isfinite(infos.projector_calls).all()
    np.testing.assert_array_equal(jnp.isnan(over.projector_calls), [False] * 3 + [True] * 2)
    states = jax.jit(lambda *two: jax.tree.map(lambda a, b: jnp.stack([a, b]), *two))(start, done)
    stepped, _ = jax.jit(jax.vmap(algorithm.step))(states)
    assert stepped.step.tolist() == [1, 3]
    np.testing.assert_array_equal(stepped.sample[1], done.sample)
    with pytest.raises(DataError, match="projector_calls not finite by step 4"):
        iterate.last(iterate.loop(algorithm, done, 1), done)
