"""OSCAR's formulas: identities in float64, closed forms, invariances; ranks and profiles."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.shortcuts.oscar import (
    Correlations,
    contribution_scores,
    correlations,
    effective_area,
    quadrants,
    standardized_residuals,
)
from medjax.shortcuts.rank_profile import rank_profile, rank_regions

R = 64


def profiles(seed=0, weight=0.6, count=1):
    """TS = BA + weight · SA + noise, as rank profiles; first axis is one of `count`."""
    rng = np.random.default_rng(seed)
    ba, sa, noise = rng.normal(size=(3, count, R))
    ts = ba + weight * sa + 0.5 * noise
    return [stats.rankdata(one, axis=-1) for one in (ts, ba, sa)]


def least_squares(x, z):
    design = np.stack([np.ones_like(z), z], axis=1)
    return x - design @ np.linalg.lstsq(design, x)[0]


def test_correlations_are_those_of_numpy(x64):
    (ts,), (ba,), (sa,) = profiles()
    found = correlations(ts, ba, sa)

    def r(x, y):
        return np.corrcoef(x, y)[0, 1]

    expected = Correlations(
        shortcut=r(least_squares(ts, ba), least_squares(sa, ba)),
        task=r(least_squares(ts, sa), least_squares(ba, sa)),
        deviation=r(least_squares(ts, ba), sa),
        ts_sa=r(ts, sa),
        ts_ba=r(ts, ba),
        sa_ba=r(sa, ba),
    )
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-12)


def test_scores_sum_to_the_partial_correlation(x64):
    ts, ba, sa = profiles(count=20)
    scores = contribution_scores(ts, ba, sa)
    found = correlations(ts, ba, sa)
    np.testing.assert_allclose(scores.sum(-1) / (R - 1), found.shortcut, atol=1e-12)
    assert np.ptp(np.asarray(found.shortcut)) > 0.1


def test_partial_is_pairwise_where_ba_tells_nothing(x64):
    (ts,), (ba,), (sa,) = profiles()
    ts, sa = least_squares(ts, ba), least_squares(sa, ba)
    found = correlations(ts, ba, sa)
    np.testing.assert_allclose([found.shortcut, found.deviation], [found.ts_sa] * 2, atol=1e-12)


def test_quadrants_add_up_to_the_absolute_scores(x64):
    ts, ba, sa = profiles(count=5)
    u, v = standardized_residuals(ts, ba, sa)
    four = quadrants(ts, ba, sa)
    np.testing.assert_allclose(sum(four), np.abs(u * v), atol=1e-12)
    signed = four.both_more + four.both_less - four.ts_more - four.sa_more
    np.testing.assert_allclose(signed, contribution_scores(ts, ba, sa), atol=1e-12)
    assert (np.sum([one > 0 for one in four], axis=0) <= 1).all()
    np.testing.assert_allclose([u.var(-1, ddof=1), v.var(-1, ddof=1)], 1, atol=1e-12)


def test_more_important_is_of_lower_rank():
    rng = np.random.default_rng(0)
    ba = rng.permutation(R) + 1.0
    ts, sa = ba + 5 * rng.normal(size=R), ba + 5 * rng.normal(size=R)
    ts[10], sa[10] = -60, -60  # both networks look there
    ts[20], sa[20] = 140, 140  # neither does
    four = quadrants(ts, ba, sa)
    assert four.both_more.argmax() == 10 and four.both_less.argmax() == 20
    assert four.both_more[20] == four.both_less[10] == 0


def test_effective_area_of_one_region_and_of_all():
    one_hot = np.eye(R)[7] * 3.0
    assert effective_area(one_hot) == pytest.approx(1 / R)
    assert effective_area(np.full(R, 0.2)) == pytest.approx(1)
    assert effective_area(np.full(R, 1e-30)) == pytest.approx(1)  # squares that float32 has not
    assert effective_area(np.where(np.arange(R) < 16, 2.0, -5.0)) == pytest.approx(0.25)
    assert np.isnan(effective_area(-one_hot))


def test_what_is_not_defined_is_nan():
    (ts,), (ba,), (sa,) = profiles()
    same = correlations(2 * ba - 1, ba, sa)
    assert np.isnan(same.shortcut) and np.isnan(same.deviation) and same.ts_ba == pytest.approx(1)
    assert np.isnan(contribution_scores(ba, ba, sa)).all()
    assert all(np.isnan(one).all() for one in quadrants(ba, ba, sa))
    assert np.isnan(correlations(ts, np.ones(R), sa).shortcut)


def test_refused():
    (ts,), (ba,), (sa,) = profiles()
    with pytest.raises(DataError, match="profiles of shapes"):
        correlations(ts, ba, sa[:-1])
    with pytest.raises(DataError, match="four regions or more"):
        contribution_scores(ts[:3], ba[:3], sa[:3])


def test_float32_agrees_with_float64_where_ba_and_sa_are_nearly_the_same():
    (ts,), (ba,), _ = profiles()
    sa = ba + 0.005 * ts
    expected = correlations(*(jnp.asarray(one, jnp.float32) for one in (ts, ba, sa)))
    left = [least_squares(np.float32(one).astype(float), np.float32(ba).astype(float)) for one in (ts, sa)]
    assert expected.shortcut == pytest.approx(np.corrcoef(*left)[0, 1], abs=2e-4)


def test_ranks_are_scipys_and_invariant_to_monotone_maps():
    rng = np.random.default_rng(0)
    means = np.round(rng.normal(size=(7, R)), 1)  # with ties
    ranks = rank_regions(means)
    np.testing.assert_array_equal(ranks, stats.rankdata(-means, axis=-1))
    for increasing in (np.exp, np.arctan, lambda x: 3 * x + 100):
        np.testing.assert_array_equal(rank_regions(increasing(means)), ranks)


def test_a_missing_region_does_not_change_the_others_ranks():
    means = np.array([[3.0, np.nan, 1.0, 2.0], [1.0, 5.0, 0.0, 0.0]])
    np.testing.assert_array_equal(rank_regions(means), [[1, np.nan, 3, 2], [2, 1, 3.5, 3.5]])
    np.testing.assert_array_equal(rank_profile(rank_regions(means)), [1.5, 1, 3.25, 2.75])
