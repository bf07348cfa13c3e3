"""Repair touches flagged images only, keeps its guards, and its effect is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.labels.refurbish import (
    end_of_early_learning,
    label_dice,
    mean_parameters,
    predict_proba,
    refurbish,
    with_test_time_augmentation,
)
from medjax.models.model import Model

GIVEN = np.zeros((4, 8, 8), np.int32)
GIVEN[:, 2:6, 2:6] = 1
PREDICTION = GIVEN.copy()
PREDICTION[:, 2:6, 2:7] = 1  # a little more
PREDICTION[2] = 0  # image 2: the structure is gone
PREDICTION[3, 0, 0] = 1  # image 3: a speck
TEACHER = np.where(np.arange(2) == PREDICTION[..., None], 0.9, 0.1).astype(np.float32)
TEACHER[1] = np.where(np.arange(2) == PREDICTION[1][..., None], 0.6, 0.4)  # not sure
FLAGS = np.array([True, True, True, True])


@pytest.mark.parametrize("mode", ["replace", "blend", "mask", "pixel"])
def test_images_that_are_not_flagged_stay(mode):
    made = refurbish(GIVEN, ~FLAGS, TEACHER, mode)
    np.testing.assert_array_equal(made.labels.argmax(-1), GIVEN)
    assert not made.changed.any() and (made.weight == 1).all()


def test_what_each_mode_does():
    replaced = refurbish(GIVEN, FLAGS, TEACHER)
    np.testing.assert_array_equal(replaced.labels[0].argmax(-1), PREDICTION[0])
    np.testing.assert_array_equal(replaced.changed, [True, True, False, True])  # image 2 would lose its structure
    np.testing.assert_array_equal(replaced.labels[2].argmax(-1), GIVEN[2])
    assert (
        replaced.labels[3, 0, 0, 1] == 0
        and refurbish(GIVEN, FLAGS, TEACHER, largest_component=False).labels[3, 0, 0, 1] == 1
    )
    blended = refurbish(GIVEN, FLAGS, TEACHER, "blend", blend=0.5)
    np.testing.assert_allclose(blended.labels[0], (np.eye(2)[GIVEN[0]] + TEACHER[0]) / 2, atol=1e-6)
    sure = refurbish(GIVEN, FLAGS, TEACHER, "pixel")
    np.testing.assert_array_equal(sure.labels[1].argmax(-1), GIVEN[1])
    np.testing.assert_array_equal(sure.labels[0].argmax(-1), PREDICTION[0])
    np.testing.assert_array_equal(refurbish(GIVEN, FLAGS, TEACHER, "mask").weight, 0)
    assert refurbish(GIVEN, FLAGS, TEACHER, max_changed_fraction=0.25).changed.sum() == 1
    with pytest.raises(ConfigError, match="mode 'swap'"):
        refurbish(GIVEN, FLAGS, TEACHER, "swap")


def test_parts_that_are_left_out_go_to_the_next_likely_class_and_agreement_is_never_touched():
    prediction = np.array([[1, 1, 1, 1, 0, 2, 2, 2], [1, 2, 1, 1, 0, 2, 2, 2], [1, 1, 1, 1, 0, 2, 2, 2]])
    teacher = np.where(np.arange(3) == prediction[..., None], 0.9, 0.04)
    teacher[1, 1] = [0.02, 0.08, 0.9]  # a speck of class 2 in class 1, which is next likely there
    expected = prediction.copy()
    expected[1, 1] = 1
    made = refurbish(np.ones((1, 3, 8), np.int32), np.array([True]), teacher[None], min_size_fraction=0.0)
    np.testing.assert_array_equal(made.labels[0].argmax(-1), expected)
    agreed = refurbish(prediction[None].astype(np.int32), np.array([True]), teacher[None], "pixel")
    np.testing.assert_array_equal(agreed.labels[0].argmax(-1), prediction)
    assert not agreed.changed.any()


def test_quality_by_group():
    corrupted = np.array([True, False, False, False])
    found = label_dice(PREDICTION, GIVEN, np.array([True, True, False, False]), corrupted)
    dice = 2 * 16 / (16 + 20)
    assert found["corrupted"] == pytest.approx(dice) and found["falsely_flagged"] == pytest.approx(dice)
    assert found["all"] == pytest.approx((2 * dice + 0 + 2 * 16 / (16 + 21)) / 4)
    assert np.isnan(label_dice(PREDICTION, GIVEN, np.zeros(4, bool), corrupted)["flagged"])


def no_init(key, x):
    raise AssertionError("not asked for")


def linear(w, x, key=None):
    return x @ w


def test_teachers():
    x = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    params = jnp.array([[1.0, -2.0]])
    found = predict_proba(Model(no_init, linear), params, x, batch=2)
    np.testing.assert_allclose(found, jax.nn.softmax(x @ params), rtol=1e-5)
    np.testing.assert_allclose(mean_parameters([{"a": params}, {"a": 3 * params}])["a"], 2 * params)

    def flip(y):
        return y[:, ::-1]

    def apply(w, x, key=None):  # knows where it is: mirrored images get other answers
        return x @ w + jnp.arange(4.0).reshape(1, 4, 1, 1) * jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)

    both = with_test_time_augmentation(Model(no_init, apply), [(lambda y: y, lambda y: y), (flip, flip)])
    expected = (jax.nn.softmax(apply(params, x)) + jax.nn.softmax(apply(params, x[:, ::-1]))[:, ::-1]) / 2
    np.testing.assert_allclose(predict_proba(both, params, x), expected, rtol=1e-5)


def test_learning_slows_down_at_its_end_of_early_learning():
    t = np.arange(1, 13)
    curve = 0.9 * (1 - np.exp(-0.8 * t**0.9))
    slope = np.gradient(0.9 * (1 - np.exp(-0.8 * np.linspace(0.5, 12.5, 1201) ** 0.9)), 0.01)[50::100]
    first = int(np.argmax(np.abs(slope[0] - slope) > 0.9 * slope[0])) + 1
    assert next(k for k in t if end_of_early_learning(curve[:k])) == first
    assert not end_of_early_learning([0.1, 0.2]) and not end_of_early_learning(0.05 * t)


def test_a_slow_start_is_no_end_of_early_learning():
    for agreement in ([0.01, 0.05, 0.2], [0.02, 0.1, 0.3, 0.5], [0.0, 0.0, 0.3]):
        assert not end_of_early_learning(agreement)
    late = [0.02, 0.1, 0.35, 0.6, 0.72, 0.76, 0.77, 0.772, 0.773, 0.773]
    assert not end_of_early_learning(late[:5]) and end_of_early_learning(late)
