"""Randoms from singles: against the rates that delayeds were drawn from."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.pet.michelogram import michelogram
from medjax.pet.randoms import estimate_randoms, fan_sums, randoms_from_singles, singles_from_delayeds
from medjax.pet.scanner import Scanner

SCANNER = Scanner("test", 48, 6, 80.0, 4.0, 33, 4.0, block=8, gaps=True)
SPAN_1 = michelogram(6, 1)


def _rates(level: float) -> np.ndarray:
    """Singles rates: an off-centre source, crystals of different efficiency, and none in the gaps."""
    rng = np.random.default_rng(0)
    crystal, ring = np.arange(48), np.arange(6)[:, None]
    rates = level * (1 + 0.5 * np.cos(2 * np.pi * crystal / 48) + 0.05 * ring) * rng.uniform(0.7, 1.3, (6, 48))
    return np.where(crystal % 8 == 0, 0.0, rates)


def test_expected_delayeds_give_the_rates_back():
    rates = _rates(0.5)
    expected = randoms_from_singles(rates, SCANNER, SPAN_1)
    np.testing.assert_allclose(singles_from_delayeds(expected, SCANNER), rates, rtol=1e-4)


def test_a_bin_is_the_product_of_its_two_crystals():
    """View 5, bin 20 of the plane of rings 1 and 3: t = 4, crystals 5 + 2 and 5 − 2 + 24."""
    rates = _rates(1.0)
    expected = randoms_from_singles(rates, SCANNER, SPAN_1, scale=3.0)
    plane = SPAN_1.plane_of_pair[1, 3]
    assert expected[5, 20, plane] == pytest.approx(3 * rates[1, 7] * rates[3, 27])
    whole = randoms_from_singles(rates, SCANNER, michelogram(6, 3))
    summed = randoms_from_singles(rates, SCANNER, SPAN_1)
    assert whole.sum(dtype=float) == pytest.approx(summed.sum(dtype=float), rel=1e-5)  # a span only sums planes


def test_singles_have_a_lower_variance_than_delayeds_and_than_smooth_ones():
    """About one delayed a bin: smoothing is biased by the crystals' efficiencies, the rates are not."""
    rng = np.random.default_rng(1)
    true = randoms_from_singles(_rates(1.0), SCANNER, SPAN_1)
    delayeds = rng.poisson(true).astype(np.float32)
    estimate = randoms_from_singles(singles_from_delayeds(delayeds, SCANNER), SCANNER, SPAN_1)
    coverage = (true > 0).astype(np.float32)
    smooth = estimate_randoms(delayeds, coverage, (6.0, 6.0, 6.0))
    errors = [float(np.sqrt(np.mean((one - true) ** 2))) for one in (delayeds, smooth, estimate)]
    assert estimate.sum(dtype=float) == pytest.approx(delayeds.sum(dtype=float), rel=1e-3)
    assert errors[2] < 0.25 * errors[0] and errors[2] < 0.7 * errors[1]


def test_fan_sums_count_both_crystals():
    delayeds = np.zeros((24, 33, SPAN_1.planes), np.float32)
    delayeds[5, 20, SPAN_1.plane_of_pair[1, 3]] = 7
    sums = fan_sums(delayeds, SCANNER)
    assert sums[1, 7] == sums[3, 27] == 7 and sums.sum() == 14


def test_other_planes_are_refused():
    with pytest.raises(DataError, match="5 planes; expected those of a Michelogram of span 1 of 6 rings"):
        singles_from_delayeds(np.zeros((24, 33, 5), np.float32), SCANNER)
    mashed = Scanner("test", 48, 6, 80.0, 4.0, 33, 4.0, mash=2)
    with pytest.raises(DataError, match="2 views are mashed"):
        fan_sums(np.zeros((12, 33, 36), np.float32), mashed)
