"""The simulated short-axis cine: its truth against voxel counts, scan against rescan, and its images."""

import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.phantoms.cine import PROTOCOLS, changed_heart, cine, random_heart, scan_rescan
from medjax.phantoms.cine_anatomy import DENSITY, LV, MYOCARDIUM, RV, azimuth, radii, surfaces, tissue_labels
from medjax.phantoms.cine_body import Tissues
from medjax.phantoms.cine_cycle import contraction
from medjax.phantoms.cine_image import points, slice_signal

COARSE = PROTOCOLS["A"]._replace(pixels=40, pixel_mm=5.0, sub_slices=1)


def heart_of(number):
    return random_heart(np.random.default_rng((7, number)))


def voxel_volumes(heart, s, step=1.0):
    """ml of the classes 1, 2, 3 by counting; slices fill base to apex exactly, so that only surfaces are sampled."""
    shape = surfaces(heart, s)
    u, v = np.arange(-100, 60, step) + 0.37 * step, np.arange(-65, 65, step) + 0.37 * step
    thickness = (heart.length - shape.base) / 90
    u, v, w = np.meshgrid(u, v, shape.base + thickness * (np.arange(90) + 0.5), indexing="ij")
    labels = tissue_labels(shape, u, v, w)
    return np.bincount(labels.ravel(), minlength=4)[1:] * step**2 * thickness / 1e3


@pytest.mark.parametrize("number", [0, 1])
def test_truth_is_the_volume_of_the_shape(number):
    heart = heart_of(number)
    ed, es = voxel_volumes(heart, 0.0), voxel_volumes(heart, 1.0)
    wall = heart.lvm / DENSITY
    np.testing.assert_allclose(ed, [heart.rvedv, wall, heart.lvedv], rtol=5e-3)
    np.testing.assert_allclose(es, [heart.rvesv, wall * (1 - heart.compression), heart.lvesv], rtol=5e-3)


def test_hearts_are_plausible():
    hearts = [heart_of(number) for number in range(200)]
    lvedv, ef = np.array([(h.lvedv, 1 - h.lvesv / h.lvedv) for h in hearts]).T
    rv_ef, mass = np.array([(1 - h.rvesv / h.rvedv, h.lvm / h.lvedv) for h in hearts]).T
    assert lvedv.min() >= 90 and lvedv.max() <= 220 and lvedv.std() > 20
    assert ef.min() >= 0.35 and ef.max() <= 0.70 and 0.2 < np.mean(ef < 0.5) < 0.4
    assert rv_ef.min() > 0.2 and rv_ef.max() < 0.75 and mass.min() >= 0.5 and mass.max() <= 1.1
    angle = np.linspace(-np.pi, np.pi, 90)
    for heart in hearts[:50]:
        ed, es = (surfaces(heart, s) for s in (0.0, 1.0))
        for shape in (ed, es):
            around, w = np.meshgrid(angle, np.linspace(shape.base, heart.length - 0.1, 40))
            r = radii(shape, azimuth(heart, around), w)
            assert (r.epicardium - r.endocardium).min() > 0 and (r.right - r.epicardium).min() >= 0
        assert 1.1 < (es.epicardial_radius - es.endocardial_radius) / (ed.epicardial_radius - ed.endocardial_radius) < 3
        assert 10 <= es.base <= 14


def test_a_cycle_ejects_fills_and_shows_its_end_systole():
    for number in range(20):
        heart = heart_of(number)
        for frames in (18, *(protocol.frames for protocol in PROTOCOLS.values())):
            volume = contraction(heart, np.arange(frames) / frames)
            es = int(np.argmax(volume))
            assert volume[0] == 0 and volume[es] == pytest.approx(1, abs=1e-9) and 0.28 < es / frames < 0.47
            assert (np.diff(volume[: es + 1]) >= 0).all() and (np.diff(volume[es:]) <= 1e-9).all()
        diastasis = contraction(heart, np.linspace(heart.systole + 0.26, 0.8, 5))
        assert np.ptp(diastasis) < 0.05 and diastasis.min() >= heart.atrial_kick - 1e-9


def test_slices_count_the_truth_without_bias():
    heart = heart_of(3)
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(12):
        scan = cine(rng, heart, COARSE, [0])
        counts.append([np.sum(scan.labels == c) * np.prod(scan.spacing) / 1e3 for c in (LV, RV, MYOCARDIUM)])
    truth = np.array([heart.lvedv, heart.rvedv, heart.lvm / DENSITY])
    np.testing.assert_allclose(np.mean(counts, axis=0), truth, rtol=0.02)
    assert (np.std(counts, axis=0) > 0.01 * truth).all()  # each slice plan errs by itself


def test_a_rescan_without_change_is_the_same_heart_seen_anew():
    scan, rescan = scan_rescan(5, 2, COARSE, change=0)
    assert scan.truth == rescan.truth
    side = min(scan.image.shape[2], rescan.image.shape[2])
    assert not np.allclose(scan.image[:, :, :side], rescan.image[:, :, :side])
    assert not np.array_equal(scan.labels[:, :, :side], rescan.labels[:, :, :side])
    again = scan_rescan(5, 2, COARSE, change=0)
    for first, second in zip((scan, rescan), again, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.labels, second.labels)


def test_change_scales_a_known_difference():
    heart = heart_of(4)
    one, two = (changed_heart(np.random.default_rng(1), heart, change) for change in (1, 2.0))
    assert two.lvedv - heart.lvedv == pytest.approx(2 * (one.lvedv - heart.lvedv)) and one.lvedv != heart.lvedv
    assert two.lvm - heart.lvm == pytest.approx(2 * (one.lvm - heart.lvm))
    scan, rescan = scan_rescan(5, 2, COARSE)
    assert scan.truth == scan_rescan(5, 2, COARSE, change=0)[0].truth != rescan.truth
    edv = np.array([changed_heart(np.random.default_rng(n), heart).lvedv for n in range(300)])
    assert np.std(edv / heart.lvedv) == pytest.approx(0.03, rel=0.15)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_scan_has_its_protocols_geometry_and_labels(name):
    protocol = PROTOCOLS[name]
    scan = cine(np.random.default_rng(3), heart_of(5), protocol, "ed_es")
    x, y, slices, frames = scan.image.shape
    assert (x, y, frames) == (protocol.pixels, protocol.pixels, 2) and 8 <= slices <= 13
    assert scan.labels.shape == scan.image.shape and set(np.unique(scan.labels)) == {0, RV, MYOCARDIUM, LV}
    assert scan.spacing == (protocol.pixel_mm, protocol.pixel_mm, protocol.thickness_mm + protocol.gap_mm)
    assert scan.frames[0] == 0 and (scan.ed, scan.es) == (0, 1)
    assert np.sum(scan.labels[..., 0] == LV) > np.sum(scan.labels[..., 1] == LV)
    assert scan.papillary.any() and (scan.labels[scan.papillary] == LV).all()
    blood = scan.labels == LV
    muscle = np.median(scan.image[scan.labels == MYOCARDIUM])
    assert np.median(scan.image[blood & ~scan.papillary]) > 1.4 * muscle
    assert np.min(scan.image) > 0 and np.isfinite(scan.image).all()
    edge = np.concatenate([scan.labels[[0, -1]].ravel(), scan.labels[:, [0, -1]].ravel()])
    assert not edge.any()  # the heart lies inside the field of view


def test_frames_are_all_or_those_named():
    heart = heart_of(6)
    scan = cine(np.random.default_rng(0), heart, COARSE._replace(frames=18))
    volume = np.sum(scan.labels == LV, axis=(0, 1, 2))
    assert scan.frames == tuple(range(18)) and scan.ed == 0 and volume[scan.es] <= 1.03 * volume.min()
    some = cine(np.random.default_rng(0), heart, COARSE, [9, 3, 0])
    assert some.frames == (9, 3, 0) and (some.ed, some.es) == (2, 0)
    for frames in ([25], [-1], []):
        with pytest.raises(ConfigError, match=r"frames: .*; expected numbers of 0 … 24"):
            cine(np.random.default_rng(0), heart, COARSE, frames)
    with pytest.raises(ConfigError, match="sub_slices: 4; expected an odd number"):
        cine(np.random.default_rng(0), heart, COARSE._replace(sub_slices=4), "ed_es")


def test_partial_volume_is_a_monotone_mixture():
    tissues = Tissues()
    heart = heart_of(7)._replace(bend=np.zeros(2))
    shape = surfaces(heart, 0.0)

    def signal(u, w):  # along a ray between the papillary muscles
        sub = w + np.linspace(-3.2, 3.2, 5)[:, None]
        u = np.full_like(sub, u)
        return slice_signal(shape, points(heart, u, 0 * u, sub), tissues, np.array([0.05]), 1.5)[0]

    w = np.array([45.0])
    inner, outer = (float(part[0]) for part in radii(shape, azimuth(heart, 0 * w), w)[:2])
    across = np.array([signal(u, w[0]) for u in np.arange(inner - 8, 0.5 * (inner + outer) + 0.5, 0.25)])
    assert across[0] > 0.9 and across[-1] == pytest.approx(tissues.myocardium, abs=0.02)
    assert (np.diff(across) <= 1e-6).all() and np.sum((across > 0.35) & (across < 0.85)) >= 3
    through = np.array(
        [signal(0.8 * shape.endocardial_radius + 0.2 * shape.epicardial_radius, w) for w in range(-9, 3)]
    )
    assert np.ptp(through[:4]) < 0.02 and (np.abs(np.diff(through)) < 0.6 * np.ptp(through)).all()  # past the base
