"""Calibration of pixels against torchmetrics, torch-uncertainty, scikit-learn and closed forms; a stream equals all."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import ConfigError, DataError
from medjax.uncertainty import pixel_calibration as pixels
from medjax.uncertainty.reliability import expected_calibration_error, maximum_calibration_error, reliability
from medjax.uncertainty.risk_coverage import aurc


def images():
    """Probabilities that are too sure at the top and not sure enough in the middle, and labels."""
    rng = np.random.default_rng(7)
    logits = 2 * rng.normal(size=(2, 30, 40, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return p.astype(np.float32), np.argmax(2 * np.tanh(logits) + rng.gumbel(size=logits.shape), -1)


P, LABELS = images()
FLAT, Y = P.reshape(-1, 3).astype(float), LABELS.ravel()
TOP, HIT = FLAT.max(1), FLAT.argmax(1) == Y


@pytest.fixture(scope="module")
def state():
    return pixels.update(pixels.init(3), P, LABELS)


def test_errors_equal_peers(state):
    """On `images()`: torchmetrics 1.9.0 multiclass_calibration_error (10, 15 bins, "l1"; "max"), mean over classes of
    binary_calibration_error; torch-uncertainty 0.13.0 AdaptiveCalibrationError and BrierScore."""
    found = pixels.summary(state)
    assert found["ece"] == pytest.approx(0.0677117183804512, abs=2e-6)
    assert pixels.summary(state, bins=10)["ece"] == pytest.approx(0.06503622978925705, abs=2e-6)
    assert found["mce"] == pytest.approx(0.09408009052276611, abs=2e-6)
    assert found["classwise_ece"] == pytest.approx(0.0453906866411368, abs=2e-6)
    assert found["brier"] == pytest.approx(0.4393962621688843, abs=2e-6)
    assert found["adaptive_ece"] == pytest.approx(0.0665590763092041, abs=1e-3)  # to the width of a fine bin
    exact = reliability(TOP, HIT, binning="mass")
    assert expected_calibration_error(exact) == pytest.approx(0.0665590763092041, abs=2e-6)
    np.testing.assert_array_equal(exact.count, 160)


def test_means_equal_scikit_learn(state):
    from sklearn.metrics import accuracy_score, log_loss

    found = pixels.summary(state)
    normalized = FLAT / FLAT.sum(1, keepdims=True)
    assert found["nll"] == pytest.approx(log_loss(Y, normalized), rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy_score(Y, FLAT.argmax(1)))
    assert found["confidence"] == pytest.approx(TOP.mean(), abs=1e-5)
    assert found["pixels"] == Y.size


def test_the_histogram_gives_what_the_pixels_give(state):
    for row, (p, hit) in enumerate([(TOP, HIT), *((FLAT[:, c], c == Y) for c in range(3))]):
        one, all_pixels = pixels.reliability_diagram(state, row), reliability(p, hit)
        np.testing.assert_array_equal(one.count, all_pixels.count)
        np.testing.assert_allclose(one.confidence, all_pixels.confidence, atol=1e-5)
        np.testing.assert_allclose(one.accuracy, all_pixels.accuracy, atol=1e-12)
    exact = aurc(1 - TOP, (~HIT).astype(float))
    np.testing.assert_allclose(aurc(*pixels.pixel_errors(state)), exact, atol=2e-3)
    assert aurc(*pixels.pixel_errors(state)).optimal == pytest.approx(exact.optimal)


def test_a_stream_equals_all_at_once(state):
    start = pixels.init(3)
    one, two = (pixels.update(start, P[k : k + 1], LABELS[k : k + 1]) for k in (0, 1))
    for joined in (pixels.update(one, P[1:], LABELS[1:]), pixels.merge(two, one)):
        for name, value, expected in zip(state._fields, joined, state, strict=True):
            np.testing.assert_allclose(value, expected, rtol=2e-7, atol=1e-7, err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(pixels.update)(start, P, LABELS), state)


def test_a_mask_counts_its_pixels_only():
    mask = np.random.default_rng(0).uniform(size=LABELS.shape) < 0.3
    found = pixels.summary(pixels.update(pixels.init(3), P, LABELS, mask))
    ignored = np.where(mask, LABELS, 255)  # an ignore label outside the mask does not matter
    assert pixels.summary(pixels.update(pixels.init(3), P, ignored, mask)) == found
    inside = mask.ravel()
    assert found["pixels"] == inside.sum()
    assert found["ece"] == pytest.approx(expected_calibration_error(reliability(TOP[inside], HIT[inside])), abs=1e-5)
    assert found["accuracy"] == pytest.approx(HIT[inside].mean())


def test_near_contour_is_what_a_dilation_of_the_contour_is():
    labels = np.zeros((2, 20, 24), int)
    labels[0, 5:12, 6:15], labels[0, 8:10, 8:12], labels[1, 0:4, 0:4] = 1, 2, 3
    for width in (1, 3):
        expected = [
            ndimage.maximum_filter(one, 2 * width + 1, mode="nearest")
            != ndimage.minimum_filter(one, 2 * width + 1, mode="nearest")
            for one in labels
        ]
        np.testing.assert_array_equal(pixels.near_contour(labels, width), expected)
    assert not pixels.near_contour(0 * labels, 2).any()  # all background: no contour


def test_a_million_equal_pixels_are_as_accurate_as_one():
    p = np.full((1, 1024, 1024, 2), 0.9999, np.float32)
    p[..., 1] = 1 - p[..., 0]
    found = pixels.summary(pixels.update(pixels.init(2), p, np.zeros(p.shape[:3], int)))
    wrong = float(p[0, 0, 0, 1])
    assert found["ece"] == pytest.approx(wrong, rel=1e-3)
    assert found["brier"] == pytest.approx(2 * wrong**2, rel=1e-3)
    assert found["nll"] == pytest.approx(-np.log(1 - wrong), rel=1e-3)


def test_certain_probabilities_are_a_closed_form():
    p = np.zeros((1, 2, 4, 2), np.float32)
    p[..., 0] = 1
    labels = np.array([[[0, 0, 0, 0], [0, 0, 1, 1]]])
    found = pixels.summary(pixels.update(pixels.init(2), p, labels))
    assert found["ece"] == found["mce"] == found["classwise_ece"] == found["adaptive_ece"] == 0.25
    assert found["brier"] == 0.5 and found["nll"] == pytest.approx(0.25 * 87.3365, rel=1e-5)


def test_pixels_that_are_none_are_refused(state):
    with pytest.raises(DataError, match="0 others"):
        pixels.summary(pixels.init(3))
    background = pixels.update(pixels.init(3), P, 0 * LABELS, pixels.near_contour(0 * LABELS, 2))
    with pytest.raises(DataError, match="0 others"):  # an all-background frame has no contour
        pixels.summary(background)
    for p, labels in (
        (np.where(np.arange(3) == 1, np.nan, P).astype(np.float32), LABELS),
        (2 * P, LABELS),
        (P - 0.5, LABELS),
        (P, np.where(LABELS == 2, 3, LABELS)),
        (P, LABELS - 1),
    ):
        with pytest.raises(DataError, match=r"state: \d+ pixels without probabilities"):
            pixels.summary(pixels.update(state, p, labels))


def test_shapes_and_settings_are_checked(state):
    for p, labels in ((P[..., :2], LABELS), (P, LABELS[:1]), (P[:, :20], LABELS)):
        with pytest.raises((DataError, TypeError), match=r"expected one class axis of 3 more|labels"):
            pixels.update(state, p, labels)
    with pytest.raises(DataError, match="classes: 1"):
        pixels.init(1)
    with pytest.raises(DataError, match="width: 0"):
        pixels.near_contour(LABELS, 0)
    with pytest.raises(DataError, match="row: 4"):
        pixels.reliability_diagram(state, 4)
    with pytest.raises(ConfigError, match="at least 1"):
        pixels.summary(state, bins=0)


def test_reliability_of_values():
    diagram = reliability(np.array([0.1, 0.2, 0.25, 0.9]), np.array([0, 0, 1, 1]), bins=5)  # edges belong below
    np.testing.assert_array_equal(diagram.count, [2, 1, 0, 0, 1])
    np.testing.assert_allclose(diagram.confidence, [0.15, 0.25, np.nan, np.nan, 0.9])
    assert expected_calibration_error(diagram) == pytest.approx((0.3 + 0.75 + 0.1) / 4)
    assert maximum_calibration_error(diagram) == pytest.approx(0.75)
    tied = reliability(np.array([0.5, 1, 1, 1, 1, 1]), np.array([1, 1, 1, 0, 1, 1]), bins=3, binning="mass")
    np.testing.assert_array_equal(np.sort(tied.count), [0, 1, 5])  # equal confidences stay together
    weighted = reliability(np.array([0.5, 1]), np.array([1, 0.8]), np.array([1, 5]), bins=3, binning="mass")
    np.testing.assert_allclose(weighted, tied)
    for p, hit, message in (
        (np.array([0.5, 1.1]), np.ones(2), "confidence: 0.5 to 1.1"),
        (np.array([0.5, np.nan]), np.ones(2), "confidence: nan"),
        (np.ones(2), np.array([1, 2]), "accuracy: 1 to 2"),
        (np.ones(0), np.ones(0), "0 predictions"),
        (np.ones(2), np.ones(3), "2, 3, 2 values"),
    ):
        with pytest.raises((DataError, TypeError), match=rf"{message}|accuracy"):
            reliability(p, hit)
