"""Flips against the definitions written out pixel by pixel; flip-risk against float64, and where it must not be NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from medjax.errors import DataError
from medjax.metrics.overlap import confusion_matrix
from medjax.shortcuts import flips


def maps(classes=3, images=6, space=(7, 5), seed=0):
    """Random predictions and truths; the first image has no foreground in its truth, the second none predicted."""
    rng = np.random.default_rng(seed)
    prediction, truth = rng.integers(classes, size=(2, images, *space))
    truth[0], prediction[1] = 0, 0
    return prediction, truth


def confusion_of(prediction, truth, classes=3):
    count = jax.vmap(lambda p, y: confusion_matrix(p, y, classes))
    return np.asarray(count(jnp.asarray(prediction), jnp.asarray(truth)))


def shares(prediction, truth):
    """As the paper's code counts them."""
    foreground = truth > 0
    counted = [
        (foreground & (prediction == truth)).sum(),
        (foreground & (prediction > 0) & (prediction != truth)).sum(),
        (foreground & (prediction == 0)).sum(),
    ]
    return np.array(counted) / foreground.sum()


@pytest.mark.parametrize(("classes", "space"), [(2, (9,)), (3, (7, 5)), (5, (4, 3, 6))])
def test_the_decomposition_is_the_count_and_sums_to_one(classes, space):
    prediction, truth = maps(classes, space=space)
    confusion = confusion_of(prediction, truth, classes)
    pooled = flips.decompose(confusion.sum(0))
    np.testing.assert_allclose(pooled, shares(prediction, truth), rtol=1e-6)
    each = np.stack(flips.decompose(confusion))
    assert np.isnan(each[:, 0]).all()
    wanted = [shares(p, y) for p, y in zip(prediction[1:], truth[1:], strict=True)]
    np.testing.assert_allclose(each[:, 1:].T, wanted, rtol=1e-6)
    np.testing.assert_allclose(each[:, 1:].sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(flips.mean_over_images(confusion), np.mean(wanted, axis=0), rtol=1e-6)


def test_the_two_means_differ_where_objects_do():
    truth = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0]])
    prediction = np.where(np.array([[0], [1]]), 2 * truth, truth)  # the small object is flipped whole
    confusion = confusion_of(prediction, truth)
    assert float(flips.decompose(confusion.sum(0)).flip) == pytest.approx(1 / 9)
    assert float(flips.mean_over_images(confusion).flip) == 0.5


def test_a_flipped_region_is_still_a_right_region():
    prediction, truth = maps()
    intersection = ((prediction > 0) & (truth > 0)).sum((1, 2))
    union = ((prediction > 0) | (truth > 0)).sum((1, 2))
    confusion = confusion_of(prediction, truth)
    np.testing.assert_allclose(flips.foreground_iou(confusion), intersection / union, rtol=1e-6)
    swapped = np.choose(truth, [0, 2, 1])
    assert flips.foreground_iou(confusion_of(swapped, truth).sum(0)) == 1
    assert flips.decompose(confusion_of(swapped, truth).sum(0)).flip == 1


@pytest.mark.parametrize("kinds", [2, 3])
def test_gaps_are_those_of_pooled_pixels_of_the_groups(kinds):
    rng = np.random.default_rng(1)
    group = rng.permutation(np.repeat(np.arange(2 * kinds), 4))
    truth = rng.integers(2, size=(len(group), 6, 6)) * (1 + group // 2)[:, None, None]
    prediction = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(kinds + 1, size=truth.shape))

    def iou(g):
        kind = 1 + g // 2
        p, y = prediction[group == g] == kind, truth[group == g] == kind
        return (p & y).sum() / (p | y).sum()

    wanted = [iou(0) - iou(1), iou(3) - iou(2), *([iou(4) - iou(5)] if kinds == 3 else [])]
    grouped = flips.confusion_by_group(confusion_of(prediction, truth, kinds + 1), group, 2 * kinds)
    np.testing.assert_allclose(flips.iou_gaps(grouped), wanted, rtol=1e-5)


def test_a_group_without_images_has_no_gap():
    prediction, truth = maps()
    grouped = flips.confusion_by_group(confusion_of(prediction, truth), np.array([0, 0, 2, 2, 3, 3]), 4)
    assert np.asarray(grouped[1]).sum() == 0 and np.isnan(flips.iou_gaps(grouped)[0])


def logits(classes=3, scale=3.0, seed=0):
    return np.random.default_rng(seed).normal(scale=scale, size=(4, 8, 8, classes)).astype(np.float32)


def test_flip_risk_is_the_paper_s_over_ln_2():
    values = logits()
    p = softmax(values.astype(np.float64), axis=-1)
    q = p[..., 1:] / p[..., 1:].sum(-1, keepdims=True)
    nats = -(q * np.log(q)).sum(-1)
    wanted = [one[named > 0].mean() for one, named in zip(nats, p.argmax(-1), strict=True)]
    np.testing.assert_allclose(np.log(2) * flips.flip_risk(jnp.asarray(values)), wanted, rtol=1e-5)


@pytest.mark.parametrize("classes", [3, 4, 7])
def test_entropies_are_scipy_s(classes):
    values = logits(classes)
    p = softmax(values.astype(np.float64), axis=-1)
    q = p[..., 1:] / p[..., 1:].sum(-1, keepdims=True)
    np.testing.assert_allclose(
        flips.identity_entropy(jnp.asarray(values)), entropy(q, axis=-1, base=classes - 1), atol=1e-5
    )
    np.testing.assert_allclose(flips.class_entropy(jnp.asarray(values)), entropy(p, axis=-1, base=classes), atol=1e-5)
    np.testing.assert_allclose(flips.least_confidence(jnp.asarray(values)), 1 - p.max(-1), atol=1e-6)


def test_risk_asks_for_the_name_only():
    """Background may be as likely as it wants, as long as foreground is what is predicted."""
    sure, torn = jnp.array([4.0, 5.0, -5.0]), jnp.array([0.0, 5.0, 5.0])
    pixels = jnp.stack([sure, torn])[:, None, None]
    np.testing.assert_allclose(flips.flip_risk(pixels), [entropy(softmax([5.0, -5.0]), base=2), 1.0], atol=1e-6)
    assert flips.class_entropy(pixels)[0, 0, 0] > 0.5  # where plain entropy sees the boundary


def test_nothing_is_nan_at_great_logits():
    for scale in (30.0, 1e4, 1e30):
        values = jnp.asarray(logits(4) * scale)
        values = values.at[:, 0, 0, 0].set(values.max() * 2)  # certain background, where p₁ + p₂ is 0
        for risk in (flips.identity_entropy, flips.class_entropy, flips.least_confidence, flips.flip_risk):
            found = np.asarray(risk(values))
            assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1 + 1e-6
    ruled_out = jnp.asarray(logits()).at[..., 2].set(-jnp.inf)
    assert (flips.identity_entropy(ruled_out) == 0).all()


def test_an_image_without_predicted_foreground_has_no_risk():
    values = jnp.asarray(logits()).at[1, ..., 0].set(100.0)
    np.testing.assert_array_equal(np.isnan(flips.flip_risk(values)), [False, True, False, False])


def test_one_foreground_class_cannot_flip():
    with pytest.raises(DataError, match=r"2 classes; expected background and at least two"):
        flips.flip_risk(jnp.asarray(logits(2)))


@pytest.mark.parametrize("count", [10, 37, 200])
def test_deciles_are_the_paper_s(count):
    rng = np.random.default_rng(count)
    records = sorted(zip(rng.random(count), rng.random(count), strict=True))
    parts = [records[k * count // 10 : (k + 1) * count // 10] for k in range(10)]
    order = rng.permutation(count)
    risk, flip = np.array(records)[order].T
    found = flips.deciles(np.append(risk, [np.nan, 0.5]), np.append(flip, [0.5, np.nan]))
    np.testing.assert_allclose(found.risk, [np.mean([r for r, _ in part]) for part in parts])
    np.testing.assert_allclose(found.flip, [np.mean([f for _, f in part]) for part in parts])
    assert found.top_decile_fraction == pytest.approx(sum(f for _, f in parts[-1]) / flip.sum())


def test_deciles_of_too_little():
    with pytest.raises(DataError, match=r"9 images with a risk and a flip; expected at least 10"):
        flips.deciles(np.append(np.arange(9.0), np.nan), np.zeros(10))
    assert np.isnan(flips.deciles(np.arange(10.0), np.zeros(10)).top_decile_fraction)


def test_sums_of_many_pixels_do_not_wrap():
    counts = np.array([[0, 0, 0], [3 * 10**8, 3 * 10**9, 0], [0, 0, 0]], np.int64)
    np.testing.assert_allclose(np.ravel(flips.decompose(counts)), [10 / 11, 0, 1 / 11], rtol=1e-6)
