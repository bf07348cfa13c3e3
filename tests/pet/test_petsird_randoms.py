"""Singles rates of PETSIRD's delayeds, and few delayeds that lie nearer to the mean of their group."""

import numpy as np
import pytest

from medjax.pet.petsird_randoms import singles_rates
from medjax.pet.petsird_scanner import detectors, expand_bins
from medjax.pet.randoms import fit_singles
from tests.petsird_scan import header

SCANNER = detectors(header(), "blocks.petsird")


def all_pairs(pair):
    """All detection bins of these types whose modules are in coincidence, time-of-flight bin 0."""
    first, second = (np.arange(own.efficiencies.size) for own in (SCANNER.types[kind] for kind in pair))
    bins = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    modules = [expand_bins(bins[:, k], SCANNER.types[pair[k]])[0] for k in range(2)]
    kept = bins[SCANNER.pairs[pair].group[modules[0], modules[1]] >= 0]
    return np.column_stack([kept, np.zeros(len(kept), int)]).astype(np.uint32)


def test_randoms_of_every_line_add_up_to_the_delayeds():
    rng = np.random.default_rng(0)
    lines = {pair: all_pairs(pair) for pair in SCANNER.pairs}
    delayeds = {pair: own[rng.integers(0, len(own), 500)] for pair, own in lines.items() if len(own)}
    rates = singles_rates(SCANNER, delayeds)
    total = 0.0
    for pair, own in lines.items():
        edges = SCANNER.pairs[pair].tof_edges_mm
        for bin_ in range(1 if edges is None else len(edges) - 1):
            total += rates.expected(
                pair, np.column_stack([own[:, :2], np.full(len(own), bin_)]).astype(np.uint32)
            ).sum()
    assert rates.delayeds == 500 * len(delayeds)
    assert total == pytest.approx(rates.delayeds, rel=1e-6)


def test_few_delayeds_lie_nearer_to_their_group():
    """Rates that differ by 10 % in two groups of 50: with few delayeds the error is a fraction of the raw one's."""
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1], 50)
    truth = np.where(groups == 0, 1.0, 2.0) * rng.normal(1, 0.1, 100)

    def fans(rates):
        return rates * (rates.sum() - rates)

    def errors(scale):
        sums = rng.poisson(scale * fans(truth)).astype(float)
        return [
            np.sqrt(np.mean((fit_singles(sums, fans, one) / np.sqrt(scale) / truth - 1) ** 2)) for one in (None, groups)
        ]

    raw, near = errors(0.03)
    assert near < 0.5 * raw and near < 0.14
    raw, near = errors(100.0)
    assert near == pytest.approx(raw, rel=0.05) and raw < 0.01


def test_virtual_elements_stay_at_zero():
    sums = np.array([4.0, 0.0, 4.0, 0.0])
    found = fit_singles(sums, lambda rates: rates * rates.sum(), np.array([0, -1, 0, 0]))
    assert found[1] == 0 and found[3] > 0
