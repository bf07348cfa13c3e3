"""Scores of classifiers and their classes; maps of many images equal those of one, by one program."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.iterate import static_partial
from medjax.models.model import Model
from medjax.shortcuts.attribution.baseline import baseline_image
from medjax.shortcuts.attribution.batches import attribution_maps, from_features, from_model, from_score, map_images
from medjax.shortcuts.attribution.grad_cam import grad_cam
from medjax.shortcuts.attribution.gradient import gradient, input_times_gradient
from medjax.shortcuts.attribution.target import at_image, class_features, class_score
from tests.shortcuts.attribution.networks import network

MODEL = network()
RNG = np.random.default_rng(0)
IMAGES = (RNG.normal(size=(5, 6, 5, 2)) + 2 * RNG.normal(size=(5, 1, 1, 2))).astype(np.float32)
PARAMS = MODEL.init(jax.random.key(1), IMAGES)
LOGITS = np.asarray(MODEL.apply(PARAMS, IMAGES))


def test_scores_are_logits():
    for x, logits in zip(IMAGES, LOGITS, strict=True):
        for target in range(3):
            np.testing.assert_allclose(class_score(MODEL, PARAMS, target)(x), logits[target], rtol=1e-5)
        features, head = class_features(MODEL, PARAMS)
        np.testing.assert_allclose(class_score(MODEL, PARAMS)(x), logits.max(), rtol=1e-5)
        np.testing.assert_allclose(head(features(x)), logits.max(), rtol=1e-5)
    p = class_score(MODEL, PARAMS, 2, probability=True)(IMAGES[0])
    np.testing.assert_allclose(p, np.exp(LOGITS[0, 2]) / np.exp(LOGITS[0]).sum(), rtol=1e-5)


def test_class_is_that_of_the_image_explained():
    own = LOGITS.argmax(1)
    first, other = 0, int(np.flatnonzero(own != own[0])[0])
    fixed = at_image(class_score(MODEL, PARAMS), IMAGES[first])
    np.testing.assert_allclose(fixed(IMAGES[other]), LOGITS[other, own[first]], rtol=1e-5)
    assert LOGITS[other, own[first]] < LOGITS[other].max()  # not that of the other one
    score = class_score(MODEL, PARAMS, 1)
    assert score.at(IMAGES[0]) is score


def test_maps_of_a_batch_are_those_of_one_image():
    build = from_score(gradient, MODEL)
    maps = attribution_maps(build, PARAMS, IMAGES, batch=2)
    assert maps.shape == (5, 6, 5) and isinstance(maps, np.ndarray)
    for x, found in zip(IMAGES, maps, strict=True):
        np.testing.assert_allclose(found, gradient(class_score(MODEL, PARAMS))(x).sum(-1), atol=1e-6)
    cam = attribution_maps(from_features(grad_cam, MODEL, target=0), PARAMS, IMAGES[:2])
    np.testing.assert_allclose(cam[1], grad_cam(*class_features(MODEL, PARAMS, 0))(IMAGES[1])[..., 0], atol=1e-6)


def logit_map(model, params, weight, target):
    return lambda x: weight * model.apply(params, x[None])[0, target] * x


def test_a_method_of_the_network_itself():
    maps = attribution_maps(from_model(logit_map, MODEL, 2, weight=3.0), PARAMS, IMAGES)
    np.testing.assert_allclose(maps, 3 * LOGITS[:, 2, None, None] * IMAGES.sum(-1), rtol=1e-4, atol=1e-5)


@chex.assert_max_traces(n=1)
def counted_build(model, params):
    return gradient(class_score(model, params, 0))


def test_one_program_for_all_networks_of_an_architecture():
    others = [MODEL.init(jax.random.key(seed), IMAGES) for seed in (2, 3)]
    maps = [attribution_maps(static_partial(counted_build, network()), each, IMAGES, batch=2) for each in others]
    assert not np.allclose(*maps)


def draw(params, key):
    return lambda x: jax.random.normal(key, (x.size,)).reshape(x.shape)


def test_an_image_keeps_its_key_in_any_batch():
    key = jax.random.key(7)
    maps = [attribution_maps(draw, PARAMS, IMAGES, batch=batch, key=key) for batch in (2, 5)]
    np.testing.assert_array_equal(*maps)
    np.testing.assert_allclose(maps[0][3], draw(None, jax.random.fold_in(key, 3))(IMAGES[3]).sum(-1), rtol=1e-5)
    assert len({float(each.sum()) for each in maps[0]}) == 5


def mean_product(params):
    return lambda x, own: {"mean": jnp.mean(x[..., 0] * own)}


def test_results_of_images_with_their_maps():
    maps = IMAGES.sum(-1)
    found = map_images(mean_product, None, IMAGES, maps, batch=3)
    np.testing.assert_allclose(found["mean"], (IMAGES[..., 0] * maps).mean((1, 2)), rtol=1e-4, atol=1e-6)


def test_gradient_is_zero_nowhere_without_a_reason():
    score = class_score(MODEL, PARAMS, 0)
    x = IMAGES[0]
    np.testing.assert_allclose(input_times_gradient(score)(x), x * gradient(score)(x), rtol=1e-5)
    step = np.zeros_like(x)
    step[2, 3, 1] = 1e-2
    slope = (score(x + step) - score(x - step)) / 2e-2
    np.testing.assert_allclose(gradient(score)(x)[2, 3, 1], slope, rtol=1e-2, atol=1e-4)
    hidden = x.copy()
    hidden[0, 0, 0] = np.nan  # a ReLU's gradient there would be 0
    assert np.isnan(gradient(score)(hidden)).all()


def test_refusals():
    x = IMAGES[0]
    with pytest.raises(DataError, match="target: class 3"):
        class_score(MODEL, PARAMS, 3)(x)
    assert np.isnan(class_score(MODEL, PARAMS, jnp.asarray(3))(x))
    with pytest.raises(DataError, match=r"expected logits \(batch, class\)"):
        class_score(Model(MODEL.init, MODEL.features), PARAMS)(x)
    with pytest.raises(ConfigError, match="`features`"):
        class_features(Model(MODEL.init, MODEL.apply), PARAMS)
    with pytest.raises(DataError, match="expected one map"):
        class_features(Model(MODEL.init, MODEL.apply, lambda params, x: [x], MODEL.head), PARAMS)[0](x)
    with pytest.raises(DataError, match="expected one number"):
        at_image(lambda image: image.sum((0, 1)), x)(x)
    with pytest.raises(DataError, match=r"baseline: shape \(2,\)"):
        baseline_image(np.zeros(2, np.float32), x)
    with pytest.raises(ConfigError, match="build: unhashable"):
        attribution_maps(Unhashable(), PARAMS, IMAGES)
    with pytest.raises(DataError, match="cases"):
        attribution_maps(draw, PARAMS, IMAGES[:0], key=jax.random.key(0))
    with pytest.raises(DataError, match="1 or more"):
        attribution_maps(draw, PARAMS, IMAGES, batch=0, key=jax.random.key(0))
    hidden = IMAGES.copy()
    hidden[3, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="image 3 is not finite"):
        attribution_maps(draw, PARAMS, hidden, batch=2, key=jax.random.key(0))
    with pytest.raises(DataError, match="map of image 0"):
        attribution_maps(infinite, PARAMS, IMAGES)


class Unhashable:
    __hash__ = None

    def __call__(self, params):
        return None


def infinite(params):
    return lambda x: x / 0
