"""SWAG against NumPy's moments, the stationary distribution of a linear-Gaussian model, and its own closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.training import population
from medjax.training.state import trainer
from medjax.uncertainty import swag
from medjax.uncertainty.sampling import samples
from tests.uncertainty.closed_form import LINEAR, stacked

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def collect(sets, rank):
    """SWAG of parameters (n, 6), as two leaves."""
    trees = {"a": sets[:, :4].reshape(-1, 2, 2), "b": sets[:, 4:]}
    start = swag.init(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), trees), rank)
    return jax.lax.scan(lambda state, params: (swag.update(state, params), None), start, trees)[0]


def flat(tree, axes=0):
    return np.concatenate([np.asarray(x).reshape(*x.shape[:axes], -1) for x in (tree["a"], tree["b"])], axis=-1)


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_moments_and_deviations_are_those_of_the_paper(n):
    sets = RNG.normal(100.0, 1.0, (n, 6)).astype(np.float32)
    state = collect(sets, rank=4)
    wide = sets.astype(np.float64)
    running = np.cumsum(wide, axis=0) / np.arange(1, n + 1)[:, None]
    np.testing.assert_allclose(flat(state.mean), wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(flat(state.squares) / n, wide.var(0), rtol=1e-3)  # no cancellation far from 0
    columns = sorted(flat(state.deviations, 1).tolist())
    expected = sorted([*(wide - running)[-4:].tolist(), *np.zeros((max(4 - n, 0), 6)).tolist()])
    np.testing.assert_allclose(columns, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_draws_have_the_covariance_of_the_posterior(scale):
    mixing = RNG.normal(size=(6, 6))
    sets = (RNG.normal(size=(9, 6)) @ mixing + np.arange(6)).astype(np.float32)
    state = collect(sets, rank=4)
    deviations = flat(state.deviations, 1).astype(np.float64)
    covariance = scale * (np.diag(sets.astype(np.float64).var(0)) + deviations.T @ deviations / 3)
    posterior = swag.posterior(state, scale)
    n = 20_000
    draws = flat(jax.jit(jax.vmap(swag.sample_params, (0, None)))(jax.random.split(KEY, n), posterior), 1)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(0) - flat(state.mean)) / sd, 0, atol=4 / n**0.5)
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.04)


def test_the_stationary_distribution_of_descent_is_found():
    """θ ← θ − η (A θ + ε): mean 0 and covariance S with S = (1 − ηA) S (1 − ηA) + η² I, for a diagonal A."""
    eta, curvature = 0.2, np.array([0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
    shrink = 1 - eta * curvature
    theta, path = np.zeros(6), []
    for k in range(40_000):
        theta = shrink * theta - eta * RNG.normal(size=6)
        if k % 20 == 0:
            path.append(theta)
    state = collect(np.array(path, np.float32), rank=200)
    variance = eta**2 / (1 - shrink**2)
    np.testing.assert_allclose(flat(state.mean), 0, atol=4 * np.sqrt(variance.max() * 1.5 / 2000))
    posterior = swag.posterior(state)
    np.testing.assert_allclose(2 * flat(posterior.sd) ** 2, variance, rtol=0.2)
    factor = flat(posterior.factor, 1)
    total = np.diag(flat(posterior.sd) ** 2) + factor.T @ factor  # half of the diagonal, and half of D Dᵀ / (K − 1)
    root = np.sqrt(np.outer(variance, variance))
    np.testing.assert_allclose(total / root, np.eye(6), atol=0.3)


def loss(params, batch, key):
    image, target = batch
    return (
        jnp.mean((LINEAR.apply(params, image)[..., 1] - target) ** 2) + 0.1 * jax.random.normal(key) * params["bias"][0]
    )


def algorithm(settings):
    return trainer(loss, optax.sgd(settings["rate"]))


def test_collects_from_a_loop_and_from_a_population():
    image = RNG.normal(size=(2, 4, 4, 1)).astype(np.float32)
    batch = (image, 2 * image[..., 0] + 1)
    settings = population.grid(rate=(0.05, 0.2))
    start = population.init(algorithm, settings, stacked([0.0, 0.0]), jax.vmap(jax.random.key)(jnp.arange(2)))
    states = jax.vmap(lambda params: swag.init(params, 3))(start.members.params)
    for reached, _ in population.loop(algorithm, settings, start, 6, inputs=lambda _: batch, every=2, strategy="loop"):
        states = jax.vmap(swag.update)(states, reached.members.params)
    second = algorithm({"rate": 0.2})
    first = population.member(start.members, 1)
    state = swag.init(first.params, 3)
    for trained, _ in iterate.loop(second, first, 6, inputs=lambda _: batch, every=2):
        state = swag.update(state, trained.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), population.member(states, 1), state)
    counts = samples(swag.swag, KEY, LINEAR, swag.posterior(state), image, 4)
    assert counts.shape == (4, 2, 2) and (counts.sum(-1) == 16).all()


def test_samples_are_predictions_of_drawn_parameters():
    state = swag.init({"weight": jnp.ones(1), "bias": jnp.zeros(1)}, 2)
    for bias in (0.0, 1.0, 3.0):
        state = swag.update(state, {"weight": jnp.ones(1), "bias": jnp.full(1, bias)})
    posterior, image = swag.posterior(state), np.zeros((1, 2, 2, 1), np.float32)
    found = samples(swag.swag, KEY, LINEAR, posterior, image, 3, measure=lambda logits: logits[0, 0, 0, 1])
    expected = [swag.sample_params(jax.random.fold_in(KEY, k), posterior)["bias"][0] for k in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_refuses_in_one_line():
    params = {"weight": jnp.ones(1), "bias": jnp.zeros(1)}
    image = np.zeros((1, 2, 2, 1), np.float32)
    with pytest.raises(ConfigError, match="rank: 1"):
        swag.init(params, 1)
    state = swag.update(swag.init(params, 2), params)
    with pytest.raises(DataError, match="1 sets of parameters collected; expected 2"):
        swag.posterior(state)
    state = swag.update(state, params)
    with pytest.raises(DataError, match="scale: -1"):
        swag.posterior(state, -1.0)
    with pytest.raises(DataError, match="not finite"):
        swag.posterior(swag.update(state, {"weight": jnp.full(1, jnp.nan), "bias": jnp.zeros(1)}))
    with pytest.raises(DataError, match=r"params: dict; expected a swag\.posterior"):
        samples(swag.swag, KEY, LINEAR, params, image, 2)
    with pytest.raises(DataError, match=r"all 2 have equal logits; expected .* a posterior that is not a point"):
        samples(swag.swag, KEY, LINEAR, swag.posterior(state), image, 2)
