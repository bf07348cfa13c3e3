"""Spoilt frames are found and good ones kept."""

import numpy as np

from medjax.ivim.outliers import outlier_frames
from medjax.ivim.signal import Ivim, signal

B = np.array([0, 10, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)


def region(snr: float = 30.0, number: int = 400) -> np.ndarray:
    truth = Ivim(*(np.full(number, v, np.float32) for v in (100.0, 0.3, 1.7e-3, 22e-3)))
    clean = np.asarray(signal(truth, B))
    return (clean + 100 / snr * np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32)


def test_good_frames_stay():
    assert not outlier_frames(region(), B).any()


def test_spoilt_frames_go_and_no_others():
    y = region()
    y[3] *= 0.7
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, B)), [3])
    y[7] *= 1.6
    np.testing.assert_array_equal(np.flatnonzero(outlier_frames(y, B)), [3, 7])


def test_enough_frames_are_kept():
    y = region()
    y[3], y[7] = 0.6 * y[3], 1.6 * y[7]
    assert outlier_frames(y, B, min_frames=9).sum() == 1 and not outlier_frames(y, B, min_frames=10).any()
