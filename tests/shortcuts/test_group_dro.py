"""Group weights against the algorithm written out in float64; absent groups; training finds the minimax solution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.shortcuts import group_dro
from medjax.training.state import trainer

KEY = jax.random.key(0)


def batch_of(seed, groups=4, images=8, among=None):
    rng = np.random.default_rng(seed)
    group = rng.choice(np.arange(groups) if among is None else among, size=images)
    return rng.gamma(2.0, size=images).astype(np.float32), group.astype(np.int32)


def raised(log_weights, loss, group, rate):
    means = group_dro.group_losses(jnp.asarray(loss), jnp.asarray(group), len(log_weights))
    return group_dro.exponentiated_gradient_step(log_weights, means, rate)


def test_means_are_those_of_the_groups():
    loss, group = batch_of(0, among=[0, 2, 3])
    found = group_dro.group_losses(jnp.asarray(loss), jnp.asarray(group), 5)
    wanted = [loss[group == g].mean() if (group == g).any() else 0 for g in range(5)]
    np.testing.assert_allclose(found.mean, wanted, rtol=1e-6)
    np.testing.assert_array_equal(found.present, [(group == g).any() for g in range(5)])


def test_weights_follow_the_algorithm():
    log_weights, q = group_dro.init_weights(4), np.full(4, 0.25)
    np.testing.assert_allclose(np.exp(log_weights), q, rtol=1e-6)
    for number in range(60):
        loss, group = batch_of(number, among=[0, 1, 3] if number % 2 else None)
        log_weights = raised(log_weights, loss, group, 0.1)
        for g in np.unique(group):
            q[g] *= np.exp(0.1 * loss[group == g].mean(dtype=np.float64))
        q /= q.sum()
    np.testing.assert_allclose(np.exp(log_weights), q, rtol=1e-4)
    assert q.max() > 0.35  # the test has moved them


def test_an_absent_group_keeps_its_weight_before_the_division():
    start = jax.nn.log_softmax(jnp.array([0.0, 1.0, -3.0, 2.0]))
    loss, group = batch_of(1, among=[0, 3])
    means = group_dro.group_losses(jnp.asarray(loss), jnp.asarray(group), 4)
    after = group_dro.exponentiated_gradient_step(start, means, 0.5)
    np.testing.assert_allclose(np.exp(after).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(after[1] - after[2], start[1] - start[2], rtol=1e-5)
    raised_by = 0.5 * loss[group == 0].mean()
    np.testing.assert_allclose(after[0] - after[1], start[0] - start[1] + raised_by, rtol=1e-5)


def test_ten_thousand_batches_without_the_rare_groups():
    """Weights of groups never seen fall, but never to nothing: they rise again as soon as such a group is seen."""

    def one(log_weights, key):
        where, size = jax.random.split(key)
        group = jax.random.choice(where, jnp.array([0, 3]), (8,))
        return raised(log_weights, 3 * jax.random.exponential(size, (8,)), group, 0.1), None

    after, _ = jax.jit(lambda start: jax.lax.scan(one, start, jax.random.split(KEY, 10_000)))(group_dro.init_weights(4))
    assert np.isfinite(after).all()
    assert np.exp(after[1]) < 1e-12 < np.exp(after[0])
    for _ in range(200):
        after = raised(after, np.full(8, 200.0, np.float32), np.ones(8, np.int32), 0.1)
    assert np.exp(after[1]) > 0.99


def losses(params, batch, key):
    x, y, group = batch
    return (params["w"] * x - y) ** 2, group


def mean_loss(params, batch, key):
    return jnp.mean(losses(params, batch, key)[0])


def linear_batch(seed=0, among=None):
    y, group = batch_of(seed, 2, among=among)
    return (
        jnp.asarray(np.random.default_rng(seed + 100).normal(size=8), jnp.float32),
        jnp.asarray(y),
        jnp.asarray(group),
    )


def test_a_step_descends_in_the_raised_weights():
    batch = linear_batch()
    x, y, group = (np.asarray(one, np.float64) for one in batch)
    rate, w = 0.3, 0.7
    algorithm = group_dro.trainer(losses, optax.sgd(0.1), 2, rate)
    after, info = jax.jit(algorithm.step)(algorithm.init({"w": jnp.asarray(w)}, KEY), batch)
    error = w * x - y
    q = np.exp([rate * (error[group == g] ** 2).mean() for g in (0, 1)])
    q /= q.sum()
    slope = sum(q[g] * (2 * error * x)[group == g].mean() for g in (0, 1))
    np.testing.assert_allclose(after.params["w"], w - 0.1 * slope, rtol=1e-5)
    np.testing.assert_allclose(np.exp(after.opt_state[1]), q, rtol=1e-5)
    np.testing.assert_allclose(info.loss, sum(q[g] * (error[group == g] ** 2).mean() for g in (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(info.gradient_norm, abs(slope), rtol=1e-5)
    assert int(after.step) == 1


def test_the_average_is_that_of_plain_training():
    """With one group the weights are 1, and every part of the state is that of an ordinary step."""
    batch = linear_batch(among=[0])
    plain = trainer(mean_loss, optax.adam(0.1))
    robust = group_dro.trainer(losses, optax.adam(0.1), 1)
    one, other = (algorithm.init({"w": jnp.zeros(())}, KEY) for algorithm in (plain, robust))
    for _ in range(5):
        one, other = plain.step(one, batch)[0], robust.step(other, batch)[0]
    for wanted, found in (
        (one.params, other.params),
        (one.ema_params, other.ema_params),
        (one.opt_state, other.opt_state[0]),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), wanted, found)


@pytest.mark.parametrize(("robust", "solution"), [(False, 0.1), (True, 0.5)])
def test_training_finds_the_minimax_solution(robust, solution):
    """Nine images want 0, one wants 1: the mean loss is least at 0.1, the greater of the two groups' at 0.5."""
    y = jnp.zeros(10).at[0].set(1.0)
    batch = (jnp.ones(10), y, y.astype(jnp.int32))
    optimizer = optax.sgd(0.05)
    algorithm = group_dro.trainer(losses, optimizer, 2, 0.05) if robust else trainer(mean_loss, optimizer)
    state = algorithm.init({"w": jnp.zeros(())}, KEY)
    found = iterate.last(iterate.loop(algorithm, state, 1500, inputs=lambda number: batch, every=500), state)
    assert float(found.params["w"]) == pytest.approx(solution, abs=0.02)


def test_a_step_is_compiled_once_from_its_first_state_on():
    traced = []

    def losses(params, batch, key):
        traced.append(1)
        return (params["x"] - batch[0]) ** 2, batch[1]

    algorithm = group_dro.trainer(losses, optax.sgd(0.1), 4)
    state = algorithm.init({"x": jnp.zeros(8)}, KEY)
    iterate.last(iterate.loop(algorithm, state, 3, inputs=batch_of), state)
    assert len(traced) == 1
