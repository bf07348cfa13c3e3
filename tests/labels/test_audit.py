"""Training dynamics: its snapshots, any network, a user's score, two ways to probe, resuming, wrong names found."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError, WorkdirError
from medjax.labels import scores
from medjax.labels.audit import continue_training, predict, training_dynamics
from medjax.labels.dynamics import TrainingSettings, cyclic_rate
from medjax.labels.errors import corrupt
from medjax.labels.probe import probe
from medjax.labels.scores import LabelScore
from medjax.metrics.detection import auroc
from medjax.models.model import Model, check_network
from medjax.models.unet import unet
from medjax.phantoms.echo import echo
from medjax.training.batches import batch_indices
from tests.labels.two_layers import TWO_LAYERS, apply_two_layers

SETTINGS = TrainingSettings(4, learning_rate=1e-2, batch=8, steps=60, probe_every=15, latest_judgement=30)
MODEL = unet(4, (8, 16))


def copies(snapshots):
    return [jax.tree.map(jnp.array, snapshot) for snapshot in snapshots]


def same(one, other):
    def numbers(leaf):
        return jax.random.key_data(leaf) if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) else leaf

    jax.tree.map(lambda a, b: np.testing.assert_array_equal(numbers(a), numbers(b)), one, other)


# ── one run of the built-in scores ──


@pytest.fixture(scope="module")
def run():
    """Data of which a quarter has two structures' names changed, and copies of all snapshots."""
    data = echo(0, 20, 32, hard=0.0)
    wrong = corrupt(1, data.labels, "swap", 0.25)
    return data, wrong, copies(training_dynamics(0, MODEL, data.images, wrong.labels, SETTINGS))


def test_probes_come_as_asked_and_the_network_learns(run):
    _, _, snapshots = run
    assert [int(snapshot.state.step) for snapshot in snapshots] == [15, 30, 45, 60]
    assert [int(snapshot.states[0].count[0]) for snapshot in snapshots] == [1, 2, 3, 4]
    assert bool(snapshots[1].memorization) and float(snapshots[-1].agreement) > 0.4


def test_the_scores_are_those_of_the_probes(run):
    data, wrong, snapshots = run
    labels = jnp.asarray(wrong.labels)
    look = jax.jit(partial(probe, MODEL.apply))
    seen = [look(one.state.params, jnp.asarray(data.images), labels) for one in snapshots]
    found = scores.evaluate(scores.built_in(), snapshots[-1].states, wrong.labels)
    assert found.keys() == {*scores.built_in(), "vog"} and len(found) == 20
    np.testing.assert_allclose(found["dice_mean"], np.mean([s.losses["dice_loss"] for s in seen], axis=0), rtol=1e-4)
    margins = np.mean([scores.negative_margin(s) for s in seen], axis=0)
    np.testing.assert_allclose(found["aum"], margins, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["softmin"], scores.one_minus_softmin(seen[-1]), rtol=1e-4)
    maps = np.stack([one.gradients["gt_logit"] for one in seen]).astype(np.float64)
    np.testing.assert_allclose(found["vog_published"], maps.std(0).mean((1, 2)), rtol=1e-4)


def test_scores_of_one_kind_share_their_state(run):
    _, _, snapshots = run
    pairs = scores.trackers(scores.built_in())
    assert len(pairs) == len(snapshots[0].states) == 7  # six numbers of each image, and VOG's maps once
    assert scores.trackers(scores.built_in()) == pairs  # equal when built equally: nothing is compiled again


def test_wrong_names_are_found(run):
    _, wrong, snapshots = run
    found = scores.evaluate(scores.built_in(), snapshots[-1].states, wrong.labels)
    assert min(float(auroc(found[name], wrong.corrupted)) for name in ("dice_mean", "loss_mean", "aum")) > 0.8


def test_going_on_with_the_same_labels_is_the_same_run(run):
    data, wrong, snapshots = run
    weight = np.ones(len(data.images), np.float32)
    end = continue_training(0, MODEL, snapshots[1].state, data.images, wrong.labels, weight, SETTINGS)
    same(end, snapshots[-1].state)
    other = continue_training(0, MODEL, snapshots[1].state, data.images, wrong.clean, weight, SETTINGS)
    assert not np.array_equal(jax.tree.leaves(other.params)[0], jax.tree.leaves(end.params)[0])
    assert predict(MODEL, end.ema_params, data.images, batch=7).shape == data.labels.shape


def test_images_of_no_weight_do_not_count(run):
    """What becomes of an ignored image's label does not change a bit."""
    data, wrong, snapshots = run
    weight = np.where(wrong.corrupted, 0, 1).astype(np.float32)
    ends = [
        continue_training(0, MODEL, snapshots[2].state, data.images, labels, weight, SETTINGS)
        for labels in (wrong.labels, wrong.clean)
    ]
    same(*(end.params for end in ends))


def test_the_learning_rate_may_go_round():
    rates = [float(cyclic_rate(0.01, 4, count)) for count in range(9)]
    np.testing.assert_allclose(rates, 0.01 * np.array([1, 0.75, 0.5, 0.25, 1, 0.75, 0.5, 0.25, 1]))
    data = echo(0, 8, 16, hard=0.0)
    settings = SETTINGS._replace(steps=8, probe_every=4, cycles=2)
    snapshots = list(training_dynamics(0, TWO_LAYERS, data.images, data.labels, settings))
    assert len(snapshots) == 2 and np.isfinite(snapshots[-1].agreement)


# ── parts of a user's own, and resuming: with a network that is no Flax module ──


@pytest.fixture(scope="module")
def small():
    return echo(0, 12, 16, hard=0.0)


QUICK = TrainingSettings(4, learning_rate=1e-2, batch=8, steps=20, probe_every=5, latest_judgement=10)
WORST = LabelScore(
    lambda images, space: jnp.full(images, -jnp.inf),
    lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
    lambda state, labels: state,
)


@pytest.mark.parametrize("kind", ["separate", "in_step"])
def test_an_interrupted_run_goes_on_to_the_same_bits(kind, small, tmp_path):
    asked = {"worst": WORST, **scores.built_in(gradients=("loss",))}
    start = partial(training_dynamics, 3, TWO_LAYERS, small.images, small.labels, QUICK, asked, kind)
    whole = copies(start())
    first = start(checkpoints=tmp_path / "c")
    for expected in whole[:2]:
        same(next(first), expected)
    first.close()
    rest = copies(start(checkpoints=tmp_path / "c"))
    assert [int(snapshot.state.step) for snapshot in rest] == [10, 15, 20]  # the last one once more
    for one, expected in zip(rest, whole[1:], strict=True):
        same(one, expected)
    again = copies(start(checkpoints=tmp_path / "c"))
    assert len(again) == 1
    same(again[0], whole[-1])


def test_a_score_of_ones_own(small):
    *_, last = training_dynamics(0, TWO_LAYERS, small.images, small.labels, QUICK, {"worst": WORST, "loss": LOSS})
    look = jax.jit(partial(probe, apply_two_layers, gradients=()))
    seen = [
        look(one.state.params, small.images, small.labels)
        for one in copies(training_dynamics(0, TWO_LAYERS, small.images, small.labels, QUICK, {"loss": LOSS}))
    ]
    found = scores.evaluate({"worst": WORST, "loss": LOSS}, last.states, small.labels)
    worst = np.max([one.losses["cross_entropy"] for one in seen], axis=0)
    np.testing.assert_allclose(found["worst"], worst, rtol=1e-5)


LOSS = scores.built_in()["loss"]


def test_scores_that_cannot_be_had_are_named(small):
    start = partial(training_dynamics, 0, TWO_LAYERS, small.images, small.labels, QUICK)
    built_in = scores.built_in()
    with pytest.raises(
        ConfigError, match=r"scores vog_peak need the gradients gt_logit.*predicted_loss; in-step probes have"
    ):
        next(start({"vog_peak": built_in["vog_peak"]}, "in_step"))
    careless = WORST._replace(update=lambda state, index, probe: state.at[index].set(probe.gradients["loss"]))
    with pytest.raises(ConfigError, match="score mine looks at 'loss' of a probe"):
        next(start({"mine": careless}))
    scalar = WORST._replace(score=lambda state, labels: state.max())
    *_, last = start({"mine": scalar})
    with pytest.raises(ConfigError, match=r"score mine gave an array of \(\); expected \(12,\)"):
        scores.evaluate({"mine": scalar}, last.states, small.labels)


def test_riding_probes_count_every_image_once_a_step(small):
    """Twelve images in batches of eight: a batch where epochs join may hold an image twice."""
    counted = scores.mean_value(scores.cross_entropy)
    settings = QUICK._replace(steps=6, probe_every=6)
    (snapshot,) = training_dynamics(
        1, TWO_LAYERS, small.images, small.labels, settings, {"loss_mean": counted}, "in_step"
    )
    batches = [np.unique(batch_indices(number, 12, 8, 1)) for number in range(6)]
    np.testing.assert_array_equal(snapshot.states[0].count, np.bincount(np.concatenate(batches)))
    assert min(len(batch) for batch in batches) < 8
    values = scores.evaluate({"loss_mean": counted}, snapshot.states, small.labels)["loss_mean"]
    assert np.isfinite(values).all() and (values > 0).all()


# ── what cannot be ──


@pytest.mark.parametrize("kind", ["separate", "in_step"])
def test_a_loss_that_is_not_finite_says_what_to_try(kind, small):
    wild = QUICK._replace(learning_rate=float("nan"), augmentation=None)
    asked = scores.built_in(gradients=("loss",))
    with pytest.raises(DataError, match=r"the loss is not finite by step 5; try a smaller learning rate"):
        next(training_dynamics(0, TWO_LAYERS, small.images, small.labels, wild, asked, kind))


def test_a_folder_of_another_run_is_refused(small, tmp_path):
    asked, folder = {"worst": WORST}, tmp_path / "c"

    def first(seed=0, images=small.images, labels=small.labels, settings=QUICK, asked=asked, kind="separate"):
        snapshots = training_dynamics(seed, TWO_LAYERS, images, labels, settings, asked, kind, folder)
        return int(next(snapshots).state.step)

    assert first() == first() == 5
    others = {
        "seed": {"seed": 1}, "settings": {"settings": QUICK._replace(learning_rate=0.02)},
        "labels": {"labels": 3 - small.labels}, "images": {"images": 1 - small.images},
        "scores": {"asked": {"other": WORST}},
    }  # fmt: skip
    for name, changed in others.items():
        with pytest.raises(WorkdirError, match=f"holds another run: other {name}; delete it or give another folder"):
            first(**changed)
    with pytest.raises(WorkdirError, match="other seed, settings"):
        first(seed=1, kind="in_step")


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda params, x, key=None: params["weight"], "does not take images of .*KeyError: 'weight'"),
        (lambda params, x, key=None: x.logits, "does not take images of .*AttributeError: "),
        (lambda params, x, key=None: (), "does not take images of .*IndexError: "),
        (
            lambda params, x, key=None: {"out": x},
            r"gives a dict for an image of \(16, 16, 1\); expected \(1, 16, 16, 4\)",
        ),
    ],
)
def test_a_network_that_is_none_is_one_line(apply, message):
    with pytest.raises(DataError, match=message) as error:
        check_network(Model(lambda key, x: {}, apply), (16, 16, 1), 4)
    assert "\n" not in str(error.value)


def test_images_that_cannot_be_trained_on_are_refused():
    images, labels = np.zeros((8, 16, 16, 1), np.float32), np.zeros((8, 16, 16), np.int32)

    def refused(message, images, labels, model=MODEL):
        with pytest.raises(DataError, match=message):
            next(training_dynamics(0, model, images, labels, SETTINGS))

    refused("at least a batch of 8", images[:4], labels[:4])
    refused("labels from 0 to 7; expected 0 to 3", images, labels + 7 * np.eye(16, dtype=np.int32))
    refused("images from -3 to -3", images - 3, labels)
    refused(r"network does not take images of \(15, 16, 1\)", images[:, :15], labels[:, :15])
    refused(r"network gives \(1, 16, 16, 3\) .* expected \(1, 16, 16, 4\)", images, labels, unet(3, (8,)))


def test_a_network_of_several_levels_is_judged_by_its_finest():
    deep = Model(TWO_LAYERS.init, lambda params, x, key=None: (apply_two_layers(params, x), x[:, ::2, ::2]))
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 1)).astype(np.float32)
    check_network(deep, images.shape[1:], 4)
    params = deep.init(jax.random.key(0), images)
    np.testing.assert_array_equal(predict(deep, params, images), predict(TWO_LAYERS, params, images))


def test_what_is_no_score_of_ones_own_is_one_line():
    """Also what a user's file gives in place of one, whatever it is."""
    for given, found in ((lambda state: state, "function"), ({"mine": 3}, "int")):
        with pytest.raises(ConfigError, match=f"label_scores: {found}; expected a LabelScore, or a dict of them"):
            scores.with_custom_scores(given)
