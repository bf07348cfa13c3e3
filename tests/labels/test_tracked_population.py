"""Followed trainings as a population: each member is the training that `audit` makes of it alone, however it is run."""

from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError, WorkdirError
from medjax.labels import audit, population, scores
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.errors import corrupt
from medjax.labels.members import TrainingRun, bytes_per_member, parallel_groups
from medjax.models.model import Model
from medjax.phantoms.echo import echo
from tests.labels.two_layers import TWO_LAYERS, apply_two_layers

SETTINGS = TrainingSettings(4, batch=8, steps=14, probe_every=4, latest_judgement=8)
SOME = {name: scores.built_in()[name] for name in ("dice_mean", "loss", "vog_published", "vog")}
NAN = float("nan")


def member(seed, kind, rate):
    data = echo(seed, 12, 16, hard=0.0)
    return TrainingRun(seed, data.images, corrupt(seed, data.labels, kind, 0.25).labels, rate)


@pytest.fixture(scope="module")
def members():
    """Two kinds of error of two seeds."""
    return [
        member(seed, kind, rate)
        for seed, kind, rate in (
            (0, "random", 1e-2),
            (0, "swap", 2e-2),
            (1, "random", 1e-2),
            (1, "swap", 5e-3),
        )
    ]


def own(one):
    return SETTINGS._replace(learning_rate=one.learning_rate)


def numbers(snapshot, labels):
    """Of a snapshot: parameters, agreement and scores, at this moment."""
    found = scores.evaluate(SOME, snapshot.states, labels)
    leaves = [np.array(leaf) for leaf in jax.tree.leaves((snapshot.state.params, snapshot.state.ema_params))]
    return int(snapshot.state.step), snapshot.memorization, snapshot.agreement, leaves, found


def tracking(members, **keywords):
    """All snapshots of each member."""
    found = [[] for _ in members]
    for k, one in population.training_dynamics(members, TWO_LAYERS, SETTINGS, SOME, seconds=0, **keywords):
        found[k].append(numbers(one, members[k].labels))
    return found


@pytest.fixture(scope="module")
def alone(members):
    runs = [audit.training_dynamics(one.seed, TWO_LAYERS, one.images, one.labels, own(one), SOME) for one in members]
    return [[numbers(found, one.labels) for found in run] for one, run in zip(members, runs, strict=True)]


def same(one, other, tolerance):
    assert len(one) == len(other)
    for snapshots, every in zip(one, other, strict=True):
        for found, wanted in zip(snapshots, every, strict=True):
            assert found[:2] == wanted[:2]
            close(found[2:], wanted[2:], tolerance)


def close(found, wanted, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, wanted)


@pytest.mark.parametrize(("strategy", "width", "tolerance"), [("loop", None, 1e-5), ("vmap", 2, 1e-3)])
def test_a_member_is_its_training_alone(members, alone, strategy, width, tolerance):
    assert [one[0] for one in alone[0]] == [4, 8, 12, 14]
    same(tracking(members, strategy=strategy, width=width), alone, tolerance)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_what_was_interrupted_goes_on_with_other_members_beside_it(members, alone, strategy, tmp_path):
    folders = [tmp_path / str(k) for k in range(4)]
    first = population.training_dynamics(
        members[:2], TWO_LAYERS, SETTINGS, SOME, checkpoints=folders[:2], seconds=0, strategy=strategy
    )
    assert [next(first)[0] for _ in range(3)] == [0, 1, 0]  # so the first member is one probe ahead
    first.close()
    found = tracking(members, checkpoints=folders, strategy=strategy)
    assert [len(snapshots) for snapshots in found] == [3, 4, 4, 4]  # their last ones once more
    same(found, [every[-len(mine) :] for mine, every in zip(found, alone, strict=True)], 1e-3)
    again = tracking([members[3], members[1]], checkpoints=[folders[3], folders[1]])
    same(again, [alone[k][-1:] for k in (3, 1)], 1e-3)
    with pytest.raises(WorkdirError, match="holds another run: other seed"):
        tracking(members[3:], checkpoints=folders[:1])


def test_what_is_observed_is_the_same_after_an_interruption(members, alone, tmp_path):
    """Members two at a time; the process ends when the second pair has been probed twice."""
    folders, asked = [tmp_path / "c" / str(k) for k in range(4)], []

    def measure(k, state, stop=99):
        asked.append(k)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return float(jnp.sum(state.ema_params[0]))

    def make(k):
        return members[k]

    def observe(which, stop=99):
        return population.observe(
            [partial(make, k) for k in which], TWO_LAYERS, SETTINGS, SOME, strategy="vmap", width=2, seconds=0,
            measure=lambda k, state: measure(which[k], state, stop), checkpoints=[folders[k] for k in which],
        )  # fmt: skip

    found = {}
    with pytest.raises(KeyboardInterrupt):
        for k, one in observe([0, 1, 2, 3], stop=13):
            found[k] = one
    assert list(found) == [0, 1] and asked == [0, 1] * 4 + [2, 3] * 2 + [2]
    assert not folders[0].exists() and folders[2].is_dir()  # what is finished leaves nothing
    asked.clear()
    found |= {(2, 3)[k]: one for k, one in observe([2, 3])}
    assert asked == [2, 3, 2, 3, 3]  # what was kept once more, then what follows
    assert not any((tmp_path / "c").iterdir())
    for k, one in found.items():
        assert one.judgement == 1 and int(one.state.step) == 8
        close(one.scores, {name: np.stack([probe[4][name] for probe in alone[k]]) for name in SOME}, 1e-3)
        close(one.measurements, [probe[3][2].sum() for probe in alone[k]], 1e-3)
        close(jax.tree.leaves(one.state.params), alone[k][1][3][:2], 1e-3)


def test_members_go_on_each_from_its_own_step_compiled_once(members):
    states = [
        jax.tree.map(jnp.array, found.state)
        for one, step in zip(members, (4, 12, 8, 14), strict=True)
        for found in audit.training_dynamics(one.seed, TWO_LAYERS, one.images, one.labels, own(one), {})
        if int(found.state.step) == step
    ]
    weights = [None, np.repeat([0, 1], 6).astype(np.float32)] * 2
    going = [
        one._replace(labels=other.labels, weight=weight)
        for one, other, weight in zip(members, members[::-1], weights, strict=True)
    ]
    traced = Model(TWO_LAYERS.init, chex.assert_max_traces(n=1)(apply_two_layers))
    makers = [partial(lambda *made: made, state, one) for state, one in zip(states, going, strict=True)]
    for strategy, model in (("loop", traced), ("vmap", TWO_LAYERS)):
        found = dict(population.continue_training(makers, model, SETTINGS, strategy=strategy))
        assert sorted(found) == [0, 1, 2, 3]
        for k, one in enumerate(going):
            weight = np.ones(12, np.float32) if one.weight is None else one.weight
            wanted = audit.continue_training(one.seed, TWO_LAYERS, states[k], one.images, one.labels, weight, own(one))
            assert int(found[k].step) == 14
            close(found[k].params, wanted.params, 1e-5 if strategy == "loop" else 1e-3)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_continued_training_goes_on_where_it_was_stopped(members, tmp_path, damaged):
    """It used to begin anew. What is kept and damaged is made again."""
    one = members[0]
    state = audit.training_dynamics(one.seed, TWO_LAYERS, one.images, one.labels, own(one), {})
    start = jax.tree.map(jnp.array, next(found.state for found in state if int(found.state.step) == 4))
    makers, files, steps = [lambda: (start, one)], [tmp_path / "one.npz"], list[int]()

    def apply(params, images, *, key=None):
        jax.debug.callback(lambda: steps.append(1))
        return apply_two_layers(params, images, key=key)

    continued = partial(population.continue_training, settings=SETTINGS, checkpoints=files, seconds=0, strategy="loop")
    [(_, whole)] = population.continue_training(makers, TWO_LAYERS, SETTINGS, strategy="loop")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(population, "save_arrays", stopped := Stopped(population.save_arrays, 2))
        list(continued(makers, TWO_LAYERS))
    assert files[0].is_file() and stopped.calls == 2
    if damaged:
        files[0].write_bytes(files[0].read_bytes()[:-100])
    again = continued(makers, Model(TWO_LAYERS.init, apply))
    _, end = next(again)
    assert files[0].is_file()  # until the next is asked for
    assert not list(again)
    assert not files[0].exists()
    jax.effects_barrier()
    assert len(steps) == (10 if damaged else 6)  # of the ten from step 4 to 14, kept at 8
    close(jax.tree.leaves(end.params), jax.tree.leaves(whole.params), 0 if not damaged else 1e-6)


class Stopped:
    """A function that is interrupted at its n-th call."""

    def __init__(self, function, n):
        self.function, self.n, self.calls = function, n, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == self.n:
            raise KeyboardInterrupt
        return self.function(*arguments)


def test_labels_are_judged_within_the_training(members):
    late = SETTINGS._replace(latest_judgement=15)
    with pytest.raises(ConfigError, match="latest_judgement: step 15 of 14"):
        next(population.observe([lambda: members[0]], TWO_LAYERS, late, SOME))


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_member_that_diverges_or_cannot_be_made_ends_alone(members, strategy):
    def make(k):
        if k == 2:
            raise DataError("no such images")
        return members[0]._replace(learning_rate=(1e-2, NAN)[k])

    makers = [partial(make, k) for k in range(3)]
    found = dict(population.observe(makers, TWO_LAYERS, SETTINGS, SOME, strategy=strategy))
    assert "not finite after step 1" in str(found[1]) and str(found[2]) == "no such images"
    start = [partial(lambda k, maker: (found[0].state, maker()), k, maker) for k, maker in enumerate(makers)]
    ends = dict(population.continue_training(start, TWO_LAYERS, SETTINGS, strategy=strategy))
    assert int(ends[0].step) == 14 and isinstance(ends[1], DataError) and str(ends[2]) == "no such images"


def test_as_many_side_by_side_as_memory_holds(members, monkeypatch):
    """The states of the scores count: VOG keeps maps of every image."""
    one = members[0]
    without, with_maps = (bytes_per_member(one, TWO_LAYERS, SETTINGS, chosen) for chosen in ({}, SOME))
    states = scores.init(SOME, len(one.images), one.labels.shape[1:])
    assert with_maps - without == sum(leaf.nbytes for leaf in jax.tree.leaves(states)) > 4 * one.images.nbytes
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 3 * with_maps})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    makers = [lambda k=k: members[k] for k in range(4)]
    found = parallel_groups(makers, lambda one: one, TWO_LAYERS, SETTINGS, SOME, None, None)
    assert [part.tolist() for part in found] == [[0, 1], [2, 3]]  # two fit into four fifths of the memory of three
