"""Thresholds against scikit-image, scikit-learn and brute force; a trusted set turns inverted scores round."""

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.labels import thresholds

DRAW = np.random.default_rng(0)
SCORES = DRAW.permutation(np.concatenate([DRAW.normal(0, 1, 150), DRAW.normal(6, 0.7, 50)]))


def test_otsu_leaves_the_least_variance_within():
    def within(flags):
        return sum(len(part) * part.var() for part in (SCORES[flags], SCORES[~flags]) if len(part))

    best = min(within(cut < SCORES) for cut in np.sort(SCORES)[:-1])
    assert within(thresholds.otsu(SCORES)) == pytest.approx(best)
    filters = pytest.importorskip("skimage.filters")
    np.testing.assert_array_equal(thresholds.otsu(SCORES), filters.threshold_otsu(SCORES, nbins=4096) < SCORES)


def test_the_mixture_is_the_maximum_likelihood_one():
    fitted = thresholds.fit_mixture(SCORES)
    np.testing.assert_allclose(fitted.mean, [0, 6], atol=0.25)
    np.testing.assert_allclose(fitted.weight, [0.75, 0.25], atol=0.02)
    mixture = pytest.importorskip("sklearn.mixture").GaussianMixture(2, tol=1e-8, max_iter=500, random_state=0)
    mixture.fit(SCORES[:, None])
    np.testing.assert_allclose(fitted.mean, np.sort(mixture.means_.ravel()), atol=1e-2)
    assert thresholds.mixture(SCORES).sum() == 50


def test_a_fraction_and_robust_deviations():
    assert thresholds.top_fraction(SCORES, 0.1).sum() == 20
    assert SCORES[thresholds.top_fraction(SCORES, 0.1)].min() >= np.sort(SCORES)[-20]
    normal = DRAW.normal(5, 2, 20_000)
    assert thresholds.mad(normal, 2).mean() == pytest.approx(0.0228, abs=0.005)


@pytest.mark.parametrize("rule", thresholds.THRESHOLDS.values())
def test_equal_scores_flag_nothing(rule):
    assert not rule(np.full(20, 0.3)).any()


@pytest.mark.parametrize("rule", [*thresholds.THRESHOLDS.values(), lambda s: thresholds.top_fraction(s, 0.5)])
@pytest.mark.parametrize("scores", [np.array([1.0, np.nan, 3.0]), np.array([1.0, np.inf]), np.zeros(0)])
def test_scores_that_are_none_are_refused(rule, scores):
    with pytest.raises(DataError, match="not finite; expected numbers"):
        rule(scores)


def test_a_narrow_upper_part_leaves_nothing_above_it_unflagged():
    draw = np.random.default_rng(0)
    scores = np.concatenate([draw.normal(0, 1.5, 150), draw.normal(3, 0.2, 60), [6.0, 7.0]])
    flags = thresholds.mixture(scores)
    assert flags.any() and scores[flags].min() > scores[~flags].max()


def test_a_few_trusted_labels_turn_inverted_scores_round():
    corrupted = SCORES > 3
    trusted = np.concatenate([np.flatnonzero(corrupted)[:3], np.flatnonzero(~corrupted)[:3]])
    for scores in (SCORES, -SCORES):
        np.testing.assert_array_equal(thresholds.orient(scores, trusted, corrupted[trusted]), SCORES)
    with pytest.raises(DataError, match="0 of 3 labels wrong"):
        thresholds.orient(SCORES, trusted[3:], corrupted[trusted[3:]])


def test_thresholds_by_name_and_fraction():
    assert thresholds.by_name("mad") is thresholds.mad
    np.testing.assert_array_equal(thresholds.by_name("0.25")(SCORES), thresholds.top_fraction(SCORES, 0.25))
    for text in ("much", "1", "0", "-0.1"):
        with pytest.raises(ConfigError, match=f"--threshold {text}; expected otsu, mixture, mad or a fraction"):
            thresholds.by_name(text, "--threshold")
