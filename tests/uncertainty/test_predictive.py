"""Predictive methods against closed forms: which member, mask or transform a sample has, for every image the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.models.layers import group_norm
from medjax.models.model import Model
from medjax.models.unet import unet
from medjax.uncertainty import predictive
from medjax.uncertainty.predictive import (
    augmented_ensemble,
    deep_ensemble,
    describe,
    fold_ensemble,
    monte_carlo_dropout,
    stack_members,
)
from medjax.uncertainty.sampling import samples
from medjax.uncertainty.transforms import compose, flips, gamma, rotation_and_shift
from tests.uncertainty.closed_form import LINEAR, RATE, UPHILL, init, stacked

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
ONE = {"weight": jnp.ones(1), "bias": jnp.zeros(1)}
BIASES = [0.0, 1.0, -2.0]


@jax.jit
def foreground(logits):
    return logits[..., 1]


def test_sample_k_is_member_k():
    for method in (deep_ensemble, fold_ensemble):
        found = samples(method, KEY, LINEAR, stacked(BIASES), IMAGES, 3, measure=foreground)
        np.testing.assert_allclose(found, IMAGES[None, ..., 0] + np.reshape(BIASES, (3, 1, 1, 1)), rtol=1e-6)


def test_a_member_that_is_not_there_is_no_other_one():
    beyond = jax.jit(lambda k: deep_ensemble(KEY, LINEAR, stacked(BIASES), IMAGES, k))(3)
    assert np.isnan(beyond[..., 1]).all()


def test_stacked_members_are_the_population():
    members = [{"weight": np.ones(1), "bias": np.full(1, bias)} for bias in BIASES]
    jax.tree.map(np.testing.assert_array_equal, stack_members(members), stacked(BIASES))
    with pytest.raises(DataError, match="member 1 differ"):
        stack_members([members[0], {"weight": np.ones(2), "bias": np.zeros(1)}])
    with pytest.raises(DataError, match="members: none"):
        stack_members([])


def test_ensembles_say_what_they_were_trained_on():
    assert describe(deep_ensemble, 5) == "5 seeds (the same training data)"
    assert describe(fold_ensemble, 5) == "5 folds (different training data)"
    assert describe(augmented_ensemble(flips(), 5, "folds"), 20).startswith("20 samples: 5 folds (different")
    assert describe(foreground, 2) == "2 samples of foreground"


def test_dropout_has_the_mean_and_variance_of_its_masks():
    """Of Σ w m x with m = Bernoulli(1 − p) / (1 − p): mean w · x, variance p / (1 − p) Σ (w x)²."""
    channels = np.random.default_rng(1).normal(size=(2, 2, 2, 5)).astype(np.float32)
    weight = np.array([1.0, -2.0, 0.5, 3.0, 1.5])
    params = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.zeros(1)}
    n = 4000
    found = samples(monte_carlo_dropout, KEY, LINEAR, params, channels, n, measure=foreground, strategy="vmap")
    variance = RATE / (1 - RATE) * ((weight * channels) ** 2).sum(-1)
    assert (np.abs(found.mean(0) - (weight * channels).sum(-1)) < 4 * np.sqrt(variance / n)).all()
    np.testing.assert_allclose(found.var(0), variance, rtol=0.1)
    masks = [{tuple(row) for row in found[:, image].reshape(n, -1)} for image in (0, 1)]
    assert len(masks[0]) == len(masks[1]) == 2**5  # a mask of five channels, not one of every voxel


def test_all_images_have_the_same_mask_and_an_ordinary_convolution():
    model = unet(2, (4, 4), norm=group_norm(2), dropout=0.5)
    images = np.random.default_rng(2).normal(size=(1, 8, 8, 1)).astype(np.float32).repeat(3, axis=0)
    params = jax.eval_shape(model.init, KEY, images)
    draw = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), params)

    def logits(key, params, images):
        return monte_carlo_dropout(key, model, params, images, 1)

    same = np.asarray(jax.jit(logits)(KEY, params, images))
    np.testing.assert_allclose(same, same[:1].repeat(3, axis=0), rtol=1e-5, atol=1e-5)
    apart = np.asarray(jax.jit(model.apply)(params, images, key=KEY))  # what the network does with a batch
    assert np.abs(apart[0] - apart[1]).max() > 0.1
    convolutions = [e for e in jax.make_jaxpr(logits)(KEY, params, images).eqns if "conv" in e.primitive.name]
    assert len(convolutions) == 8
    for each in convolutions:
        assert each.params["feature_group_count"] == each.params["batch_group_count"] == 1
        assert each.invars[0].aval.shape[0] == 3 and each.invars[0].aval.ndim == 4


def test_augmented_logits_come_back():
    """Flipped, predicted and flipped back: the ramp of the network is, the image is not."""
    tta = predictive.test_time_augmentation(flips((0,)))
    found = samples(tta, KEY, UPHILL, ONE, IMAGES, 8, measure=foreground)
    ramps = np.round(found - IMAGES[None, ..., 0], 4)
    up = np.broadcast_to(np.arange(6.0)[:, None], (3, 6, 6))
    is_up, is_down = ((ramps == one).all((1, 2, 3)) for one in (up, up[:, ::-1]))
    assert is_up[0] and is_down.any() and (is_up ^ is_down).all()


def test_transforms_that_a_network_follows_change_no_volume():
    counts = samples(predictive.test_time_augmentation(flips()), KEY, LINEAR, ONE, IMAGES, 6)
    np.testing.assert_array_equal(counts, counts[:1].repeat(6, axis=0))
    np.testing.assert_array_equal(counts[0, :, 1], (IMAGES[..., 0] > 0).sum((1, 2)))


def test_an_augmented_ensemble_crosses_members_and_transforms():
    transform = compose(flips((0,)), gamma())
    found = samples(augmented_ensemble(transform, 3), KEY, UPHILL, stacked(BIASES), IMAGES, 9, measure=foreground)
    plain = samples(deep_ensemble, KEY, UPHILL, stacked(BIASES), IMAGES, 3, measure=foreground)
    np.testing.assert_allclose(found[:3], plain, rtol=1e-6)  # map 0 is the identity
    single = samples(predictive.test_time_augmentation(transform), KEY, UPHILL, ONE, IMAGES, 3, measure=foreground)
    for k in range(9):  # member k mod 3 under map k div 3
        np.testing.assert_allclose(found[k], single[k // 3] + BIASES[k % 3], rtol=1e-5, atol=1e-5)
    assert np.abs(single[1] - single[0]).max() > 0.1


@pytest.mark.parametrize(
    "method", [deep_ensemble, monte_carlo_dropout, predictive.test_time_augmentation(compose(flips(), gamma()))]
)
def test_a_sample_of_an_image_needs_no_other_image(method):
    params = stacked(BIASES) if method is deep_ensemble else ONE
    every, alone = (
        samples(method, jax.random.key(0), LINEAR, params, x, 3, measure=foreground) for x in (IMAGES, IMAGES[1:2])
    )
    np.testing.assert_allclose(every[:, 1:2], alone, rtol=1e-6)


def failing(params, images, key=None):
    raise TypeError("a network of two channels\nand more lines")


@pytest.mark.parametrize(
    ("method", "params", "n", "message"),
    [
        (deep_ensemble, stacked(BIASES), 4, "n: 4 samples of an ensemble of 3"),
        (deep_ensemble, {"weight": jnp.ones((3, 1)), "bias": jnp.zeros(1)}, 1, r"first axes of \[1, 3\]"),
        (deep_ensemble, {}, 1, "first axes of nothing"),
        (fold_ensemble, stacked(BIASES), 4, "n: 4 samples"),
        (deep_ensemble, stacked([1.0, 1.0]), 2, "all 2 have equal logits"),
        (augmented_ensemble(flips(), 5), stacked(BIASES), 5, "3 members; expected 5"),
    ],
)
def test_refuses_what_it_cannot_draw(method, params, n, message):
    with pytest.raises(DataError, match=message) as error:
        samples(method, KEY, LINEAR, params, IMAGES, n)
    assert "\n" not in str(error.value)


def test_refuses_networks_that_do_not_fit():
    for apply, message in (
        (failing, r"images of \(3, 6, 6, 1\): TypeError: a network of two channels"),
        (lambda params, images, key=None: images[:, :2], r"gives \(3, 2, 6, 1\)"),
    ):
        with pytest.raises(DataError, match=message) as refusal:
            samples(predictive.test_time_augmentation(flips()), KEY, Model(init, apply), ONE, IMAGES, 1)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match="expected 1 or more, seeds or folds"):
        augmented_ensemble(rotation_and_shift(), 0)
