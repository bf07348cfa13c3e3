"""Nulls of a correlation: SciPy's permutation p, the group of torus shifts, false-positive rates on smooth fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from medjax.errors import ConfigError
from medjax.metrics.correlation import residual
from medjax.shortcuts.spatial_null import mirrored_shifts, null_correlations, null_p, permutations, torus_shifts

KEY = jax.random.key(0)


def smooth_fields(number, cells, sigma):
    """Pairs of fields: white noise through a Gaussian, of a larger image so that edges are as the middle."""
    noise = np.random.default_rng(1).normal(size=(2, number, cells + 16, cells + 16))
    blurred = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma)) if sigma else noise
    return blurred[:, :, 8:-8, 8:-8].reshape(2, number, -1).astype(np.float32)


def p_values(fields, null, exact=False):
    return np.asarray(jax.lax.map(lambda pair: null_p(*pair, null, exact), tuple(map(jnp.asarray, fields))))


@pytest.mark.parametrize("slope", [0.3, 0.0])
def test_p_is_that_of_scipys_permutation_test(slope):
    x, noise = np.random.default_rng(0).normal(size=(2, 30))
    y = slope * x + noise

    def statistic(permuted, axis):  # Pearson's up to a factor, which permutations keep
        return np.sum(permuted * (y - y.mean()), axis)

    scipys = stats.permutation_test((x,), statistic, permutation_type="pairings", n_resamples=4000, rng=2)
    p = null_p(x, y, permutations(KEY, 30, 4000))
    assert float(p) == pytest.approx(scipys.pvalue, abs=float(4 * np.sqrt(2 * p * (1 - p) / 4000)))


def test_p_counts_what_the_loop_counts():
    x, y, z = np.random.default_rng(0).normal(size=(3, 49))
    perms, shifts = permutations(KEY, 49, 499), torus_shifts((7, 7))
    for u, v in ((x, y), (residual(x, z), residual(y, z)), (residual(x, z), y)):
        r = abs(np.corrcoef(u, v)[0, 1])
        draws = np.array([np.corrcoef(np.asarray(u)[row], v)[0, 1] for row in perms])
        np.testing.assert_allclose(null_correlations(u, v, perms), draws, atol=1e-6)
        assert null_p(u, v, perms) == pytest.approx((1 + np.sum(abs(draws) >= r)) / 500)
        group = np.array([np.corrcoef(np.asarray(u)[row], v)[0, 1] for row in shifts])
        assert null_p(u, v, shifts, exact=True) == pytest.approx(np.mean(abs(group) >= r - 1e-6))
        assert null_p(u, v, np.asarray(u)[perms]) == pytest.approx(float(null_p(u, v, perms)))  # as maps


def test_permutations_are_permutations():
    perms = permutations(KEY, 12, 6000)
    assert perms.dtype == np.int32
    np.testing.assert_array_equal(np.sort(perms, 1), np.broadcast_to(np.arange(12), perms.shape))
    np.testing.assert_allclose((perms[:, :, None] == np.arange(12)).mean(0), 1 / 12, atol=0.02)
    np.testing.assert_array_equal(perms, permutations(KEY, 12, 6000))
    assert (perms != permutations(jax.random.key(1), 12, 6000)).any()


@pytest.mark.parametrize(
    ("cells", "number"),
    [((7, 7), 392), ((7, 8), 224), ((5,), 10), ((3, 3, 3), 27 * 48), ((3, 3, 4), 36 * 16), ((2, 2), 8), ((1, 3), 6)],
)
def test_torus_shifts_are_a_group_of_distinct_ones(cells, number):
    shifts = torus_shifts(cells)
    assert shifts.shape == (number, np.prod(cells))
    np.testing.assert_array_equal(shifts[0], np.arange(np.prod(cells)))
    rows = {row.tobytes() for row in shifts}
    assert len(rows) == number
    for one in shifts[:: max(number // 12, 1)]:
        assert {row.tobytes() for row in one[shifts]} == rows  # any after any is one of them


def test_torus_shifts_hold_every_roll_flip_and_rotation():
    grid = np.arange(25).reshape(5, 5)
    rows = {row.tobytes() for row in torus_shifts((5, 5))}
    rolls = {np.roll(grid, step, (0, 1)).ravel().astype(np.int32).tobytes() for step in np.ndindex(5, 5)}
    assert {row.tobytes() for row in torus_shifts((5, 5), symmetries=False)} == rolls
    for other in (np.rot90(grid), np.flipud(np.roll(grid, 2, 1)), grid.T):
        assert np.ascontiguousarray(other, np.int32).tobytes() in rows


@pytest.mark.parametrize("cells", [(5,), (4, 4), (4, 5), (3, 3, 4), (1, 4)])
def test_mirrored_shifts_are_the_windows_of_a_mirrored_map(cells):
    grid = np.arange(np.prod(cells)).reshape(cells)
    mirrored = np.pad(grid, [(size, 2 * size) for size in cells], mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, cells)[tuple(slice(2 * size) for size in cells)]
    expected = {row.astype(np.int32).tobytes() for row in windows.reshape(-1, grid.size)}
    shifts = mirrored_shifts(cells, symmetries=False)
    assert {row.tobytes() for row in shifts} == expected and len(shifts) == len(expected)
    every = {row.tobytes() for row in mirrored_shifts(cells)}
    np.testing.assert_array_equal(mirrored_shifts(cells)[0], grid.ravel())
    others = [grid, np.flip(grid, 0), np.flip(grid)] + ([np.rot90(grid), grid.T] if cells == (4, 4) else [])
    assert all(np.ascontiguousarray(other, np.int32).tobytes() in every for other in others)


def test_a_7x7_grid_has_enough_for_holms_correction():
    assert len(mirrored_shifts((7, 7))) == len(torus_shifts((7, 7))) == 392


def test_p_is_uniform_on_white_fields():
    fields = smooth_fields(500, 7, 0)
    nulls = ((permutations(KEY, 49, 391), False), (torus_shifts((7, 7)), True), (mirrored_shifts((7, 7)), True))
    for null, exact in nulls:
        assert stats.kstest(p_values(fields, null, exact), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("cells", "null"), [(14, torus_shifts), (7, mirrored_shifts)])
def test_shifts_are_calibrated_where_permutations_are_not(cells, null):
    fields = smooth_fields(300, cells, 1.5)
    assert np.mean(p_values(fields, permutations(KEY, cells**2, 199)) <= 0.05) > 0.3
    assert np.mean(p_values(fields, null((cells, cells)), exact=True) <= 0.05) <= 0.1


def test_mirrored_shifts_find_what_is_there():
    u, w = smooth_fields(100, 14, 1.0)
    assert np.mean(p_values((u, 0.6 * u + 0.8 * w), mirrored_shifts((14, 14)), exact=True) <= 0.05) > 0.95


def test_the_smallest_p_is_one_of_all():
    x = np.random.default_rng(0).normal(size=49)
    assert null_p(x, 2 * x + 1, torus_shifts((7, 7)), exact=True) == pytest.approx(1 / 392)
    assert null_p(x, -x, permutations(KEY, 49, 199)) == pytest.approx(1 / 200)
    symmetric = np.add.outer(np.cos(np.arange(7)), np.cos(np.arange(7))).ravel()
    assert null_p(symmetric, symmetric, torus_shifts((7, 7)), exact=True) == pytest.approx(2 / 392)  # and its transpose


@pytest.mark.parametrize("undefined", [np.full(49, 0.1), np.append(np.nan, np.arange(48.0))])
def test_an_undefined_correlation_has_no_p(undefined):
    x, shifts = np.random.default_rng(0).normal(size=49), torus_shifts((7, 7))
    assert np.isnan([null_p(undefined, x, shifts, exact=True), null_p(x, undefined, shifts)]).all()
    assert null_p(x, x, np.stack([undefined] * 9)) == 1  # undefined surrogates count as extreme


def test_what_is_refused():
    for shifts in (torus_shifts, mirrored_shifts):
        with pytest.raises(ConfigError, match=r"cells: .* have 524288 transformations.*; symmetries=False gives fewer"):
            shifts((256, 256))
        with pytest.raises(ConfigError, match=r"cells: .*expected 1 or more along each axis"):
            shifts((7, 0))
    with pytest.raises(ConfigError, match="regions, number: 0, 5"):
        permutations(KEY, 0, 5)
