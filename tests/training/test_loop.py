"""The training loop: resumed runs are the same run, NaN stops, the average follows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.errors import DataError
from medjax.training.loop import Best, fit, fit_best, training
from medjax.training.old_state import init, make_train_step

KEY = jax.random.key(0)


def loss(params, batch, key):
    noise = jax.random.normal(key, batch.shape)
    return jnp.mean((params["w"] * batch - 3 * batch + 0.1 * noise) ** 2)


def batches(number):
    return jnp.asarray(np.random.default_rng(number).normal(size=4), jnp.float32)


def start():
    return init({"w": jnp.zeros(())}, optax.adam(0.1))


def trained(state, steps, reports=None):
    step = make_train_step(loss, optax.adam(0.1))
    return fit(KEY, step, state, batches, steps, lambda s, v: reports.append(v) if reports is not None else None, 10)


def test_a_resumed_run_is_the_run():
    whole = trained(start(), range(40))
    half = trained(start(), range(17))
    resumed = trained(half, range(int(half.step), 40))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_it_learns_and_reports():
    reports = []
    state = trained(start(), range(205), reports)
    assert abs(state.params["w"] - 3) < 0.2 and abs(state.average["w"] - 3) < 0.3
    assert [one["step"] for one in reports] == [*range(10, 201, 10), 205]
    assert reports[-1]["loss"] < reports[0]["loss"]


def test_a_loss_that_is_not_finite_stops_it():
    step = make_train_step(lambda p, b, k: p["w"] * jnp.inf, optax.adam(0.1))
    with pytest.raises(DataError, match="not finite by step 10"):
        fit(KEY, step, start(), batches, range(100), lambda s, v: None, 10)


def test_the_average_is_the_moving_one():
    step = make_train_step(loss, optax.sgd(0.0), decay=0.9)
    state = init({"w": jnp.asarray(1.0)}, optax.sgd(0.0))
    state = state._replace(average={"w": jnp.asarray(0.0)})
    for n in range(3):
        before = state.average["w"]
        state, _ = step(KEY, state, batches(n))
        keep = min(0.9, (1 + n) / (10 + n))
        np.testing.assert_allclose(state.average["w"], keep * before + (1 - keep), rtol=1e-6)


def until_best(validate, steps=range(400), state=None, best=None, reports=None):
    step = make_train_step(loss, optax.adam(0.1))

    def report(state, best, values):
        if reports is not None:
            reports.append((jax.tree.map(np.array, state), jax.tree.map(np.array, best), values))

    return fit_best(KEY, step, state or start(), batches, steps, validate, report, 10, 3, best)


def away(state):
    """Least where w passes 2 on its way to 3."""
    return abs(float(state.params["w"]) - 2)


def test_early_stopping_keeps_the_best_and_stops_after_its_patience():
    reports = []
    best = until_best(away, reports=reports)
    seen = [values["validation"] for _, _, values in reports]
    least = int(np.argmin(seen))
    assert len(seen) == least + 1 + 3 < 40
    assert (best.loss, int(best.state.step)) == (seen[least], 10 * (least + 1))
    jax.tree.map(np.testing.assert_array_equal, best.state, reports[least][0])


def test_early_stopping_resumes_and_knows_that_it_had_stopped():
    reports = []
    whole = until_best(away, reports=reports)
    for at in (0, len(reports) - 2, len(reports) - 1):
        state, best, _ = jax.tree.map(jnp.array, reports[at])
        more = []
        again = until_best(away, range(int(state.step), 400), state, Best(best.state, float(best.loss)), more)
        jax.tree.map(np.testing.assert_array_equal, again, whole)
        assert len(more) == len(reports) - 1 - at
    assert until_best(lambda state: 0.0, range(40)).state.step == 10
    with pytest.raises(DataError, match="validation loss is not finite by step 10"):
        until_best(lambda state: np.nan)


def test_a_gradient_that_is_not_finite_stops_training_though_the_loss_is():
    """√p at 0: the loss is 0, the step makes NaN of the parameters."""
    optimiser = optax.sgd(0.1)
    step = make_train_step(lambda params, batch, key: jnp.sum(jnp.sqrt(params * batch)), optimiser)
    with pytest.raises(DataError, match="gradient is not finite by step 1"):
        list(training(jax.random.key(0), step, init(jnp.zeros(2), optimiser), lambda n: jnp.ones(2), range(1)))
