"""The training whose dynamics are read: what a riding probe has of a step's own passes; the rate is traced."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.labels import scores
from medjax.labels.dynamics import Batch, TrainingSettings, algorithm, tracking_algorithm
from medjax.labels.probe import probe
from medjax.labels.scores import LabelScore
from medjax.phantoms.echo import echo
from medjax.training.augment import Augmentation, augment
from medjax.training.losses import cross_entropy, dice_cross_entropy
from tests.labels.two_layers import TWO_LAYERS, apply_two_layers

QUICK = TrainingSettings(4, learning_rate=1e-2, batch=8, steps=20, probe_every=5, latest_judgement=10)


WORST = LabelScore(
    lambda images, space: jnp.full(images, -jnp.inf),
    lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
    lambda state, labels: state,
)


# ── in-step probes ──


def one_step(augmentation, loss, weight=None, size=8):
    """The riding Probe of one step, and what it was made of."""
    data = echo(2, size, 16, hard=0.0)
    images = jnp.asarray(0.3 + data.images / 2)
    settings = QUICK._replace(augmentation=augmentation, loss=loss, batch=size)
    seen = LabelScore(
        lambda images, space: (jnp.zeros((images, *space)), jnp.zeros(images)),
        lambda state, index, probe: (
            state[0].at[index].set(probe.gradients["loss"]), state[1].at[index].set(probe.losses["cross_entropy"]),
        ),
        lambda state, labels: state[1],
        ("loss",),
    )  # fmt: skip
    train = algorithm(TWO_LAYERS, settings).init(jax.random.key(5), images)
    method = tracking_algorithm(TWO_LAYERS, settings, scores.trackers({"seen": seen}))
    weight = np.ones(size, np.float32) if weight is None else weight
    batch = Batch(images, jnp.asarray(data.labels), jnp.asarray(weight), jnp.arange(size))
    after, info = jax.jit(method.step)(method.init(train, scores.init({"seen": seen}, size, (16, 16))), batch)
    plain, expected = jax.jit(algorithm(TWO_LAYERS, settings).step)(train, batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.train.params, plain.params)
    np.testing.assert_allclose(info.loss, expected.loss, rtol=1e-6)
    return after.states[0][0], train, batch


def test_a_riding_map_is_the_separate_probes_where_nothing_is_augmented():
    maps, train, batch = one_step(None, cross_entropy)
    expected = probe(apply_two_layers, train.params, batch.images, batch.labels, ("loss",)).gradients["loss"]
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(expected).max()) > 1e-3


def test_weights_do_not_change_a_riding_map_and_an_image_of_no_weight_has_none():
    weight = np.array([1, 2, 0.5, 0, 1, 1, 3, 1], np.float32)
    maps, train, batch = one_step(None, dice_cross_entropy, weight)

    def total(images):
        return 256 * jnp.sum(dice_cross_entropy(apply_two_layers(train.params, images), batch.labels))

    expected = jax.grad(total)(batch.images).mean(-1)
    np.testing.assert_allclose(maps[weight > 0], expected[weight > 0], rtol=1e-4, atol=1e-6)
    assert not maps[3].any()


def test_a_riding_map_is_in_register_with_the_image_as_it_is():
    """By finite differences of the loss through the augmentation, in the direction of a few voxels."""
    settings = Augmentation(noise=0.0)
    maps, train, batch = one_step(settings, cross_entropy, size=2)
    keys = jax.random.split(jax.random.fold_in(train.key, 0), 2)

    @jax.jit
    def loss(images):
        moved, labels = jax.vmap(partial(augment, settings=settings))(keys, images, batch.labels)
        return 256 * cross_entropy(apply_two_layers(train.params, moved), labels)

    for row, column in ((8, 8), (3, 11), (12, 5)):
        step = jnp.zeros_like(batch.images).at[:, row, column].set(0.01)
        slope = (loss(batch.images + step) - loss(batch.images - step)) / 0.02
        np.testing.assert_allclose(maps[:, row, column], slope, rtol=0.05, atol=0.02)


# ── the learning rate is traced ──


@pytest.mark.parametrize(("kind", "cycles"), [("separate", 0), ("in_step", 2)])
def test_learning_rates_are_vmapped_and_compile_once(kind, cycles):
    """Two rates at once are two steps, one after the other, of one compiled program."""
    small, settings = echo(0, 12, 16, hard=0.0), QUICK._replace(cycles=cycles, augmentation=None)
    data = Batch(*map(jnp.asarray, (small.images[:8], small.labels[:8], np.ones(8, np.float32), np.arange(8))))
    train = algorithm(TWO_LAYERS, settings).init(jax.random.key(0), small.images)
    tracked = scores.trackers({"worst": WORST})
    start = tracking_algorithm(TWO_LAYERS, settings, tracked).init(train, scores.init({"worst": WORST}, 12, (16, 16)))

    def method(rate):
        its = settings._replace(learning_rate=rate)
        return tracking_algorithm(TWO_LAYERS, its, tracked) if kind == "in_step" else algorithm(TWO_LAYERS, its)

    def two_steps(step, state, batch):
        for _ in range(2):  # the warm-up's first rate is 0
            state = step(state, batch)[0]
        return (state.train if kind == "in_step" else state).params

    state = start if kind == "in_step" else train
    compiled = jax.jit(chex.assert_max_traces(two_steps, n=1))
    each = [compiled(method(rate).step, state, data) for rate in (0.003, 0.1)]
    together = jax.jit(jax.vmap(lambda rate: two_steps(method(rate).step, state, data)))(jnp.array([0.003, 0.1]))
    assert not np.allclose(each[0][0], each[1][0])
    for k, one in enumerate(each):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[k], b, rtol=1e-3, atol=1e-5), together, one)  # noqa: B023
