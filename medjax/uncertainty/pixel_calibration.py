"""Calibration of a segmentation's class probabilities, streamed over images: ECE, MCE, Brier score, log loss, risk.

    state = init(classes=4)
    for probabilities, labels in cases:                                  volumes are never all held
        state = update(state, probabilities, labels, mask=near_contour(labels, 3))
    summary(state)                                                       {"ece": 0.031, "brier": 0.12, …}
    reliability_diagram(state), aurc(*pixel_errors(state))

Most pixels are background that no one doubts: over whole images every network looks calibrated. Give a mask, such as
`near_contour`, and say which.

The state is a histogram of the confidences in fine bins (1/600 wide, narrower towards 0 and 1), of which `summary`
makes bins of equal width or mass. Numbers of bins that divide 600 are exact; others, and equal mass, are exact up to
the width of a fine bin. Pixels are counted in integers, up to 2³¹ of them: their order does not matter, and every
backend gives the same. `merge` joins the states of two workers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, Scalar

from medjax.errors import DataError
from medjax.uncertainty.reliability import (
    BINS,
    Binning,
    Reliability,
    expected_calibration_error,
    maximum_calibration_error,
    reliability,
)

AnyArray = Array | np.ndarray
Probabilities = Float[AnyArray, "image *space class"]
Labels = Integer[AnyArray, "image *space"]
Mask = Bool[AnyArray, "image *space"]

_ENDS = 10.0 ** -np.arange(3, 7.01, 0.125)  # the finest bin of float32 at 1 is 6e-8
EDGES = np.unique(np.concatenate([np.arange(601) / 600, _ENDS, 1 - _ENDS]).astype(np.float32))
FINE = len(EDGES) - 1
STEPS = 127  # levels of a confidence within a fine bin
MAX_PIXELS = 2**24  # of an image, so that their sum is an int32
SUM_TOLERANCE = 1e-2  # of probabilities, which may be of half precision
SMALLEST = float(np.finfo(np.float32).tiny)


class PixelCalibration(NamedTuple):
    """Sums over pixels; rows are the predicted class, then every class."""

    count: Int[Array, "row fine"]  # pixels whose confidence is in a fine bin
    confidence: Float[Array, "row fine"]  # mean
    correct: Int[Array, "row fine"]  # pixels whose label is the row's class
    pixels: Int[Array, ""]
    invalid: Int[Array, ""]  # pixels of the mask without probabilities or with an unknown label
    brier: Scalar  # mean over pixels
    nll: Scalar


class PixelErrors(NamedTuple):
    """1 − confidence, whether the prediction is wrong (0 or 1), and number of pixels."""

    uncertainty: Float[np.ndarray, " value"]
    risk: Float[np.ndarray, " value"]
    count: Float[np.ndarray, " value"]


def init(classes: int) -> PixelCalibration:
    """The state before any image.

    Raises:
        DataError: fewer than two classes.
    """
    if classes < 2:
        raise DataError(f"classes: {classes}; expected two or more, background included")
    shape, none = (classes + 1, FINE), jnp.zeros((), jnp.int32)
    integers = jnp.zeros(shape, jnp.int32)
    return PixelCalibration(integers, jnp.zeros(shape), integers, none, none, jnp.zeros(()), jnp.zeros(()))


def update(
    state: PixelCalibration, probabilities: Probabilities, labels: Labels, mask: Mask | None = None
) -> PixelCalibration:
    """The state with a stack of images added; runs under jit.

    Args:
        state: sums so far.
        probabilities: probability of each class, such as the mean softmax over samples.
        labels: class of each pixel.
        mask: pixels to count, by default all; leave out an ignore label here.

    Raises:
        DataError: other shapes, another number of classes, or an image of more than 2²⁴ pixels.
    """
    p, y = jnp.asarray(probabilities, jnp.float32), jnp.asarray(labels, jnp.int32)
    inside = jnp.ones(y.shape, bool) if mask is None else jnp.asarray(mask)
    if p.shape[:-1] != y.shape or inside.shape != y.shape or p.shape[-1] != state.count.shape[0] - 1:
        shapes = f"{p.shape}, {y.shape}, {inside.shape}"
        raise DataError(
            f"probabilities, labels, mask: shapes {shapes}; expected one class axis of {state.count.shape[0] - 1} more"
        )
    if int(np.prod(y.shape[1:])) > MAX_PIXELS:
        raise DataError(f"labels: {int(np.prod(y.shape[1:]))} pixels an image; expected at most {MAX_PIXELS}")
    return _update(state, p, y, inside)


@jax.jit
def merge(one: PixelCalibration, other: PixelCalibration) -> PixelCalibration:
    """The state of all images of both."""
    count, pixels = one.count + other.count, one.pixels + other.pixels
    part, fraction = _ratio(other.count, count), _ratio(other.pixels, pixels)
    return PixelCalibration(
        count,
        one.confidence + (other.confidence - one.confidence) * part,
        one.correct + other.correct,
        pixels,
        one.invalid + other.invalid,
        one.brier + (other.brier - one.brier) * fraction,
        one.nll + (other.nll - one.nll) * fraction,
    )


def summary(state: PixelCalibration, bins: int = BINS) -> dict[str, float]:
    """Calibration of all pixels, by name.

        ece, mce              of the predicted class, `bins` of equal width; `adaptive_ece`: of equal mass
        classwise_ece         mean over classes of the ECE of each class's probability; `adaptive_classwise_ece`: of
                              equal mass
        brier                 mean Σ_c (p_c − 1{y = c})², 0 to 2
        nll                   mean −ln p_y, of probabilities of at least float32's smallest normal number (87.3 nats)
        accuracy, confidence  means; `pixels`: their number

    Raises:
        ConfigError: no bin.
        DataError: no pixel, or some without probabilities (not finite, below 0 or not adding to 1) or with a label that
            is no class.

    Source: class-wise: Nixon et al., CVPR workshops 2019; Kull et al., NeurIPS 2019; Brier, Monthly Weather Review
    78(1), 1950.
    """
    rows = range(state.count.shape[0])
    width, mass = ([reliability_diagram(state, row, bins, kind) for row in rows] for kind in ("width", "mass"))
    top = width[0]
    return {
        "ece": expected_calibration_error(top),
        "adaptive_ece": expected_calibration_error(mass[0]),
        "mce": maximum_calibration_error(top),
        "classwise_ece": float(np.mean([expected_calibration_error(one) for one in width[1:]])),
        "adaptive_classwise_ece": float(np.mean([expected_calibration_error(one) for one in mass[1:]])),
        "brier": float(state.brier),
        "nll": float(state.nll),
        "accuracy": float(np.nansum(top.accuracy * top.count) / top.count.sum()),
        "confidence": float(np.nansum(top.confidence * top.count) / top.count.sum()),
        "pixels": float(state.pixels),
    }


def reliability_diagram(
    state: PixelCalibration, row: int = 0, bins: int = BINS, binning: Binning = "width"
) -> Reliability:
    """Reliability diagram of the predicted class (row 0), or of the probability of class `row` − 1.

    Raises:
        DataError: as `summary`.
    """
    count, confidence, correct = _checked(state, row)
    return reliability(np.clip(confidence, 0, 1), correct / count, count, bins=bins, binning=binning)


def pixel_errors(state: PixelCalibration) -> PixelErrors:
    """Uncertainty and errors of all pixels: what `risk_coverage` and `aurc` take; pixels of a fine bin are tied.

    Raises:
        DataError: as `summary`.
    """
    count, confidence, correct = _checked(state, 0)
    uncertainty, wrong = np.tile(1 - confidence, 2), np.repeat([0.0, 1.0], len(count))
    return PixelErrors(uncertainty, wrong, np.concatenate([correct, count - correct]))


def near_contour(labels: Labels, width: int) -> Bool[Array, "image *space"]:
    """Pixels with another class among those up to `width` steps away along the axes and diagonals; runs under jit.

    Raises:
        DataError: a width below 1.
    """
    if width < 1:
        raise DataError(f"width: {width}; expected at least 1 pixel")
    y = jnp.asarray(labels, jnp.int32)
    window, ones = (1, *(2 * width + 1 for _ in y.shape[1:])), (1,) * y.ndim
    extreme = np.iinfo(np.int32)
    high = lax.reduce_window(y, np.int32(extreme.min), lax.max, window, ones, "SAME")
    low = lax.reduce_window(y, np.int32(extreme.max), lax.min, window, ones, "SAME")
    return high != low


@jax.jit
def _update(state: PixelCalibration, p: Array, y: Array, inside: Array) -> PixelCalibration:
    """Image by image, so that the histogram's indices are only those of one."""

    def one(state: PixelCalibration, image: tuple[Array, Array, Array]) -> tuple[PixelCalibration, None]:
        p, y, inside = image
        return merge(state, _sums(p.reshape(-1, p.shape[-1]), y.reshape(-1), inside.reshape(-1))), None

    return lax.scan(one, state, (p, y, inside))[0]


def _sums(p: Float[Array, "pixel class"], y: Int[Array, " pixel"], inside: Bool[Array, " pixel"]) -> PixelCalibration:
    classes = p.shape[1]
    total = jnp.sum(p, axis=1)
    known = jnp.all((p >= 0) & (p <= 1 + SUM_TOLERANCE), axis=1) & (jnp.abs(total - 1) <= SUM_TOLERANCE)
    counted = inside & known & (y >= 0) & (y < classes)
    truth = y[:, None] == jnp.arange(classes)[None]
    hit = jnp.concatenate([(jnp.argmax(p, axis=1) == y)[:, None], truth], axis=1)
    values = jnp.clip(jnp.concatenate([jnp.max(p, axis=1, keepdims=True), p], axis=1), 0, 1)
    edges = jnp.asarray(EDGES)
    fine = jnp.searchsorted(edges[1:-1], values)
    level = jnp.round((values - edges[fine]) / (edges[fine + 1] - edges[fine]) * STEPS).astype(jnp.int32)
    index = jnp.where(counted[:, None], fine + FINE * jnp.arange(classes + 1)[None], FINE * (classes + 1))
    added = jnp.stack([jnp.ones_like(level), level, hit.astype(jnp.int32)], axis=-1)
    sums = jnp.zeros((FINE * (classes + 1), 3), jnp.int32).at[index].add(added, mode="drop")
    count, levels, correct = (sums[:, k].reshape(classes + 1, FINE) for k in range(3))
    pixels = jnp.sum(counted, dtype=jnp.int32)
    squares = jnp.sum((p - truth) ** 2, axis=1)
    surprise = -jnp.log(jnp.maximum(jnp.sum(jnp.where(truth, p, 0), axis=1), SMALLEST))
    return PixelCalibration(
        count,
        edges[None, :-1] + (edges[1:] - edges[:-1])[None] * _ratio(levels, STEPS * count),
        correct,
        pixels,
        jnp.sum(inside & ~counted, dtype=jnp.int32),
        *(_ratio(jnp.sum(jnp.where(counted, each, 0)), pixels) for each in (squares, surprise)),
    )


def _ratio(over: Array, under: Array) -> Array:
    """0 where both are."""
    return over / jnp.maximum(under, 1)


def _checked(state: PixelCalibration, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean confidence and correct ones of the fine bins that are not empty."""
    pixels, invalid = int(state.pixels), int(state.invalid)
    if invalid or pixels < 1:
        found = f"{invalid} pixels without probabilities or with a label that is no class, {pixels} others"
        raise DataError(f"state: {found}; expected none, and at least 1")
    if not 0 <= row < state.count.shape[0]:
        raise DataError(f"row: {row}; expected 0 (predicted class) to {state.count.shape[0] - 1} (last class)")
    own = np.asarray(state.count[row]) > 0
    each = (np.asarray(one[row], np.float64)[own] for one in (state.count, state.confidence, state.correct))
    count, confidence, correct = each
    return count, confidence, correct
