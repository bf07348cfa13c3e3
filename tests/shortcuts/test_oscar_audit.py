"""OSCAR's audit: what is planted is found, ids are matched, p-values are those of a loop; the rule of the verdict."""

from itertools import product

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from medjax.errors import ConfigError, DataError
from medjax.report.html import Table
from medjax.shortcuts.oscar_audit import audit, audit_ranks
from medjax.shortcuts.oscar_verdict import Limits, rule, to_table, verdict, verdicts
from medjax.shortcuts.rank_profile import rank_regions
from medjax.shortcuts.regions import grid_regions

IMAGES, CELLS = 24, (5, 5)
REGIONS = grid_regions((10, 10), CELLS)
KEY = jax.random.key(0)
FEW = {"resamples": 200, "permuted": 999, "surrogates": 99}


def region_maps(weight, seed=0, images=IMAGES, noise=1.0):
    """Means (image, region) of TS = BA + weight · SA + a smooth field of its own; smooth BA and SA."""
    rng = np.random.default_rng(seed)
    ba, sa, own = (stats.zscore(gaussian_filter(rng.normal(size=CELLS), 0.7, mode="wrap").ravel()) for _ in range(3))
    truth = {"ts": ba + weight * sa + (0.3 if weight else 0.8) * own, "ba": ba, "sa": sa}
    return {name: one + noise * rng.normal(size=(images, 25)) for name, one in truth.items()}


def run(maps, **settings):
    return audit(KEY, maps["ts"], maps["ba"], maps["sa"], REGIONS, **FEW, **settings)


@pytest.fixture(scope="module")
def found():
    return run(region_maps(0.8))


def test_a_planted_shortcut_is_found_and_a_field_of_its_own_is_not(found):
    answer = verdict(found)
    assert answer.decision == "shortcut" and answer.p < 0.05
    assert found.correlations.shortcut > 0.7 and found.low.shortcut > 0
    none = run(region_maps(0.0))
    assert verdict(none).decision == "no evidence"
    assert abs(none.correlations.shortcut) < 0.5 < none.correlations.task


def test_any_order_of_ids_gives_the_same_audit(found):
    maps = region_maps(0.8)
    names = np.array([f"image {number:02d}" for number in range(IMAGES)])
    rng = np.random.default_rng(1)
    orders = {name: rng.permutation(IMAGES) for name in maps}
    ids = tuple(names[orders[name]].tolist() for name in ("ts", "ba", "sa"))
    shuffled = run({name: one[orders[name]] for name, one in maps.items()}, ids=ids)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(shuffled), strict=True):
        np.testing.assert_array_equal(one, other)


def test_maps_give_what_their_means_give(found):
    maps = {name: np.kron(one.reshape(-1, *CELLS), np.ones((2, 2))) for name, one in region_maps(0.8).items()}
    assert run(maps).correlations.shortcut == pytest.approx(found.correlations.shortcut, abs=1e-5)


def test_p_values_are_those_of_a_loop(found):
    ts, ba, sa = found.profiles.astype(float)

    def left(x):
        return x - np.polyval(np.polyfit(ba, x, 1), ba)

    u, v = left(ts).reshape(CELLS), left(sa)
    r = np.corrcoef(u.ravel(), v)[0, 1]
    assert found.correlations.shortcut == pytest.approx(r, abs=1e-5)
    turned = [np.rot90(one, k) for one in (u, u.T) for k in range(4)]
    every = [np.roll(one, step, (0, 1)) for one in turned for step in product(range(5), range(5))]
    extreme = [abs(np.corrcoef(one.ravel(), v)[0, 1]) >= abs(r) - 1e-6 for one in every]
    assert found.p_torus.shortcut == pytest.approx(np.mean(extreme))
    wide = [np.pad(one, ((0, 10), (0, 10)), "symmetric") for one in (u, u.T)]  # mirrored on, once over
    every = [one[i : i + 5, j : j + 5] for one in wide for i, j in product(range(10), range(10))]
    extreme = [abs(np.corrcoef(one.ravel(), v)[0, 1]) >= abs(r) - 1e-6 for one in every]
    assert found.p_spatial.shortcut == pytest.approx(np.mean(extreme)) and found.smallest_p == 1 / len(every)
    x, y = ts, ba  # r of TS and BA is in the middle of its null, where a permutation test has some precision
    expected = stats.permutation_test(
        (x,), lambda x: np.corrcoef(x, y)[0, 1], permutation_type="pairings", n_resamples=999, rng=0
    ).pvalue
    assert found.p_permutation.ts_ba == pytest.approx(expected, abs=0.05)


def test_intervals_are_those_of_a_loop(found):
    maps = region_maps(0.8)
    ranks = np.stack([stats.rankdata(-one, axis=-1) for one in maps.values()])
    rng, values = np.random.default_rng(0), []
    for _ in range(400):
        ts, ba, _ = np.median(ranks[:, rng.integers(0, IMAGES, IMAGES)], axis=1)
        values.append(np.corrcoef(ts, ba)[0, 1])
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.low.ts_ba == pytest.approx(low, abs=0.04) and found.high.ts_ba == pytest.approx(high, abs=0.04)


def test_regions_that_are_no_grid_have_surrogates(found):
    labels = REGIONS._replace(cells=None)
    maps = region_maps(0.8)
    other = audit(KEY, maps["ts"], maps["ba"], maps["sa"], labels, **FEW)
    assert (
        np.isnan(other.p_torus.shortcut)
        and other.p_spatial.shortcut < 0.05
        and "The spatial p is of surrogate maps;" in to_table(other).caption
    )
    assert other.correlations == found.correlations
    even = grid_regions((3, 3, 3), (3, 3, 3))._replace(cells=None)
    answer = verdict(audit(KEY, *(np.tile(one, 2)[:, :27] + np.arange(27) for one in maps.values()), even, **FEW))
    assert answer.decision == "undecided" and any("regions too few, or too evenly" in one for one in answer.reasons)


def test_refused():
    maps = region_maps(0.8)
    ts, ba, sa = maps.values()
    names = [f"image {number:02d}" for number in range(IMAGES)]
    with pytest.raises(DataError, match="24, 23, 24 maps; expected those of the same images"):
        run(maps | {"ba": ba[:-1]})
    with pytest.raises(DataError, match="sa: 1 images of ts are missing, image 23 first"):
        run(maps, ids=(names, names, [*names[:-1], "another"]))
    with pytest.raises(DataError, match="ba: two images of id image 00"):
        run(maps, ids=(names, ["image 00", *names[:-1]], names))
    with pytest.raises(DataError, match="ids: 23 of sa, for 24 maps"):
        run(maps, ids=(names, names, names[:-1]))
    with pytest.raises(DataError, match="sa: NaN or infinite values in 1 of 24 maps"):
        run(maps | {"sa": np.where(np.arange(IMAGES)[:, None] == 3, np.nan, sa)})
    with pytest.raises(DataError, match="ts: all 24 maps are constant"):
        run(maps | {"ts": np.ones_like(ts) * np.arange(IMAGES)[:, None]})
    with pytest.raises(DataError, match="ts, ba: the same maps"):
        run(maps | {"ts": ba})
    with pytest.raises(DataError, match="ba: no rank of region 0 in image 0"):
        ranks = np.stack([np.asarray(rank_regions(one)) for one in maps.values()])
        ranks[1, 0, 0] = np.nan
        audit_ranks(KEY, ranks, REGIONS)
    with pytest.raises(DataError, match="two images or more"):
        audit_ranks(KEY, ranks[:, :1], REGIONS)


def changed(found, p=0.01, r=0.5, low=0.2, reliability=(0.9, 0.9, 0.9), **others):
    return found._replace(
        p_spatial=found.p_spatial._replace(shortcut=p),
        correlations=found.correlations._replace(shortcut=r),
        low=found.low._replace(shortcut=low),
        reliability=reliability,
        **others,
    )


@pytest.mark.parametrize(
    "decision, change",
    [
        ("shortcut", {}),
        ("no evidence", {"p": 0.06}),
        ("no evidence", {"low": -0.01}),
        ("no evidence", {"r": -0.5, "low": -0.7}),
        ("undecided", {"reliability": (0.9, 0.79, 0.9)}),
        ("undecided", {"reliability": (0.9, float("nan"), 0.9)}),
        ("shortcut", {"reliability": (0.7, 0.9, 0.7)}),
        ("undecided", {"reliability": (0.9, 0.9, 0.7), "p": 0.06}),
        ("undecided", {"reliability": (float("nan"), 0.9, 0.9), "p": 0.06}),
        ("undecided", {"images": 19}),
        ("undecided", {"regions": tuple("abcdefghijklmno")}),
        ("undecided", {"r": float("nan"), "p": float("nan"), "low": float("nan")}),
        ("undecided", {"undefined": 0.06}),
        ("undecided", {"smallest_p": 0.05}),
    ],
)
def test_the_rule(found, decision, change):
    answer = verdict(changed(found, **change))
    assert answer.decision == decision and answer.reasons


def test_several_audits_are_corrected(found):
    audits = [changed(found, p=p) for p in (0.03, 0.02, 0.001)]
    assert [verdict(one).decision for one in audits] == ["shortcut"] * 3
    answers = verdicts(audits)
    np.testing.assert_allclose([one.p for one in answers], [0.04, 0.04, 0.003])
    audits[1] = changed(found, p=0.03)
    assert [one.decision for one in verdicts(audits)] == ["no evidence", "no evidence", "shortcut"]
    undefined = changed(found, r=float("nan"), p=float("nan"))  # a test too
    assert verdicts([undefined, changed(found, p=0.03)])[1].p == pytest.approx(0.06)


def test_limits_are_in_the_rule(found):
    limits = Limits(alpha=0.015, min_reliability=0.5)
    assert verdict(changed(found, p=0.02), limits).decision == "no evidence"
    assert "below 0.015" in rule(limits) and "below 0.5" in rule(limits)
    with pytest.raises(ConfigError, match="alpha, min_reliability: 0,"):
        verdict(found, Limits(alpha=0))


def test_the_table_has_every_correlation(found):
    table = to_table(found)
    assert isinstance(table, Table) and len(table.rows) == 6
    name, value, low, high, spatial, permuted = table.rows[0]
    assert name == "ρ(TS, SA | BA)" and value == found.correlations.shortcut
    assert (low, high) == (found.low.shortcut, found.high.shortcut)
    assert (spatial, permuted) == (found.p_spatial.shortcut, found.p_permutation.shortcut)
