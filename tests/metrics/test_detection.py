"""Detection of flagged images by scores against scikit-learn; ties; one class; coverage of the bootstrap interval."""

from inspect import unwrap  # to call as outside of tests, where no annotation is checked

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import DataError
from medjax.metrics import detection as metrics

sklearn = pytest.importorskip("sklearn.metrics")

AUROC, AP, ROC = jax.jit(metrics.auroc), jax.jit(metrics.average_precision), jax.jit(metrics.roc_curve)
INTERVAL = jax.jit(metrics.bootstrap_interval, static_argnames=("metric", "resamples"))
KEY = jax.random.key(0)


def scored(seed=0, images=40, levels=8):
    """Scores of a few levels, so that many tie, higher on average for positives: (scores, positive)."""
    generator = np.random.default_rng(seed)
    positive = np.arange(images) < max(1, images // 4)
    scores = np.round(generator.normal(size=images) * levels / 4 + positive) / levels
    shuffle = generator.permutation(images)
    return scores[shuffle].astype(np.float32), positive[shuffle]


@given(seed=st.integers(0, 9999), levels=st.sampled_from([1, 3, 8, 1000]))
def test_scores_are_scikit_learns(seed, levels):
    scores, positive = scored(seed, levels=levels)
    np.testing.assert_allclose(AUROC(scores, positive), sklearn.roc_auc_score(positive, scores), rtol=1e-6)
    np.testing.assert_allclose(AP(scores, positive), sklearn.average_precision_score(positive, scores), rtol=1e-6)


@given(seed=st.integers(0, 9999), levels=st.sampled_from([1, 3, 1000]))
def test_curve_is_scikit_learns(seed, levels):
    scores, positive = scored(seed, levels=levels)
    found, expected = ROC(scores, positive), sklearn.roc_curve(positive, scores, drop_intermediate=False)
    assert all(each.shape == (41,) for each in found)
    _, distinct = np.unique(-np.asarray(found.threshold), return_index=True)
    for each, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(each)[distinct], theirs, rtol=1e-6)
    area = np.trapezoid(found.true_positive_rate, found.false_positive_rate)
    np.testing.assert_allclose(area, AUROC(scores, positive), atol=1e-6)


def test_many_images_keep_their_digits():
    scores, positive = scored(images=100_001, levels=1000)
    np.testing.assert_allclose(metrics.auroc(scores, positive), sklearn.roc_auc_score(positive, scores), rtol=1e-5)
    expected = sklearn.average_precision_score(positive, scores)
    np.testing.assert_allclose(metrics.average_precision(scores, positive), expected, rtol=1e-5)


def test_by_hand():
    positive = np.array([True, True, False, False])
    for scores, area in (([4, 3, 2, 1], 1), ([1, 2, 3, 4], 0), ([1, 1, 1, 1], 0.5), ([3, 1, 2, 1], 0.625)):
        assert float(metrics.auroc(np.array(scores), positive)) == area
    assert float(metrics.average_precision(np.array([1, 1, 1, 1]), positive)) == 0.5
    infinite = np.array([np.inf, 0.0, 0.0, -np.inf])
    assert float(metrics.auroc(infinite, positive)) == 0.875


@given(seed=st.integers(0, 9999))
def test_only_the_order_counts_and_reversed_scores_reverse_the_area(seed):
    scores, positive = scored(seed)
    np.testing.assert_array_equal(AUROC(np.exp(scores), positive), AUROC(scores, positive))
    np.testing.assert_array_equal(AP(np.exp(scores), positive), AP(scores, positive))
    np.testing.assert_allclose(AUROC(-scores, positive), 1 - AUROC(scores, positive), atol=1e-6)
    np.testing.assert_allclose(AUROC(scores, ~positive), 1 - AUROC(scores, positive), atol=1e-6)


def test_one_class_or_a_nan_score_gives_nan():
    scores, positive = scored()
    broken = np.where(np.arange(40) == 7, np.nan, scores).astype(np.float32)
    for case in ((scores, positive | True), (scores, positive & False), (broken, positive)):
        assert np.isnan(AUROC(*case)) and np.isnan(AP(*case))
        curve = ROC(*case)
        assert np.isnan(curve.false_positive_rate).all() and np.isnan(curve.true_positive_rate).all()


def test_vmap_is_a_loop():
    scores, positive = (np.stack(each) for each in zip(*(scored(seed) for seed in range(3)), strict=True))
    for metric in (AUROC, AP):
        looped = [metric(*case) for case in zip(scores, positive, strict=True)]
        np.testing.assert_allclose(jax.jit(jax.vmap(metric))(scores, positive), looped, rtol=1e-6)


def interval(key, scores, positive, level=0.9):
    return INTERVAL(key, metrics.auroc, scores, positive, resamples=2000, level=level)


def test_bootstrap_is_numpys():
    scores, positive = scored(images=60, levels=1000)
    found = interval(KEY, scores, positive)
    chosen = np.random.default_rng(1).integers(0, 60, (1000, 60))
    areas = [by_pairs(scores[each], positive[each]) for each in chosen]
    np.testing.assert_allclose((found.low, found.high), np.quantile(areas, [0.05, 0.95]), atol=0.015)
    np.testing.assert_allclose(found.estimate, by_pairs(scores, positive), rtol=1e-6)
    other = interval(jax.random.key(1), scores, positive)
    assert found == interval(KEY, scores, positive) and found.low != other.low and float(found.undefined) == 0
    wider = interval(KEY, scores, positive, 0.99)
    assert wider.low < found.low < found.estimate < found.high < wider.high


def by_pairs(scores, positive):
    """The share of pairs of a positive and a negative in the right order, ties counted half."""
    difference = scores[positive][:, None] - scores[~positive]
    return np.mean((difference > 0) + 0.5 * (difference == 0))


@pytest.mark.optimized
def test_bootstrap_covers_the_truth():
    """Two normals one deviation apart have an area of Φ(1/√2) = 0.760; 90 of 100 intervals at 90 % should hold it."""
    generator = np.random.default_rng(0)
    positive = np.arange(60) < 30
    draws = (generator.normal(size=(100, 60)) + positive[None]).astype(np.float32)
    keys = jax.random.split(KEY, 100)
    found = [interval(key, scores, positive) for key, scores in zip(keys, draws, strict=True)]
    held = np.mean([each.low <= 0.7602 <= each.high for each in found])
    assert 0.8 <= held <= 0.97  # 3 standard deviations of 100 draws, and the bootstrap's own shortfall


def test_resamples_with_one_class_are_left_out_and_counted():
    scores, positive = np.arange(60, dtype=np.float32), np.arange(60) == 59
    found = interval(KEY, scores, positive)
    np.testing.assert_allclose(found.undefined, (59 / 60) ** 60, atol=0.04)
    assert found.low == found.high == 1
    nothing = interval(KEY, scores, positive & False)
    assert np.isnan(nothing[:3]).all() and nothing.undefined == 1


def test_a_traced_level_outside_0_to_1_gives_nan_bounds():
    scores, positive = scored(images=60)
    for level in (95.0, -0.5, np.nan):
        found = interval(KEY, scores, positive, level)
        assert np.isnan((found.low, found.high)).all() and not np.isnan(found.estimate)


SCORES, POSITIVE = scored()


def test_zeros_and_ones_are_labels():
    scores, positive = np.array([0.1, 0.9, 0.4]), np.array([0, 1, 0])
    assert float(unwrap(metrics.auroc)(scores, positive)) == float(metrics.auroc(scores, positive == 1)) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: unwrap(metrics.auroc)(SCORES, 2 * POSITIVE - 1),
            "positive: an array of int.*; expected a bool",
        ),
        (lambda: unwrap(metrics.roc_curve)(SCORES, POSITIVE * 0.5), "positive: an array of float"),
        (lambda: metrics.auroc(SCORES[:0], POSITIVE[:0]), "scores, positive: shapes"),
        (lambda: metrics.bootstrap_interval(KEY, metrics.auroc, SCORES, POSITIVE, resamples=0), "resamples, level: 0"),
        (lambda: metrics.bootstrap_interval(KEY, metrics.auroc, SCORES, POSITIVE, level=95), "resamples, level: .*95"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
