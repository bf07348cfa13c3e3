"""Tail fitting: the scale of a simulated scatter from the counts outside the body, where only scatter and randoms are.

    counts ~ Poisson(α s + r)  in the tails,   s the simulated scatter, r the randoms

One scale α for each segment, or for each plane, smoothed along a segment. It stands for what a single-scatter
simulation leaves out: photons that scatter twice, and activity beyond the axial field of view.

Source: Watson et al., Journal of Nuclear Medicine 45 (suppl.), 2004; Thielemans et al., IEEE Nuclear Science Symposium
Conference Record, 2007.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import DataError
from medjax.pet.michelogram import Michelogram, Segment

_ITERATIONS = 40  # of Newton's method; a handful suffices where the scale is not 0


class ScatterScale(NamedTuple):
    """Scale of each plane's scatter, its standard deviation by Fisher information, and whether a bound holds it."""

    scale: Float[np.ndarray, " plane"]
    deviation: Float[np.ndarray, " plane"]
    at_bound: Bool[np.ndarray, " plane"]


class _Tails(NamedTuple):
    """Counts, randoms and scatter of the bins of a segment's tails, and the plane of each."""

    counts: Float[np.ndarray, " bin"]
    randoms: Float[np.ndarray, " bin"]
    scatter: Float[np.ndarray, " bin"]
    plane: Int[np.ndarray, " bin"]


def tail_mask(
    attenuation: Float[np.ndarray, "view bin plane"], smallest: float = 0.98, margin: int = 4
) -> Bool[np.ndarray, "view bin plane"]:
    """Bins whose attenuation factor e^{−∫μ} is `smallest` or more, and at least `margin` bins from any other.

    Raises:
        DataError: attenuation factors beyond 0 to 1, as correction factors e^{+∫μ} are.
    """
    factors = np.asarray(attenuation)
    if not (np.isfinite(factors).all() and factors.min() >= 0 and factors.max() <= 1 + 1e-4):
        raise DataError(
            f"attenuation factors: {factors.min():.3g} to {factors.max():.3g}; expected e^−∫μ, from 0 to 1 outside the "
            "body"
        )
    body = factors < smallest
    near = body.copy()
    for step in range(1, min(margin, body.shape[1] - 1) + 1):
        near[:, step:] |= body[:, :-step]
        near[:, :-step] |= body[:, step:]
    return ~near


def fit_scatter_scale(
    counts: Float[np.ndarray, "view bin plane"],
    randoms: Float[np.ndarray, "view bin plane"],
    scatter: Float[np.ndarray, "view bin plane"],
    tails: Bool[np.ndarray, "view bin plane"],
    planes: Michelogram,
    *,
    fwhm_planes: float | None = None,
    method: Literal["poisson", "least-squares"] = "poisson",
    bounds: tuple[float, float] = (0.2, 5.0),
) -> ScatterScale:
    """Scale of the simulated scatter that explains counts − randoms in the tails.

    Args:
        counts: measured prompts.
        randoms: expected randoms in counts.
        scatter: simulated scatter in counts: with the normalization factors, without attenuation.
        tails: bins outside the body, as `tail_mask` gives them.
        planes: planes of the sinogram.
        fwhm_planes: width in planes of the Gaussian by which the scales of planes are averaged along their segment,
            each with its Fisher information as weight; None: one scale for all planes of a segment.
        method: Poisson maximum likelihood, or least squares, which needs no positive model but has a larger variance.
        bounds: smallest and largest scale; one beyond is set to the bound, and said to be.

    Raises:
        DataError: arrays of different shapes, or of other planes; values that are negative or not finite; a segment has
            no tails; bounds that are none.
    """
    low, high = bounds
    if not 0 <= low < high:
        raise DataError(f"bounds of the scatter scale: {low:g} to {high:g}; expected 0 or more, the lower one first")
    if fwhm_planes is not None and not fwhm_planes > 0:
        raise DataError(f"smoothing of the scatter scale: {fwhm_planes:g} planes; expected more than 0")
    _check(counts, randoms, scatter, tails, planes)
    scales: list[np.ndarray] = []
    deviations: list[np.ndarray] = []
    start = 0
    for segment, number in zip(planes.segments, planes.planes_per_segment, strict=True):
        members = slice(start, start + number)
        own = _select(counts, randoms, scatter, tails, segment, members)
        one, information = _FITS[method](own._replace(plane=np.zeros_like(own.plane)), 1)
        if fwhm_planes is None:
            scale, deviation = np.repeat(one, number), np.repeat(1 / np.sqrt(information), number)
        else:
            each, _ = _FITS[method](own, number)
            scale, deviation = _smooth(each, _information(own, np.repeat(one, number), number), fwhm_planes, one[0])
        scales.append(scale)
        deviations.append(deviation)
        start += number
    found = np.concatenate(scales)
    scale = np.clip(found, low, high)
    return ScatterScale(scale, np.concatenate(deviations), scale != found)


def _check(
    counts: np.ndarray, randoms: np.ndarray, scatter: np.ndarray, tails: np.ndarray, planes: Michelogram
) -> None:
    for name, array in (("randoms", randoms), ("scatter", scatter), ("tails", tails)):
        if array.shape != counts.shape:
            raise DataError(f"{name}: shape {array.shape}; expected that of the counts, {counts.shape}")
    if counts.shape[2] != planes.planes:
        raise DataError(f"counts: {counts.shape[2]} planes; the Michelogram has {planes.planes}")
    for name, array in (("counts", counts), ("randoms", randoms), ("scatter", scatter)):
        if not (np.isfinite(array).all() and array.min() >= 0):
            raise DataError(f"{name}: holds values that are negative or not finite; expected 0 or more")


def _select(
    counts: np.ndarray, randoms: np.ndarray, scatter: np.ndarray, tails: np.ndarray, segment: Segment, planes: slice
) -> _Tails:
    where = np.nonzero(tails[..., planes] & (scatter[..., planes] > 0))
    if not len(where[2]):
        raise DataError(
            f"segment of ring differences {segment.lowest} to {segment.highest}: no bin with scatter lies outside the "
            "body, so its scale cannot be fitted; expected tails (a wider field of view, or a smaller margin)"
        )
    y, r, s = (array[..., planes][where].astype(float) for array in (counts, randoms, scatter))
    return _Tails(y, r, s, where[2])


def _poisson(tails: _Tails, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood scale of each plane, and its Fisher information.

    Newton's method on 1 / Φ, Φ(α) = Σ s y / (α s + r) = Σ s at the maximum. 1 / Φ is concave, and a straight line
    where there are no randoms, so it converges from anywhere; towards 0 where the randoms are more than the counts.
    """
    total = np.bincount(tails.plane, tails.scatter, number)
    scale = np.where(np.bincount(tails.plane, tails.scatter * tails.counts, number) > 0, 1.0, 0.0)
    some = scale > 0
    for _ in range(_ITERATIONS):
        expected = np.maximum(scale[tails.plane] * tails.scatter + tails.randoms, 1e-300)
        slope = tails.scatter / expected
        phi = np.bincount(tails.plane, slope * tails.counts, number)[some]
        change = np.bincount(tails.plane, slope**2 * tails.counts, number)[some]
        before = scale[some]
        scale[some] = np.maximum(before + (phi - total[some]) * phi / (total[some] * change), 0.01 * before)
        if np.all(np.abs(scale[some] - before) <= 1e-10 * before):
            break
    return scale, _information(tails, scale, number)


def _information(tails: _Tails, scale: np.ndarray, number: int) -> np.ndarray:
    """Fisher information of each plane's scale: Σ s² / (α s + r)."""
    expected = np.maximum(scale, 1e-6)[tails.plane] * tails.scatter + tails.randoms
    return np.bincount(tails.plane, tails.scatter**2 / expected, number)


def _least_squares(tails: _Tails, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Σ s (y − r) / Σ s² of each plane, and the inverse of its variance."""
    square = np.bincount(tails.plane, tails.scatter**2, number)
    known = np.maximum(square, 1e-300)
    scale = np.bincount(tails.plane, tails.scatter * (tails.counts - tails.randoms), number) / known
    expected = np.maximum(scale, 1e-6)[tails.plane] * tails.scatter + tails.randoms
    variance = np.bincount(tails.plane, tails.scatter**2 * expected, number)
    return scale, square**2 / np.maximum(variance, 1e-300)


_FITS = {"poisson": _poisson, "least-squares": _least_squares}


def _smooth(scale: np.ndarray, information: np.ndarray, fwhm: float, otherwise: float) -> tuple[np.ndarray, np.ndarray]:
    """Means of the planes' scales, weighted by information and a Gaussian; planes far from any tails: `otherwise`."""
    distance = np.subtract.outer(np.arange(len(scale)), np.arange(len(scale)))
    weight = np.exp(-4 * math.log(2) * (distance / fwhm) ** 2)
    total = weight @ information
    enough = total > 1e-6 * information.max()
    known = np.where(enough, total, 1)
    mean = np.where(enough, weight @ (information * scale) / known, otherwise)
    deviation = np.where(enough, np.sqrt(weight**2 @ information) / known, np.inf)
    return mean, deviation
