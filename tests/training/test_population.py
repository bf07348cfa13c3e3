"""Populations: eight members are eight single runs under every strategy, from one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.errors import DataError
from medjax.training.loop import fit
from medjax.training.old_state import init, make_train_step
from medjax.training.population import fit_population, grid, init_population, layout, make_member_step

HYPER = grid(rate=(0.003, 0.01, 0.03, 0.1), seed=(0, 1))
KEYS = jax.vmap(jax.random.key)(HYPER["seed"])
X = np.random.default_rng(0).normal(size=(10, 6, 8, 1)).astype(np.float32)
STRATEGIES = ("loop", "vmap", "shard")
traced: list[int] = []


def initialise(key):
    a, b = jax.random.split(key)
    return {"conv": 0.3 * jax.random.normal(a, (3, 1, 4)), "head": 0.3 * jax.random.normal(b, (4,))}


def loss(params, batch, key, hyper):
    """A small convolutional regression with noise on its input, so that keys, weights and convolutions all count."""
    traced.append(1)
    noisy = batch + 0.1 * jax.random.normal(key, batch.shape)
    hidden = jax.lax.conv_general_dilated(noisy, params["conv"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    return jnp.mean((jnp.tanh(hidden) @ params["head"] - batch[..., 0] ** 2) ** 2)


def optimiser(hyper):
    return optax.adam(hyper["rate"])


def batches(number):
    return X[number % len(X)]


def trained(strategy=None, hyper=HYPER, loss=loss, steps=range(12), state=None, reports=None, batches=batches):
    keys = jax.vmap(jax.random.key)(hyper["seed"])
    state = init_population(keys, initialise, optimiser, hyper) if state is None else state
    step = make_member_step(loss, optimiser)

    def report(state, values):
        if reports is not None:
            reports.append(values)

    return fit_population(keys, step, state, hyper, batches, steps, report, 5, strategy)


def close(a, b, rtol=2e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), a, b)


@pytest.fixture(scope="module")
def single():
    """Each member trained alone, by `fit`."""

    def alone(i):
        mine = {name: values[i] for name, values in HYPER.items()}
        step = make_train_step(lambda *given: loss(*given, mine), optax.adam(float(HYPER["rate"][i])))
        start = init(initialise(KEYS[i]), optax.adam(1.0))
        return fit(KEYS[i], step, start, batches, range(12), lambda s, v: None)

    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(alone, range(8)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_population_of_eight_is_eight_single_runs_compiled_once(strategy, single):
    traced.clear()
    together = trained(strategy)
    assert len(traced) == 1
    close(together, single)
    spread = np.ptp(together.params["head"], axis=0)
    assert (spread > 1e-2).all()  # the members are different ones


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_that_do_not_divide_among_devices(strategy, single):
    hyper = {name: values[:3] for name, values in HYPER.items()}
    reports = []
    state = trained(strategy, hyper, reports=reports)
    close(state, jax.tree.map(lambda leaf: leaf[:3], single))
    assert [(one.step, one.loss.shape) for one in reports] == [(5, (3,)), (10, (3,)), (12, (3,))]


def test_every_member_may_have_batches_of_its_own():
    def own(seed):
        return lambda number: X[(number + seed) % len(X)]

    both = grid(rate=(0.01,), seed=(0, 1))
    together = trained("shard", both, batches=[own(0), own(1)])
    for i in range(2):
        alone = trained("loop", {name: values[i : i + 1] for name, values in both.items()}, batches=own(i))
        close(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together), alone)


def test_a_resumed_population_is_the_population():
    half = trained(steps=range(7))
    resumed = trained(steps=range(7, 12), state=half)
    jax.tree.map(np.testing.assert_array_equal, resumed, trained())


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_member_that_diverges_stops_at_its_last_good_state_and_the_others_go_on(strategy, single):
    def breaks(params, batch, key, hyper):
        broken = (hyper["rate"] == HYPER["rate"][4]) & (batch[0, 0, 0] == X[7, 0, 0, 0])
        return loss(params, batch, key, hyper) * jnp.where(broken, jnp.nan, 1.0)

    reports = []
    state = trained(strategy, loss=breaks, reports=reports)
    assert state.step.tolist() == [12, 12, 12, 12, 7, 7, 12, 12]
    close(state.params["head"][:4], single.params["head"][:4])
    close(state.params["head"][4:6], trained("loop", steps=range(7)).params["head"][4:6])
    assert [np.isnan(one.loss).tolist() for one in reports] == [
        [False] * 8,
        *[[False] * 4 + [True] * 2 + [False] * 2] * 2,
    ]


def test_the_default_of_a_backend(monkeypatch):
    assert layout(8) == (2, 1)  # the tests' two CPU devices
    for backend, devices, expected in (("cpu", 1, (1, 1)), ("gpu", 1, (1, 8)), ("gpu", 3, (3, 3)), ("tpu", 16, (8, 1))):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        monkeypatch.setattr(jax, "devices", lambda devices=devices: [0] * devices)
        assert layout(8) == expected


def test_a_grid_is_every_combination():
    assert HYPER["seed"].tolist() == [0, 1] * 4 and HYPER["seed"].dtype == jnp.int32
    np.testing.assert_allclose(HYPER["rate"], np.repeat([0.003, 0.01, 0.03, 0.1], 2), rtol=1e-6)


def test_unequal_members_are_refused():
    state = init_population(KEYS, initialise, optimiser, HYPER)
    step = make_member_step(loss, optimiser)
    with pytest.raises(DataError, match=r"hyper\['rate'\] has 3 members and keys has 8"):
        fit_population(KEYS, step, state, HYPER | {"rate": jnp.ones(3)}, batches, range(1), lambda s, v: None)
    with pytest.raises(DataError, match="batches has 2 members"):
        fit_population(KEYS, step, state, HYPER, [batches, batches], range(1), lambda s, v: None)
