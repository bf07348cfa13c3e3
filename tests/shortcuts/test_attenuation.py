"""Attenuation: weights and pooling as defined, identity for scores of 0, selection, and a control that is elsewhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.shortcuts import attenuation
from medjax.shortcuts.attenuation import (
    attenuate,
    attenuated_logits,
    attenuation_weights,
    group_accuracy,
    pool_to_grid,
    rolled_maps,
    select_attenuation,
)

RNG = np.random.default_rng(0)


def head(params, z):
    """Mean over space, and a dense layer."""
    return jnp.matmul(z.mean(tuple(range(1, z.ndim - 1))), params, precision="highest")


MODEL = Model(lambda key, x: None, lambda params, x: head(params, x), lambda params, x: x, head)


def test_pooling_is_adaptive_average_pooling():
    """PyTorch 2's values of adaptive_avg_pool2d of arange(35).reshape(5, 7) to 2 × 3, and means of equal blocks."""
    values = np.arange(35.0).reshape(5, 7)
    np.testing.assert_allclose(pool_to_grid(values, (2, 3)), [[8, 10, 12], [22, 24, 26]])
    volume = RNG.normal(size=(8, 6, 4))
    blocks = volume.reshape(4, 2, 3, 2, 2, 2).mean((1, 3, 5))
    np.testing.assert_allclose(pool_to_grid(volume, (4, 3, 2)), blocks)
    np.testing.assert_array_equal(pool_to_grid(volume, volume.shape), volume)
    assert pool_to_grid(np.array([[np.nan, 2.0]]), (1, 1)) == 1  # no region counts as 0


def test_weights_are_those_of_the_formula():
    scores = np.array([[2.0, -1.0], [0.5, 0.0]])
    np.testing.assert_allclose(attenuation_weights(scores, 4.0, 2.0, clamp=False), [[-3, 2], [0, 1]])
    np.testing.assert_allclose(attenuation_weights(scores, 4.0, 2.0), [[0, 2], [0, 1]])
    np.testing.assert_allclose(attenuation_weights(-3 * scores, 4.0, 2.0, clamp=False), [[3, -1], [1.5, 1]])
    np.testing.assert_array_equal(attenuation_weights(scores, 0.0, 0.0), 1)


@pytest.mark.parametrize("grid", [(7, 7), (4, 3, 2)])
def test_the_heads_mean_becomes_the_weighted_mean(grid):
    z, weights = RNG.normal(size=(3, *grid, 5)), RNG.uniform(0, 3, grid)
    axes = tuple(range(1, len(grid) + 1))
    wanted = (z * weights[None, ..., None]).sum(axes) / weights.sum()
    np.testing.assert_allclose(attenuate(z, weights).mean(axes), wanted, rtol=1e-7)
    np.testing.assert_allclose(attenuate(z, attenuation_weights(np.zeros(grid), 50.0, 50.0)), z, rtol=1e-8)  # identity
    np.testing.assert_array_equal(attenuate(z, np.zeros(grid)), 0)


def planted(number=400):
    """Features of two channels: the task's, weak and everywhere; the cue's, strong and in the first cell alone."""
    label, attribute = np.arange(number) % 2, np.arange(number) // 2 % 2
    z = 0.5 * RNG.normal(size=(number, 4, 4, 2))
    z[..., 0] += 0.5 * (2 * label - 1)[:, None, None]
    z[:, 0, 0, 1] += 24 * (2 * attribute - 1)
    return z.astype(np.float32), label, 2 * label + attribute, jnp.array([[-1.0, 1.0], [-1.0, 1.0]])


def test_attenuation_of_the_cues_cell_brings_back_the_task_and_elsewhere_does_not():
    z, label, group, params = planted()
    scores = np.zeros((4, 4))
    scores[0, 0] = 3.0
    predict = partial(attenuated_logits, MODEL, params, z)
    chosen = select_attenuation(predict, scores, label, group)
    assert chosen.worst_group_before < 0.1 and chosen.worst_group > 0.95
    assert (chosen.down, chosen.up) == (1.0, 1.0)  # the weakest of those that are equally good: weight 0
    controls = rolled_maps(jax.random.key(0), scores, 10)
    accuracy = group_accuracy(
        predict([attenuation_weights(one, chosen.down, chosen.up) for one in controls]) == label, group
    )
    assert accuracy.shape == (10, 4) and accuracy.min(-1).max() < 0.1


def test_selection_is_the_best_of_a_search_by_hand_and_keeps_the_adjusted_accuracy():
    z, label, group, params = planted(120)
    scores = RNG.normal(size=(4, 4))
    predict = partial(attenuated_logits, MODEL, params, z)
    strengths, table = (1.0, 5.0, 20.0), {}
    for down in (0.0, *strengths):
        for up in (0.0, *strengths):
            logits = head(params, attenuate(z, attenuation_weights(scores, down, up)))
            each = [(np.argmax(logits, 1) == label)[group == one].mean() for one in range(4)]
            table[down, up] = float(min(each)), float(np.mean(each))
    start = table[0, 0]
    pairs = [(0.0, 0.0), *((down, up) for down in strengths for up in strengths)]
    best = max(table[pair][0] for pair in pairs if table[pair][1] >= start[1] - 0.005 - 1e-12)
    chosen = select_attenuation(predict, scores, label, group, strengths)
    assert chosen.worst_group == pytest.approx(best) and chosen.adjusted >= start[1] - 0.005 - 1e-9
    assert (chosen.worst_group_before, chosen.adjusted_before) == pytest.approx(start)


def test_nothing_is_attenuated_where_that_costs_accuracy():
    """The only cell with the task's sign has the high score."""
    z, label, group, params = planted()
    z = np.where(np.arange(16).reshape(1, 4, 4, 1) == 0, np.roll(z, 1, -1) * [1, 0], 0).astype(np.float32)
    z[:, 0, 0, 0] = 2 * label - 1
    scores = np.zeros((4, 4))
    scores[0, 0] = 3.0
    chosen = select_attenuation(partial(attenuated_logits, MODEL, params, z), scores, label, group)
    assert chosen.down == chosen.up == 0 and chosen.worst_group == chosen.worst_group_before == 1


@pytest.mark.parametrize("grid", [(7, 7), (4, 6), (3, 4, 5), (1, 6)])
def test_the_control_is_the_same_map_half_the_image_away(grid):
    scores = np.zeros(grid)
    scores[(0,) * len(grid)] = 1
    rolled = rolled_maps(jax.random.key(1), scores, 40)
    assert rolled.shape == (40, *grid) and (rolled.reshape(40, -1).sum(1) == 1).all()
    peaks = np.stack([np.argwhere(one)[0] for one in rolled])
    far = np.minimum(peaks, np.array(grid) - peaks) == np.array(grid) // 2
    assert (far & (np.array(grid) > 1)).any(1).all()
    assert len(np.unique(peaks, axis=0)) > 1 or grid == (1, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: pool_to_grid(np.zeros((4, 4)), (2,)),
            DataError,
            r"grid \(2,\) of a map of \(4, 4\); expected as many",
        ),
        (lambda: pool_to_grid(np.zeros((4, 4)), (2, 8)), DataError, "none finer"),
        (lambda: attenuation_weights(np.array([1.0, np.nan]), 1.0, 1.0), DataError, "scores: 1 are not finite"),
        (lambda: rolled_maps(jax.random.key(0), np.ones((1, 1)), 3), DataError, "expected two cells or more"),
        (
            lambda: select_attenuation(
                lambda w: np.zeros((1, 0)), np.ones((2, 2)), np.array([], int), np.array([], int)
            ),
            DataError,
            "0 labels, 0 groups",
        ),
        (
            lambda: attenuated_logits(Model(MODEL.init, MODEL.apply), None, np.zeros((1, 2, 2, 1)), [np.ones((2, 2))]),
            ConfigError,
            "attenuation needs a model with `head`",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_published_strengths():
    assert attenuation.STRENGTHS == (1, 5, 10, 15, 20, 25, 30, 40, 50) and attenuation.MAX_DROP == 0.005
