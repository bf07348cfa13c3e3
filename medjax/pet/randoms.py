"""Randoms estimation: expected random coincidences from smoothed delayeds, or from the singles rates of all crystals.

Two crystals of singles rates s₁ and s₂ have a randoms rate of 2 τ s₁ s₂, τ the coincidence window. Delayed coincidences
are drawn from it too, a few in each line of response, but many in all lines of one crystal: its fan sum. So the rates
that explain all fan sums give randoms of a far lower variance than the delayeds themselves.

Source: Casey & Hoffman, Journal of Computer Assisted Tomography 10(5), 1986; Panin et al., IEEE Nuclear Science
Symposium Conference Record, 2007, and Byars et al., 2005, for singles from delayeds.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.scanner import Scanner, crystal_pairs

_ITERATIONS = 50  # of the fan sums; the rates change by less than 1e-6 in the last one


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


def bin_crystals(scanner: Scanner) -> tuple[Int[np.ndarray, "view mash bin"], Int[np.ndarray, "view mash bin"]]:
    """Numbers in their ring of both crystals of each unmashed line of response of a bin, 0 to crystals − 1."""
    first, second = (pair.astype(int) % scanner.crystals for pair in crystal_pairs(scanner))
    return first, second


def fan_sums(delayeds: Float[np.ndarray, "view bin plane"], scanner: Scanner) -> Float[np.ndarray, "ring crystal"]:
    """Delayeds of all lines of response of each crystal; planes are those of a Michelogram of span 1, views unmashed.

    Raises:
        DataError: views are mashed, so that a bin has no two crystals of its own.
    """
    rings, first, second = _unmashed(scanner, delayeds.shape[2])
    sums = np.zeros((scanner.rings, scanner.crystals))
    for plane, pair in enumerate(rings):
        for ring, crystal in zip(pair, (first, second), strict=True):
            sums[ring] += np.bincount(crystal.ravel(), delayeds[..., plane].ravel(), scanner.crystals)
    return sums


def singles_from_delayeds(
    delayeds: Float[np.ndarray, "view bin plane"], scanner: Scanner
) -> Float[np.ndarray, "ring crystal"]:
    """Singles rate of each crystal, in √(delayeds a line of response): s₁ s₂ are expected between two crystals.

    Args:
        delayeds: delayed coincidences in the planes of a Michelogram of span 1.
        scanner: scanner; its views must not be mashed.

    Raises:
        DataError: views are mashed.
    """
    rings, _, _ = _unmashed(scanner, delayeds.shape[2])
    return singles_from_fan_sums(fan_sums(delayeds, scanner), scanner, int(np.ptp(rings, axis=1).max()))


def singles_from_fan_sums(
    sums: Float[np.ndarray, "ring crystal"], scanner: Scanner, max_ring_difference: int, *, hierarchical: bool = False
) -> Float[np.ndarray, "ring crystal"]:
    """Singles rate of each crystal, in √(delayeds a line of response), from the delayeds of all its lines of response.

    The rates whose products have the fan sums, as the most likely ones do: the expectation is s · Σ of all rates in the
    crystal's fan.

    Args:
        sums: delayeds of each crystal.
        scanner: scanner, its views unmashed.
        max_ring_difference: largest |ring difference| of the delayeds.
        hierarchical: whether rates of few delayeds lie nearer to the mean of their ring, see `fit_singles`.
    """
    first, second = (crystal[:, 0] for crystal in bin_crystals(scanner))
    facing = np.zeros((scanner.crystals, scanner.crystals))
    np.add.at(facing, (first.ravel(), second.ravel()), 1)
    distance = np.abs(np.subtract.outer(np.arange(scanner.rings), np.arange(scanner.rings)))
    axial = (distance <= max_ring_difference).astype(float)

    def fans(rates: np.ndarray) -> np.ndarray:
        return rates * (axial @ (rates @ facing.T) + axial.T @ (rates @ facing))

    if not hierarchical:
        return fit_singles(sums, fans)
    rings = np.broadcast_to(np.arange(scanner.rings)[:, None], sums.shape)
    in_gap = ~sums.any(axis=0)  # crystals between blocks have no delayeds in any ring
    return fit_singles(sums, fans, np.where(in_gap, -1, rings))


def fit_singles(
    sums: Float[np.ndarray, "*element"],
    fans: Callable[[np.ndarray], np.ndarray],
    groups: Int[np.ndarray, "*element"] | None = None,
) -> Float[np.ndarray, "*element"]:
    """Singles rates whose expected fan sums, `fans(rates)`, are the measured ones: s ← s √(fan sum / expectation).

    Args:
        sums: delayeds of all lines of response of each element.
        fans: expected fan sums of these rates.
        groups: number of the group (ring, module) of each element, −1 of virtual ones: rates of few delayeds lie nearer
            to the mean of their group (empirical Bayes), with E expected in a fan and v the relative variance of rates
            that noise does not explain at E / (E + 1 / v) of the difference. None: the most likely rates.
    """
    ones = np.where(sums > 0, 1.0, 0.0)
    rates = ones * math.sqrt(sums.sum() / max(float(fans(ones).sum()), 1e-30))
    for _ in range(_ITERATIONS):
        expected = fans(rates)
        rates = rates * np.sqrt(np.divide(sums, expected, out=np.zeros_like(sums), where=expected > 0))
    if groups is None or not sums.any():
        return rates
    real = groups >= 0
    means = np.bincount(groups[real], rates[real]) / np.maximum(np.bincount(groups[real]), 1)
    base = np.where(real, means[groups], 0.0)
    expected = fans(base)
    seen = expected > 0
    excess = max(float(np.var(rates[seen] / base[seen]) - np.mean(1 / expected[seen])), 0.0)
    rates = base + expected * excess / (expected * excess + 1) * (rates - base)
    return rates * math.sqrt(float(sums.sum() / fans(rates).sum()))


def randoms_from_singles(
    singles: Float[np.ndarray, "ring crystal"], scanner: Scanner, planes: Michelogram, scale: float = 1.0
) -> Float[np.ndarray, "view bin plane"]:
    """Expected randoms: scale · Σ s₁ s₂ over the pairs of crystals of each bin.

    With rates as `singles_from_delayeds` gives them the scale is 1; with measured ones in 1/s it is 2 τ · duration.
    """
    first, second = bin_crystals(scanner)
    expected = np.zeros((scanner.views, scanner.bins, planes.planes), np.float32)
    for one, other in zip(*np.nonzero(planes.plane_of_pair >= 0), strict=True):
        products = singles[one][first] * singles[other][second]
        expected[..., planes.plane_of_pair[one, other]] += scale * products.sum(axis=1)
    return expected


def _unmashed(scanner: Scanner, planes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings of each plane of span 1, and crystals of each bin."""
    if scanner.mash != 1:
        raise DataError(f"{scanner.name}: {scanner.mash} views are mashed into one; expected unmashed delayeds")
    largest = next((d for d in range(scanner.rings) if michelogram(scanner.rings, 1, d).planes == planes), None)
    if largest is None:
        raise DataError(
            f"delayeds: {planes} planes; expected those of a Michelogram of span 1 of {scanner.rings} rings"
        )
    first, second = (crystal[:, 0] for crystal in bin_crystals(scanner))
    return michelogram(scanner.rings, 1, largest).plane_rings.astype(int), first, second
