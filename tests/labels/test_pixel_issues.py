"""Suspect places: cleanlab's on random arrays, and by hand."""

import numpy as np
import pytest

from medjax.labels.pixel_issues import confident_thresholds, pixel_issues


def arrays(seed):
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(6, 8, 7, 4)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.where(draw.uniform(size=(6, 8, 7)) < 0.7, probabilities.argmax(-1), draw.integers(0, 4, (6, 8, 7)))
    return labels, probabilities


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_places_are_cleanlabs(seed):
    cleanlab = pytest.importorskip("cleanlab.segmentation.filter")  # not among medjax's dependencies
    labels, probabilities = arrays(seed)
    theirs = cleanlab.find_label_issues(labels, np.moveaxis(probabilities, -1, 1), n_jobs=1, verbose=False)
    np.testing.assert_array_equal(pixel_issues(labels, probabilities), theirs)


def test_a_few_places_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55], [0.2, 0.8], [0.1, 0.9]])[None]
    labels = np.array([[0, 0, 0, 0, 1, 0]])
    np.testing.assert_allclose(confident_thresholds(labels, probabilities), [0.51, 0.8])
    # class 1 is sure at the last place alone, so one place is taken: the one whose label is least probable
    np.testing.assert_array_equal(pixel_issues(labels, probabilities), [[False] * 5 + [True]])


def test_a_network_that_agrees_has_no_issue_and_a_class_may_be_missing():
    labels, probabilities = arrays(0)
    assert not pixel_issues(probabilities.argmax(-1), probabilities).any()
    assert pixel_issues(np.minimum(labels, 2), probabilities).shape == labels.shape
