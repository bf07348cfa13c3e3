"""Losses against what their equations say in NumPy and optax, and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.errors import DataError
from medjax.training.losses import (
    NNUNET_LOSS,
    cross_entropy,
    deep_supervision,
    dice_cross_entropy,
    focal,
    soft_dice,
    soft_labels,
)

LOGITS = jax.random.normal(jax.random.key(0), (2, 8, 6, 4)) * 2
LABELS = jax.random.randint(jax.random.key(1), (2, 8, 6), 0, 4)


def test_cross_entropy_is_optaxs():
    each = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), each.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(focal(LOGITS, LABELS, 0.0), each.mean((1, 2)), rtol=1e-5)


def test_focal_and_dice_say_what_their_equations_say():
    p, q = np.asarray(jax.nn.softmax(LOGITS), np.float64), np.eye(4)[np.asarray(LABELS)]
    np.testing.assert_allclose(focal(LOGITS, LABELS), -(q * (1 - p) ** 2 * np.log(p)).sum(-1).mean((1, 2)), rtol=1e-5)
    dice = (2 * (p * q).sum((1, 2)) + 1) / ((p + q).sum((1, 2)) + 1)
    np.testing.assert_allclose(soft_dice(LOGITS, LABELS), 1 - dice[:, 1:].mean(-1), rtol=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, focal, soft_dice, dice_cross_entropy, NNUNET_LOSS])
def test_soft_labels_that_are_sure_are_labels_and_a_sure_network_loses_nothing(loss):
    np.testing.assert_allclose(loss(LOGITS, soft_labels(LABELS, 4)), loss(LOGITS, LABELS), rtol=1e-6)
    np.testing.assert_allclose(loss(100 * soft_labels(LABELS, 4), LABELS), 0, atol=1e-5)
    assert np.isfinite(loss(1e4 * LOGITS, LABELS)).all()


def test_nnunets_loss_is_of_each_image_or_of_the_batch():
    p, q = np.asarray(jax.nn.softmax(LOGITS), np.float64), np.eye(4)[np.asarray(LABELS)]
    ce = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS).mean((1, 2))
    of_each = (2 * (p * q).sum((1, 2)) + 1e-5) / ((p + q).sum((1, 2)) + 1e-5)
    of_batch = (2 * (p * q).sum((0, 1, 2)) + 1e-5) / ((p + q).sum((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(NNUNET_LOSS(LOGITS, LABELS), 1 - of_each[:, 1:].mean(-1) + ce, rtol=1e-5)
    np.testing.assert_allclose(NNUNET_LOSS(LOGITS, LABELS, batch=True), 1 - of_batch[1:].mean() + ce, rtol=1e-5)


def test_nnunets_loss_does_not_smooth_an_absent_class_away():
    background = jnp.zeros((1, 4, 4), jnp.int32)
    logits = jnp.broadcast_to(jnp.asarray([8.0, 0.0]), (1, 4, 4, 2))
    assert float(NNUNET_LOSS(logits, background)[0]) > 0.99 > 0.1 > float(dice_cross_entropy(logits, background)[0])


def test_deep_supervision_weighs_levels_by_halves_the_coarsest_by_nothing():
    levels = [LOGITS, LOGITS[:, ::2, ::2] + 1, LOGITS[:, ::4, ::2] - 1]
    first, second = (NNUNET_LOSS(y, y0) for y, y0 in zip(levels, (LABELS, LABELS[:, ::2, ::2]), strict=False))
    strides = ((1, 1), (2, 2), (2, 1), (2, 3))
    np.testing.assert_allclose(deep_supervision(levels, LABELS, strides), 2 / 3 * first + 1 / 3 * second, rtol=1e-5)
    np.testing.assert_allclose(deep_supervision(levels[:2], LABELS), first, rtol=1e-6)
    np.testing.assert_allclose(deep_supervision(levels[:1], LABELS), first, rtol=1e-6)


def test_deep_supervision_shrinks_soft_labels_to_shares():
    levels = [LOGITS, LOGITS[:, ::2, ::2], LOGITS[:, :1, :1]]
    shares = np.eye(4)[np.asarray(LABELS)].reshape(2, 4, 2, 3, 2, 4).mean((2, 4))
    coarse = cross_entropy(levels[1], jnp.asarray(shares, jnp.float32))
    expected = 2 / 3 * cross_entropy(LOGITS, LABELS) + 1 / 3 * coarse
    found = deep_supervision(levels, soft_labels(LABELS, 4), loss=cross_entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_deep_supervision_refuses_levels_that_do_not_fit():
    wrong = [LOGITS, LOGITS[:, ::2, ::2], LOGITS[:, ::4, ::2]]
    with pytest.raises(DataError, match=r"level 1 has sides \(4, 3\); expected labels of \(8, 6\) divided by \(2, 1\)"):
        deep_supervision(wrong, LABELS, ((1, 1), (2, 1), (2, 2)))
    with pytest.raises(DataError, match=r"level 0 has sides \(4, 3\)"):
        deep_supervision(wrong[1:], LABELS, ((1, 1), (2, 2)))
    with pytest.raises(DataError, match=r"level 0 has sides \(5, 6\)"):
        deep_supervision([LOGITS[:, :5]], LABELS)
    with pytest.raises(DataError, match="levels: none"):
        deep_supervision([], LABELS)
