"""Randoms estimation: expected random coincidences from smoothed delayed coincidences (delayeds)."""

import math

import numpy as np
from jaxtyping import Float


def estimate_randoms(
    delayeds: Float[np.ndarray, "view bin plane"],
    coverage: Float[np.ndarray, "view bin plane"],
    fwhm: tuple[float, float, float] = (60.0, 24.0, 12.0),
) -> Float[np.ndarray, "view bin plane"]:
    """Expected randoms from delayeds: coverage · G(delayeds) / G(coverage), scaled to the delayeds' total.

    `coverage` is the fraction of a bin's crystal pairs that are real, times the number of ring pairs in its plane, so
    that detector gaps and the ends of the scanner neither dilute the estimate nor get any of it. G is a Gaussian of
    `fwhm` views, bins and planes; past the last view come the first one's bins reversed: the same lines of response
    after half a turn.
    """
    rate, fraction = _smooth(delayeds, fwhm), _smooth(coverage, fwhm)
    estimate = np.where(coverage > 0, coverage * rate / np.where(fraction > 0, fraction, 1), 0)
    total = float(estimate.sum(dtype=float))
    return (estimate * (float(delayeds.sum(dtype=float)) / total if total else 0.0)).astype(np.float32)


def _smooth(sinogram: np.ndarray, fwhm: tuple[float, float, float]) -> np.ndarray:
    """G of `estimate_randoms`, up to a factor: a matrix an axis, and a second one for views half a turn on."""
    views, bins, planes = (np.subtract.outer(np.arange(n), np.arange(n)) for n in sinogram.shape)
    view, bin_, plane = fwhm
    half_turn = len(views)
    partner = 2 * (len(bins) // 2) - np.arange(len(bins))  # the bin of the same line half a turn on
    there = (partner >= 0) & (partner < len(bins))
    reversed_ = sinogram[:, np.where(there, partner, 0)] * there[None, :, None]
    onwards = _gaussian(views - half_turn, view) + _gaussian(views + half_turn, view)
    smooth = np.tensordot(_gaussian(views, view), sinogram, 1) + np.tensordot(onwards, reversed_, 1)
    smooth = np.tensordot(smooth, _gaussian(planes, plane), 1)
    return np.moveaxis(np.tensordot(smooth, _gaussian(bins, bin_), (1, 0)), 2, 1)


def _gaussian(distance: np.ndarray, fwhm: float) -> np.ndarray:
    weight = np.exp(-4 * math.log(2) * (distance / fwhm) ** 2)
    return np.where(weight > 1e-6, weight, 0).astype(np.float32)  # products of longer tails are slow: denormal
