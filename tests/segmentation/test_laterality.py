"""Names that say a side, the axis it lies along, and structures that only their side tells apart."""

from pathlib import Path

import numpy as np
import pytest

from medjax.segmentation.laterality import (
    label_moments,
    lateral_labels,
    left_right_axes,
    mirror_images,
    orientation,
    same_orientation,
)

BRAIN = Path(__file__).parents[2].parent / "shared" / "data" / "brain_t1" / "vxm_test_scan.npz"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left kidney", "right kidney"), ("KIDNEY_LEFT", "KIDNEY_RIGHT"), ("kidney_L", "kidney_R"), ("l", "r"),
        ("KidneyL", "KidneyR"), ("lh-cortex", "rh-cortex"), ("Lung_Lt", "Lung_Rt"), ("LV", "RV"),
        ("leftkidney", "rightkidney"), ("ren sinister", "ren dexter"), ("hippocampus_sin", "hippocampus_dex"),
        ("rein gauche", "rein droit"), ("Niere links", "Niere rechts"), ("lung_2_l", "lung_2_r"),
        ("Left-Hippocampus", "Right-Hippocampus"), ("OS_disc", "OD_disc"), ("Lt kidney", "Rt kidney"), ("LA", "RA"),
        ("LEFTKIDNEY", "RIGHTKIDNEY"), ("LKIDNEY", "RKIDNEY"), ("LV blood", "RV blood"), ("rib_L1", "rib_R1"),
        ("nierelinks", "niererechts"), ("LTKIDNEY", "RTKIDNEY"), ("KIDNEYL", "KIDNEYR"), ("LKidney", "RKidney"),
        ("lh1", "rh1"), ("LV1", "RV1"),
    ],
)  # fmt: skip
def test_names_of_two_sides(one, other):
    assert lateral_labels(["background", one, "liver", other]) == [one, other]
    assert lateral_labels(["background", other, one]) == [other, one]


def test_a_word_says_a_side_alone_and_a_letter_does_not():
    for name in ("left atrium", "Lt kidney", "kidney_RT", "LEFTKIDNEY", "rightkidney", "Niere rechts"):
        assert lateral_labels(["background", name, "aorta"]) == [name]
    for names in (
        ("bright", "dark"), ("cleft", "palate"), ("L1", "L2", "R"), ("RV", "MLV", "LVC"), ("lung",), ("skull", "base"),
        ("kidney l", "liver r"), ("upright", "leftover"), ("LH", "cortex"), ("Anterior", "Posterior"),
        ("oral", "orar"), ("lib", "rib"), ("L1", "R1"), ("L_1", "R_1"), ("1L", "1R"), ("OS", "bone"),
        ("adult", "adurt"), ("vertebra_L1", "rib_R1"),
    ):  # fmt: skip
        assert lateral_labels(("background", *names)) == [], names


def test_the_axis_is_the_affines():
    """nibabel's orientation codes are the outside truth; an oblique image has two axes that run across."""
    import nibabel

    turn = np.deg2rad(45)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    for permutation in ([0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]):
        for signs in ([2, 1, 0.5], [-2, 1, 0.5], [1, -3, -1]):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[permutation].T * signs
            codes = nibabel.orientations.aff2axcodes(affine)
            assert left_right_axes(affine) == tuple(k for k, code in enumerate(codes) if code in "LR")
    assert left_right_axes(oblique) == (0, 1)


def test_orientations_look_alike_where_they_are_mirrored():
    assert orientation(np.diag([-2.0, 1, 3, 1])) == "LAS" and orientation(np.eye(4)[[1, 2, 0, 3]]) == "SRA"
    assert same_orientation("LAS", "RAS", (0,)) and same_orientation("RAS", "RAS", ())
    assert not same_orientation("LAS", "RAS", (1, 2)) and not same_orientation("ARS", "RAS", (0, 1, 2))


def organs(seed, second=1.0, shift=(0, 10, 0), contrast=0.0):
    """Two boxes in noise; the second `second` times as long, displaced by `shift`, and brighter by `contrast`."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 24, 24), np.int32)
    low = rng.integers(2, 5, 3)
    high = low + np.array([4, 4, round(5 * second)])
    labels[tuple(slice(a, a + n) for a, n in zip(low, (4, 4, 5), strict=True))] = 1
    labels[tuple(slice(a + s, b + s) for a, b, s in zip(low, high, shift, strict=True))] = 2
    image = 2.0 * (labels > 0) + contrast * (labels == 2) + 0.1 * rng.normal(size=labels.shape)
    return label_moments(labels, image[..., None].astype(np.float32), 4)


def test_mirror_images_are_found_and_what_differs_is_none():
    assert mirror_images([organs(seed) for seed in range(4)]) == [(1, 2, 1)]
    assert mirror_images([organs(seed, shift=(0, 0, 9)) for seed in range(4)]) == [(1, 2, 2)]
    for different in ({"second": 1.5}, {"contrast": 1.0}, {"shift": (9, 9, 0)}):
        assert mirror_images([organs(seed, **different) for seed in range(4)]) == [], different
    assert mirror_images([organs(seed) for seed in range(2)]) == [] == mirror_images([])  # too few cases to say


def test_structures_on_either_side_by_chance_are_no_mirror_images():
    either = [organs(seed, shift=(0, 10, 0)) for seed in range(6)]
    swapped = [case._replace(**{name: getattr(case, name)[[1, 0, 2]] for name in case._fields}) for case in either[:3]]
    assert mirror_images(swapped + either[3:]) == []


def test_moments_are_numpys():
    labels = np.zeros((6, 5, 4), np.int32)
    labels[1:4, 2, 3] = 2
    image = np.random.default_rng(0).normal(size=(6, 5, 4, 2)).astype(np.float32)
    found = label_moments(labels, image, 3)
    assert found.volume.tolist() == [0, 3] and np.isnan(found.center[0]).all()
    np.testing.assert_allclose(found.center[1], [2, 2, 3])
    np.testing.assert_allclose(found.extent[1], [np.sqrt(2 / 3), 0, 0])
    expected = image[1:4, 2, 3].mean(0) / image.reshape(-1, 2).std(0)
    np.testing.assert_allclose(found.intensity[1], expected, rtol=1e-5)


@pytest.mark.skipif(not BRAIN.is_file(), reason="the shared data are absent")
def test_a_real_brains_sides_are_found_among_its_30_labels():
    """FreeSurfer numbers the right structure of each pair 39, 36, 32 or so above the left one."""
    with np.load(BRAIN) as file:
        ids, labels = np.unique(file["seg"][::2, ::2, ::2], return_inverse=True)
        image = file["vol"][::2, ::2, ::2, None].astype(np.float32)
    moments = label_moments(labels.reshape(image.shape[:3]).astype(np.int32), image, len(ids))
    found = {(int(ids[one]), int(ids[other])) for one, other, axis in mirror_images([moments] * 3) if axis == 0}
    sides = {2: 41, 3: 42, 4: 43, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58, 28: 60, 31: 63}
    assert found == set(sides.items())
