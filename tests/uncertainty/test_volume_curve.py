"""The volume–time curve of known volumes: frames, rates, and what choosing frames anew for each sample does."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.uncertainty.biomarkers import Volumes, biomarkers
from medjax.uncertainty.volume_curve import Frames, ed_es_frames, peak_rates, volumes_at

FRAMES, CYCLE = 24, 0.9  # s
CURVE = 100 + 40 * np.cos(2 * np.pi * np.arange(FRAMES) / FRAMES)


def test_frames_and_rates_of_a_cosine():
    frames = ed_es_frames(CURVE)
    assert (int(frames.ed), int(frames.es)) == (0, 12)
    ed, es = volumes_at(Volumes(CURVE, CURVE + 1, CURVE + 2), frames)
    assert ed.lv == 140 and ed.rv == 142 and es.myocardium == CURVE[12] + 1
    step = CYCLE / FRAMES
    rates = peak_rates(CURVE, step)
    steepest = 40 * 2 * np.pi / CYCLE
    attenuated = steepest * np.sin(2 * np.pi / FRAMES) / (2 * np.pi / FRAMES)
    assert attenuated == pytest.approx(0.99 * steepest, rel=2e-3)
    assert rates.ejection == pytest.approx(attenuated, rel=5e-3) and rates.filling == pytest.approx(
        attenuated, rel=5e-3
    )
    half = peak_rates(CURVE[:13], step, periodic=False)  # systole only: no jump from the last frame to the first
    assert half.ejection == pytest.approx(attenuated) and half.filling < 0


def test_frames_not_segmented_are_never_chosen_and_leave_no_rate():
    gap = CURVE.copy()
    gap[12], gap[3] = 0, np.nan
    frames = ed_es_frames(gap)
    assert (int(frames.ed), int(frames.es)) == (0, 13)
    rates = peak_rates(np.stack([CURVE, gap]), 0.04)
    assert np.isfinite(rates.ejection[0]) and np.isnan(rates.ejection[1]) and np.isnan(rates.filling[1])


def test_frames_chosen_anew_for_each_sample_raise_ef_and_narrow_its_spread():
    """The ES plateau is flat and noisy, so the smallest of five noisy volumes is too small."""
    curve = np.array([150.0] * 5 + [100.0] + [60.0] * 5 + [100.0])
    noisy = curve + np.random.default_rng(0).normal(size=(4000, 12)) * 4
    volumes = Volumes(noisy, noisy, noisy)
    fixed, chosen = (biomarkers(*volumes_at(volumes, frames))["LVEF"] for frames in (Frames(2, 8), ed_es_frames(noisy)))
    assert fixed.mean() == pytest.approx(60, abs=0.2)
    maximum = 1.16296 * 4  # of five normal numbers
    assert chosen.mean() == pytest.approx(100 * (1 - (60 - maximum) / (150 + maximum)), abs=0.3)
    spread = np.hypot(4, 4 * (60 - maximum) / (150 + maximum)) / (150 + maximum) / np.hypot(4, 4 * 60 / 150) * 150
    assert chosen.std() / fixed.std() == pytest.approx(0.66898 * spread, abs=0.03)  # sd of the same maximum
    once = ed_es_frames(noisy.mean(axis=0))
    assert np.ndim(once.ed) == 0 and abs(biomarkers(*volumes_at(volumes, once))["LVEF"].mean() - 60) < 0.3


def test_curves_that_cannot_be():
    with pytest.raises(DataError, match="1 frames with a left ventricle"):
        ed_es_frames(np.array([[90.0, 50.0], [90.0, 0.0]]))
    with pytest.raises(DataError, match="expected 0 to 23"):
        volumes_at(Volumes(CURVE, CURVE, CURVE), Frames(0, 25))
    for curve, step in ((CURVE[:3], 0.04), (CURVE, 0), (CURVE, np.nan)):
        with pytest.raises(DataError, match="expected 4 or more, and a positive time"):
            peak_rates(curve, step)
