"""Wall thickness of annuli; papillary muscles, basal slices and label codes: what each option and check does."""

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.basal_slices import drop_basal_slices
from medjax.uncertainty.biomarkers import ACDC, MNMS, LabelCodes, biomarkers, volumes
from medjax.uncertainty.label_plausibility import (
    enclosed_fraction,
    missing_frames,
    missing_of_structures,
    missing_slices,
    warnings_of_codes,
)  # fmt: skip
from medjax.uncertainty.papillary_muscles import assign_papillary, papillary_muscles
from medjax.uncertainty.wall_thickness import wall_thickness

SPACING = (1.2, 1.6, 10.0)


def plane(size=(84, 64), center=(50.0, 51.0)):
    """Coordinates in mm from a centre."""
    x, y = np.meshgrid(np.arange(size[0]) * SPACING[0], np.arange(size[1]) * SPACING[1], indexing="ij")
    return x - center[0], y - center[1]


def ring(inner=22.0, outer=32.0, codes=ACDC, shift=0.0, stretch=1.0):
    """One slice: an annulus with a right ventricle at its left, which is a crescent."""
    x, y = plane()
    labels = np.where(np.hypot(x + 26, y / 1.1) < 28, codes.rv, 0)
    labels = np.where(np.hypot(x - shift, y / stretch) < outer, codes.myocardium, labels)
    return np.where(np.hypot(x, y / stretch) < inner, codes.lv, labels)


def stack(*slices):
    return np.stack(slices, axis=-1)


def test_thickness_of_annuli_is_the_difference_of_radii():
    heart = stack(ring(), ring(20, 27), ring(14, 26), np.zeros_like(ring()))
    for sectors, error in ((6, 0.25), (36, 0.5)):
        found = wall_thickness(heart, ACDC, SPACING, sectors)
        np.testing.assert_allclose(found.slice_mean[:3], [10, 7, 12], atol=0.15)
        wanted = np.broadcast_to([[10.0], [7.0], [12.0]], (3, sectors))
        np.testing.assert_allclose(found.sectors[:3], wanted, atol=3 * error)
        assert np.sqrt(np.mean((found.sectors[:3] - wanted) ** 2)) < error
        assert np.isnan(found.sectors[3]).all() and np.isnan([found.slice_mean[3], found.slice_max[3]]).all()
        assert found.mean == pytest.approx(29 / 3, abs=0.15) and 12 <= found.max < 12 + 3 * error


def test_sectors_begin_at_the_right_ventricle():
    """The wall is 14 mm at its thickest, away from the RV, and 6 mm at the septum; radial thickness ~ 10 + 4 cos."""
    found = wall_thickness(stack(ring(shift=4)), ACDC, SPACING, 6).sectors[0]
    angle = np.pi + (np.arange(6) + 0.5) * np.pi / 3
    np.testing.assert_allclose(found, 4 * np.cos(angle) + np.sqrt(32**2 - (4 * np.sin(angle)) ** 2) - 22, atol=0.35)
    assert found[[0, 5]].max() < found[[2, 3]].min()


def test_radial_thickness_of_an_ellipse_is_too_large_by_its_obliqueness():
    """An elliptic ring between ρ = 20 and 28, stretched by 1.25 along y: the radial thickness is 8 · |direction|."""
    found = wall_thickness(stack(ring(20, 28, stretch=1.25)), ACDC, SPACING, 36)
    theta = np.arctan2(0, -1) + (np.arange(36) + 0.5) * np.pi / 18
    radial = 8 / np.hypot(np.cos(theta), np.sin(theta) / 1.25)
    assert np.sqrt(np.mean((found.sectors[0] - radial) ** 2)) < 0.6
    assert found.mean == pytest.approx(radial.mean(), abs=0.1)


def with_papillary(code):
    """Two muscles of 4 mm radius in the cavity, one of them at the wall."""
    x, y = plane()
    labels = ring()
    for cx, cy in ((8, 6), (-17, 4)):
        labels[np.hypot(x - cx, y - cy) < 4] = code
    return stack(labels, ring())


@pytest.mark.parametrize("code", [0, ACDC.myocardium])
def test_papillary_muscles_are_cavity_or_myocardium(code):
    whole, labels = stack(ring(), ring()), with_papillary(code)
    muscles = papillary_muscles(labels, ACDC)
    np.testing.assert_array_equal(muscles, (labels != whole))
    np.testing.assert_array_equal(assign_papillary(labels, ACDC, "cavity"), whole)
    cavity, muscle = (volumes(assign_papillary(labels, ACDC, to), ACDC, SPACING) for to in ("cavity", "myocardium"))
    ml = muscles.sum() * np.prod(SPACING) / 1000
    assert 0.8 < ml < 1.1  # 2 π 4² · 10 mm³
    assert cavity.lv - muscle.lv == pytest.approx(ml) and muscle.myocardium - cavity.myocardium == pytest.approx(ml)
    mass = [biomarkers(one, one)["LVM"] for one in (muscle, cavity)]
    assert mass[0] - mass[1] == pytest.approx(1.05 * ml)


def test_papillary_muscles_labelled_as_cavity_need_the_image():
    whole = stack(ring(), ring())
    image = np.where(whole == ACDC.myocardium, 60.0, 200.0)
    dark = with_papillary(0) != whole
    image[dark] = 60.0
    assert not papillary_muscles(whole, ACDC).any()
    found = papillary_muscles(whole, ACDC, image)
    assert not (found & ~dark).any() and found.sum() > 0.9 * dark.sum()
    labels = assign_papillary(whole, ACDC, "myocardium", image)
    assert volumes(labels, ACDC, SPACING).lv < volumes(whole, ACDC, SPACING).lv
    with pytest.raises(DataError, match="expected that of the labels"):
        papillary_muscles(whole, ACDC, image[:5])
    line = np.zeros((9, 9, 1), np.int64)
    line[2:5, 3] = line[8, 8] = ACDC.lv
    line[8, 8] = 0
    assert not papillary_muscles(line, ACDC).any()  # a hull without an area


def open_ring(degrees):
    """A slice whose ring lacks a sector."""
    x, y = plane()
    labels = ring()
    away = np.abs(np.degrees(np.arctan2(y, x))) < degrees / 2
    labels[(labels == ACDC.myocardium) & away] = 0
    return labels


@pytest.mark.parametrize("flip", [False, True])
def test_basal_slices_are_dropped_by_their_ring(flip):
    heart = stack(open_ring(240), open_ring(90), ring(), ring(18, 28), ring(8, 18), np.where(ring(0, 9) == 1, 0, 2))
    heart = heart[..., ::-1] if flip else heart
    order = -1 if flip else 1
    enclosed = enclosed_fraction(heart, ACDC)[::order]
    np.testing.assert_allclose(enclosed[:5], [1 / 3, 3 / 4, 1, 1, 1], atol=0.06)
    assert np.isnan(enclosed[5])
    for rule, number in ((0, 0), (0.5, 1), (1.0, 2)):
        kept = drop_basal_slices(heart, ACDC, rule)[..., ::order]
        assert not np.isin(kept[..., :number], [ACDC.lv, ACDC.myocardium]).any()
        np.testing.assert_array_equal(kept[..., number:], heart[..., ::order][..., number:])
        np.testing.assert_array_equal(kept == ACDC.rv, heart[..., ::order] == ACDC.rv)
    volume = [volumes(drop_basal_slices(heart, ACDC, rule), ACDC, SPACING).lv for rule in (0, 0.5, 1.0)]
    np.testing.assert_allclose(np.diff(volume), -np.pi * 22**2 * 10 / 1000, rtol=0.02)  # a slice each
    assert not drop_basal_slices(np.zeros((3, 3, 2), np.int64), ACDC).any()
    with pytest.raises(ConfigError, match="min_enclosed: 2"):
        drop_basal_slices(heart, ACDC, 2)


def test_codes_of_another_data_set_are_noticed():
    heart = stack(ring(), open_ring(90), ring(12, 22))
    assert warnings_of_codes(heart, ACDC) == []
    for wrong in (MNMS, LabelCodes(lv=2, myocardium=3, rv=1), LabelCodes(lv=1, myocardium=3, rv=2)):
        (line,) = warnings_of_codes(heart, wrong)
        assert "codes of another data set" in line and "\n" not in line
    assert warnings_of_codes(np.zeros_like(heart), ACDC) == []


def test_missing_slices_and_frames():
    heart = stack(np.zeros_like(ring()), ring(), np.zeros_like(ring()), ring(), ring(), np.zeros_like(ring()))
    assert missing_slices(heart).tolist() == [2]
    assert missing_slices(heart == ACDC.lv).tolist() == [2] and missing_slices(np.zeros_like(heart)).tolist() == []
    other = stack(*[ring()] * 4)
    other[..., 1], other[:5, :5, :2] = 0, ACDC.rv  # the RV ends where the LV goes on
    assert missing_slices(other).tolist() == []
    assert [gaps.tolist() for gaps in missing_of_structures(other, ACDC).values()] == [[1], []]
    speck = heart.copy()
    speck[..., 2], speck[:2, :2, 0] = ring(), 1
    assert missing_slices(np.insert(speck, 1, 0, axis=2)).tolist() == []  # beyond the base
    assert missing_frames(np.stack([heart, 0 * heart, heart], axis=-1)).tolist() == [1]


def test_too_few_sectors():
    with pytest.raises(ConfigError, match="sectors: 2"):
        wall_thickness(stack(ring()), ACDC, SPACING, 2)
