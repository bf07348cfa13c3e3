"""Occlusion and RISE: closed forms of a linear score, for which a window's fall is Σ w (x − b) in it."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.shortcuts.attribution.occlusion import occlusion, region_occlusion, window_scores
from medjax.shortcuts.attribution.rise import rise, rise_mask
from tests.shortcuts.attribution.networks import linear

KEY = jax.random.key(0)
SCORE, W, X = linear((7, 5, 2))


def by_hand(falls, window, stride):
    """Mean over the windows that cover a voxel of Σ `falls` in the window, window by window."""
    total, count = np.zeros(falls.shape), np.zeros(falls.shape)
    starts = [range(0, max(n - w, 0) + s, s) for n, w, s in zip(falls.shape, window, stride, strict=True)]
    for start in product(*starts):
        box = tuple(slice(at, at + side) for at, side in zip(start, window, strict=True))
        total[box] += falls[box].sum()
        count[box] += 1
    return total / count


@pytest.mark.parametrize(
    ("window", "stride"), [((2, 2), None), ((3, 2), (2, 1)), ((1, 1), (1, 1)), ((7, 5), None), ((4, 3), (3, 3))]
)
def test_linear_score(window, stride):
    baseline = 0.25
    wanted = by_hand((W * (X - baseline)).sum(-1), window, stride or window)
    found = occlusion(SCORE, window, stride, baseline, chunk=4)(X)
    assert found.shape == (7, 5, 1)
    np.testing.assert_allclose(found[..., 0], wanted, rtol=1e-4, atol=1e-5)


def test_three_dimensions_and_one_number_for_all_axes():
    score, w, x = linear((4, 3, 5, 1), seed=2)
    wanted = by_hand((w * x).sum(-1), (2, 2, 2), (1, 1, 1))
    np.testing.assert_allclose(occlusion(score, 2, 1, chunk=10)(x)[..., 0], wanted, rtol=1e-4, atol=1e-5)
    tiled = window_scores(score, 2)(x)
    assert tiled.shape == (2, 2, 3)
    np.testing.assert_allclose(tiled[1, 1, 2], (w * x)[2:, 2:, 4:].sum(), rtol=1e-4)


def test_interpolation_between_the_middles_of_windows():
    """Where w x is a ramp, a window's Σ is a ramp of its middle, and so is what is interpolated."""
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None, None], (9, 4, 1))
    found = occlusion(jnp.sum, (3, 4), (2, 1), upsample=True)(ramp)[..., 0]
    wanted = 12 * np.clip(np.arange(9), 1, 7)  # constant beyond the outer middles, 1 and 7
    np.testing.assert_allclose(found, np.broadcast_to(wanted[:, None], (9, 4)), rtol=1e-5, atol=1e-5)


def test_regions():
    labels = np.random.default_rng(0).integers(-1, 4, size=(7, 5))
    falls = (W * (X - 0.5)).sum(-1)
    wanted = np.where(labels < 0, 0, np.array([falls[labels == max(n, 0)].sum() for n in range(4)])[labels])
    found = region_occlusion(SCORE, labels, 4, baseline=0.5, chunk=3)(X)
    np.testing.assert_allclose(found[..., 0], wanted, rtol=1e-4, atol=1e-5)
    traced = jax.jit(lambda own: region_occlusion(SCORE, own, 4, 0.5)(X))(labels)
    np.testing.assert_allclose(traced, found, rtol=1e-4, atol=1e-5)


def masks_of(space, cells, probability, number=4000):
    keys = jax.vmap(lambda n: jax.random.fold_in(KEY, n))(jnp.arange(number))
    draw = jax.jit(jax.vmap(lambda key: rise_mask(key, space, cells, probability)))
    return np.asarray(draw(keys), np.float64)


def test_masks_of_rise():
    """As published: cells upsampled to one more than the image has, cropped; mean p, values 0–1, smooth."""
    masks = masks_of((12, 6), 3, 0.4)
    assert masks.shape == (4000, 12, 6) and masks.min() == 0 and masks.max() == 1
    np.testing.assert_allclose(masks.mean(0), 0.4, atol=0.04)
    assert np.abs(np.diff(masks, axis=1)).max() <= 1 / 4 + 1e-6  # a cell is 4 voxels along this axis


def test_expectation_on_a_linear_score():
    """E map_j = Σ_i w_i x_i E[m_i m_j] / p + b, second moments by enumerating cells and offsets."""
    size, cells, p = 4, 2, 0.5
    weights = np.asarray(jax.image.resize(jnp.eye(cells), ((cells + 1) * 2, cells), "linear"), np.float64)
    masks = np.array([weights[at : at + size] @ kept for at in range(2) for kept in product((0, 1), repeat=cells)])
    moments = masks.T @ masks / len(masks)
    w, x = np.array([1.0, -2, 0.5, 3], np.float32), np.array([0.3, 1, 2, -1], np.float32)
    wanted = moments @ (w * x) / p + 0.7
    found = rise(KEY, lambda image: jnp.sum(image[:, 0] * w) + 0.7, 8000, cells, p, chunk=1000)(x[:, None])
    np.testing.assert_allclose(found[:, 0], wanted, atol=0.08)
    assert np.ptp(wanted) > 0.5


def test_chunks_and_baselines():
    maps = [rise(KEY, SCORE, 10, 3, baseline=0.3, chunk=chunk)(X) for chunk in (1, 4, 50)]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-4, atol=1e-5)
    same = rise(KEY, SCORE, 10, 3, baseline=X)(X) * 0.5  # nothing is masked: p map = f(x) · mean mask
    np.testing.assert_allclose(same[..., 0], SCORE(X) * masks_of((7, 5), 3, 0.5, 10).mean(0), rtol=1e-4)
    one, other = (occlusion(SCORE, 2, 1, chunk=chunk)(X) for chunk in (1, 7))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: occlusion(SCORE, 6)(X), "window: 6"),
        (lambda: occlusion(SCORE, (2, 2, 2))(X), "window"),
        (lambda: occlusion(SCORE, 0)(X), "window: 0"),
        (lambda: occlusion(SCORE, 2, 3)(X), "stride: 3"),
        (lambda: occlusion(SCORE, 2, 0)(X), "stride: 0"),
        (lambda: occlusion(SCORE, 2, chunk=0)(X), "chunk: 0"),
        (lambda: region_occlusion(SCORE, np.zeros((7, 4), int), 2)(X), "labels: shape"),
        (lambda: region_occlusion(SCORE, np.full((7, 5), 2), 2)(X), "labels: 2 … 2"),
        (lambda: region_occlusion(SCORE, np.full((7, 5), -1), 0)(X), "number of samples: 0"),
        (lambda: rise(KEY, SCORE, cells=6)(X), "cells: 6"),
        (lambda: rise(KEY, SCORE, probability=0.0), "probability: 0.0"),
        (lambda: rise(KEY, SCORE, 0)(X), "number of samples: 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_a_nan_is_not_hidden_by_a_window():
    hidden = X.copy()
    hidden[0, 0, 0] = np.nan
    assert np.isnan(occlusion(SCORE, 2)(hidden)).all()
    assert np.isnan(rise(KEY, SCORE, 5, 3)(hidden)).all()
