"""Simulated cohort of brain MRI: what is known of it holds in its images, and its fields are what brings them back."""

import numpy as np
import pytest

pytest.importorskip("nilearn")

from medjax.phantoms.brain_regions import LANDMARKS, landmark_regions
from medjax.phantoms.cohort import (
    SITES,
    Effect,
    Effects,
    draw_cohort,
    standardize,
    template,
    template_points,
    to_template,
)

NONE = Effect(0.0, 0.0, 0.0)
GRID = {"voxel_mm": 8.0, "shape": (24, 28, 24)}
CLEAN = SITES["A"]._replace(noise=0.0, bias=0.0)


def cohort(subjects=8, site=CLEAN, variation=0.35, **effects):
    """A cohort with the given effects only."""
    every = Effects(**{**dict.fromkeys(Effects._fields, NONE), **effects})
    return draw_cohort(0, subjects, site, every, variation, **GRID)


def volumes(found, *names):
    """Volume of the named regions, both sides, of each subject."""
    columns = [k for k, name in enumerate(template(**GRID).names) if name[:-2] in names]
    return found.volume_mm3[:, columns].sum(1)


def test_combinations_are_equally_frequent_and_subjects_do_not_depend_on_their_number():
    found = cohort(16, SITES["A"])
    counts = np.unique(np.stack([found.diagnosis, found.anatomy, found.contrast]), axis=1, return_counts=True)[1]
    assert counts.tolist() == [2] * 8
    np.testing.assert_array_equal(cohort(8, SITES["A"]).image, found.image[:8])
    assert (found.image[0] != found.image[8]).any()


def test_without_effects_labels_change_nothing_but_the_own_deformation():
    """With no variation and no effect all subjects are the template itself."""
    found = cohort(variation=0.0)
    inside = template(**GRID).t1 > 0.3
    scale = found.image[:, inside].mean(1) / template(**GRID).t1[inside].mean()
    for image, gain in zip(found.image, scale, strict=True):
        np.testing.assert_allclose(image[inside] / gain, template(**GRID).t1[inside], atol=1e-4)


def test_atrophy_shrinks_the_hippocampus_and_widens_the_ventricles():
    found = cohort(variation=0.0, atrophy=Effect(0.0, 0.3, 0.0))
    sick = found.diagnosis == 1
    shrunk, widened = (volumes(found, name) for name in ("hippocampus", "lateral ventricle"))
    assert shrunk[sick].max() < 0.75 * shrunk[~sick].min()
    assert widened[sick].min() > 1.03 * widened[~sick].max()
    frontal = volumes(found, "superior frontal")
    np.testing.assert_allclose(frontal[sick].mean(), frontal[~sick].mean(), rtol=0.02)


def test_the_attributes_are_of_anatomy_and_of_contrast_alone():
    found = cohort(variation=0.0, frontal=Effect(0.0, 0.1, 0.0), darkening=Effect(0.0, 0.1, 0.0))
    frontal = volumes(found, "middle frontal", "orbitofrontal")
    assert frontal[found.anatomy == 1].min() > 1.005 * frontal[found.anatomy == 0].max()
    same = [k for k in range(8) if found.anatomy[k] == 0]
    np.testing.assert_array_equal(found.volume_mm3[same], found.volume_mm3[same[:1]].repeat(4, 0))
    t1 = template(**GRID).t1
    ratio = found.image[:, t1 > 0.8].mean(1) / found.image[:, (t1 > 0.4) & (t1 < 0.6)].mean(1)  # white / grey
    assert ratio[found.contrast == 1].max() < 0.97 * ratio[found.contrast == 0].min()


def test_known_fields_bring_images_to_the_template():
    found = cohort(2, variation=1.0, size=Effect(0.03, 0.03, 0.0), atrophy=Effect(0.2, 0.2, 0.0))
    t1 = template(**GRID).t1
    for number, image in enumerate(found.image):
        moved = to_template(image, template_points(found, number))
        before, after = (np.corrcoef(one.ravel(), t1.ravel())[0, 1] for one in (image, moved))
        assert after > 0.985 and 1 - after < 0.2 * (1 - before)


def test_intensities_within_the_brain_and_over_the_volume():
    image = cohort(2, SITES["B"]).image
    brain, whole = standardize(image), standardize(image, "volume")
    mask = image > 0
    for k in range(2):
        np.testing.assert_allclose([brain[k][mask[k]].mean(), brain[k][mask[k]].std()], [0, 1], atol=1e-4)
        np.testing.assert_allclose([whole[k].mean(), whole[k].std()], [0, 1], atol=1e-4)
    assert not brain[~mask].any()


def test_regions_are_of_the_nearest_landmark_on_the_same_side():
    brain, affine = np.ones((90, 110, 80), bool), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    labels, names = landmark_regions(brain, affine)
    assert len(names) == 2 * len(LANDMARKS) + 1
    for name, (x, y, z) in LANDMARKS.items():
        for side, sign in (("L", -1), ("R", 1)):
            i, j, k = np.rint((np.array([sign * x, y, z]) - affine[:3, 3]) / 2).astype(int)
            assert names[labels[i, j, k]] == f"{name} {side}"
    x = affine[0, 0] * np.arange(90) + affine[0, 3]
    left = {names[k][-2:] for k in np.unique(labels[x < 0]) if names[k] != "brainstem"}
    assert left == {" L"}
