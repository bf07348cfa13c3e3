"""Similarities against float64 formulas, finite differences, and on images that have no contrast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.registration.similarity import lncc, mean_squares, mind, mind_descriptor, mutual_information

DRAW = np.random.default_rng(0)
FIXED = ndimage.gaussian_filter(DRAW.normal(size=(12, 11, 10)), 1.0).astype(np.float32) * 3 + 2
WARPED = (np.exp(-0.5 * FIXED) + 0.1 * DRAW.normal(size=FIXED.shape)).astype(np.float32)
MASK = (DRAW.uniform(size=FIXED.shape) > 0.3).astype(np.float32)
ALL = {"mse": mean_squares, "lncc": lncc(2), "mi": mutual_information(16, chunk=500), "mind": mind()}
named = pytest.mark.parametrize("similarity", ALL.values(), ids=ALL.keys())
masked = pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
# one program for all calls on arrays of one shape
value_and_gradient = jax.jit(lambda similarity, *images: jax.value_and_grad(similarity)(*images), static_argnums=0)


def lncc_in_double(w, f, mask, radius=2, floor=1e-3):
    mask = np.ones(w.shape) if mask is None else mask.astype(float)
    w, f = w.astype(float), f.astype(float)
    w, f = w - (mask * w).sum() / mask.sum(), f - (mask * f).sum() / mask.sum()
    box = lambda x: ndimage.uniform_filter(x, 2 * radius + 1, mode="constant") * (2 * radius + 1) ** 3  # noqa: E731
    count = np.maximum(box(mask), 1e-6)
    mean = lambda x: box(mask * x) / count  # noqa: E731
    floors = [floor * (mask * x**2).sum() / mask.sum() for x in (w, f)]
    covariance = mean(w * f) - mean(w) * mean(f)
    variances = [mean(x * x) - mean(x) ** 2 + e for x, e in zip((w, f), floors, strict=True)]
    return 1 - (mask * covariance**2 / (variances[0] * variances[1])).sum() / mask.sum(), floors


@masked
def test_lncc_equals_double_precision(mask):
    loss, _ = value_and_gradient(lncc(2), WARPED, FIXED, mask)
    assert loss == pytest.approx(lncc_in_double(WARPED, FIXED, mask)[0], abs=2e-6)


@masked
def test_gradient_of_lncc_equals_that_of_the_formula(mask):
    """With the floors kept fixed, as they are by definition; autodiff of the formula, in JAX."""
    _, floors = lncc_in_double(WARPED, FIXED, mask)
    weights = jnp.ones(FIXED.shape) if mask is None else jnp.asarray(mask)

    def formula(w, f):
        w, f = w - 2.0, f - 2.0
        box = lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (5, 5, 5), (1, 1, 1), "SAME")  # noqa: E731
        count = box(weights)
        mean = lambda x: box(weights * x) / count  # noqa: E731
        covariance = mean(w * f) - mean(w) * mean(f)
        w_var, f_var = (mean(x * x) - mean(x) ** 2 + e for x, e in zip((w, f), floors, strict=True))
        return 1 - (weights * covariance**2 / (w_var * f_var)).sum() / weights.sum()

    expected = jax.jit(jax.grad(formula, argnums=(0, 1)))(WARPED, FIXED)
    computed = jax.jit(jax.grad(lncc(2), argnums=(0, 1)))(WARPED, FIXED, mask)
    for one, other in zip(computed, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(other).max())


def test_lncc_is_blind_to_contrast_and_1_without_any():
    base, _ = value_and_gradient(lncc(2), WARPED, FIXED, None)
    scaled, _ = value_and_gradient(lncc(2), -40 * WARPED + 7, FIXED, None)
    same, _ = value_and_gradient(lncc(2), FIXED, FIXED, None)
    assert scaled == pytest.approx(float(base), abs=1e-4)
    assert same < 0.05
    assert 0.05 < base < 1


@masked
def test_mutual_information_equals_a_histogram_in_double_precision(mask):
    bins, weights = 16, np.ones(FIXED.size) if mask is None else mask.ravel().astype(float)

    def to_bins(image):
        inside = image.ravel()[weights > 0].astype(float)
        low, high = inside.min(), inside.max()
        return 2 + (bins - 5) * (np.clip(image.ravel().astype(float), low, high) - low) / (high - low)

    def cubic(x):
        x = abs(x)
        return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0))

    centers = np.arange(bins)[:, None]
    left, right = cubic(to_bins(WARPED) - centers), np.maximum(1 - abs(to_bins(FIXED) - centers), 0)
    joint = (weights * left) @ right.T / weights.sum()
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    expected = -(joint[joint > 0] * np.log(joint[joint > 0] / outer[joint > 0])).sum()
    loss, _ = value_and_gradient(ALL["mi"], WARPED, FIXED, mask)
    assert loss == pytest.approx(expected, abs=1e-4)


@named
@masked
def test_gradients_agree_with_finite_differences(similarity, mask):
    """Along a random direction that leaves the extremes alone, which set the bins of mutual information."""
    direction = DRAW.normal(size=FIXED.shape).astype(np.float32)
    direction[(WARPED.max() == WARPED) | (WARPED.min() == WARPED)] = 0
    if mask is not None:
        inside = np.where(mask > 0, WARPED, WARPED.mean())
        direction[(inside == inside.max()) | (inside == inside.min())] = 0
    loss = lambda step: float(value_and_gradient(similarity, WARPED + np.float32(step) * direction, FIXED, mask)[0])  # noqa: E731
    _, gradient = value_and_gradient(similarity, WARPED, FIXED, mask)
    slope = float(np.sum(np.asarray(gradient, float) * direction))
    kinks = similarity is ALL["mind"]  # a minimum over pairs, which tie at edges
    step = 5e-4 if kinks else 4e-3
    assert slope == pytest.approx((loss(step) - loss(-step)) / (2 * step), rel=0.1 if kinks else 0.05, abs=2e-3)


@named
def test_voxels_outside_the_mask_do_not_count(similarity):
    if similarity is ALL["mind"]:
        pytest.skip("its descriptors look beyond the mask's edge")
    changed = np.where(MASK > 0, WARPED, WARPED + 50).astype(np.float32)
    one, other = (value_and_gradient(similarity, image, FIXED, MASK) for image in (WARPED, changed))
    assert one[0] == pytest.approx(float(other[0]), abs=1e-4)
    assert np.all(np.asarray(other[1])[MASK == 0] == 0)


@named
@pytest.mark.parametrize("mask", [None, np.zeros_like(MASK)], ids=["whole", "empty"])
def test_constant_images_give_no_nan_and_no_gradient(similarity, mask):
    for warped, fixed in ((np.full_like(FIXED, 0.1), np.full_like(FIXED, 0.1)), (np.zeros_like(FIXED), FIXED)):
        loss, gradient = value_and_gradient(similarity, warped, fixed, mask)
        assert np.isfinite(loss)
        assert np.isfinite(np.asarray(gradient)).all()
        if (fixed == warped).all():
            np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_mind_sees_structure_and_not_contrast():
    inverted = value_and_gradient(mind(), (5 - 2 * FIXED).astype(np.float32), FIXED, None)[0]
    other = value_and_gradient(mind(), np.roll(FIXED, 3, 0), FIXED, None)[0]
    assert inverted < 0.01 * other
    descriptors = jax.jit(mind_descriptor)(FIXED[0])
    assert descriptors.shape == (4, 11, 10)
    assert float(descriptors.max()) == 1


def test_equal_settings_make_equal_similarities_and_wrong_ones_are_refused():
    assert len({lncc(2), lncc(2, 1e-3), lncc(3)}) == 2
    for wrong in (lambda: lncc(0), lambda: lncc(2, 0.0), lambda: mutual_information(4), lambda: mind(1, 0)):
        with pytest.raises(DataError, match="expected"):
            wrong()
