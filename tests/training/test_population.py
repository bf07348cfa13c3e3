"""Populations: eight members are eight single runs under every strategy, from one compilation."""

from functools import cache, partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.training import population
from medjax.training.checkpoint import restore, save
from medjax.training.layout import device_layout, member_groups
from medjax.training.population import grid
from medjax.training.state import trainer

SETTINGS = grid(rate=(0.003, 0.01, 0.03, 0.1), seed=(0, 1))
X = np.random.default_rng(0).normal(size=(10, 6, 8, 1)).astype(np.float32)
STRATEGIES = ("loop", "vmap", "shard")
traced: list[int] = []
KEYS = jax.jit(jax.vmap(jax.random.key))


def keys_of(settings):
    return KEYS(settings["seed"])


def initialize(key):
    a, b = jax.random.split(key)
    return {"conv": 0.3 * jax.random.normal(a, (3, 1, 4)), "head": 0.3 * jax.random.normal(b, (4,))}


initialize_all, initialize_one = jax.jit(jax.vmap(initialize)), jax.jit(initialize)


def loss(params, batch, key):
    """A small convolutional regression with noise on its input, so that keys, weights and convolutions all count."""
    traced.append(1)
    noisy = batch + 0.1 * jax.random.normal(key, batch.shape)
    hidden = jax.lax.conv_general_dilated(noisy, params["conv"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    return jnp.mean((jnp.tanh(hidden) @ params["head"] - batch[..., 0] ** 2) ** 2)


def make(settings):
    return trainer(loss, optax.adam(settings["rate"]))


def breaks(params, batch, key, rate):
    """As `loss`, NaN for the members of one rate at the eighth batch."""
    broken = (rate == SETTINGS["rate"][4]) & (batch[0, 0, 0] == X[7, 0, 0, 0])
    return loss(params, batch, key) * jnp.where(broken, jnp.nan, 1.0)


def make_that_breaks(settings):
    return trainer(partial(breaks, rate=settings["rate"]), optax.adam(settings["rate"]))


def batches(number):
    return X[number % len(X)]


def begun(settings=SETTINGS):
    keys = keys_of(settings)
    return population.init(make, settings, initialize_all(keys), keys)


def trained(strategy=None, settings=SETTINGS, n=12, state=None, make=make, reports=None, inputs=batches, save=None):
    state = begun(settings) if state is None else state
    options = {"inputs": inputs, "every": 5, "strategy": strategy, "save": save}
    for now, infos in population.loop(make, settings, state, n, **options):
        state = now
        if reports is not None:
            reports.append((int(state.step), infos.loss))
    return state


def members(state):
    return state.members._replace(key=jax.random.key_data(state.members.key))


def close(a, b, rtol=2e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), members(a), members(b))


def part(state, where):
    return state._replace(members=jax.tree.map(lambda leaf: leaf[where], state.members), start=state.start[where])


@pytest.fixture(scope="module")
def single():
    """Each member trained alone, by `iterate.loop`."""

    keys = keys_of(SETTINGS)
    algorithm_of = cache(lambda rate: make({"rate": rate}))  # one compilation for both seeds

    def alone(i):
        algorithm, key = algorithm_of(float(SETTINGS["rate"][i])), keys[i]
        state = algorithm.init(initialize_one(key), key)
        return iterate.last(iterate.loop(algorithm, state, 12, inputs=batches), state)

    return population.stack([alone(i) for i in range(8)])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_population_of_eight_is_eight_single_runs_compiled_once(strategy, single):
    traced.clear()
    together = trained(strategy)
    assert len(traced) <= 1  # none where another test has compiled it
    close(together, single)
    assert (np.ptp(together.members.params["head"], axis=0) > 1e-2).all()  # the members are different ones
    traced.clear()
    trained(strategy, SETTINGS | {"rate": 2 * SETTINGS["rate"]})
    assert not traced


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_that_do_not_divide_among_devices(strategy, single):
    reports = []
    state = trained(strategy, {name: values[:3] for name, values in SETTINGS.items()}, reports=reports)
    close(state, part(single, slice(3)))
    assert [(step, loss.shape) for step, loss in reports] == [(5, (5, 3)), (10, (5, 3)), (12, (2, 3))]


def test_it_is_an_algorithm_for_every_driver(single):
    algorithm = population.algorithm(make, SETTINGS)
    keys = keys_of(SETTINGS)
    state = algorithm.init(initialize_all(keys), keys)
    scanned, infos = jax.jit(lambda state: iterate.scan(algorithm, state, 12, X[np.arange(12) % 10]))(state)
    close(scanned, single)
    assert infos.loss.shape == (12, 8) and int(scanned.step) == 12
    close(iterate.last(iterate.loop(algorithm, state, 12, inputs=batches), state), single)


def test_every_member_may_have_inputs_of_its_own():
    def own(seed):
        return lambda number: X[(number + seed) % len(X)]

    both = grid(rate=(0.01,), seed=(0, 1))
    together = trained("shard", both, inputs=[own(0), own(1)])
    for i in range(2):
        alone = trained("loop", {name: values[i : i + 1] for name, values in both.items()}, inputs=own(i))
        close(part(together, slice(i, i + 1)), alone)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_begin_and_end_at_steps_of_their_own(strategy, single):
    """Members 0 to 3 begin at steps 0, 3, 6 and 9 with states of their own, three go on to step 12, one to step 7."""
    settings = {name: values[:4] for name, values in SETTINGS.items()}
    begin = [3 * i for i in range(4)]
    earlier = [population.member(trained("loop", n=k).members, i) if k else population.member(begun().members, i)
               for i, k in enumerate(begin)]  # fmt: skip
    ends, reports = [12, 12, 7, 12], []
    n = [end - first for end, first in zip(ends, begin, strict=True)]
    together = trained(strategy, settings, n, state=population.stack(earlier), reports=reports)
    assert together.members.step.tolist() == ends and together.start.tolist() == begin
    for i in (0, 1, 3):
        close(part(together, slice(i, i + 1)), part(single, slice(i, i + 1)))
    close(part(together, slice(2, 3)), part(trained("loop", n=7), slice(2, 3)))
    losses = np.concatenate([loss for _, loss in reports])
    assert (np.isfinite(losses).sum(0)).tolist() == n  # none where a member has ended
    one = trained(strategy, settings, n, state=population.stack(earlier), inputs=[batches] * 4)
    close(one, together)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_and_resumed_population_is_the_population(strategy, tmp_path):
    def killed(state, step):
        save(tmp_path, step, state)
        if step == 10:
            raise KeyboardInterrupt

    whole = trained(strategy, make=make_that_breaks)
    with pytest.raises(KeyboardInterrupt):
        trained(strategy, make=make_that_breaks, save=killed)
    step, state = restore(tmp_path, begun())
    assert step == int(state.step) == 10
    resumed = trained(strategy, n=2, state=state, make=make_that_breaks)
    chex.assert_trees_all_equal(members(resumed), members(whole))
    assert resumed.members.step.tolist() == [12, 12, 12, 12, 7, 7, 12, 12]


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_member_that_diverges_stops_at_its_last_good_state_and_the_others_go_on(strategy, single):
    reports = []
    state = trained(strategy, make=make_that_breaks, reports=reports)
    assert state.members.step.tolist() == [12, 12, 12, 12, 7, 7, 12, 12]
    close(part(state, slice(4)), part(single, slice(4)))
    close(part(state, slice(4, 6)), part(trained("loop", n=7), slice(4, 6)))
    nan = np.concatenate([np.isnan(loss) for _, loss in reports])
    assert nan.shape == (12, 8) and nan[7:, 4:6].all() and nan.sum() == 10


def test_the_default_of_a_backend(monkeypatch):
    assert device_layout(8) == (2, 1)  # the tests' two CPU devices
    for backend, devices, expected in (("cpu", 1, (1, 1)), ("gpu", 1, (1, 8)), ("gpu", 3, (3, 3)), ("tpu", 16, (8, 1))):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: [0] * devices)
        assert device_layout(8) == expected


def test_a_width_is_given_or_what_memory_holds(monkeypatch):
    assert (
        device_layout(8, "vmap", 3) == (1, 3)
        and device_layout(8, "shard", 2) == (2, 2)
        and device_layout(2, "vmap", 5) == (1, 2)
    )
    assert [part.tolist() for part in member_groups(5, "vmap", 2)] == [[0, 1], [2, 3], [4]] and member_groups(0) == []
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [None])
    assert device_layout(8, width=4) == (1, 4) and device_layout(8) == (1, 1)
    small = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 1000})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for devices, size, expected in ((1, 100, (1, 8)), (1, 300, (1, 2)), (4, 500, (4, 1)), (1, 5000, (1, 1))):
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: [small] * devices)
        assert device_layout(8, bytes_per_member=size) == expected


def test_the_memory_of_a_member_holds_its_state_twice_at_least():
    state = begun()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(population.member(members(state), 0)))
    assert 2 * size <= population.bytes_per_member(make, SETTINGS, state, X[0]) < 100 * size


def test_a_grid_is_every_combination():
    assert SETTINGS["seed"].tolist() == [0, 1] * 4 and SETTINGS["seed"].dtype == jnp.int32
    np.testing.assert_allclose(SETTINGS["rate"], np.repeat([0.003, 0.01, 0.03, 0.1], 2), rtol=1e-6)


def test_unequal_members_are_refused():
    state = begun()
    with pytest.raises(DataError, match=r"settings\['rate'\] has 3 members and state has 8"):
        list(population.loop(make, SETTINGS | {"rate": jnp.ones(3)}, state, 1, inputs=batches))
    with pytest.raises(DataError, match="inputs has 2 members"):
        list(population.loop(make, SETTINGS, state, 1, inputs=[batches, batches]))


def test_an_unknown_strategy_is_named():
    with pytest.raises(ConfigError, match="strategy 'sharded' of a population; expected loop, vmap, shard"):
        device_layout(4, "sharded")
    for strategy, width, expected in (("loop", 2, "1"), ("vmap", 0, "1 or more")):
        with pytest.raises(ConfigError, match=f"width {width} of a population by {strategy}; expected {expected}"):
            device_layout(4, strategy, width)
