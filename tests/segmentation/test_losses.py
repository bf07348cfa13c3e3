"""Losses against what their equations say in NumPy and optax, and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.segmentation.losses import cross_entropy, deep_supervision, dice_cross_entropy, focal, soft, soft_dice

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


@pytest.mark.parametrize("loss", [cross_entropy, focal, soft_dice, dice_cross_entropy])
def test_soft_labels_that_are_sure_are_labels_and_a_sure_network_loses_nothing(loss):
    np.testing.assert_allclose(loss(LOGITS, soft(LABELS, 4)), loss(LOGITS, LABELS), rtol=1e-6)
    np.testing.assert_allclose(loss(100 * soft(LABELS, 4), LABELS), 0, atol=1e-5)
    assert np.isfinite(loss(1e4 * LOGITS, LABELS)).all()


def test_deep_supervision_weighs_levels_by_halves_and_shrinks_labels_to_shares():
    fine, coarse = LOGITS, LOGITS[:, ::2, ::2]
    shares = np.eye(4)[np.asarray(LABELS)].reshape(2, 4, 2, 3, 2, 4).mean((2, 4))
    expected = 2 / 3 * cross_entropy(fine, LABELS) + 1 / 3 * cross_entropy(coarse, jnp.asarray(shares, jnp.float32))
    np.testing.assert_allclose(deep_supervision(cross_entropy)([fine, coarse], LABELS), expected, rtol=1e-5)
