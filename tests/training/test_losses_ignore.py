"""Losses where voxels are ignored, and of regions: nnU-Net's values, closed forms, the plain loss as a special case."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.training.losses import (
    NNUNET_LOSS,
    NNUNET_REGION_LOSS,
    cross_entropy,
    deep_supervision,
    region_masks,
)

RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(3, 5, 4, 2, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, (3, 5, 4, 2))
IGNORED = RNG.uniform(size=LABELS.shape) < np.array([0.2, 0.6, 0.9]).reshape(3, 1, 1, 1)
PARTLY = np.where(IGNORED, 4, LABELS)
REGIONS = ((1, 2, 3), (2, 3), (3,))
loss_of_classes = jax.jit(NNUNET_LOSS, static_argnames=("batch", "ignore"))
loss_of_regions = jax.jit(partial(NNUNET_REGION_LOSS, regions=REGIONS), static_argnames=("batch", "ignore"))


# DC_and_CE_loss of nnunetv2 2.8.1 with MemoryEfficientSoftDiceLoss, smooth 1e-5, for these logits and labels; it counts
# Dice from 0 down to −1. The cross-entropy is a mean over all labelled voxels of the batch, in whichever image.
@pytest.mark.parametrize(
    ("labels", "batch", "value"),
    [
        (LABELS, False, 2.1028151512145996),
        (PARTLY, False, 2.144888401031494),
        (LABELS, True, 2.1014552116394043),
        (PARTLY, True, 2.0671067237854004),
    ],
)
def test_the_loss_of_classes_is_nnunets(labels, batch, value):
    found = loss_of_classes(LOGITS, labels, batch=batch, ignore=4)
    assert float(found.mean()) == pytest.approx(1 + value, rel=1e-5)


# DC_and_BCE_loss of nnunetv2 2.8.1: Dice, and cross-entropy, which it sums over regions where it has an ignore label
@pytest.mark.parametrize(
    ("labels", "batch", "dice", "entropy"),
    [
        (LABELS, False, -0.45231813192367554, 1.0712257623672485),
        (PARTLY, False, -0.41225937008857727, 3.1079175770282745 / 3),
        (LABELS, True, -0.4521317481994629, 1.0712257623672485),
        (PARTLY, True, -0.4319714605808258, 3.107917457818985 / 3),
    ],
)
def test_the_loss_of_regions_is_nnunets(labels, batch, dice, entropy):
    found = loss_of_regions(LOGITS[..., :3], labels, batch=batch, ignore=4)
    assert float(found.mean()) == pytest.approx(1 + dice + entropy, rel=1e-5)


def test_what_is_ignored_has_no_gradient_and_no_value():
    """Nor where all is ignored: 0, not NaN."""
    for loss, logits in ((loss_of_classes, LOGITS), (loss_of_regions, LOGITS[..., :3])):
        both = jax.jit(jax.value_and_grad(lambda x, labels, loss=loss: jnp.sum(loss(x, labels, ignore=4))))
        value, gradient = both(logits, PARTLY)
        assert (np.asarray(gradient)[IGNORED] == 0).all() and (np.abs(gradient).sum(-1)[~IGNORED] > 0).all()
        changed = logits + 5 * IGNORED[..., None] * RNG.normal(size=logits.shape).astype(np.float32)
        assert float(both(changed, PARTLY)[0]) == pytest.approx(float(value))
        nothing, gradient = both(logits, np.full_like(LABELS, 4))
        assert float(nothing) == pytest.approx(0, abs=1e-6) and (np.asarray(gradient) == 0).all()


def test_a_mean_by_hand():
    """Two labelled voxels in one image, one in the other: log 2 each, so 2 log 2 / 1.5 and log 2 / 1.5; mean log 2."""
    mask = jnp.asarray([[True, True, False], [True, False, False]])
    found = cross_entropy(jnp.zeros((2, 3, 2)), jnp.zeros((2, 3), int), mask)
    np.testing.assert_allclose(found, np.log(2) * np.array([2, 1]) / 1.5, rtol=1e-6)


def test_nothing_ignored_is_the_plain_loss():
    for loss, logits in ((loss_of_classes, LOGITS), (loss_of_regions, LOGITS[..., :3])):
        for batch in (False, True):
            plain = loss(logits, LABELS, batch=batch)
            np.testing.assert_allclose(loss(logits, LABELS, batch=batch, ignore=4), plain, rtol=1e-6)


def test_one_region_is_the_plain_loss_of_two_classes():
    """Softmax of (0, x) is σ(x): Dice of the one structure and cross-entropy are the same."""
    x, labels = LOGITS[..., :1], np.where(IGNORED, 2, LABELS > 1)
    one = jax.jit(lambda x, labels: NNUNET_REGION_LOSS(x, labels, ((1,),), ignore=2))(x, labels)
    np.testing.assert_allclose(one, loss_of_classes(np.concatenate([0 * x, x], -1), labels, ignore=2), rtol=1e-5)


def test_masks_and_coarse_levels():
    masks = np.asarray(region_masks(jnp.asarray([0, 1, 2, 3, 4]), REGIONS))
    assert masks.astype(int).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    levels = [LOGITS[:, :, ::step, :, :3] for step in (1, 2, 4)]
    first, second = (loss_of_regions(levels[k], PARTLY[:, :, :: k + 1], ignore=4) for k in (0, 1))
    found = deep_supervision([*map(jnp.asarray, levels)], jnp.asarray(PARTLY), loss=partial(loss_of_regions, ignore=4))
    np.testing.assert_allclose(found, 2 / 3 * first + second / 3, rtol=1e-5)
