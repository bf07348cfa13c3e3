"""Followed trainings as a population: each member is the training that `audit` makes of it alone, however it is run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError, WorkdirError
from medjax.labels import audit, population, scores
from medjax.labels.dynamics import Settings
from medjax.labels.errors import corrupt
from medjax.models.model import Model
from medjax.phantoms.echo import echo
from tests.labels.two_layers import TWO_LAYERS, apply_two_layers

SETTINGS = Settings(4, batch=8, steps=14, every=4, latest=8)
SEEDS, RATES = [0, 0, 1, 1], [1e-2, 2e-2, 1e-2, 5e-3]


@pytest.fixture(scope="module")
def data():
    """Images and labels of the members: two kinds of error of two seeds."""
    drawn = [echo(seed, 12, 16, hard=0.0) for seed in SEEDS]
    kinds = ("random", "swap", "random", "swap")
    wrong = [corrupt(seed, one.labels, kind, 0.25).labels for seed, one, kind in zip(SEEDS, drawn, kinds, strict=True)]
    return [one.images for one in drawn], wrong


def numbers(snapshot, labels):
    """Of a snapshot: parameters, agreement and all scores, at this moment."""
    found = scores.evaluate(scores.built_in(), snapshot.states, labels)
    leaves = [np.array(leaf) for leaf in jax.tree.leaves((snapshot.state.params, snapshot.state.ema_params))]
    return int(snapshot.state.step), snapshot.memorization, snapshot.agreement, leaves, found


def followed(data, members=range(4), **keywords):
    """All snapshots of each member."""
    images, labels = ([part[k] for k in members] for part in data)
    seeds, rates = ([part[k] for k in members] for part in (SEEDS, RATES))
    found = {k: [] for k in members}
    for number, one in population.training_dynamics(
        seeds, TWO_LAYERS, images, labels, SETTINGS, rates=rates, **keywords
    ):
        found[members[number]].append(numbers(one, labels[number]))
    return found


@pytest.fixture(scope="module")
def alone(data):
    images, labels = data
    return {
        k: [
            numbers(one, labels[k])
            for one in audit.training_dynamics(
                SEEDS[k], TWO_LAYERS, images[k], labels[k], SETTINGS._replace(learning_rate=RATES[k])
            )
        ]
        for k in range(4)
    }


def same(one, other, tolerance):
    assert one.keys() == other.keys()
    for k, snapshots in one.items():
        for found, wanted in zip(snapshots, other[k], strict=True):
            assert found[:2] == wanted[:2]
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found[2:], wanted[2:]
            )


@pytest.mark.parametrize(
    ("strategy", "width", "tolerance"), [("loop", None, 1e-5), ("vmap", None, 1e-3), ("vmap", 3, 1e-3)]
)
def test_a_member_is_its_training_alone(data, alone, strategy, width, tolerance):
    assert [one[0] for one in alone[0]] == [4, 8, 12, 14]
    same(followed(data, strategy=strategy, width=width), alone, tolerance)


def test_members_go_on_each_from_its_own_step_compiled_once(data, monkeypatch):
    images, labels = data
    settings = SETTINGS._replace(learning_rate=1e-2)
    states = []
    for k, step in enumerate((4, 12, 8, 14)):
        states += [
            jax.tree.map(jnp.array, one.state)
            for one in audit.training_dynamics(SEEDS[k], TWO_LAYERS, images[k], labels[k], settings, {})
            if int(one.state.step) == step
        ]
    weights = [np.ones(12, np.float32), np.repeat([0, 1], 6).astype(np.float32)] * 2
    other = labels[::-1]
    traced = Model(TWO_LAYERS.init, chex.assert_max_traces(n=1)(apply_two_layers))
    found = population.continue_training(SEEDS, traced, states, images, other, weights, settings, strategy="loop")
    for k, end in enumerate(found):
        wanted = audit.continue_training(SEEDS[k], TWO_LAYERS, states[k], images[k], other[k], weights[k], settings)
        assert int(end.step) == 14
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), end.params, wanted.params)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_what_was_interrupted_goes_on_with_other_members_beside_it(data, alone, strategy, tmp_path):
    folders = [tmp_path / str(k) for k in range(4)]
    images, labels = data
    first = population.training_dynamics(
        SEEDS[:2], TWO_LAYERS, images[:2], labels[:2], SETTINGS, rates=RATES[:2], checkpoints=folders[:2],
        strategy=strategy,
    )  # fmt: skip
    assert [next(first)[0] for _ in range(3)] == [0, 1, 0]  # so the first member is one probe ahead
    first.close()
    found = followed(data, checkpoints=folders, strategy=strategy)
    assert [len(snapshots) for snapshots in found.values()] == [3, 4, 4, 4]  # their last ones once more
    same(found, {k: snapshots[-len(found[k]) :] for k, snapshots in alone.items()}, 1e-3)
    again = followed(data, members=[3, 1], checkpoints=[folders[3], folders[1]])
    same(again, {k: alone[k][-1:] for k in (3, 1)}, 1e-3)
    with pytest.raises(WorkdirError, match="holds another run: other seed"):
        followed(data, members=[3], checkpoints=[folders[0]])


def test_a_member_that_diverges_ends_alone(data):
    images, labels = data
    rates = [1e-2, float("nan")]
    found = list(population.training_dynamics([0, 0], TWO_LAYERS, images[:2], labels[:2], SETTINGS, {}, rates=rates))
    assert [k for k, _ in found] == [0, 1, 0, 0, 0]
    assert isinstance(found[1][1], DataError) and "not finite after step 1" in str(found[1][1])
    states = [one.state for k, one in found[:1]] * 2
    weights = [np.ones(12, np.float32)] * 2
    good, bad = population.continue_training(
        [0, 0], TWO_LAYERS, states, images[:2], labels[:2], weights, SETTINGS, rates=rates
    )
    assert int(good.step) == 14 and isinstance(bad, DataError)
