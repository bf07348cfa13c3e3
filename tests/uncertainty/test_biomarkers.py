"""Volumes and mass of analytic ellipsoids, biomarkers of samples, body surface area; what is bad input is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.biomarkers import (
    ACDC,
    INDEXED_UNITS,
    MNMS,
    UNITS,
    LabelCodes,
    Volumes,
    biomarkers,
    volumes,
    volumes_from_counts,
    voxel_ml,
)  # fmt: skip
from medjax.uncertainty.body_surface import body_surface_area

SPACING = (0.7, 0.9, 8.0)  # mm, and a gap of 2 mm
GAP = 2.0


def half_ellipsoid(inner=(24, 26, 70), wall=10, codes=ACDC, slices=9):
    """Labels of a left ventricle cut at its base: two half ellipsoids; slice k is centred at (k + ½) · 10 mm."""
    x, y, z = np.meshgrid(np.arange(110) - 54.5, np.arange(90) - 44.5, np.arange(slices) + 0.5, indexing="ij")
    point = np.stack([x * SPACING[0], y * SPACING[1], z * (SPACING[2] + GAP)])

    def inside(axes):
        return np.sum((point / np.reshape(axes, (3, 1, 1, 1))) ** 2, axis=0) < 1

    labels = np.where(inside(np.add(inner, wall)), codes.myocardium, 0)
    return np.where(inside(inner), codes.lv, labels)


def closed_form(axes, h=10.0):
    """Volume of a half ellipsoid in ml, and as its slices at distance h sum up: c is a multiple of h."""
    volume = 2 / 3 * np.pi * np.prod(axes) / 1000
    return volume, volume * (1 + h**2 / (8 * axes[2] ** 2))


def test_volumes_and_mass_are_those_of_half_ellipsoids():
    labels = half_ellipsoid()
    found = volumes(labels, ACDC, SPACING, GAP)
    inner, sliced = closed_form((24, 26, 70))
    outer, sliced_outer = closed_form((34, 36, 80))
    # the edge's voxels: relative error below 0.2 % in plane; slices: h² / 8c² = 0.26 %
    assert found.lv == pytest.approx(sliced, rel=2e-3) and found.lv == pytest.approx(inner, rel=5e-3)
    assert found.myocardium == pytest.approx(sliced_outer - sliced, rel=2e-3)
    assert found.rv == 0
    mass = biomarkers(found, found)["LVM"]
    assert mass == pytest.approx(1.05 * (outer - inner), rel=5e-3)
    without = volumes(labels, ACDC, SPACING)
    assert without.lv == pytest.approx(0.8 * found.lv)  # the slice gap is a fifth of the volume
    assert volumes(labels, ACDC, (0.7, 0.9, 10.0)).lv == pytest.approx(found.lv)


def test_sum_over_slices_is_too_large_by_h2_over_8c2():
    areas = np.pi * 24 * 26 * (1 - ((np.arange(7) + 0.5) * 10 / 70) ** 2)
    assert areas.sum() * 10 / 1000 == pytest.approx(closed_form((24, 26, 70))[1], rel=1e-12)


def test_frames_follow_space_and_codes_name_structures():
    cine = np.stack([half_ellipsoid(), half_ellipsoid((14, 16, 60))], axis=-1)
    curve = volumes(cine, ACDC, SPACING)
    assert curve.lv.shape == (2,) and curve.lv[1] == volumes(cine[..., 1], ACDC, SPACING).lv
    other = volumes(np.stack([half_ellipsoid(codes=MNMS)], axis=-1), MNMS, SPACING)
    assert other.lv[0] == curve.lv[0] and other.myocardium[0] == curve.myocardium[0]


def test_counts_under_jit_equal_labels():
    labels = half_ellipsoid()
    counts = np.stack([[np.bincount(labels[..., z].ravel(), minlength=4) for z in range(9)]] * 2)
    wanted = volumes(labels, ACDC, SPACING)

    @jax.jit
    def measured(counts):
        one = volumes_from_counts(counts, ACDC, voxel_ml(SPACING))
        return one, biomarkers(one, one)

    for found in (volumes_from_counts(counts, ACDC, voxel_ml(SPACING)), measured(jnp.asarray(counts))[0]):
        assert found.lv.shape == (2,)
        np.testing.assert_allclose(found.lv, wanted.lv, rtol=1e-6)
        np.testing.assert_allclose(found.myocardium, wanted.myocardium, rtol=1e-6)
    values = measured(jnp.asarray(counts))[1]
    np.testing.assert_allclose(values["LVEF"], 0, atol=1e-6)
    assert np.isnan(values["RVEF"]).all()  # there is no right ventricle


def test_biomarkers_of_numbers_known():
    ed, es = (
        Volumes(np.array([150.0]), np.array([100.0]), np.array([160.0])),
        Volumes(np.array([60.0]), np.array([101.0]), np.array([80.0])),
    )
    found = biomarkers(ed, es, bsa=np.array([2.0]))
    assert {name: value.item() for name, value in found.items() if not name.endswith("i")} == pytest.approx(
        {"LVEDV": 150, "LVESV": 60, "LVSV": 90, "LVEF": 60, "LVM": 105, "RVEDV": 160, "RVESV": 80, "RVSV": 80,
         "RVEF": 50}
    )  # fmt: skip
    assert [*found] == [*UNITS, *INDEXED_UNITS]
    assert found["LVMi"].item() == pytest.approx(52.5) and found["RVSVi"].item() == pytest.approx(40)


def test_an_area_that_is_not_known_is_nan_and_an_impossible_one_is_refused():
    ml = Volumes(*np.full((3, 2, 4), 100.0))  # two subjects, four samples
    index = biomarkers(ml, ml, bsa=[2.0, np.nan])["LVEDVi"]
    np.testing.assert_array_equal(index, [[50.0] * 4, [np.nan] * 4])
    for area in ([1.8, np.inf], np.array([-1.0, 1.8]), 0.0):
        with pytest.raises(DataError, match=r"bsa: (inf|-1|0) m²; expected above 0"):
            biomarkers(ml, ml, bsa=area)


def test_ef_of_samples_is_not_ef_of_the_mean_mask():
    """Three samples, two of which agree at ED, and other two at ES: the mean mask follows each majority."""
    radii_ed, radii_es = (30, 30, 20), (10, 22, 22)
    y, x = np.mgrid[-40:41, -40:41]
    discs = [[np.hypot(x, y) < r for r in radii] for radii in (radii_ed, radii_es)]
    labels = np.where(np.array(discs), 3, 0)[..., None]  # (ED or ES, sample, x, y, z)
    ed, es = (volumes(np.moveaxis(one, 0, -1), ACDC, (1, 1, 10)) for one in labels)
    of_samples = biomarkers(ed, es)["LVEF"]
    masks = [np.where(np.mean(one, axis=0) > 0.5, 3, 0)[..., None] for one in discs]
    mean_mask = biomarkers(*(volumes(one, ACDC, (1, 1, 10)) for one in masks))["LVEF"]
    assert of_samples.shape == (3,) and of_samples[2] < 0  # ED smaller than ES is seen
    assert of_samples[0] == pytest.approx(100 * (1 - (10 / 30) ** 2), abs=0.5)
    assert abs(of_samples.mean() - mean_mask) > 5


def test_what_is_not_segmented_is_nan():
    empty, full = Volumes(*np.zeros((3, 1))), Volumes(*np.full((3, 1), 50.0))
    for ed, es in ((empty, full), (full, empty), (empty, empty)):
        found = biomarkers(ed, es)
        assert all(np.isnan(found[name]).all() for name in ("LVSV", "LVEF", "RVSV", "RVEF"))
        assert found["LVEDV"] == ed.lv and found["LVESV"] == es.lv


@pytest.mark.parametrize(
    ("values", "codes", "message"),
    [
        ([0, 4], ACDC, "label 4; expected 0, 3 .LV., 2 .myocardium., 1 .RV."),
        ([0, -1], ACDC, "label -1"),
        ([0, np.nan], ACDC, "nan in 1 of 2 voxels"),
        ([0, 1.5], ACDC, "1.5 in 1 of 2 voxels"),
        ([0, 1], LabelCodes(1, 1, 2), "three different numbers"),
        ([0, 1], LabelCodes(0, 1, 2), "numbers from 1"),
    ],
)
def test_labels_and_codes_that_cannot_be(values, codes, message):
    with pytest.raises((DataError, ConfigError), match=message):
        volumes(np.reshape(np.array(values), (2, 1, 1)), codes, SPACING)


def test_spacing_counts_and_pairs_that_cannot_be():
    labels = np.zeros((2, 2, 2), int)
    for spacing in ((1, 1, 0), (1, -1, 1), (1, 1, np.nan), (1, 1)):
        with pytest.raises(DataError, match="expected three positive numbers"):
            volumes(labels, ACDC, spacing)
    with pytest.raises(DataError, match="gap: -1 mm"):
        volumes(labels, ACDC, SPACING, gap=-1)
    with pytest.raises(DataError, match="classes 0 to 2"):
        volumes_from_counts(np.ones((4, 3)), ACDC, 1.0)
    with pytest.raises(DataError, match="their samples are paired"):
        biomarkers(Volumes(*np.ones((3, 5))), Volumes(*np.ones((3, 4))))


def test_body_surface_area_is_the_published():
    """Mosteller's own example is exact by its formula; Du Bois' table: 170 cm and 70 kg have 1.81 m²."""
    assert body_surface_area(180, 80) == pytest.approx(2.0)
    assert body_surface_area(160, 90) == pytest.approx(2.0)
    assert body_surface_area(170, 70, "du_bois") == pytest.approx(1.81, abs=0.005)
    assert body_surface_area(200, 100, "du_bois") == pytest.approx(2.37, abs=0.01)
    assert np.isnan(body_surface_area([170.0, np.nan], [np.nan, 70.0])).all()
    with pytest.raises(DataError, match="height: 1"):
        body_surface_area(1.8, 80)
    with pytest.raises(DataError, match="weight: 80000"):
        body_surface_area(180, 80000)
