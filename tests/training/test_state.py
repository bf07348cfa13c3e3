"""Training as an Algorithm: resumed runs are the same run, NaN stops, the average follows, a sweep is one line."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.errors import DataError
from medjax.training.state import init, mean_loss, require_finite_loss, trainer

KEY = jax.random.key(0)
BATCHES = np.stack([np.random.default_rng(number).normal(size=4) for number in range(40)]).astype(np.float32)


def loss(params, batch, key):
    noise = jax.random.normal(key, batch.shape)
    return jnp.mean((params["w"] * batch - 3 * batch + 0.1 * noise) ** 2)


def batches(number):
    return BATCHES[number % len(BATCHES)]


def trained(state, n, reports=None):
    algorithm = trainer(loss, optax.adam(0.1))
    options = {"inputs": batches, "every": 10, "check": require_finite_loss, "donate": True}
    for now, infos in iterate.loop(algorithm, state, n, **options):
        state = now
        if reports is not None:
            reports.append(mean_loss(infos, int(state.step)))
    return state


def start():
    return trainer(loss, optax.adam(0.1)).init({"w": jnp.zeros(())}, KEY)


def test_steps_are_those_of_optax_and_draw_with_the_steps_own_key():
    optimizer, params = optax.adam(0.1), {"w": jnp.zeros(())}
    inner = optimizer.init(params)
    for n in range(5):
        gradient = jax.grad(loss)(params, batches(n), jax.random.fold_in(KEY, n))
        updates, inner = optimizer.update(gradient, inner, params)
        params = optax.apply_updates(params, updates)
    state = trained(start(), 5)
    np.testing.assert_allclose(state.params["w"], params["w"], rtol=1e-5)
    assert int(state.step) == 5 and state.key == KEY


def test_a_resumed_run_is_the_run():
    whole = trained(start(), 40)
    resumed = trained(trained(start(), 17), 23)
    chex.assert_trees_all_equal(whole._replace(key=0), resumed._replace(key=0))


def test_it_learns_and_reports():
    reports = []
    state = trained(start(), 205, reports)
    assert abs(state.params["w"] - 3) < 0.2 and abs(state.ema_params["w"] - 3) < 0.3
    assert [one["step"] for one in reports] == [*range(10, 201, 10), 205]
    assert reports[-1]["loss"] < reports[0]["loss"]


def test_a_loss_that_is_not_finite_stops_it():
    algorithm = trainer(lambda p, b, k: p["w"] * jnp.inf, optax.adam(0.1))
    with pytest.raises(DataError, match="loss is not finite by step 10; try a smaller learning rate"):
        list(iterate.loop(algorithm, start(), 100, inputs=batches, every=10, check=require_finite_loss))


def test_a_gradient_that_is_not_finite_stops_training_though_the_loss_is():
    """√p at 0: the loss is 0, the step makes NaN of the parameters."""
    algorithm = trainer(lambda params, batch, key: jnp.sum(jnp.sqrt(params * batch)), optax.sgd(0.1))
    state = algorithm.init(jnp.zeros(2), KEY)
    with pytest.raises(DataError, match="gradient is not finite by step 1"):
        list(iterate.loop(algorithm, state, 1, inputs=lambda n: jnp.ones(2), check=require_finite_loss))


def test_the_average_is_the_moving_one():
    algorithm = trainer(loss, optax.sgd(0.0), ema_decay=0.9)
    state = init({"w": jnp.asarray(1.0)}, optax.sgd(0.0), KEY)._replace(ema_params={"w": jnp.asarray(0.0)})
    for n in range(3):
        before = state.ema_params["w"]
        state, _ = algorithm.step(state, batches(n))
        keep = min(0.9, (1 + n) / (10 + n))
        np.testing.assert_allclose(state.ema_params["w"], keep * before + (1 - keep), rtol=1e-6)


def test_a_sweep_over_learning_rates_is_one_line_and_one_trace():
    rates = jnp.array([0.003, 0.01, 0.03, 0.1])

    @chex.assert_max_traces(1)
    def trained_at(rate):
        algorithm = trainer(loss, optax.adam(rate))
        return iterate.scan(algorithm, algorithm.init({"w": jnp.zeros(())}, KEY), 40, BATCHES)[0].params["w"]

    sweep = jax.jit(jax.vmap(trained_at))
    swept = sweep(rates)
    np.testing.assert_array_equal(sweep(rates[::-1]), swept[::-1])
    np.testing.assert_allclose(swept[3], trained(start(), 40).params["w"], rtol=1e-5)
    assert (np.diff(swept) > 0.05).all()
