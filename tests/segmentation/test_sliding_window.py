"""Tiles by nnU-Net's rule worked out by hand, weights by SciPy, predictions of networks whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError, DataError
from medjax.segmentation.sliding_window import gaussian_importance, predict, tile_starts

MATRIX = jnp.asarray([[1.0, -2.0, 0.5], [0.3, 1.0, 2.0]])


def linear(params, x):
    """A network of one 1×1×1 convolution."""
    return x @ params + 0.25


def shifted(params, x):
    """One that looks at the neighbour below along each axis, and so knows left from right."""
    return jnp.concatenate([params * jnp.roll(x, 1, axis) for axis in range(1, x.ndim - 1)], -1)


def place(params, x):
    """One that only says where in the tile a voxel is, along the first axis."""
    here = jnp.arange(x.shape[1], dtype=jnp.float32).reshape(1, -1, *(1,) * (x.ndim - 2))
    return params * jnp.broadcast_to(here, x.shape)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("side", "tile", "step", "expected"),
    [
        (110, 64, 0.5, [0, 23, 46]),  # ⌈46 / 32⌉ + 1 = 3 tiles, 23 apart
        (123, 64, 0.5, [0, 30, 59]),  # 29.5 is rounded to the even 30, as NumPy does
        (64, 64, 0.5, [0]),
        (65, 64, 0.5, [0, 1]),
        (128, 64, 1.0, [0, 64]),
        (10, 4, 0.25, [0, 1, 2, 3, 4, 5, 6]),
        (3, 4, 0.5, [0]),
    ],
)
def test_starts_along_an_axis(side, tile, step, expected):
    assert tile_starts((side,), (tile,), step)[:, 0].tolist() == expected


def test_starts_are_all_combinations():
    assert tile_starts((6, 4, 5), (4, 4, 4)).tolist() == [[0, 0, 0], [0, 0, 1], [2, 0, 0], [2, 0, 1]]


@pytest.mark.parametrize("tile", [(32, 16, 9), (8, 5)])
def test_importance_is_scipys_gaussian_and_never_zero(tile):
    point = np.zeros(tile)
    point[tuple(side // 2 for side in tile)] = 1
    expected = ndimage.gaussian_filter(point, [side / 8 for side in tile], mode="constant")
    expected *= 10 / expected.max()
    expected[expected == 0] = expected[expected > 0].min()
    found = gaussian_importance(tile)
    assert found.max() == 10 and found.min() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(7, 9, 4), (3, 2, 1), (8, 2, 5)])
@pytest.mark.parametrize(("step", "batch"), [(0.5, 3), (1.0, 1)])
def test_a_network_without_neighbours_is_exact_for_any_shape_and_overlap(shape, step, batch):
    volume = drawn(*shape, 2)
    found = predict(linear, [MATRIX], volume, (4, 4, 4), step, batch=batch)
    np.testing.assert_allclose(found, volume @ np.asarray(MATRIX) + 0.25, atol=1e-5)


def test_two_axes_and_a_constant():
    constant = predict(linear, [jnp.zeros((2, 3))], jnp.asarray(drawn(11, 6, 2)), (4, 4), mirror=(1,), batch=2)
    np.testing.assert_allclose(constant, np.full((11, 6, 3), 0.25), rtol=1e-6)


def test_one_tile_is_the_network_itself():
    volume = jnp.asarray(drawn(4, 4, 4, 1))
    found = predict(shifted, [jnp.float32(2)], volume, (4, 4, 4), mirror=())
    np.testing.assert_allclose(found, shifted(2.0, volume[None])[0], rtol=1e-5)


def test_a_small_image_is_in_the_middle_of_its_tile():
    found = predict(place, [jnp.float32(1)], jnp.ones((3, 4, 1)), (8, 4), mirror=())
    np.testing.assert_allclose(found[:, 0, 0], [2, 3, 4], rtol=1e-6)


def test_tiles_are_averaged_with_their_weights():
    """Two tiles of 8 at 0 and 4: where both see a voxel, their answers count as much as they trust it."""
    found = predict(place, [jnp.float32(1)], jnp.ones((12, 1)), (8,), mirror=())
    weight, expected = gaussian_importance((8,)), np.zeros(12)
    total = np.zeros(12)
    for first in (0, 4):
        expected[first : first + 8] += weight * np.arange(8)
        total[first : first + 8] += weight
    np.testing.assert_allclose(found[:, 0], expected / total, rtol=1e-5)


def test_mirroring_is_the_mean_over_all_flips():
    volume = jnp.asarray(drawn(4, 4, 4, 1))
    flips = [(), (0,), (2,), (0, 2)]
    each = [jnp.flip(shifted(1.0, jnp.flip(volume, axes)[None])[0], axes) for axes in flips]
    found = predict(shifted, [jnp.float32(1)], volume, (4, 4, 4), mirror=(0, 2), batch=3)
    np.testing.assert_allclose(found, sum(each) / 4, atol=1e-6)


def test_shapes_and_parameters_of_one_bucket_share_a_compilation():
    traced = []

    def noted(params, x):
        traced.append(x.shape)
        return x @ params

    first = predict(noted, [MATRIX], drawn(5, 7, 4, 2), (4, 4, 4), batch=2)
    once = len(traced)
    again = predict(noted, [MATRIX + 1], drawn(8, 6, 2, 2), (4, 4, 4), batch=2)
    assert len(traced) == once and set(traced) == {(2, 4, 4, 4, 2)}
    np.testing.assert_allclose(first, drawn(5, 7, 4, 2) @ np.asarray(MATRIX), atol=1e-5)
    np.testing.assert_allclose(again, drawn(8, 6, 2, 2) @ np.asarray(MATRIX + 1), atol=1e-5)
    predict(noted, [MATRIX], drawn(9, 7, 4, 2), (4, 4, 4), batch=2)
    assert len(traced) > once


def test_padding_beyond_the_image_is_not_seen():
    """The last tile ends at the border, not in the zeros that fill the bucket."""
    found = predict(
        lambda params, x: jnp.ones_like(x) * x.min(), [MATRIX], np.ones((5, 6, 1), np.float32), (4, 4), 0.5, ()
    )
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_half_precision_networks_are_added_up_in_single():
    half = predict(lambda params, x: x.astype(jnp.bfloat16), [None], jnp.ones((9, 1)), (4,), mirror=())
    assert half.dtype == jnp.float32


def test_an_ensemble_is_the_mean_of_its_members():
    volume, members = drawn(5, 4, 4, 2), [MATRIX, 3 * MATRIX]
    found = predict(linear, members, volume, (4, 4, 4), mirror=())
    np.testing.assert_allclose(found, volume @ np.asarray(2 * MATRIX) + 0.25, atol=1e-5)


def test_what_cannot_be_is_refused():
    volume = drawn(4, 4, 4, 2)
    for wrong, settings in {
        r"tile: \(4, 4\); expected 3 whole": {"tile": (4, 4)},
        r"tile: \(4, 0, 4\); expected 3 whole": {"tile": (4, 0, 4)},
        "step: 0.0; expected": {"tile": (4, 4, 4), "step": 0.0},
        r"mirror: \(0, 3\); expected different axes out of": {"tile": (4, 4, 4), "mirror": (0, 3)},
        "batch: 0; expected": {"tile": (4, 4, 4), "batch": 0},
    }.items():
        with pytest.raises(ConfigError, match=wrong):
            predict(linear, [MATRIX], volume, **settings)
    with pytest.raises(DataError, match="volume: shape"):
        predict(linear, [MATRIX], volume[:0], (4, 4, 4))
    with pytest.raises(DataError, match="apply: gives 2 levels of logits; expected the finest alone"):
        predict(lambda params, x: (x, x), [MATRIX], volume, (4, 4, 4))
    with pytest.raises(DataError, match="apply: gives shape"):
        predict(lambda params, x: x[:, ::2], [MATRIX], volume, (4, 4, 4))
    with pytest.raises(DataError, match="networks: none"):
        predict(linear, [], volume, (4, 4, 4))
