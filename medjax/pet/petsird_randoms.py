"""Randoms of PETSIRD list mode: the singles rate of each detection bin from the delayeds, and what two of them expect.

A line of response of detection bins i and j expects s_i s_j delayeds. The delayeds of all lines of a bin, its fan sum,
tell its rate: s ← s √(fan sum / its expectation), the expectation s_i · Σ of the rates of all modules in coincidence
with its own, but for lines of response of an efficiency of 0. Few delayeds are drawn towards the mean of their module
(empirical Bayes), as in `randoms`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.io.petsird import Coincidences, TypePair
from medjax.pet.petsird_scanner import Detectors
from medjax.pet.randoms import fit_singles


class SinglesRates(NamedTuple):
    """Singles rate of each detection bin of each type of modules, in √(delayeds a line of response)."""

    scanner: Detectors
    rates: tuple[Float[np.ndarray, "module bin"], ...]
    delayeds: int

    def expected(self, pair: TypePair, coincidences: Coincidences) -> Float[np.ndarray, " event"]:
        """Expected randoms on the line of response, and in the time-of-flight bin, of each coincidence."""
        first, second = (self.rates[kind].reshape(-1)[coincidences[:, k]] for k, kind in enumerate(pair))
        edges = self.scanner.pairs[pair].tof_edges_mm
        if edges is None:
            return first * second
        return first * second * (np.diff(edges) / (edges[-1] - edges[0]))[coincidences[:, 2]]


def singles_rates(scanner: Detectors, delayeds: dict[TypePair, Coincidences]) -> SinglesRates:
    """Singles rates that explain the delayeds of a frame; see `randoms.fit_singles`."""
    shapes = [(len(own.centers_mm), int(np.prod(own.efficiencies.shape[1:]))) for own in scanner.types]
    starts = np.cumsum([0, *(modules * bins for modules, bins in shapes)])
    module = np.concatenate([np.repeat(np.arange(m), n) for m, n in shapes])
    modules = np.cumsum([0, *(m for m, _ in shapes)])
    module += np.repeat(modules[:-1], np.diff(starts))
    sums = np.zeros(starts[-1])
    for pair, own in delayeds.items():
        for k, kind in enumerate(pair):
            sums += np.bincount(own[:, k].astype(np.int64) + starts[kind], minlength=sums.size)
    whole, partial = _facing(scanner, modules)

    def fans(rates: np.ndarray) -> np.ndarray:
        opposite = (whole @ np.bincount(module, rates, modules[-1]))[module]
        kinds, sums = (
            [part.reshape(shape) for part, shape in zip(np.split(own, starts[1:-1]), shapes, strict=True)]
            for own in (rates, opposite)
        )
        for (one, other), first, second, valid in partial:
            np.add.at(sums[one], first, kinds[other][second] @ valid.T)
            apart = (first != second) | (one != other)
            np.add.at(sums[other], second[apart], kinds[one][first[apart]] @ valid)
        return rates * opposite

    efficiencies = np.concatenate([own.efficiencies.reshape(-1) for own in scanner.types])
    rates = fit_singles(sums, fans, np.where(efficiencies > 0, module, -1))
    parts = np.split(rates, starts[1:-1])
    found = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
    return SinglesRates(scanner, found, sum(map(len, delayeds.values())))


class _Partial(NamedTuple):
    """Pairs of modules of which some lines of response have an efficiency of 0, and the lines that have not."""

    pair: TypePair
    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]
    valid: Float[np.ndarray, "bin1 bin2"]  # 1 or 0


def _facing(scanner: Detectors, modules: np.ndarray) -> tuple[np.ndarray, list[_Partial]]:
    """Matrix of 1 where all lines of response between two modules have an efficiency, and the other pairs of modules.

    `modules`: number of the first module of each type among all modules.
    """
    whole = np.zeros((modules[-1], modules[-1]))
    partial: list[_Partial] = []
    for (one, other), own in scanner.pairs.items():
        block = whole[modules[one] : modules[one + 1], modules[other] : modules[other + 1]]
        if own.efficiencies is None:
            block += own.group >= 0
            continue
        sizes = [int(np.prod(scanner.types[kind].efficiencies.shape[1:])) for kind in (one, other)]
        for group, valid in enumerate(own.efficiencies.reshape(-1, *sizes) > 0):
            if valid.all():
                block += own.group == group
            else:
                first, second = np.nonzero(own.group == group)
                partial.append(_Partial((one, other), first, second, valid.astype(float)))
    both = whole + whole.T
    np.fill_diagonal(both, whole.diagonal())  # a module with itself stands once
    return both, partial
