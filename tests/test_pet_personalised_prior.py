"""The experiment of paper 7: its tiny run, and what its measures say of known images."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.pet.cohort_registration import Fields
from experiments.pet.multi_subject import People
from experiments.pet.personalised_report import comparison_metrics, paired_metrics
from experiments.pet.scans import Subject
from experiments.pet.targets import MEASURES, Lesions, Target, draw_lesions, leakage, measure
from experiments.pet.volume_priors import Pseudo, pseudo_pets
from medjax.errors import DataError
from medjax.pet.grid import Grid
from medjax.phantoms.brain import KINDS, Brain, Lesion, add_lesions
from medjax.phantoms.multi_subject import SubjectHead
from tests.tiny_runs import tiny_run

SHAPE, VOXEL_MM = (48, 48, 40), 3.0


def ball() -> Brain:
    """A ball of white matter of activity 1 and T1 0.9."""
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = (-71, -89, -50)
    center = (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    inside = np.sqrt(((np.indices(SHAPE) - center) ** 2).sum(0)) < 17
    image, none = inside.astype(np.float32), np.zeros(SHAPE, np.int32)
    return Brain(image, 0.9 * image, 0 * image, 0 * image, image, inside, inside, none, none, affine)


def with_both() -> Target:
    """The ball with a lesion in PET only, and one in MR only."""
    brain = add_lesions(ball(), [Lesion((-24, -18, 10), 9, "pet", 3.0), Lesion((24, -18, 10), 9, "mr", 3.0, 0.5)])
    shell = ball().brain_mask & (brain.lesion_ids == 0)
    rings = dict.fromkeys(KINDS, shell)
    return Target(Subject(brain, np.zeros(1), 1.0), brain.t1, ball().t1, rings, 3.0)


def test_lesions_are_added_where_they_are_said_to_be_and_nowhere_else():
    plain, found = ball(), with_both().subject.truth
    pet, mr = (found.lesions == KINDS[kind] for kind in ("pet", "mr"))
    # spheres of 9 mm: 4/3 π r³ over a voxel's 27 mm³
    for number, mask in enumerate((pet, mr), 1):
        assert mask.sum() == pytest.approx(4 / 3 * np.pi * 9**3 / 27, rel=0.15)
        assert (found.lesion_ids[mask] == number).all()
    assert found.activity[pet].mean() > 2.5 and found.t1[mr].mean() < 0.6
    np.testing.assert_allclose(found.activity[mr], 1, atol=1e-6)
    np.testing.assert_allclose(found.t1[pet], 0.9, atol=1e-6)
    far = ~(pet | mr)
    assert np.mean(found.activity[far] != plain.activity[far]) < 0.05
    more = add_lesions(found, [Lesion((0, 10, 10), 6, "both")])
    assert more.lesion_ids.max() == 3 and set(np.unique(more.lesions)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(plain.activity, ball().activity)
    with pytest.raises(DataError, match="lies outside the brain"):
        add_lesions(plain, [Lesion((-70, -80, -40), 6)])


def test_targets_have_as_many_lesions_of_each_kind_inside_the_planes():
    head = SubjectHead("ball", replace(ball()), None, None)  # type: ignore[arg-type]
    planes = Grid((48, 48, 31), (VOXEL_MM,) * 3)
    brain = add_lesions(head.brain, draw_lesions(head, Lesions(2, (5.0, 6.0)), planes, 0))
    assert brain.lesion_ids.max() == 6
    heights = VOXEL_MM * np.argwhere(brain.lesion_ids > 0)[:, 2] - 50
    assert np.abs(heights - 10).max() < 31 * VOXEL_MM / 2
    for kind in KINDS.values():
        assert len(np.unique(brain.lesion_ids[brain.lesions == kind])) == 2


def test_measures_of_known_images():
    target = with_both()
    truth = target.subject.truth
    perfect = measure(truth.activity, target)
    assert perfect["nrmse"] == 0 and perfect["ssim"] == pytest.approx(1)
    assert perfect["pet_lesion_recovery"] == pytest.approx(1)
    assert np.isnan(perfect["matched_lesion_recovery"])  # there is none
    blind = measure(ball().activity, target)  # a prior that takes the lesion away
    assert abs(blind["pet_lesion_recovery"]) < 1e-6
    hot = np.where(target.lesions("mr"), 3.0, truth.activity).astype(np.float32)  # the MR's lesion printed into the PET
    assert leakage(hot, truth.activity, target) == pytest.approx(1, rel=0.05)
    assert leakage(hot, hot, target) == 0


def test_intervals_are_over_realisations_and_pairs_over_targets():
    draw = np.random.default_rng(0)

    def rows(shift: float) -> list[dict[str, np.ndarray]]:
        return [{name: shift + k + 0.01 * draw.standard_normal((1, 5)) for name in MEASURES} for k in range(3)]

    found = {"bowsher": rows(0.0), "personalised": rows(-0.5)}
    metrics = comparison_metrics(found, (2.5,)) | paired_metrics(found, (2.5,))
    assert metrics["nrmse/bowsher/2.5"] == pytest.approx(1, abs=0.02)
    assert metrics["nrmse_sd/bowsher/2.5"] < 0.03 and metrics["nrmse_target_sd/bowsher/2.5"] == pytest.approx(
        1, abs=0.05
    )
    assert metrics["nrmse_high/bowsher/2.5"] - metrics["nrmse_low/bowsher/2.5"] < 0.05
    low, high = (metrics[f"nrmse_difference_{end}/personalised/bowsher/2.5"] for end in ("low", "high"))
    assert low < -0.5 < high < -0.4


def test_pseudo_pets_are_means_of_carried_images():
    pet = np.stack([np.full((6, 6, 6), value, np.float32) for value in (1.0, 2.0, 4.0)])
    cohort = People(pet, pet, pet, pet, pet, np.ones((3, 6, 6, 6), bool))
    fields = Fields(np.zeros((3, 3, 6, 6, 6), np.float32), None, None, None)
    made = pseudo_pets(jax.random.key(0), cohort, fields, cohort.mask[0], Pseudo(5, 2, 1.0))
    assert made.shape == (5, 6, 6, 6)
    np.testing.assert_allclose(made.astype(np.float32), 1, atol=1e-3)  # each is divided by its own mean first


@pytest.mark.optimized
def test_the_tiny_run_has_every_method_and_measure(tiny_runs: Path):
    metrics = json.loads((tiny_run("pet_personalised_prior", tiny_runs) / "metrics.json").read_text())
    for method in ("osem", "bowsher", "unguided", "mr_channel", "personalised"):
        assert 0 < metrics[f"nrmse/{method}/10"] < 2
        assert np.isfinite(metrics[f"mr_lesion_leakage/{method}/10"])
    assert metrics["registration_folds/0"] < 0.5
