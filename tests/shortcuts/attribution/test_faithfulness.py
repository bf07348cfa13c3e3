"""Measures of maps against closed forms: linear scores, one-hot and uniform maps, masks, layers that a map ignores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.shortcuts.attribution.batches import from_score
from medjax.shortcuts.attribution.complexity import entropy, gini
from medjax.shortcuts.attribution.faithfulness import completeness_gap, infidelity, max_sensitivity
from medjax.shortcuts.attribution.gradient import gradient, input_times_gradient
from medjax.shortcuts.attribution.integrated_gradients import integrated_gradients
from medjax.shortcuts.attribution.localization import pointing_game, relevance_mass
from medjax.shortcuts.attribution.randomization import layer_names, randomization_test, randomize
from medjax.shortcuts.attribution.target import class_score
from tests.shortcuts.attribution.networks import linear, network

KEY = jax.random.key(0)
SCORE, W, X = linear((6, 5, 2))
MODEL = network(act=jnp.tanh)
PARAMS = MODEL.init(jax.random.key(1), X[None])


def shift(key, x):
    """The same change everywhere: I = t."""
    return jnp.full_like(x, jax.random.normal(key))


def test_infidelity_of_a_linear_score():
    """0 of its gradient; of c times it (c − 1)² E[(Iᵀ w)²], and 0 again where maps are scaled."""
    assert infidelity(KEY, SCORE)(X, W) < 1e-9
    noise = 0.1 * np.ptp(X)
    wanted = 4 * noise**2 * (W**2).sum()
    np.testing.assert_allclose(infidelity(KEY, SCORE, samples=2000, chunk=100)(X, 3 * W), wanted, rtol=0.15)
    assert infidelity(KEY, SCORE, normalize=True)(X, 3 * W) < 1e-9
    ones = infidelity(KEY, SCORE, shift, 50, chunk=7)(X, np.ones(X.shape[:-1], np.float32))
    drawn = np.array([jax.random.normal(jax.random.fold_in(KEY, n)) for n in range(50)])
    np.testing.assert_allclose(ones, (drawn**2).mean() * (X.size - W.sum()) ** 2, rtol=1e-3)


def test_infidelity_of_a_cubic_score_draw_by_draw():
    drawn = np.array([jax.random.normal(jax.random.fold_in(KEY, n)) for n in range(9)])[:, None, None, None]
    fall = (X**3 - (X - drawn) ** 3).sum((1, 2, 3)) / 3
    wanted = ((drawn[:, 0, 0, 0] * (X**2).sum() - fall) ** 2).mean()
    found = infidelity(KEY, lambda x: jnp.sum(x**3) / 3, shift, 9, chunk=4)(X, X**2)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_max_sensitivity():
    assert max_sensitivity(KEY, gradient(SCORE))(X) == 0
    found = max_sensitivity(KEY, lambda x: x, radius=0.1, samples=200, chunk=50)(X)
    reach = 0.1 * np.ptp(X)
    low, high = reach * np.sqrt(X.size / 3) / np.linalg.norm(X), reach * np.sqrt(X.size) / np.linalg.norm(X)
    assert low < found < high
    assert np.isnan(max_sensitivity(KEY, lambda x: 0 * x)(X))


def test_completeness_of_a_smooth_network():
    score = class_score(MODEL, PARAMS, 1)
    gaps = [float(completeness_gap(score)(X, integrated_gradients(score, n)(X)).relative) for n in (1, 3, 30)]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-4 and gaps[0] > 1e-3
    found = completeness_gap(SCORE, 0.5)(X, W * X)
    np.testing.assert_allclose(found.gap, 0.5 * W.sum(), rtol=1e-3, atol=1e-4)
    assert np.isnan(completeness_gap(SCORE, X)(X, W).relative)


def test_sparseness():
    one_hot, uniform = np.zeros((4, 3), np.float32), np.full((4, 3), -2.0, np.float32)
    one_hot[1, 2] = -5
    half = np.repeat(np.array([0, 1], np.float32), 6).reshape(4, 3)
    maps = np.stack([one_hot, uniform, half])
    np.testing.assert_allclose(gini(maps), [1 - 1 / 12, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(entropy(maps), [0, np.log(12), np.log(6)], atol=1e-6)
    np.testing.assert_allclose(gini(7 * maps[:, ::-1]), gini(maps), atol=1e-6)
    assert np.isnan(gini(0 * maps)).all() and np.isnan(entropy(0 * maps)).all()
    rng = np.random.default_rng(0).exponential(size=(2, 400)).astype(np.float32)
    by_pairs = np.abs(rng[:, :, None] - rng[:, None]).mean((1, 2)) / (2 * rng.mean(1))
    np.testing.assert_allclose(gini(rng), by_pairs, rtol=1e-4)


def test_masks():
    maps = np.array([[[3, 0], [-7, 1]], [[1, 2], [2, -1]], [[1, 1], [1, 1]], [[-1, 0], [0, 0]]], np.float32)
    mask = np.array([[True, False], [True, False]])
    np.testing.assert_allclose(relevance_mass(maps, mask), [0.75, 0.6, 0.5, np.nan], rtol=1e-6)
    np.testing.assert_allclose(pointing_game(maps, mask), [1, 0.5, np.nan, 1 / 3], rtol=1e-6)
    each = np.stack([mask, ~mask, mask, ~mask])
    np.testing.assert_allclose(relevance_mass(maps, each), [0.75, 0.4, 0.5, np.nan], rtol=1e-6)
    hidden = np.where(maps == -7, np.nan, maps)
    assert np.isnan(relevance_mass(hidden, mask)[0]) and np.isnan(pointing_game(hidden, mask)[0])
    for measure in (relevance_mass, pointing_game):
        assert np.isnan(jax.jit(measure)(maps, mask < 0)).all()
        for masks, message in ((mask[:1], "masks: shape"), (mask * 1, "boolean"), (each & mask, "image 1 has no")):
            with pytest.raises(DataError, match=message):
                measure(maps, masks)


def test_randomized_layers():
    images = np.random.default_rng(0).normal(size=(4, *X.shape)).astype(np.float32)
    fresh = MODEL.init(jax.random.key(2), images)
    build = from_score(gradient, MODEL, target=0)
    layers = ("dense", "bias", "conv")
    cascade = randomization_test(build, PARAMS, fresh, images, layers)
    alone = randomization_test(build, PARAMS, fresh, images, layers, cascading=False, absolute=True)
    assert cascade.layers == layers and cascade.similarity.shape == alone.similarity.shape == (3, 4)
    np.testing.assert_array_less(np.abs(cascade.similarity).mean(1), 0.9)
    ignored = randomization_test(image_itself, PARAMS, fresh, images, layers)
    np.testing.assert_allclose(ignored.similarity, 1, rtol=1e-6)
    whole = randomize(PARAMS, fresh, layers)
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), whole, fresh))


def image_itself(params):
    return lambda x: x


def test_names_of_layers():
    params = {"features": {"a": {"kernel": W, "bias": X}, "ab": {"kernel": W}}, "head": {"kernel": W}, "scale": X}
    assert layer_names(params) == ("features/a", "features/ab", "head", "scale")
    assert layer_names(params, 1) == ("features", "head", "scale")
    fresh = jax.tree.map(np.zeros_like, params)
    found = randomize(params, fresh, ["features/a", "scale"])
    zeros = {name: not each.any() for name, each in jax.tree_util.tree_leaves_with_path(found)}
    assert list(zeros.values()) == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: infidelity(KEY, SCORE)(X, W[1:]), r"map: shape \(5, 5, 2\)"),
        (lambda: infidelity(KEY, SCORE, samples=0)(X, W), "number of samples: 0"),
        (lambda: infidelity(KEY, SCORE, lambda key, x: x[0])(X, W), "perturbation: shape"),
        (lambda: max_sensitivity(KEY, gradient(SCORE), -1.0), "radius: -1"),
        (lambda: max_sensitivity(KEY, gradient(SCORE), chunk=0)(X), "chunk: 0"),
        (lambda: completeness_gap(SCORE)(X, W[..., None]), "map: shape"),
        (lambda: randomize(PARAMS, PARAMS, ["den"]), "no parameter in 'den'; expected some of bias, conv, dense"),
        (lambda: randomize(PARAMS, {**PARAMS, "bias": np.zeros(9)}, ["bias"]), "fresh: parameters of another"),
        (lambda: randomization_test(image_itself, PARAMS, PARAMS, X[None], ()), "layers: none"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_nan_is_not_hidden():
    hidden = X.copy()
    hidden[0, 0, 0] = np.nan
    assert np.isnan(infidelity(KEY, SCORE)(hidden, W)) and np.isnan(completeness_gap(SCORE)(hidden, W).gap)
    assert np.isnan(max_sensitivity(KEY, input_times_gradient(SCORE))(hidden))
