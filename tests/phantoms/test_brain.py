"""Brain phantoms: nilearn's own maps, conservation of activity, anatomy at known coordinates, lesions, refusals."""

import importlib.util
import sys
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.phantoms import brain as phantoms
from medjax.phantoms.brain import Lesion, brain, random_lesions

NILEARN = importlib.util.find_spec("nilearn")
pytestmark = pytest.mark.skipif(NILEARN is None, reason="needs nilearn (medjax[data])")

PET = Lesion((-28, 20, 25), 8, "pet", contrast=1.8)
MR = Lesion((25, -60, 30), (10, 6, 8), "mr", mr_contrast=0.5)
BOTH = Lesion((30, 20, 25), 6.0, "both", contrast=0.25)


@pytest.fixture(scope="module")
def fine():
    return brain(1.0)


@pytest.fixture(scope="module")
def coarse():
    return brain(4)


@pytest.fixture(scope="module")
def lesioned():
    return brain(2.0, "dpa714", lesions=[PET, MR, BOTH])


@pytest.fixture(scope="module")
def healthy():
    return brain(2.0, "dpa714")


def nilearn_map(name):
    assert NILEARN is not None and NILEARN.submodule_search_locations
    folder = Path(NILEARN.submodule_search_locations[0]) / "datasets" / "data"
    return nibabel.load(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")


def at(image, affine, mm):
    return image[tuple(np.rint(np.linalg.solve(affine, [*mm, 1])[:3]).astype(int))]


def test_matter_and_t1_are_nilearns_at_the_same_millimetres(fine):
    for name, image in (("gm", fine.gray), ("wm", fine.white), ("t1", fine.t1)):
        whole = nilearn_map(name)
        start = np.rint(np.linalg.solve(whole.affine, fine.affine[:, 3])[:3]).astype(int)
        x, y, z = (slice(first, first + side) for first, side in zip(start, fine.gray.shape, strict=True))
        expected = whole.get_fdata()[x, y, z] / 255
        inside = slice(None) if name != "t1" else (fine.gray + fine.white) > 0.9
        np.testing.assert_allclose(image[inside], expected[inside], atol=1e-5)
        assert name == "t1" or expected.sum() > 0.9999 * whole.get_fdata().sum() / 255


@pytest.mark.parametrize("size", [2.3, (4.0, 3.0, 5.0)])
def test_totals_do_not_depend_on_the_voxels(fine, size):
    other, volume = brain(size), np.prod(np.broadcast_to(size, 3))
    for name in ("activity", "mu", "gray", "white", "t1"):
        total = getattr(other, name).sum(dtype=float) * volume
        np.testing.assert_allclose(total, getattr(fine, name).sum(dtype=float), rtol=1e-4, err_msg=name)
        center = [np.average(axis, weights=getattr(other, name).sum(others)) for axis, others in moments(other)]
        expected = [np.average(axis, weights=getattr(fine, name).sum(others)) for axis, others in moments(fine)]
        np.testing.assert_allclose(center, expected, atol=0.02, err_msg=name)


def moments(anatomy):
    """Along each axis: its millimetres, and the other axes."""
    for axis, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        step, start = anatomy.affine[axis, axis], anatomy.affine[axis, 3]
        yield start + step * np.arange(anatomy.gray.shape[axis]), others


def test_fdg_is_four_to_one(fine):
    upper = (fine.affine[2, 2] * np.arange(fine.gray.shape[2]) + fine.affine[2, 3] > 30)[None, None, :]
    np.testing.assert_allclose(np.median(fine.activity[(fine.gray > 0.97) & upper]), 4, rtol=0.03)
    np.testing.assert_allclose(np.median(fine.activity[(fine.white > 0.97) & upper]), 1, rtol=0.03)
    ventricle = at(fine.activity, fine.affine, (-8, -2, 22))
    assert ventricle < 0.3 and at(fine.t1, fine.affine, (-8, -2, 22)) < 0.6


def test_dpa714_like_has_little_contrast_but_in_deep_grey_blood_and_scalp(healthy):
    gray, white = healthy.gray > 0.95, healthy.white > 0.97
    assert 1.1 < np.median(healthy.activity[gray]) / np.median(healthy.activity[white]) < 1.3
    for x in (-11, 11):
        assert at(healthy.activity, healthy.affine, (x, -19, 7)) > 1.4 * np.median(healthy.activity[white])
    assert at(healthy.activity, healthy.affine, (0, -26, -32)) > 1.4 * np.median(healthy.activity[white])
    scalp = healthy.activity[(healthy.mu > 0.0094) & (healthy.mu < 0.0097) & ~healthy.brain_mask]
    assert np.percentile(scalp, 90) > 0.8


def test_mu_goes_air_scalp_skull_brain(fine):
    ray = fine.mu[:, *np.rint(np.linalg.solve(fine.affine, [0, -20, 30, 1])[1:3]).astype(int)]
    assert ray[0] < 1e-4 and ray.max() == pytest.approx(0.0151, rel=1e-3)
    skull = np.flatnonzero(ray > 0.0145)
    left, right = skull[skull < len(ray) / 2], skull[skull > len(ray) / 2]
    assert 5 <= len(left) <= 8 and 5 <= len(right) <= 8
    np.testing.assert_allclose(ray[left[-1] + 3 : right[0] - 3], 0.0096, rtol=1e-4)
    np.testing.assert_allclose(ray[left[0] - 3], 0.0096, rtol=1e-4)


def test_masks_hold_what_they_should(fine):
    assert fine.brain_mask.sum() * 1e-6 == pytest.approx(2.1, abs=0.3)  # litres, with the fluid around the brain
    assert 3.5 < fine.head_mask.sum() * 1e-6 < 5.5
    assert np.all(fine.head_mask[fine.brain_mask]) and np.all(fine.brain_mask[fine.gray + fine.white > 0.9])
    assert np.all(fine.activity[~fine.head_mask] < 0.3) and np.all(fine.activity >= 0) and np.all(fine.mu >= 0)
    assert not fine.head_mask[0].any() or not fine.head_mask[:, 0].any()  # the head is not cut off but at the neck
    assert fine.activity[1:-1, 1:-1, :-1].sum() > 0.999 * fine.activity.sum()


def test_types_and_grid(coarse):
    for name in ("activity", "t1", "mu", "gray", "white"):
        assert getattr(coarse, name).dtype == np.float32
    assert coarse.lesions.dtype == coarse.lesion_ids.dtype == np.int32
    np.testing.assert_allclose(np.abs(coarse.affine[:3, :3]), 4 * np.eye(3))
    larger = brain(4.0, shape=(64, 60, 50))
    middle = larger.affine @ [31.5, 29.5, 24.5, 1]
    np.testing.assert_allclose(middle[:3], (coarse.affine @ [*(np.array(coarse.gray.shape) - 1) / 2, 1])[:3], atol=1e-9)
    np.testing.assert_allclose(larger.activity.sum(), coarse.activity.sum(), rtol=1e-4)


def test_a_slice_is_a_plane_of_the_volume(coarse):
    sides = coarse.gray.shape
    center = (coarse.affine @ [(sides[0] - 1) / 2, (sides[1] - 1) / 2, 21, 1])[:3]
    plane = brain(4.0, shape=(sides[0], sides[1], 1), center_mm=tuple(center.tolist()))
    np.testing.assert_allclose(plane.activity[:, :, 0], coarse.activity[:, :, 21], atol=1e-5)


def test_lesions_show_where_their_kind_says(lesioned, healthy):
    for number, lesion in enumerate([PET, MR, BOTH], 1):
        here = lesioned.lesion_ids == number
        radii = np.broadcast_to(lesion.radius_mm, 3)
        np.testing.assert_allclose(here.sum() * 8, 4 / 3 * np.pi * np.prod(radii), rtol=0.1)
        centroid = lesioned.affine[:3, :3] @ np.argwhere(here).mean(0) + lesioned.affine[:3, 3]
        np.testing.assert_allclose(centroid, lesion.center_mm, atol=0.5)
        assert set(lesioned.lesions[here]) == {phantoms.KINDS[lesion.kind]}
        activity = at(lesioned.activity, lesioned.affine, lesion.center_mm)
        t1 = at(lesioned.t1, lesioned.affine, lesion.center_mm)
        was = at(healthy.activity, lesioned.affine, lesion.center_mm), at(healthy.t1, lesioned.affine, lesion.center_mm)
        np.testing.assert_allclose(activity / was[0], lesion.contrast if lesion.kind != "mr" else 1, rtol=1e-4)
        np.testing.assert_allclose(t1 / was[1], lesion.mr_contrast if lesion.kind != "pet" else 1, rtol=1e-4)
    distance = ndimage.distance_transform_edt(lesioned.lesion_ids == 0, sampling=2)
    changed = np.abs(lesioned.activity - healthy.activity) + np.abs(lesioned.t1 - healthy.t1) > 1e-3
    assert 0 < distance[changed].max() < 4  # mm: a smooth edge, no more
    np.testing.assert_array_equal(lesioned.gray, healthy.gray)
    assert not healthy.lesions.any() and not healthy.lesion_ids.any()


def test_a_lesion_on_the_right_is_on_the_right(lesioned, healthy):
    difference = lesioned.activity - healthy.activity
    x = lesioned.affine[0, 0] * np.arange(difference.shape[0]) + lesioned.affine[0, 3]
    assert difference[x > 0].min() < -0.3 and difference[x > 0].max() < 1e-4  # cold
    assert difference[x < 0].max() > 0.3 and difference[x < 0].min() > -1e-4  # hot


def test_random_lesions(coarse):
    lesions = random_lesions(3, coarse, 6, "pet", radius_mm=(4, 7), contrast=2.0)
    assert lesions == random_lesions(3, coarse, 6, "pet", radius_mm=(4, 7), contrast=2.0)
    assert lesions != random_lesions(4, coarse, 6, "pet", radius_mm=(4, 7), contrast=2.0)
    for number, lesion in enumerate(lesions):
        assert lesion.kind == "pet" and lesion.contrast == 2 and 4 <= lesion.radius_mm <= 7
        assert at(coarse.gray + coarse.white, coarse.affine, lesion.center_mm) > 0.8
        for other in lesions[:number]:
            apart = np.linalg.norm(np.subtract(lesion.center_mm, other.center_mm))
            assert apart > lesion.radius_mm + other.radius_mm + 4
    result = brain(2.0, lesions=lesions)
    assert set(np.unique(result.lesion_ids)) == set(range(7)) and np.all(result.brain_mask[result.lesions > 0])


def test_large_random_lesions_stay_inside_the_skull(coarse):
    depth = ndimage.distance_transform_edt(coarse.brain_mask, sampling=4)
    lesions = [random_lesions(key, coarse, 1, radius_mm=(20, 24))[0] for key in range(5)]
    assert all(at(depth, coarse.affine, lesion.center_mm) > lesion.radius_mm for lesion in lesions)


def test_random_lesions_take_jax_keys(coarse):
    typed = random_lesions(jax.random.key(5), coarse, 2)
    assert typed == random_lesions(jax.random.PRNGKey(5), coarse, 2) != random_lesions(jax.random.key(6), coarse, 2)
    with pytest.raises(DataError, match=r"room for \d+ lesions"):
        random_lesions(0, coarse, 40, radius_mm=(20, 30))


def test_nilearn_is_not_imported_and_its_absence_is_told(monkeypatch):
    before = "nilearn" in sys.modules
    brain(8.0)
    assert ("nilearn" in sys.modules) == before
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"medjax\[data\]"):
        brain(8.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tracer": "fdopa"}, "tracer: 'fdopa'; expected fdg or dpa714"),
        ({"voxel_mm": 0.0}, "voxel_mm: 0.0"),
        ({"lesions": [PET, Lesion((0, 0, 95), 4)]}, "lesion 2: centre .* outside the brain"),
        ({"lesions": [PET._replace(kind="ct")]}, "lesion 1: kind 'ct'; expected one of pet, mr, both"),
        ({"lesions": [PET._replace(radius_mm=0)]}, "expected radii above 0"),
        ({"lesions": [PET._replace(contrast=-1)]}, "contrasts of 0 or more"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(DataError, match=message) as caught:
        brain(**({"voxel_mm": 8.0} | arguments))
    assert "\n" not in str(caught.value)
