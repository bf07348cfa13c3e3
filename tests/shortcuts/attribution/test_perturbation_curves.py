"""Deletion and insertion curves of a linear score by hand, by voxel and by region."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.iterate import static_partial
from medjax.shortcuts.attribution.baseline import baseline_image, gaussian_blur
from medjax.shortcuts.attribution.batches import map_images
from medjax.shortcuts.attribution.perturbation_curves import deletion, insertion, region_deletion, region_insertion
from tests.shortcuts.attribution.networks import linear

SCORE, W, X = linear((4, 5, 2))
B = 0.5
PARTS = (W * (X - B)).sum(-1)  # what each voxel adds to the score
BEFORE, AFTER = float(SCORE(X)), float(SCORE(np.full_like(X, B)))
LABELS = np.array([[-1, 0, 0, 1, 1], [0, 0, 2, 1, 1], [2, 2, 2, 3, 3], [2, 2, 3, 3, -1]])


def test_by_voxel():
    """The score less the sum of the largest parts, 20, in 5 steps of 4."""
    falls = np.cumsum(np.sort(PARTS.ravel())[::-1])[3::4]
    deleted = deletion(SCORE, 5, B, chunk=2)(X, PARTS)
    np.testing.assert_allclose(deleted.fraction, np.linspace(0, 1, 6), rtol=1e-6)
    np.testing.assert_allclose(deleted.score, BEFORE - np.append(0, falls), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(deleted.area, np.trapezoid(deleted.score, deleted.fraction), rtol=1e-5)
    inserted = insertion(SCORE, 5, B)(X, PARTS)
    np.testing.assert_allclose(inserted.score, AFTER + np.append(0, falls), rtol=1e-4, atol=1e-4)
    assert inserted.area > np.mean(inserted.score[jnp.array([0, -1])]) > deleted.area


def test_no_other_order_has_a_smaller_area():
    best = deletion(SCORE, 20, B)(X, PARTS).area
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(30, 4, 5)).astype(np.float32)
    others = jax.vmap(deletion(SCORE, 20, B), (None, 0))(X, maps).area
    assert best < others.min() and deletion(SCORE, 20, B)(X, -PARTS).area > others.max()


def test_by_region():
    sums = np.array([PARTS[n == LABELS].sum() for n in range(4)])
    sizes = np.array([(n == LABELS).sum() for n in range(4)])
    order = np.argsort(-sums / sizes)
    deleted = region_deletion(SCORE, LABELS, 5, B, chunk=4)(X, PARTS)  # region 4 has no voxel
    np.testing.assert_allclose(deleted.fraction, np.array([0, *np.cumsum(sizes[order]), 18]) / 20, rtol=1e-6)
    falls = np.cumsum(sums[order])
    np.testing.assert_allclose(deleted.score, BEFORE - np.array([0, *falls, falls[-1]]), rtol=1e-4, atol=1e-4)
    inserted = region_insertion(SCORE, LABELS, 5, B)(X, W * (X - B))  # with channels
    start = BEFORE - falls[-1]  # voxels in no region stay
    np.testing.assert_allclose(inserted.score, start + np.array([0, *falls, falls[-1]]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(inserted.area, np.trapezoid(inserted.score, inserted.fraction) / 0.9, rtol=1e-5)


@pytest.mark.parametrize(("shape", "sigma"), [((9, 5, 2), 1.3), ((4, 6, 5, 1), 5.0)])
def test_blurred_baseline(shape, sigma):
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    wanted = ndimage.gaussian_filter(x, sigma, axes=range(len(shape) - 1), mode="nearest")
    blur = static_partial(gaussian_blur, sigma=sigma)
    np.testing.assert_allclose(baseline_image(blur, x), wanted, rtol=1e-4, atol=1e-5)
    curve = insertion(jnp.sum, 3, blur)(x, x)
    np.testing.assert_allclose(curve.score[jnp.array([0, -1])], [wanted.sum(), x.sum()], rtol=1e-3, atol=1e-4)


def curves(params):
    return deletion(lambda x: jnp.sum(x * params), 4, chunk=3)


def test_many_images_at_once():
    images = np.stack([X, X + 1, -X])
    found = map_images(curves, W, images, images[..., 0], batch=2)
    for n in range(3):
        np.testing.assert_allclose(found.score[n], curves(W)(images[n], images[n, ..., 0]).score, rtol=1e-4, atol=1e-5)


def test_what_orders_nothing_is_nan():
    hidden = PARTS.copy()
    hidden[0, 0] = np.nan
    for values in (hidden, np.ones_like(PARTS)):
        for evaluate in (deletion(SCORE, 5), region_insertion(SCORE, LABELS, 4)):
            curve = evaluate(X, values)
            assert np.isnan(curve.score).all() and np.isnan(curve.area)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: deletion(SCORE, 0), "steps: 0"),
        (lambda: insertion(SCORE, chunk=0)(X, PARTS), "chunk: 0"),
        (lambda: deletion(SCORE)(X, PARTS[1:]), r"map: shape \(3, 5\)"),
        (lambda: region_deletion(SCORE, LABELS, 3), "labels: -1 … 3"),
        (lambda: region_deletion(SCORE, LABELS[1:], 4)(X, PARTS), "labels: shape"),
        (lambda: gaussian_blur(X, 0.0), "sigma: 0.0"),
        (lambda: deletion(SCORE, baseline=X[0])(X, PARTS), "baseline: shape"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(DataError, match=message):
        make()
