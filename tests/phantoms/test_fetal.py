"""Simulated fetal diffusion scans: signals are the formula's, noise is Rician, organs grow, frames move as said."""

from functools import partial

import numpy as np
import pytest
from scipy import ndimage, stats

from medjax.errors import DataError
from medjax.ivim.signal import Ivim
from medjax.ivim.signal import signal as ivim_signal
from medjax.phantoms import fetal as module
from medjax.phantoms.fetal import TEN_B, Effects, Fetal, Motion, TissueMaps, fetal
from medjax.phantoms.fetal import _averaged as averaged
from medjax.phantoms.fetal import _labels as label_voxels
from medjax.phantoms.fetal_anatomy import (
    BODY,
    CLASSES,
    FLUID,
    HEART,
    LIVER,
    LUNGS,
    SPINE,
    Anatomy,
    anatomy,
    placement,
)
from medjax.phantoms.fetal_tissue import lung_f, lung_volume_ml

STILL = Motion(0.0, 0.0, 0.0)
small = partial(fetal, shape=(30, 30, 16), spacing=(4.5, 4.5, 6.0))
plain = partial(small, snr=np.inf, motion=STILL, heterogeneity=0.0, bvalues=(0.0,))


@pytest.fixture(scope="module")
def clean():
    return small(1, 24.0, snr=np.inf, motion=STILL, bvalues=TEN_B)


def volume_ml(scan: Fetal) -> float:
    return float(scan.lung_fraction.sum() * np.prod(scan.spacing) / 1000)


def lung(scan: Fetal, name: str) -> float:
    return float(getattr(scan.parameters, name)[scan.lung_fraction == 1].mean())


# ── signals ──


def test_the_formula_is_that_of_ivim():
    draw = np.random.default_rng(0)
    maps = TissueMaps(
        *(draw.uniform(*ends, (5, 4)).astype(np.float32) for ends in ((1, 2), (0, 1), (1e-3, 3e-3), (1e-2, 0.1)))
    )
    for b in (0.0, 50.0, 600.0):
        expected = ivim_signal(Ivim(*maps), np.array([b], np.float32), "absolute")[0]
        np.testing.assert_allclose(module.signal(maps, b), expected, rtol=2e-5)


def test_a_voxel_of_lung_alone_decays_as_its_parameters_say():
    scan = plain(1, 24.0, bvalues=TEN_B)
    inside = scan.lung_fraction == 1
    s0, f, d, d_star = (p[inside] for p in scan.parameters)
    assert inside.sum() > 40 and np.ptp(f) < 1e-6 and np.ptp(s0) > 0.01  # the receive field shades
    b = np.array(TEN_B)[:, None]
    expected = s0 * ((1 - f) * np.exp(-b * d) + f * np.exp(-b * d_star))
    np.testing.assert_allclose(scan.signals[:, inside], expected, rtol=2e-5)


def test_no_diffusion_weighting_shows_s0_everywhere(clean):
    np.testing.assert_allclose(clean.signals[0], clean.parameters.s0, rtol=1e-5)
    assert (np.diff(clean.signals, axis=0) <= 1e-6).all()


def test_parameters_of_lung_and_fluid_are_those_said():
    scans = [plain(seed) for seed in range(6)]
    assert all(1.39e-3 <= lung(one, "d") <= 1.97e-3 and 13.06e-3 <= lung(one, "d_star") <= 32.78e-3 for one in scans)
    assert np.ptp([lung(one, "d") for one in scans]) > 1e-4
    fluid = (scans[0].labels == FLUID) & (scans[0].parameters.f == 0)
    assert fluid.sum() > 0.5 * (scans[0].labels == FLUID).sum()
    np.testing.assert_allclose(scans[0].parameters.d[fluid], 3e-3, rtol=0.1)


def test_voxels_of_one_lung_differ_by_what_was_asked(clean):
    whole = clean.lung_fraction == 1
    spread = [np.log(getattr(clean.parameters, name)[whole]).std() for name in ("f", "d", "d_star")]
    np.testing.assert_allclose(spread, module.WITHIN_ORGAN_SD[1:], rtol=0.5)  # a voxel averages some of it away


def test_parameters_of_a_voxel_are_weighted_with_their_signal():
    half = np.broadcast_to(np.array([0.0, 1.0], np.float32), (2, 2, 2))
    fine = TissueMaps(3 - 2 * half, 0.2 + 0.4 * half, 1e-3 + 2e-3 * half, 0.01 + 0.04 * half)
    found = averaged(fine, np.full((2, 2, 2), 2, np.float32))
    np.testing.assert_allclose([p.item() for p in found], [4, 0.3, 1.5e-3, 0.02], rtol=1e-5)


def test_a_voxel_on_an_edge_holds_both(clean):
    """Its signal decays as the sum of two tissues: at b = 0 a mixture of the two, by share."""
    edge = (clean.lung_fraction > 0.2) & (clean.lung_fraction < 0.8)
    s0 = clean.parameters.s0
    assert edge.sum() > 100
    inner, outer = (
        np.median(s0[clean.lung_fraction == 1]),
        np.median(s0[(clean.labels == 5) & (clean.lung_fraction == 0)]),
    )
    slope, middle = np.polyfit(clean.lung_fraction[edge], s0[edge], 1)
    assert outer < middle + slope / 2 < inner and slope == pytest.approx(inner - outer, rel=0.5)


# ── noise ──


def test_noise_is_rician_of_the_sigma_that_is_given(clean):
    scan = small(1, 24.0, snr=10.0, motion=STILL, bvalues=TEN_B)
    np.testing.assert_array_equal(scan.labels, clean.labels)
    assert np.average(clean.parameters.s0, weights=clean.lung_fraction) / scan.sigma == pytest.approx(10, rel=1e-5)
    background = clean.signals[:, clean.parameters.s0 == 0].size and scan.signals[:, clean.parameters.s0 == 0]
    assert background.size > 2000
    rice = stats.rice(0, scale=scan.sigma)
    np.testing.assert_allclose([background.mean(), background.std()], [rice.mean(), rice.std()], rtol=0.03)
    ranks = stats.rice.cdf(scan.signals[::3] / scan.sigma, clean.signals[::3] / scan.sigma).ravel()
    assert stats.kstest(ranks[::7], "uniform").pvalue > 1e-3


def test_noise_of_two_frames_is_not_the_same():
    scan = small(0, snr=10.0, motion=STILL, bvalues=(0.0, 0.0))
    away = scan.signals - scan.parameters.s0
    assert abs(np.corrcoef(away[0].ravel(), away[1].ravel())[0, 1]) < 0.15


# ── the fetus ──


@pytest.mark.parametrize("seed", range(6))
def test_every_organ_is_there_and_each_lung_in_one_piece(seed):
    scan = plain(seed, 20.0 + 3 * seed)
    assert {LUNGS, LIVER, HEART, SPINE} <= set(np.unique(scan.labels)) <= set(range(len(CLASSES)))
    assert ndimage.label(scan.labels == LUNGS)[1] == 2
    np.testing.assert_array_equal(scan.sides > 0, scan.labels == LUNGS)
    parts = [np.argwhere(scan.sides == side) * scan.spacing for side in (1, 2)]
    assert all(ndimage.label(scan.sides == side)[1] == 1 for side in (1, 2))
    assert 0.4 < len(parts[0]) / len(parts[1]) < 1.1  # the heart takes from the left one
    left, right = (part.mean(axis=0) for part in parts)
    middle = {k: np.argwhere(scan.labels == k).mean(axis=0) * scan.spacing for k in (HEART, LIVER, SPINE)}
    across = (left - right) / np.linalg.norm(left - right)
    assert (middle[HEART] - (left + right) / 2) @ across > 0
    # right-handed: left × anterior = cranial, so the liver lies against left × (from spine to heart)
    cranial = np.cross(across, middle[HEART] - middle[SPINE])
    assert (middle[LIVER] - (left + right) / 2) @ cranial < 0


def test_lungs_too_large_for_the_chest_fill_it_and_stay_two():
    draw = np.random.default_rng(0)
    found = anatomy(draw, placement(draw, 1.0), (48, 48, 40), (3.0, 3.0, 3.0), 1000.0)
    assert ndimage.label(found.fetus == LUNGS, np.ones((3, 3, 3)))[1] == 2
    assert 60 < (found.fetus == LUNGS).sum() * 0.027 < 150
    np.testing.assert_array_equal(found.sides > 0, found.fetus == LUNGS)


def test_a_stray_voxel_of_lung_counts_as_what_else_it_holds():
    fetus, sides = np.full((2, 16, 16, 16), BODY, np.int32)
    sides[:] = 0
    for chosen in (np.s_[:8, :8, :8], np.s_[12:14, 12:14, 12:14]):
        fetus[chosen], sides[chosen] = LUNGS, 1
    fetus[12, 12:14, 12] = LIVER  # a quarter of the stray
    found, which, share = label_voxels(Anatomy(fetus, sides, np.full_like(fetus, FLUID)))
    assert found[6, 6, 6] == LIVER and share[6, 6, 6] == 0.75 and which[6, 6, 6] == 0
    assert (found[:4, :4, :4] == LUNGS).all() and (found == LUNGS).sum() == 64 == (which == 1).sum()


def test_lungs_have_the_volume_asked_for_and_grow_by_the_law():
    ages = (20.0, 26.0, 34.0)
    volumes = np.array([[volume_ml(plain(seed, age)) for age in ages] for seed in range(3)])
    law = np.array([45 * (age / 28) ** 2.86 for age in ages])
    np.testing.assert_allclose([lung_volume_ml(age) for age in ages], law)
    ratio = volumes / law  # a fetus keeps its own share of the law
    np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(3), rtol=0.01)


def test_lung_f_has_a_knot_at_26_weeks():
    assert lung_f(26.0) == 0.33
    ages = np.array([20.0, 25.0, 26.0, 27.0, 38.0])
    found = np.array([lung(plain(3, age), "f") for age in ages])
    np.testing.assert_allclose(np.diff(found) / np.diff(ages), [0.012, 0.012, 0.004, 0.004], atol=1e-5)
    np.testing.assert_allclose(np.diff([lung_f(age) for age in ages]), np.diff(found), atol=1e-5)
    np.testing.assert_allclose([lung(plain(3, age), "d") for age in ages], lung(plain(3), "d"), rtol=1e-5)
    others = [plain(seed) for seed in range(12)]
    away = [lung(one, "f") - lung_f(28.0) for one in others]
    assert abs(np.mean(away)) < 0.015 and 0.007 < np.std(away) < 0.025
    assert 0.05 < np.std([np.log(volume_ml(one)) for one in others]) < 0.16


def test_restriction_lowers_f_and_volume_by_its_effects():
    normal, restricted = plain(2), plain(2, restricted=True)
    assert not normal.restricted and restricted.restricted
    assert lung(restricted, "f") - lung(normal, "f") == pytest.approx(-0.04, abs=1e-5)
    assert volume_ml(restricted) / volume_ml(normal) == pytest.approx(0.8, rel=0.01)
    other = plain(2, restricted=True, effects=Effects(0.0, 0.0, 0.0))
    np.testing.assert_array_equal(other.signals, normal.signals)


def test_the_same_seed_is_the_same_and_another_another():
    one, again, other = small(5), small(5), small(6)
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.labels, other.labels) and one.signals.dtype == np.float32
    quiet = small(5, snr=50.0, motion=STILL, bvalues=TEN_B)  # the same fetus, scanned otherwise
    np.testing.assert_array_equal(one.labels, quiet.labels)


# ── motion ──


def test_without_motion_frames_are_the_same():
    scan = small(0, snr=np.inf, motion=STILL, bvalues=(0.0, 0.0, 0.0))
    np.testing.assert_array_equal(scan.signals, scan.signals[[0, 0, 0]])
    assert not (scan.shifts_mm.any() or scan.rotations.any() or scan.corrupted.any())
    moving = small(0, snr=np.inf, motion=Motion(2.0, 1.0, 0.0), bvalues=(0.0, 0.0, 0.0))
    np.testing.assert_array_equal(moving.signals[0], scan.signals[0])
    changed = np.abs(moving.signals[1] - scan.signals[0])
    maternal = ndimage.minimum_filter(scan.labels, 5) == CLASSES.index("maternal tissue")
    assert changed[scan.labels == LUNGS].mean() > 0.02 and changed[maternal].max() < 1e-6


def test_sizes_of_motion_are_those_asked_for():
    scans = [plain(seed, bvalues=(0.0,) * 40, motion=Motion(2.0, 0.0, 0.0), shape=(8, 8, 8)) for seed in range(3)]
    shifts, rotations = (np.concatenate([getattr(s, name)[1:] for s in scans]) for name in ("shifts_mm", "rotations"))
    assert shifts.std() == pytest.approx(2, rel=0.15) and rotations.std() == pytest.approx(0.05, rel=0.15)


def test_bad_frames_jump_or_lose_slices():
    b = (0.0,) * 9
    scan, still = plain(0, bvalues=b, motion=Motion(0.0, 0.0, 1.0)), plain(0)
    assert scan.corrupted.tolist() == [False] + [True] * 8
    far = np.linalg.norm(scan.shifts_mm, axis=1)
    jumped = far > 0
    np.testing.assert_allclose(far[jumped], 8)
    assert 0 < jumped.sum() < 8
    for frame in scan.signals[scan.corrupted & ~jumped]:
        left = frame.sum((0, 1)) / still.signals[0].sum((0, 1))
        lost = left < 0.999
        assert 2 <= lost.sum() <= 14 and (left[lost] > 0.19).all() and (left[lost] < 0.71).all()
    some = np.concatenate(
        [plain(s, bvalues=b, motion=Motion(0.0, 0.0, 0.2), shape=(8, 8, 8)).corrupted[1:] for s in range(40)]
    )
    assert some.mean() == pytest.approx(0.2, abs=0.07)


# ── bad input ──


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"age": 12.0}, "age: 12 weeks; expected 16 to 42"),
        ({"bvalues": ()}, "bvalues"),
        ({"bvalues": (0.0, -1.0)}, "none negative"),
        ({"shape": (4, 30, 30)}, "eight voxels"),
        ({"spacing": (0.0, 1.0, 1.0)}, "above 0 mm"),
        ({"snr": 0.0}, "snr: 0"),
        ({"snr": np.nan}, "snr"),
        ({"motion": Motion(corrupted=1.5)}, "probability"),
        ({"motion": Motion(rigid_mm=-1.0)}, "motion"),
        ({"effects": Effects(volume=-1.0)}, "effects"),
        ({"heterogeneity": -1.0}, "heterogeneity"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(DataError, match=message) as caught:
        fetal(0, **wrong)
    assert "\n" not in str(caught.value)
