"""Overlap of label maps against scikit-learn and definitions on sets; empty cases; what is refused."""

from functools import partial
from inspect import unwrap  # to call as outside of tests, where no annotation is checked

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import DataError
from medjax.metrics import overlap as metrics

CLASSES = 4
SCORES = jax.jit(metrics.overlap, static_argnames="classes")


def maps(shape=(6, 5, 4), seed=0, dtype=np.uint8):
    generator = np.random.default_rng(seed)
    reference = generator.integers(0, CLASSES, shape)
    noise = generator.integers(0, CLASSES, shape)
    return np.where(generator.random(shape) < 0.4, noise, reference).astype(dtype), reference.astype(dtype)


def by_definition(prediction, reference, label):
    """(Dice, IoU, precision, recall, volume similarity) of sets of voxels, 0/0 as NaN."""
    ours, theirs = (set(np.flatnonzero(labels == label)) for labels in (prediction, reference))
    both, sizes = len(ours & theirs), (len(ours), len(theirs))
    pairs = [(2 * both, sum(sizes)), (both, len(ours | theirs)), (both, sizes[0]), (both, sizes[1])]
    scores = [over / under if under else np.nan for over, under in pairs]
    return [*scores, 1 - abs(sizes[0] - sizes[1]) / sum(sizes) if sum(sizes) else np.nan]


def test_confusion_matrix_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, reference = maps()
    expected = sklearn.confusion_matrix(reference.ravel(), prediction.ravel(), labels=range(CLASSES))
    assert not np.array_equal(expected, expected.T)  # so that rows and columns cannot be confused
    np.testing.assert_array_equal(metrics.confusion_matrix(prediction, reference, CLASSES), expected)


def test_scores_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, reference = maps()
    found = SCORES(prediction, reference, classes=CLASSES)
    flat = (reference.ravel(), prediction.ravel())
    for name, score in (("dice", "f1"), ("iou", "jaccard"), ("precision", "precision"), ("recall", "recall")):
        expected = getattr(sklearn, f"{score}_score")(*flat, average=None)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-6)


@given(seed=st.integers(0, 9999), voxels=st.just(12), top=st.integers(1, CLASSES))
def test_scores_are_their_definitions_and_swap(seed, voxels, top):
    generator = np.random.default_rng(seed)
    prediction, reference = generator.integers(0, CLASSES, voxels), generator.integers(0, top, voxels)
    found = SCORES(prediction, reference, classes=CLASSES)
    expected = [by_definition(prediction, reference, label) for label in range(CLASSES)]
    np.testing.assert_allclose(found, np.transpose(expected), rtol=1e-6, atol=1e-7)
    swapped = SCORES(reference, prediction, classes=CLASSES)
    np.testing.assert_array_equal(swapped, [found[which] for which in (0, 1, 3, 2, 4)])
    np.testing.assert_allclose(found.iou, found.dice / (2 - found.dice), rtol=1e-6, atol=1e-7)


def test_empty_cases():
    prediction, reference = np.array([0, 0, 2, 2]), np.array([0, 1, 1, 0])  # 1 and 2 in one map only, 3 in none
    found = metrics.overlap(prediction, reference, CLASSES)
    nan = np.nan
    np.testing.assert_allclose(found.dice, [0.5, 0, 0, nan])
    np.testing.assert_allclose(found.iou, [1 / 3, 0, 0, nan], rtol=1e-6)
    np.testing.assert_allclose(found.precision, [0.5, nan, 0, nan])
    np.testing.assert_allclose(found.recall, [0.5, 0, nan, nan])
    np.testing.assert_allclose(found.volume_similarity, [1, 0, 0, nan])
    as_one = metrics.overlap(prediction, reference, CLASSES, both_empty=1)
    np.testing.assert_array_equal([score[:3] for score in as_one], [score[:3] for score in found])
    assert all(float(score[3]) == 1 for score in as_one)


def test_a_mask_leaves_voxels_out_and_matrices_add_up():
    prediction, reference = maps()
    reference[0] = 255
    expected = metrics.confusion_matrix(prediction[1:], reference[1:], CLASSES)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(prediction, reference, CLASSES, mask=reference != 255), expected
    )
    valid_too = np.arange(6)[:, None, None] >= np.full((1, 5, 4), 2)  # the second slice has labels and is left out
    expected = metrics.confusion_matrix(prediction[2:], reference[2:], CLASSES)
    np.testing.assert_array_equal(metrics.confusion_matrix(prediction, reference, CLASSES, mask=valid_too), expected)
    halves = [metrics.confusion_matrix(prediction[part], reference[part], CLASSES) for part in np.s_[1:3, 3:]]
    np.testing.assert_array_equal(
        metrics.overlap_from_confusion(halves[0] + halves[1]), metrics.overlap(prediction[1:], reference[1:], CLASSES)
    )


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_many_classes_in_8_bits_do_not_overflow(array):
    labels = array(np.arange(256, dtype=np.uint8))
    np.testing.assert_array_equal(metrics.confusion_matrix(labels, labels, 300), np.eye(300) * (np.arange(300) < 256))


def test_vmap_is_a_loop():
    prediction, reference = (np.stack(each) for each in zip(*(maps(seed=seed) for seed in range(3)), strict=True))
    batched = jax.jit(jax.vmap(partial(metrics.overlap, classes=CLASSES)))(prediction, reference)
    looped = [SCORES(*pair, classes=CLASSES) for pair in zip(prediction, reference, strict=True)]
    np.testing.assert_array_equal(batched, np.swapaxes(looped, 0, 1))


@pytest.mark.parametrize("wrong", [-1, CLASSES])
@pytest.mark.parametrize("which", [0, 1])
def test_a_traced_label_that_is_no_class_makes_everything_nan(wrong, which):
    pair = maps(dtype=np.int32)
    pair[which][0, 0, 0] = wrong
    assert np.isnan(SCORES(*pair, classes=CLASSES)).all()


LABELS = np.array([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (LABELS, LABELS + 1, "reference: a label 4; expected 0 to 3"),
        (LABELS - 1, LABELS, "prediction: a label -1; expected 0 to 3"),
        (LABELS, LABELS + 2**32, "reference: a label 4294967296"),
        (LABELS / 3, LABELS, "prediction: an array of float64; expected class numbers .* argmax"),
        (LABELS, LABELS.astype(np.float32), "reference: an array of float32"),
    ],
)
def test_what_is_refused(prediction, reference, message):
    with pytest.raises(DataError, match=message) as caught:
        unwrap(metrics.confusion_matrix)(prediction, reference, CLASSES)
    assert "\n" not in str(caught.value)
