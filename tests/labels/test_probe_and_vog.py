"""Gradient maps, their streaming variance, scores: against one example at a time, closed forms, float64, cleanlab."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.labels import vog
from medjax.labels.probe import GRADIENTS
from medjax.labels.probe import probe as eager_probe
from medjax.labels.scores import cross_entropy, el2n, negative_margin, softmin
from medjax.models.unet import group_norm, unet
from medjax.running.arrays import load_arrays, save_arrays

IMAGES, PROBES, SPACE = 6, 5, (8, 8)
probe = jax.jit(eager_probe, static_argnums=(0, 4))


@pytest.fixture(scope="module")
def net():
    model = unet(3, (4, 8), group_norm(4))
    draw = np.random.default_rng(1)
    x = jnp.asarray(draw.normal(size=(4, 8, 8, 2)), jnp.float32)
    labels = jnp.asarray(draw.integers(0, 3, (4, 8, 8)), jnp.int32)
    return model.apply, jax.jit(model.init)(jax.random.key(0), x), x, labels


def scalar(reading, apply, params, x, y):
    """What a reading differentiates, written out for one image."""
    logits = apply(params, x[None])[0]
    chosen = jnp.argmax(logits, -1) if reading.startswith("predicted") else y
    kind = reading.split("_")[-1]
    values = {"prob": jax.nn.softmax(logits), "loss": -jax.nn.log_softmax(logits)}.get(kind, logits)
    return jnp.sum(jnp.take_along_axis(values, chosen[..., None], -1))


def test_a_batch_gives_every_images_own_gradient(net):
    apply, params, x, y = net
    maps = probe(apply, params, x, y).gradients
    for reading in GRADIENTS:
        gradient = jax.grad(lambda one, label, weights, r=reading: scalar(r, apply, weights, one, label))
        alone = np.asarray(jax.jit(jax.vmap(gradient, (0, 0, None)))(x, y, params))
        np.testing.assert_allclose(maps[reading], alone.mean(-1), rtol=1e-5, atol=1e-6, err_msg=reading)


def test_a_linear_network_has_its_weights_as_gradient(net):
    _, _, x, y = net
    weights = np.array([[1.0, 3.0, -2.0], [0.0, 2.0, 5.0]], np.float32)
    maps = probe(lambda w, x: x @ w, weights, x, y, ("gt_logit",)).gradients
    np.testing.assert_allclose(maps["gt_logit"], weights.mean(0)[np.asarray(y)], rtol=1e-6)


def test_scores_say_what_their_equations_say(net):
    apply, params, x, y = net
    seen = probe(apply, params, x, y, ())
    logits = np.asarray(apply(params, x), np.float64)
    p, q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), np.eye(3)[np.asarray(y)]
    other = np.where(q > 0, -np.inf, logits).max(-1)
    expected = {
        cross_entropy: -np.log((p * q).sum(-1)).mean((1, 2)),
        negative_margin: (other - (logits * q).sum(-1)).mean((1, 2)),
        el2n: np.sqrt(((p - q) ** 2).sum(-1)).mean((1, 2)),
    }
    for quantity, value in expected.items():
        np.testing.assert_allclose(quantity(seen), value, rtol=1e-5, err_msg=quantity.__name__)


def test_softmin_is_cleanlabs():
    quality = np.random.default_rng(0).uniform(size=(5, 6, 7))
    flat = quality.reshape(5, -1)
    by_hand = [np.sum(s * np.exp((1 - s) / 0.1) / np.exp((1 - s) / 0.1).sum()) for s in flat]
    np.testing.assert_allclose(softmin(jnp.asarray(quality, jnp.float32)), by_hand, rtol=1e-5)
    rank = pytest.importorskip("cleanlab.internal.multilabel_scorer")  # not among medjax's dependencies
    np.testing.assert_allclose(softmin(jnp.asarray(quality, jnp.float32)), rank.softmin(flat), rtol=1e-5)


# ── streaming ──


@pytest.fixture(scope="module")
def probes():
    """Maps with a large common part, as gradients have."""
    return np.random.default_rng(0).normal(3, 1, (PROBES, IMAGES, *SPACE)).astype(np.float32)


def streamed(probes, order=range(PROBES), **kept):
    state = vog.init(IMAGES, SPACE, ("loss",), **kept)
    for k in order:
        for rows in (np.arange(0, 2), np.arange(2, IMAGES)):
            state = vog.update(state, jnp.asarray(rows), {"loss": jnp.asarray(probes[k][rows])})
    return state


def relative(one, other):
    return np.abs(np.asarray(one) - other).max() / np.abs(other).max()


def test_streaming_is_two_passes_in_float64_whatever_the_order(probes):
    expected = probes.astype(np.float64).std(0)
    for order in (range(PROBES), [3, 0, 4, 1, 2]):
        assert relative(vog.deviation(streamed(probes, order), "loss"), expected) < 1e-6


def test_states_merge(probes):
    one, other = streamed(probes, [0, 3]), streamed(probes, [1, 2, 4])
    merged = vog.merge(one, other)
    assert relative(vog.deviation(merged, "loss"), probes.astype(np.float64).std(0)) < 1e-6
    nothing = vog.init(IMAGES, SPACE, ("loss",))
    jax.tree.map(np.testing.assert_array_equal, vog.merge(one, nothing), one)


def test_half_the_memory_costs_a_thousandth():
    maps = np.random.default_rng(1).normal(size=(8, 3, 64, 64)).astype(np.float32)
    half = vog.init(3, (64, 64), ("loss",), dtype=jnp.bfloat16)
    for one in maps:
        half = vog.update(half, jnp.arange(3), {"loss": jnp.asarray(one)})
    assert half.mean["loss"].dtype == half.squares["loss"].dtype == jnp.bfloat16
    found = vog.score(half, "loss", jnp.ones((3, 64, 64), jnp.int32))
    assert relative(found, maps.astype(np.float64).std(0).mean((1, 2))) < 1e-3


def test_blocks_are_the_variance_of_their_means(probes):
    labels = jnp.ones((IMAGES, *SPACE), jnp.int32)
    pooled = probes.reshape(PROBES, IMAGES, 4, 2, 4, 2).mean((3, 5)).astype(np.float64).std(0).mean((1, 2))
    assert relative(vog.score(streamed(probes, pool=2), "loss", labels), pooled) < 1e-6
    with pytest.raises(ConfigError, match="blocks of 3"):
        vog.init(IMAGES, SPACE, ("loss",), pool=3)


def test_a_kept_state_goes_on_to_the_same_bits(probes, tmp_path):
    half = streamed(probes, [0, 1])
    save_arrays(tmp_path / "vog.npz", half)
    back = vog.State(*jax.tree.map(jnp.asarray, load_arrays(tmp_path / "vog.npz", half)))
    for k in (2, 3, 4):
        maps = {"loss": jnp.asarray(probes[k])}
        half, back = (vog.update(state, jnp.arange(IMAGES), maps) for state in (half, back))
    jax.tree.map(np.testing.assert_array_equal, back, half)


def test_scores_by_region_and_relative_scores(probes):
    maps = {"gt_logit": probes, "predicted_logit": 2 * probes[::-1], "predicted_loss": probes[[1, 0, 3, 2, 4]] ** 2}
    state = vog.init(IMAGES, SPACE, (*maps, "gt_minus_predicted"))
    for k in range(PROBES):
        seen = vog.add_difference({name: jnp.asarray(every[k]) for name, every in maps.items()})
        state = vog.update(state, jnp.arange(IMAGES), seen)
    labels = np.zeros((IMAGES, *SPACE), np.int32)
    labels[:, 3:5, 3:5] = 1
    given, own, predicted_loss = (maps[name].std(0) for name in maps)
    difference = probes - 2 * probes[::-1]
    wide = np.zeros(SPACE, bool)
    wide[2:6, 2:6] = True
    second, below = np.sqrt((difference**2).mean(0)), np.sqrt((maps["predicted_loss"] ** 2).mean(0))
    inside = given[:, 3:5, 3:5].mean((1, 2))
    for reading, region, centered, expected in (
        ("gt_logit", "image", True, given.mean((1, 2))),
        ("gt_logit", "foreground", True, given[:, wide].mean(1)),
        ("gt_logit", "class", True, (inside - inside.mean()) / inside.std()),
        ("gt_logit", "peak", True, np.quantile(given.reshape(IMAGES, -1), 0.95, axis=1)),
        ("logit_over_predicted", "image", True, given.mean((1, 2)) / own.mean((1, 2))),
        ("difference_over_predicted", "image", True, difference.std(0).mean((1, 2)) / predicted_loss.mean((1, 2))),
        ("difference_over_predicted", "image", False, second.mean((1, 2)) / below.mean((1, 2))),
        (
            "difference_over_predicted", "peak", False,
            np.quantile((second / (below + 0.1 * np.median(below))).reshape(IMAGES, -1), 0.95, axis=1),
        ),
    ):  # fmt: skip
        found = vog.score(state, reading, jnp.asarray(labels), region, centered)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=f"{reading} {region} {centered}")
    empty = jnp.asarray(np.where(np.arange(IMAGES)[:, None, None] == 2, 0, labels))
    by_class, by_foreground = (np.asarray(vog.score(state, "gt_logit", empty, r)) for r in ("class", "foreground"))
    others = np.delete(inside, 2)
    np.testing.assert_allclose(np.delete(by_class, 2), (others - others.mean()) / others.std(), rtol=1e-3, atol=1e-4)
    assert by_class[2] == 0
    np.testing.assert_allclose(by_foreground[2], given[2].mean(), rtol=1e-4)
    assert np.isfinite(vog.score(state, "gt_logit", 0 * empty, "class")).all()
    for reading, region in (("nothing", "image"), ("loss_over_predicted", "class")):
        with pytest.raises(ConfigError, match=f"VOG: quantity {reading}, region {region}"):
            vog.score(state, reading, jnp.asarray(labels), region)
