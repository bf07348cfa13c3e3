"""A watched run: what is logged of it, going on from any moment, and that wrong names are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.labels import scores
from medjax.labels.audit import Settings, _cyclic, go_on, network, predicted, watch
from medjax.labels.errors import corrupt
from medjax.labels.probe import probe
from medjax.metrics.detection import auroc
from medjax.phantoms.echo import echo

SETTINGS = Settings(4, (8, 16), rate=1e-2, batch=8, steps=60, every=15, latest=30)


@pytest.fixture(scope="module")
def run():
    """Data of which a quarter has two structures' names changed, and copies of all moments."""
    data = echo(0, 20, 32, hard=0.0)
    wrong = corrupt(1, data.labels, "swap", 0.25)
    moments = [jax.tree.map(jnp.array, moment) for moment in watch(0, data.images, wrong.labels, SETTINGS)]
    return data, wrong, moments


def test_probes_come_as_asked_and_the_network_learns(run):
    _, _, moments = run
    assert [int(moment.state.step) for moment in moments] == [15, 30, 45, 60]
    assert [int(moment.log.vog.count[0]) for moment in moments] == [1, 2, 3, 4]
    assert moments[1].turned and float(moments[-1].agreement) > 0.4


def test_the_log_holds_what_probes_said(run):
    data, wrong, moments = run
    seen = [
        probe(network(SETTINGS), moment.state.params, jnp.asarray(data.images), jnp.asarray(wrong.labels))
        for moment in moments
    ]
    found = scores.scores(moments[-1].log, jnp.asarray(wrong.labels))
    assert set(found) == {"vog", *scores.NAMES}
    mean = {name: np.mean([one.scores[name] for one in seen], axis=0) for name in scores.SCORES}
    np.testing.assert_allclose(found["dice_mean"], mean["dice_loss"], rtol=1e-4)
    np.testing.assert_allclose(found["aum"], mean["margin"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["softmin"], seen[-1].scores["softmin"], rtol=1e-4)
    maps = np.stack([one.maps["gt_logit"] for one in seen]).astype(np.float64)
    np.testing.assert_allclose(found["vog_published"], maps.std(0).mean((1, 2)), rtol=1e-4)


def test_wrong_names_are_found(run):
    _, wrong, moments = run
    found = scores.scores(moments[-1].log, jnp.asarray(wrong.labels))
    assert min(float(auroc(found[name], wrong.bad)) for name in ("dice_mean", "loss_mean", "aum")) > 0.8


def test_going_on_with_the_same_labels_is_the_same_run(run):
    data, wrong, moments = run
    weight = np.ones(len(data.images), np.float32)
    end = go_on(0, moments[1].state, data.images, wrong.labels, weight, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, end, moments[-1].state)
    other = go_on(0, moments[1].state, data.images, wrong.clean, weight, SETTINGS)
    assert not np.array_equal(jax.tree.leaves(other.params)[0], jax.tree.leaves(end.params)[0])
    assert predicted(end.average, data.images, SETTINGS, batch=7).shape == data.labels.shape


def test_images_of_no_weight_do_not_count(run):
    """What becomes of an ignored image's label does not change a bit."""
    data, wrong, moments = run
    weight = np.where(wrong.bad, 0, 1).astype(np.float32)
    ends = [go_on(0, moments[2].state, data.images, labels, weight, SETTINGS) for labels in (wrong.labels, wrong.clean)]
    jax.tree.map(np.testing.assert_array_equal, *(end.params for end in ends))


def test_the_learning_rate_may_go_round():
    rates = [float(_cyclic(0.01, 4, count)) for count in range(9)]
    np.testing.assert_allclose(rates, 0.01 * np.array([1, 0.75, 0.5, 0.25, 1, 0.75, 0.5, 0.25, 1]))
    data = echo(0, 8, 16, hard=0.0)
    moments = list(watch(0, data.images, data.labels, SETTINGS._replace(steps=8, every=4, cycles=2)))
    assert len(moments) == 2 and np.isfinite(moments[-1].agreement)


def test_images_that_cannot_be_trained_on_are_refused():
    images, labels = np.zeros((4, 16, 16, 1), np.float32), np.zeros((4, 16, 16), np.int32)
    with pytest.raises(DataError, match="at least a batch of 8"):
        next(watch(0, images, labels, SETTINGS))
    with pytest.raises(DataError, match="labels from 0 to 7; expected 0 to 3"):
        next(
            watch(
                0, np.tile(images, (2, 1, 1, 1)), np.tile(labels, (2, 1, 1)) + 7 * np.eye(16, dtype=np.int32), SETTINGS
            )
        )
    with pytest.raises(DataError, match="images from -3 to -3"):
        next(watch(0, np.tile(images, (2, 1, 1, 1)) - 3, np.tile(labels, (2, 1, 1)), SETTINGS))
    with pytest.raises(DataError, match="2 levels need multiples of 2"):
        next(watch(0, images[:, :15], labels[:, :15], SETTINGS))
