"""Windows of volumes in NumPy: partition and its inverse, regions of shifted windows, relative positions, octants."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.windows import (
    ORDERS,
    attend,
    fit_window,
    merge_octants,
    pad_to,
    partition,
    relative_index,
    reverse,
    shift_regions,
)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("window", [(1, 1, 1), (2, 3, 4), (4, 6, 8)])
def test_windows_are_blocks_and_are_put_together_again(window):
    x = drawn(2, 4, 6, 8, 3)
    windows = partition(x, window)
    starts = itertools.product(*(range(0, side, step) for side, step in zip(x.shape[1:4], window, strict=True)))
    for number, start in enumerate(starts):
        block = x[:, *(slice(i, i + step) for i, step in zip(start, window, strict=True))]
        np.testing.assert_array_equal(windows[:, number], block.reshape(2, -1, 3))
    np.testing.assert_array_equal(reverse(windows, window, x.shape[1:4]), x)


def test_a_window_is_no_wider_than_the_volume_and_then_not_shifted():
    assert fit_window((6, 5, 3), 5, 2) == ((5, 5, 3), (2, 0, 0))
    assert pad_to(jnp.ones((1, 6, 5, 3, 2)), (5, 5, 3)).shape == (1, 10, 5, 3, 2)
    padded = np.asarray(pad_to(jnp.ones((1, 3, 4, 4, 1)), (2, 2, 2)))
    assert padded[0, :3].min() == 1 and padded[0, 3:].max() == 0


@pytest.mark.parametrize(
    ("space", "window", "shift"),
    [((6, 9, 12), (3, 3, 3), (1, 1, 1)), ((10, 10, 5), (5, 5, 5), (2, 2, 0)), ((3, 8, 4), (3, 4, 4), (0, 2, 0))],
)
def test_voxels_attend_to_each_other_if_they_were_in_reach_before_the_roll(space, window, shift):
    """Brute force over every pair in every window: they were, if they lay less than a window's side apart."""
    regions = shift_regions(space, window, shift)
    before = np.moveaxis(np.indices(space), 0, -1)
    rolled = np.roll(before, [-step for step in shift], (0, 1, 2))
    places = np.asarray(partition(rolled[None], window)[0])
    apart = np.abs(places[:, :, None] - places[:, None])
    near = (apart < window).all(-1)
    np.testing.assert_array_equal(regions[:, :, None] == regions[:, None], near)
    assert 0 < near.mean() < 1 and regions.dtype == np.int8 and regions.shape == places.shape[:2]


def test_without_a_shift_a_window_is_one_region():
    assert np.ptp(shift_regions((4, 6, 6), (2, 3, 6), (0, 0, 0)), axis=1).max() == 0


def test_a_row_of_the_table_is_an_offset():
    index = relative_index(3)
    places = np.indices((3, 3, 3)).reshape(3, -1).T
    offsets = {}
    for i, j in itertools.product(range(27), repeat=2):
        offsets.setdefault(index[i, j], set()).add(tuple(places[i] - places[j]))
    assert sorted(offsets) == list(range(125)) and all(len(one) == 1 for one in offsets.values())
    assert len(set().union(*offsets.values())) == 125
    assert offsets[0] == {(-2, -2, -2)} and offsets[1] == {(-2, -2, -1)}  # as published: z fastest


def test_attention_is_the_softmax_of_each_window_and_head():
    q, k, v = (drawn(2, 4, 8, 3, 5) + shift for shift in (0, 0.1, 0.2))
    bias, regions = drawn(3, 8, 8), np.random.default_rng(0).integers(0, 3, (4, 8)).astype(np.int8)
    found = attend(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), jnp.asarray(bias), regions)
    expected = np.zeros(q.shape)
    for b, w, h in np.ndindex(2, 4, 3):
        logits = q[b, w, :, h].astype(float) @ k[b, w, :, h].T / np.sqrt(5) + bias[h]
        logits -= 100 * (regions[w][:, None] != regions[w])
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected[b, w, :, h] = weights @ v[b, w, :, h]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_softmax_is_in_float32_whatever_the_inputs_are():
    q, bias = jnp.ones((1, 1, 8, 1, 4), jnp.bfloat16), jnp.ones((1, 8, 8), jnp.bfloat16)
    program = jax.make_jaxpr(lambda q, bias: attend(q, q, q, bias, None))(q, bias)
    kinds = {str(e.outvars[0].aval.dtype) for e in program.jaxpr.eqns if e.primitive.name == "exp"}
    assert program.out_avals[0].dtype == jnp.bfloat16
    assert kinds <= {"float32"} and "f32[1,1,1,8,8] = exp" in str(program)


def test_octants_of_the_fixed_order_are_all_voxels_and_the_legacy_one_has_two_twice():
    """The legacy order is that of `PatchMerging` in MONAI 1.4.0, an error reported as its issue 8284."""
    numbers = jnp.arange(64.0).reshape(1, 4, 4, 4, 1)
    fixed = np.asarray(merge_octants(numbers, "fixed"))
    assert fixed.shape == (1, 2, 2, 2, 8) and sorted(fixed.ravel()) == list(range(64))
    assert fixed[0, 0, 0, 0].tolist() == [0, 16, 4, 1, 20, 17, 5, 21]
    legacy = np.asarray(merge_octants(numbers, "legacy"))[0, 0, 0, 0].tolist()
    assert legacy == [0, 16, 4, 1, 17, 4, 1, 21]
    every = set(itertools.product(range(2), repeat=3))
    assert set(ORDERS["fixed"]) == every and len(ORDERS["fixed"]) == len(ORDERS["legacy"]) == 8
    assert every - set(ORDERS["legacy"]) == {(1, 1, 0), (0, 1, 1)}


def test_odd_sides_are_padded_with_zeros_before_merging():
    merged = np.asarray(merge_octants(jnp.ones((1, 3, 4, 1, 2)), "fixed")).reshape(1, 2, 2, 1, 8, 2)
    inside = [[1, 1, 1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0]]  # along x; z is one voxel
    np.testing.assert_array_equal(merged[0, :, 0, 0, :, 0], inside)
