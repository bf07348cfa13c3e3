"""Volume–time curve of a cine: end-diastolic and end-systolic frames, peak ejection and filling rate.

    curve = volumes(labels, ACDC, spacing)                    labels (x, y, z, frame)
    ed, es = volumes_at(curve, ed_es_frames(curve.lv))        the frames of largest and smallest LV volume
    peak_rates(curve.lv, frame_s=0.04)                        ml/s

With samples in leading axes, frames are chosen anew for each sample: `ed_es_frames(curves)`. The largest of noisy
volumes is too large and the smallest too small, so EF rises; and the extreme of several independent errors varies less
than one of them, so samples of EF spread too little. Frames that the data set fixes do neither; those of the mean curve
of N samples, `ed_es_frames(curves.mean(0))`, raise EF √N times less.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import DataError
from medjax.uncertainty.biomarkers import Volumes

AnyArray = Array | np.ndarray
MIN_FRAMES = 4  # of a curve that has rates


class Frames(NamedTuple):
    """Indices of the end-diastolic and end-systolic frame, of each sample."""

    ed: Int[np.ndarray, "*sample"] | int
    es: Int[np.ndarray, "*sample"] | int


class PeakRates(NamedTuple):
    """Peak ejection and peak filling rate of a ventricle, both positive, in ml/s."""

    ejection: Float[np.ndarray, "*sample"]
    filling: Float[np.ndarray, "*sample"]


def ed_es_frames(lv: Float[AnyArray, "*sample frame"]) -> Frames:
    """Frames of largest (ED) and smallest (ES) left-ventricular volume of each sample; the first of equal ones.

    Frames of volume 0 or NaN were not segmented, and are never chosen.

    Raises:
        DataError: a sample with fewer than two frames that were segmented.
    """
    curve = np.asarray(lv, np.float64)
    segmented = curve > 0
    few = np.sum(segmented, axis=-1)
    if curve.shape[-1] < 2 or np.any(few < 2):
        raise DataError(
            f"cine: {np.min(few, initial=curve.shape[-1])} frames with a left ventricle; expected 2 or more"
        )
    ed = np.where(segmented, curve, -np.inf).argmax(axis=-1)
    return Frames(ed, np.where(segmented, curve, np.inf).argmin(axis=-1))


def volumes_at(curve: Volumes, frames: Frames) -> tuple[Volumes, Volumes]:
    """Volumes at ED and at ES of curves (*sample, frame); a frame is one number, or one for each sample.

    Raises:
        DataError: a frame that the curve does not have.
    """
    length = np.shape(curve.lv)[-1]
    for name, frame in zip(Frames._fields, frames, strict=True):
        if np.min(frame) < 0 or np.max(frame) >= length:
            raise DataError(f"{name}: frame {frame}; expected 0 to {length - 1}")
    ed, es = (Volumes(*(_at(np.asarray(values), np.asarray(frame)) for values in curve)) for frame in frames)
    return ed, es


def peak_rates(volume: Float[AnyArray, "*sample frame"], frame_s: float | int, periodic: bool = True) -> PeakRates:
    """Peak ejection rate −min dV/dt and peak filling rate max dV/dt, by central differences, in ml/s.

    Central differences at a distance of Δ attenuate a wave of period T by sin(2πΔ/T) / (2πΔ/T): 1 % for 25 frames a
    cycle, 4 % for a wave twice as fast. Noise makes peaks too large. A frame that was not segmented (volume 0 or
    NaN) leaves a gap: the rates are NaN.

    Args:
        volume: volumes of the frames of one cardiac cycle, in ml.
        frame_s: seconds between two frames.
        periodic: the last frame is followed by the first one (retrospective gating); otherwise the first and last
            differences are one-sided.

    Raises:
        DataError: fewer than 4 frames, or a time that is not positive.
    """
    curve = np.asarray(volume, np.float64)
    if curve.shape[-1] < MIN_FRAMES or not (np.isfinite(frame_s) and frame_s > 0):
        raise DataError(
            f"cine: {curve.shape[-1]} frames, {frame_s:g} s apart; expected {MIN_FRAMES} or more, and a positive time"
        )
    if periodic:
        slope = (np.roll(curve, -1, axis=-1) - np.roll(curve, 1, axis=-1)) / (2 * frame_s)
    else:
        slope = np.gradient(curve, frame_s, axis=-1)
    whole = np.all(curve > 0, axis=-1)
    return PeakRates(np.where(whole, -slope.min(axis=-1), np.nan), np.where(whole, slope.max(axis=-1), np.nan))


def _at(values: np.ndarray, frame: np.ndarray) -> np.ndarray:
    index = np.broadcast_to(frame, values.shape[:-1])[..., None]
    return np.take_along_axis(values, index, axis=-1)[..., 0]
