"""Scans that supervised networks learn from: noise-free ones of slices, and Poisson counts drawn for them when needed.

    scans = noise_free(setup, subjects)                       of 1 true per mm³
    draw_scans(seed, scans, (2.5, 10.0), [0, 7])              with noise: number 7 is slice 7 % slices, at a level

A scan has its noise from its number, so that it can be drawn again instead of kept: counts take 5 times the memory of
all images of a scan.
"""

from collections.abc import Sequence

import jax
import numpy as np

from experiments.pet.scans import ACQUISITION_FIELDS, Scans, ScanSetup, Subject, simulate_scan


def noise_free(setup: ScanSetup, subjects: Sequence[Subject]) -> Scans:
    """Scans of 1 true per mm³ whose counts are the expected ones; without Bowsher weights and masks but the brain's."""
    rows = []
    for subject in subjects:
        scan = simulate_scan(jax.random.key(0), setup, subject, 1.0)
        known = {name: np.asarray(getattr(scan, name)) for name in ACQUISITION_FIELDS}
        trues = np.asarray(subject.trues) * (subject.emission_volume_mm3 / subject.trues.sum())
        known["counts"] = (trues + known["additive"]).astype(np.float32)
        truth, mask = np.maximum(subject.truth.activity, 0), subject.truth.brain_mask
        none = np.zeros_like(mask)
        rows.append((*known.values(), np.zeros(0, np.float32), truth, mask, none, none, none, np.float32(1)))
    return Scans(*(np.stack(arrays) for arrays in zip(*rows, strict=True)))


def draw_scans(
    seed: int, scans: Scans, levels: Sequence[float], numbers: Sequence[int] | np.ndarray, noise: bool = True
) -> Scans:
    """Scans with noise by their numbers: slices innermost, then count levels, then realisations.

    Args:
        seed: random seed of the noise.
        scans: noise-free scans of 1 true per mm³, one a slice.
        levels: trues per mm³.
        numbers: of the scans, 0 or more.
        noise: False leaves the counts as expected, for those who do not look at them.
    """
    numbers = np.asarray(numbers)
    own = scans.select(numbers % scans.number)
    level = np.asarray(levels, np.float32)[numbers // scans.number % len(levels)]
    factor = level.reshape(-1, *(1,) * (own.counts.ndim - 1))
    scaled = {name: factor * getattr(own, name) for name in ACQUISITION_FIELDS}
    if noise:
        pairs = zip(numbers.tolist(), scaled["counts"], strict=True)
        drawn = [np.random.default_rng((seed, number)).poisson(mean) for number, mean in pairs]
        scaled["counts"] = np.asarray(drawn, np.float32)
    return own._replace(**scaled, level=level)
