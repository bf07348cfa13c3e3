"""`brain_mri_bias`: training sets, maps in template space, gaps with intervals, and label volumes; no training here."""

from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from sklearn.metrics import roc_auc_score

pytest.importorskip("nilearn")

from experiments.brain import readout
from experiments.brain.networks import TRACED, TrainedNetwork, cells
from experiments.brain.source import source
from experiments.brain.subjects import Labels, training_subset
from medjax.errors import DataError
from medjax.phantoms import cohort
from medjax.running.config import flatten, load_config
from medjax.shortcuts.group_metrics import cases

CONFIG = Path(__file__).parents[1] / "configs" / "brain_mri_bias.py"


@pytest.fixture(scope="module")
def config() -> FrozenConfigDict:
    return load_config(CONFIG, "tiny")


def test_biased_sets_have_the_exact_number_of_rare_subjects_and_the_other_attribute_balanced(config):
    pool, attributes = source(config.data).pool("brain"), source(config.data).attributes
    for tied in (None, *attributes):
        chosen = training_subset(pool, 32, tied, 0.125, seed=3)
        assert len(set(chosen.tolist())) == 32
        y = pool.diagnosis[chosen]
        for name in attributes:
            table = np.zeros((2, 2), int)
            np.add.at(table, (y, pool.attributes[name][chosen]), 1)
            assert table.tolist() == ([[14, 2], [2, 14]] if name == tied else [[8, 8], [8, 8]])


def groups_of(*counts):
    """Subjects of whom `counts[y][a][b]` have diagnosis y and attributes a and b."""
    table = np.array(counts)
    y, a, b = np.repeat(np.indices(table.shape).reshape(3, -1), table.ravel(), axis=1)
    return Labels(y, {"sex": a, "race": b})


def counts_of(labels, chosen):
    table = np.zeros((2, 2, 2), int)
    np.add.at(table, (labels.diagnosis[chosen], *(one[chosen] for one in labels.attributes.values())), 1)
    return table.tolist()


def test_small_groups_are_balanced_as_nearly_as_there_are_subjects():
    """Of (sex 0, race 1) there are 2 with the disease: the attributes stay balanced, not one within the other."""
    few = groups_of([[20, 20], [20, 20]], [[20, 2], [20, 20]])
    balanced = counts_of(few, training_subset(few, 32, None, 0.125, 0))
    assert balanced == [[[4, 4], [4, 4]], [[6, 2], [2, 6]]]
    sexes = counts_of(few, training_subset(few, 32, "sex", 0.25, 0))
    assert sexes == [[[6, 6], [2, 2]], [[2, 2], [6, 6]]]
    races = counts_of(few, training_subset(few, 32, "race", 0.25, 0))
    assert races == [[[6, 2], [6, 2]], [[2, 2], [2, 10]]]
    with pytest.raises(DataError, match=r"data\.train 96: 2 subjects of diagnosis 1, sex 0, race 1; expected 12"):
        training_subset(few, 96, None, 0.125, 0)
    with pytest.raises(DataError, match=r"data\.train 120, tied to race: 20 subjects of diagnosis 0, .*expected 27"):
        training_subset(few, 120, "race", 0.1, 0)


def test_maps_come_back_to_their_region(config):
    """A map that is 1 in one region of each subject, wherever its own field has that region."""
    drawn = cohort.draw_cohort(
        cohort_seed(config), config.data.test, cohort.SITES["A"], effects(config), 0.35, 12.0, (16, 18, 16)
    )
    regions = source(config.data).space().regions
    wanted = regions.names.index("superior frontal R")
    template_map = (regions.labels == wanted).astype(np.float32)
    maps = []
    for number in range(config.data.test):
        points = cohort.template_points(drawn, number)
        back = np.zeros(drawn.image.shape[1:], np.float32)
        voxels = np.rint(points[:, template_map > 0]).astype(int)
        back[tuple(voxels)] = 1.0
        maps.append(back)
    means, mean = source(config.data).in_template(np.array(maps))
    assert (means.argmax(1) == wanted).mean() > 0.9
    assert regions.labels[np.unravel_index(mean.argmax(), mean.shape)] == wanted


def cohort_seed(config):
    return 3 * config.data.seed + 1


def effects(config):
    return cohort.Effects(**{name: cohort.Effect(*values) for name, values in config.data.effects.items()})


def networks(tests, score):
    """Two seeds of a network whose logits are `score(test, seed)`."""
    found = []
    for seed in range(2):
        logits = {}
        for site, test in tests.items():
            value = score(test, np.random.default_rng([seed, len(site), ord(site)]))
            logits[site] = np.stack([-value / 2, value / 2], axis=1).astype(np.float32)
        found.append(TrainedNetwork(logits, np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32)))
    return found


def test_gaps_are_those_of_scikit_learn_and_a_shortcut_has_one(config):
    tests = source(config.data).tests("brain")
    biased = networks(tests, lambda test, draw: 2.0 * test.attributes["anatomy"] - 1 + draw.normal(size=24))
    fair = networks(tests, lambda test, draw: 2.0 * test.diagnosis - 1 + draw.normal(size=24))
    every = {("net", "brain", "baseline"): fair, ("net", "brain", "biased_anatomy"): biased}
    metrics, found = readout.group_gaps(every, tests, resamples=200)
    test = tests["B"]
    aligned = test.attributes["anatomy"] == test.diagnosis
    scores = [one.logits["B"][:, 1] - one.logits["B"][:, 0] for one in biased]
    gaps = [roc_auc_score(test.diagnosis[who], one[who]) for one in scores for who in (aligned, ~aligned)]
    expected = np.mean([gaps[0] - gaps[1], gaps[2] - gaps[3]])
    np.testing.assert_allclose(metrics["auc_gap/net/brain/anatomy/B/biased"], expected, atol=1e-6)
    difference = found["net", "brain", "anatomy", "B"]["auc_gap"][2]
    assert 0.4 < float(difference.low) < float(difference.estimate) < float(difference.high)
    baseline = found["net", "brain", "anatomy", "B"]["auc_gap"][0]
    assert float(baseline.low) < 0 < float(baseline.high)


def test_the_mean_over_seeds_is_the_mean_of_the_metrics_of_each():
    draw = np.random.default_rng(0)
    label, group = np.arange(40) % 2, np.arange(40) // 2 % 2
    scores = draw.random((3, 40))
    data = cases(np.tile(label, 3), np.tile(group, 3), scores.ravel())
    found = readout._mean_over_seeds(3, data, jax.numpy.ones(120))
    each = [roc_auc_score(label[group == 1], one[group == 1]) for one in scores]
    np.testing.assert_allclose(found["auc_same"], np.mean(each), atol=1e-6)


def test_confident_networks_are_ranked_by_their_logits():
    """Their probabilities are 1 in float32, and ties."""
    draw = np.random.default_rng(0)
    label, group = np.arange(40) % 2, np.arange(40) // 2 % 2
    score = (40 + 3 * draw.normal(size=40) + label).astype(np.float32)
    logits = {"A": np.stack([np.zeros(40, np.float32), score], axis=1)}
    network = TrainedNetwork(logits, np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32))
    data = readout._cases(label, group, [network], "A")
    found = readout._mean_over_seeds(1, data, jax.numpy.ones(40))
    np.testing.assert_allclose(found["auc_same"], roc_auc_score(label[group == 1], score[group == 1]), atol=1e-6)
    assert found["balanced_accuracy_same"] == 0.5  # all are called positive


def test_a_label_volume_takes_the_place_of_the_regions(config, tmp_path):
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = (-96, -126, -72)
    labels = np.zeros((32, 38, 30), np.int16)
    labels[:16], labels[16:] = 4, 7
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "halves.nii.gz")
    nibabel.save(nibabel.Nifti1Image(0 * labels, affine), tmp_path / "none.nii.gz")

    def with_regions(name):
        data = ConfigDict(config.data.to_dict())
        data.regions = str(tmp_path / name)
        return source(FrozenConfigDict(data)).space()

    halves = with_regions("halves.nii.gz").regions
    assert halves.names == ("4", "7")
    x = with_regions("halves.nii.gz").affine[0, 0] * np.arange(16) + with_regions("halves.nii.gz").affine[0, 3]
    assert set(np.unique(halves.labels[x < -6])) == {-1, 0} and set(np.unique(halves.labels[x > 6])) == {-1, 1}
    with pytest.raises(DataError, match=r"none\.nii\.gz: no label within the template's brain"):
        with_regions("none.nii.gz")


def test_traced_keys_are_of_the_config_and_every_cell_has_a_name_of_its_own(config):
    assert set(TRACED) <= flatten(config).keys()
    every = cells(config, None)
    names = {(one.architecture, one.intensities, one.training, one.seed) for one in every}
    assert len(names) == len(every) == 5 * (config.seeds + config.swin.seeds)
