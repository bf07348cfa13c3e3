"""Outlier frames are found, and good ones kept whatever the tissue: sums of decays are never called wrong."""

import numpy as np
import pytest

from medjax.ivim.outliers import outlier_frames
from medjax.ivim.signal import Ivim, signal

B = np.array([0, 10, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)
PROTOCOLS = {
    "16": (0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800),
    "10": B,
    "8": (0, 20, 50, 100, 200, 400, 600, 800),
    "6 thrice": (*(0, 50, 100, 200, 400, 600),) * 3,
}
TISSUES = {
    "bi-exponential": lambda b: 0.7 * np.exp(-b * 1.7e-3) + 0.3 * np.exp(-b * 22e-3),
    "tri-exponential": lambda b: 0.65 * np.exp(-b * 1e-3) + 0.2 * np.exp(-b * 8e-3) + 0.15 * np.exp(-b * 0.15),
    "kurtosis": lambda b: 0.85 * np.exp(-b * 1.2e-3 + (b * 1.2e-3) ** 2 / 6) + 0.15 * np.exp(-b * 20e-3),
}


def region(snr: float = 30.0, number: int = 400) -> np.ndarray:
    truth = Ivim(*(np.full(number, v, np.float32) for v in (100.0, 0.3, 1.7e-3, 22e-3)))
    clean = np.asarray(signal(truth, B))
    return (clean + 100 / snr * np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32)


def false_alarms(repeats: int, voxels: tuple[int, ...], snrs: tuple[float, ...]) -> tuple[int, int]:
    """(good frames called outliers, good frames) of clean scans of every tissue and protocol, Rician noise."""
    rng, wrong, frames = np.random.default_rng(0), 0, 0
    for protocol in PROTOCOLS.values():
        b = np.array(protocol, np.float32)
        for tissue in TISSUES.values():
            for number in voxels:
                for snr in snrs:
                    for _ in range(repeats):
                        clean = 100 * tissue(b)[:, None] * rng.uniform(0.7, 1.3, number)
                        y = np.hypot(*(100 / snr * rng.normal(size=(2, *clean.shape)) + [clean, np.zeros_like(clean)]))
                        wrong += int(outlier_frames(y, b, slices=np.arange(number) % 4).sum())
                        frames += len(b)
    return wrong, frames


def test_clean_frames_of_any_tissue_are_kept():
    """The invariant: at most 1 % of good frames; leave-one-out of bi-exponential fits called b = 0 an outlier."""
    wrong, frames = false_alarms(1, (40,), (20.0, 50.0, 200.0, 1e9))
    assert wrong <= 0.01 * frames


@pytest.mark.slow
def test_clean_frames_are_kept_in_many_scans():
    wrong, frames = false_alarms(10, (8, 40, 400), (10.0, 20.0, 50.0, 200.0, 1e9))
    assert wrong <= 0.001 * frames


def test_spoilt_frames_go_and_no_others():
    y = region()
    y[3] *= 0.7
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, B)), [3])
    y[7] *= 1.6
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, B)), [3, 7])


@pytest.mark.parametrize("tissue", TISSUES)
def test_dropout_is_found_in_any_tissue(tissue):
    y = np.random.default_rng(2).normal(size=(10, 200)) * 2 + 100 * TISSUES[tissue](B)[:, None]
    y[5] *= 0.8
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, B)), [5])


def test_dropout_in_some_slices_is_found():
    """In two slices of eight: the median voxel, and the mean of all, hardly see it."""
    y, slices = region(), np.arange(400) % 8
    y[4] *= np.where(slices < 2, 0.6, 1.0)
    assert not outlier_frames(y, B).any()
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, B, slices=slices)), [4])


def test_at_the_ends_of_b_only_what_no_decay_explains():
    """The first frame far too low contradicts all others; too high it is a fast decay; repeats tell both."""
    for factor, expected in ((0.7, [0]), (1.5, [])):
        y = region(50.0)
        y[0] *= factor
        assert np.flatnonzero(outlier_frames(y, B)).tolist() == expected
    y = region(50.0)
    y[1] *= 1.4  # or is b = 0 too low?
    assert not outlier_frames(y, B).any()
    repeated = np.append(B, [0, 0]).astype(np.float32)
    y = np.concatenate([region(50.0), region(50.0)[[0, 0]]])
    y[0] *= 1.5
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, repeated)), [0])


def test_few_voxels_or_frames_are_not_judged():
    y = region()
    y[3] *= 0.5
    assert outlier_frames(y[:, :40], B)[3] and not outlier_frames(y[:, :7], B).any()
    assert not outlier_frames(y[:6], B[:6]).any() and not outlier_frames(y[:4], B[:4]).any()
    y[3, 5:] = np.nan
    assert not outlier_frames(y, B).any()


def test_enough_frames_are_kept():
    y = region()
    y[3], y[7] = 0.6 * y[3], 1.6 * y[7]
    assert outlier_frames(y, B, min_frames=8).sum() == 2 and not outlier_frames(y, B, min_frames=10).any()
