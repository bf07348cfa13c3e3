"""Image metrics against scikit-image and NumPy, their limits, and what they refuse."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.errors import DataError
from medjax.metrics import image as metrics

skimage_metrics = pytest.importorskip("skimage.metrics")

SHAPES = [(24, 19), (13, 12, 11)]
JITTED = {name: jax.jit(getattr(metrics, name)) for name in ("nrmse", "psnr", "ssim")}
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def pair(shape, precision="float32", offset=3.0):
    """An image and a reference with structure, far from 0: (image, reference, mask)."""
    generator = np.random.default_rng(len(shape))
    reference = np.cumsum(generator.normal(size=shape), axis=0) + offset
    image = reference + 0.3 * generator.normal(size=shape)
    return image.astype(precision), reference.astype(precision), generator.random(shape) < 0.4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gaussian", [False, True])
def test_ssim_is_scikit_images(shape, gaussian, precision):
    image, reference, mask = pair(shape, precision, offset=50.0)
    options = dict(gaussian_weights=gaussian, sigma=1.5, use_sample_covariance=not gaussian)
    span = reference.max() - reference.min()
    expected, similarity = skimage_metrics.structural_similarity(
        reference.astype(float), image.astype(float), data_range=float(span), full=True, **options
    )
    ssim = jax.jit(partial(metrics.ssim, **options))
    np.testing.assert_allclose(ssim(image, reference), expected, rtol=TOLERANCE[precision])
    inside = ssim(image, reference, mask)
    np.testing.assert_allclose(inside, similarity[mask].mean(), rtol=10 * TOLERANCE[precision])
    assert abs(float(inside) - expected) > 1e-5  # the mask matters


def test_ssim_window_is_scikit_images():
    image, reference, _ = pair((24, 19))
    expected = skimage_metrics.structural_similarity(reference, image, data_range=np.ptp(reference), win_size=11)
    np.testing.assert_allclose(metrics.ssim(image, reference, window=11), expected, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_psnr_and_nrmse_are_scikit_images(shape, precision):
    image, reference, mask = pair(shape, precision)
    span = float(np.ptp(reference))
    psnr = skimage_metrics.peak_signal_noise_ratio(reference, image, data_range=span)
    nrmse = skimage_metrics.normalized_root_mse(reference, image)
    np.testing.assert_allclose(metrics.psnr(image, reference), psnr, rtol=TOLERANCE[precision])
    np.testing.assert_allclose(metrics.nrmse(image, reference), nrmse, rtol=TOLERANCE[precision])
    inside = np.linalg.norm((image - reference)[mask]) / np.linalg.norm(reference[mask])
    np.testing.assert_allclose(metrics.nrmse(image, reference, mask), inside, rtol=TOLERANCE[precision])
    masked = 10 * np.log10(span**2 / np.mean((image - reference)[mask] ** 2))
    np.testing.assert_allclose(metrics.psnr(image, reference, mask), masked, rtol=TOLERANCE[precision])


def test_metrics_jit_and_vmap():
    image, reference, mask = pair((24, 19))
    images = jnp.stack([image, reference + 1, image])
    for metric in (metrics.nrmse, metrics.psnr, metrics.ssim):
        batched = jax.jit(jax.vmap(metric, in_axes=(0, None, None)))(images, reference, mask)
        one_by_one = [jax.jit(metric)(each, reference, mask) for each in images]
        np.testing.assert_allclose(batched, one_by_one, rtol=1e-5)
        assert batched.shape == (3,)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), constant=st.floats(-0.5, 2))
def test_scaling_both_images_changes_nothing_and_a_scaled_reference_is_off_by_its_scale(scale, constant):
    image, reference, _ = pair((8, 8))
    for metric in JITTED.values():
        scaled = metric(np.float32(scale) * image, np.float32(scale) * reference)
        np.testing.assert_allclose(scaled, metric(image, reference), rtol=1e-3)
    off = JITTED["nrmse"](np.float32(1 + constant) * reference, reference)
    np.testing.assert_allclose(off, abs(constant), atol=1e-5)


def test_equal_images_are_perfect():
    _, reference, _ = pair((13, 12, 11))
    assert float(metrics.nrmse(reference, reference)) == 0
    assert float(metrics.psnr(reference, reference)) == np.inf
    np.testing.assert_allclose(metrics.ssim(reference, reference), 1, rtol=1e-6)


def test_integers_do_not_overflow():
    reference = np.full((4, 4), 200, np.uint8)
    reference[0] = 0
    np.testing.assert_allclose(metrics.nrmse(reference // 2, reference), 0.5, rtol=1e-6)


def lesion_scene():
    """Truth 2 with a lesion of 3 (contrast 0.5), and their masks."""
    lesion = np.zeros((8, 8), bool)
    lesion[3:5, 3:5] = True
    background = ~lesion
    background[2:6, 2:6] = False
    return np.where(lesion, 3.0, 2.0).astype(np.float32), lesion, background


def test_contrast_recovery_by_hand():
    truth, lesion, background = lesion_scene()
    image = np.where(lesion, 2.6, 2.0).astype(np.float32)  # contrast 0.3 of 0.5
    image[2, 2] = 100  # in neither mask
    np.testing.assert_allclose(metrics.contrast_recovery(image, truth, lesion, background), 0.6, rtol=1e-5)
    recovery = jax.jit(metrics.contrast_recovery)(truth * 7, truth, lesion, background)
    np.testing.assert_allclose(recovery, 1.0, rtol=1e-5)


def test_bias_and_deviation_are_numpys(precision):
    generator = np.random.default_rng(3)
    truth = generator.uniform(1, 2, (6, 5)).astype(precision)
    realizations = (truth + 0.2 + 0.1 * generator.normal(size=(50, 6, 5))).astype(precision)
    background = np.zeros((6, 5), bool)
    background[:2] = True
    result = metrics.bias_and_standard_deviation(realizations, truth, background=background)
    mean, deviation = realizations.mean(0), realizations.std(0, ddof=1)
    tolerance = 50 * TOLERANCE[precision]
    np.testing.assert_allclose(result.bias, mean - truth, rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(result.standard_deviation, deviation, rtol=tolerance)
    np.testing.assert_allclose(
        result.normalized_bias, np.linalg.norm(mean - truth) / np.linalg.norm(truth), rtol=tolerance
    )
    relative = (deviation / mean)[background].mean()
    np.testing.assert_allclose(result.normalized_deviation, relative, rtol=tolerance)
    assert abs(relative - (deviation / mean).mean()) > 1e-3  # the background matters


def test_roughness_by_hand():
    x = np.arange(12.0)
    image = np.stack([x**2, x**2 + 100.0 * (x > 5)], axis=1)  # second differences of 2, and an edge in one column
    mask = np.stack([np.ones(12, bool), np.zeros(12, bool)], axis=1)
    expected = 2 / np.sqrt(np.mean(x**4))
    assert float(metrics.roughness(image, 0, mask)) == pytest.approx(expected, rel=1e-5)
    assert float(metrics.roughness(7 * image, 0, mask)) == pytest.approx(expected, rel=1e-5)  # free of units
    bends = np.diff(image, 2, 0)
    whole = np.sqrt((bends**2).mean() / (image**2).mean())
    assert float(metrics.roughness(image, 0)) == pytest.approx(whole, rel=1e-5)
    assert float(metrics.roughness(image.T, 1, mask.T)) == pytest.approx(expected, rel=1e-5)
    edge = np.zeros_like(mask)
    edge[6:8, 1] = True  # where the second column's second differences are 2 − 100 and 2
    near = np.sqrt(((2 - 100) ** 2 + 2**2) / 2 / np.mean(image[edge] ** 2))
    assert float(metrics.roughness(image, 0, edge)) == pytest.approx(near, rel=1e-5)


def test_voxels_that_are_always_zero_deviate_by_zero():
    realizations = np.zeros((3, 2, 2), np.float32)
    realizations[:, 0, 0] = [1, 2, 3]
    result = metrics.bias_and_standard_deviation(realizations, np.ones((2, 2), np.float32))
    np.testing.assert_allclose(result.normalized_deviation, 0.5 / 4, rtol=1e-6)


IMAGE, REFERENCE, _ = pair((8, 8))
EMPTY = np.zeros((8, 8), bool)
FULL = np.ones((8, 8), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.nrmse(IMAGE, REFERENCE, EMPTY), "mask: empty"),
        (lambda: metrics.psnr(IMAGE, REFERENCE, EMPTY), "mask: empty"),
        (lambda: metrics.ssim(IMAGE, REFERENCE, EMPTY), "mask: empty"),
        (lambda: metrics.contrast_recovery(IMAGE, REFERENCE, EMPTY, FULL), "lesion: empty"),
        (lambda: metrics.contrast_recovery(IMAGE, REFERENCE, FULL, EMPTY), "background: empty"),
        (lambda: metrics.contrast_recovery(IMAGE, REFERENCE, FULL, FULL), "truth: the same mean"),
        (lambda: metrics.bias_and_standard_deviation(IMAGE[None], REFERENCE), "two or more"),
        (lambda: metrics.bias_and_standard_deviation(np.stack([IMAGE] * 2), REFERENCE, EMPTY), "mask: empty"),
        (lambda: metrics.nrmse(IMAGE, 0 * REFERENCE), "reference: 0 everywhere"),
        (lambda: metrics.psnr(IMAGE, 0 * REFERENCE + 1), "reference: constant at 1"),
        (lambda: metrics.ssim(IMAGE, 0 * REFERENCE + 1), "reference: constant at 1"),
        (lambda: metrics.ssim(IMAGE, REFERENCE, window=9), "window: 9 voxels"),
        (lambda: metrics.ssim(IMAGE, REFERENCE, window=4), "window: 4 voxels"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
