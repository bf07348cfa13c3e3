"""`brain_mri_bias` on scans on disk: tiny imitations of ADNI, OASIS-3 and HCP, of brains of noise; no training here."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from experiments.brain.networks import cells, examples, training_sets
from experiments.brain.readout import volume_baseline
from experiments.brain.scans import split
from experiments.brain.source import source
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import grid_affine, write_nifti
from medjax.phantoms.cohort import CENTER_MM, standardize
from medjax.running.config import load_config

CONFIG = Path(__file__).parents[1] / "configs" / "brain_mri_bias.py"
SHAPE, SUBJECTS = (16, 18, 16), 96
HERE = 72  # subjects at site A; the others are at site B
AFFINE = grid_affine(SHAPE, 12.0, CENTER_MM)
X, Y, Z = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) / 2 + 0.5
BRAIN = X**2 / 6**2 + Y**2 / 7**2 + Z**2 / 5**2 < 1
LABELS = np.where(BRAIN, 1 + 4 * (X > 0) + 2 * (Y > 0) + (Z > 0), 0).astype(np.int16)  # eight octants


def write_table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


class People(NamedTuple):
    image: np.ndarray
    diagnosis: np.ndarray
    sex: np.ndarray
    race: np.ndarray


@pytest.fixture(scope="module")
def people():
    """Nine subjects of each group at site A, three at site B."""
    draw = np.random.default_rng(0)
    groups = np.arange(SUBJECTS) % 8
    image = np.where(BRAIN, draw.uniform(0.5, 1.5, (SUBJECTS, *SHAPE)), 0).astype(np.float32)
    return People(image, groups // 4, groups // 2 % 2, groups % 2)


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    file = tmp_path_factory.mktemp("regions") / "regions.nii.gz"
    write_nifti(file, LABELS, AFFINE, np.int16)
    return file


def write_scan(path, image):
    """A scan whose x axis points to the left and that has two empty planes more at the top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    padded = np.pad(image[::-1], ((0, 0), (0, 0), (0, 2)))
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] += (SHAPE[0] - 1) * 12
    write_nifti(path, padded, flipped)


@pytest.fixture(scope="module")
def adni_files(people, tmp_path_factory):
    """Site A, subject 0 twice and one whose diagnosis changes; site B, with subject 1 of site A."""
    folder, header = tmp_path_factory.mktemp("adni"), ("Image Data ID", "Subject", "Group", "Sex", "Age", "Visit")
    groups, sexes = [("CN", "AD")[y] for y in people.diagnosis], ["FM"[a] for a in people.sex]
    rows = [(f"I{k}", f"S{k}", groups[k], sexes[k], 70, "bl") for k in range(SUBJECTS)]
    changing = [(f"I{200 + k}", "S200", group, "F", 70, f"m{k}") for k, group in enumerate(("CN", "AD"))]
    again = [("I100", "S0", rows[0][2], rows[0][3], 71, "m12")]
    write_table(folder / "report.csv", header, [*rows[:HERE], *again, *changing])
    write_table(folder / "external.csv", header, [*rows[HERE:], rows[1]])
    races = [(f"S{k}", (5, 4)[people.race[k]]) for k in range(SUBJECTS)]
    write_table(folder / "race.csv", ("subject_id", "PTRACCAT"), [*races, ("S200", 5)])
    for name, k in [*((f"I{k}", k) for k in range(SUBJECTS)), ("I100", 0), ("I200", 0), ("I201", 0)]:
        write_scan(folder / "scans" / f"{name}_MNI_Brain.nii.gz", people.image[k])
    return folder


def settings(where, labels, layout="adni", **other):
    names = {"table": "report.csv", "races": "race.csv", "folder": "scans"}
    keys = {"layout": layout, "regions": labels, "test": 16} | {k: where / one for k, one in names.items()} | other
    return [f"data.{key}={value}" for key, value in keys.items() if value != ""]


@pytest.fixture(scope="module")
def config(adni_files, regions):
    external = {"external_table": "external.csv", "external_races": "race.csv", "external_folder": "scans"}
    paths = {name: adni_files / file for name, file in external.items()}
    return load_config(CONFIG, "tiny", settings(adni_files, regions, **paths))


def test_adni_is_split_into_disjoint_balanced_sets(config):
    sets = split(config.data)
    subjects = {name: set(one.subject) for name, one in sets.items()}
    assert {name: len(one) for name, one in subjects.items()} == {"pool": 56, "A": 16, "B": 16}
    assert subjects["pool"] | subjects["A"] == {f"S{k}" for k in range(HERE)}  # S200's diagnosis changes
    assert subjects["B"] <= {f"S{k}" for k in range(HERE, SUBJECTS)}
    for site in "AB":
        labels = sets[site].labels
        code = 4 * labels.diagnosis + 2 * labels.attributes["sex"] + labels.attributes["race"]
        assert np.bincount(code).tolist() == [2] * 8


def test_scans_are_read_in_template_space_and_go_with_their_labels(config, people):
    tests, names = source(config.data).tests("brain"), split(config.data)
    for site in "AB":
        number = np.array([int(name[1:]) for name in names[site].subject])
        np.testing.assert_allclose(tests[site].image[..., 0], standardize(people.image[number]), atol=1e-4)
        np.testing.assert_array_equal(tests[site].diagnosis, people.diagnosis[number])
        np.testing.assert_array_equal(tests[site].label("sex"), people.sex[number])
        np.testing.assert_array_equal(tests[site].label("race"), people.race[number])
    volume = source(config.data).tests("volume")["A"].image
    np.testing.assert_allclose([volume.mean(), volume.std()], [0, 1], atol=1e-3)


def test_training_sets_come_from_the_pool(config):
    every = cells(config, None)
    assert {one.training for one in every} == {
        "baseline", "biased_sex", "biased_race", "attribute_sex", "attribute_race",
    }  # fmt: skip
    cell = next(one for one in every if one.training == "biased_race")
    data, pool = examples(cell), source(config.data).pool("brain")
    assert data.image.shape == (32, *SHAPE, 1)
    assert np.bincount(data.group).tolist() == [14, 2, 2, 14]
    assert {one.tobytes() for one in data.image} <= {one.tobytes() for one in pool.image}
    assert {tied: len(chosen) for tied, chosen in training_sets(config).items()} == {None: 32, "sex": 32, "race": 32}
    assert volume_baseline(config, source(config.data).tests("brain")) == {}


def test_maps_are_averaged_in_the_regions_where_they_are(config):
    own = source(config.data).space()
    assert own.regions.names == tuple("12345678")
    np.testing.assert_array_equal(own.regions.labels, LABELS.astype(int) - 1)
    np.testing.assert_array_equal(own.affine, AFFINE)
    assert own.t1.min() == 0 == own.t1[~BRAIN].max() and own.t1[BRAIN].mean() > 0
    maps = np.stack([2.0 * (own.regions.labels == k) for k in (3, 5)])
    means, mean = source(config.data).in_template(maps)
    assert means.argmax(1).tolist() == [3, 5] and np.count_nonzero(means) == 2
    np.testing.assert_allclose(mean.sum(), 1, rtol=1e-6)


def test_oasis3(people, regions, tmp_path):
    number = range(40)
    rows = [(f"OAS3{k:04}", 70, 2 - people.sex[k], ("White", "Black")[people.race[k]]) for k in number]
    write_table(tmp_path / "people.csv", ("OASISID", "AgeatEntry", "GENDER", "race"), rows)
    rows = [(f"OAS3{k:04}", 1 - people.diagnosis[k], people.diagnosis[k]) for k in number]
    write_table(tmp_path / "diagnoses.csv", ("OASISID", "NORMCOG", "alzdis"), rows)
    for k in number:
        write_scan(tmp_path / "scans" / f"OAS3{k:04}_MR_d0010.nii.gz", people.image[k])
    tables = {"table": tmp_path / "people.csv", "diagnoses": tmp_path / "diagnoses.csv", "races": "", "train": 16}
    config = load_config(CONFIG, "tiny", ["anti_fraction=0.25", *settings(tmp_path, regions, "oasis3", **tables)])
    sets = split(config.data)
    assert set(sets) == {"pool", "A"} and len(sets["pool"].paths) == 24
    k = np.array([int(name[4:]) for name in sets["pool"].subject])
    np.testing.assert_array_equal(sets["pool"].labels.attributes["race"], people.race[k])
    np.testing.assert_array_equal(sets["pool"].labels.attributes["sex"], people.sex[k])
    np.testing.assert_array_equal(sets["pool"].labels.diagnosis, people.diagnosis[k])
    assert {tied: len(chosen) for tied, chosen in training_sets(config).items()} == {None: 16, "sex": 16, "race": 16}


def test_hcp_has_attributes_only(people, regions, tmp_path):
    number = range(40)
    write_table(tmp_path / "report.csv", ("Subject", "Gender"), [(k, "FM"[people.sex[k]]) for k in number])
    races = ("White", "Black or African Am.")
    rows = [(k, 30, races[people.race[k]]) for k in number]
    write_table(tmp_path / "race.csv", ("Subject", "Age_in_Yrs", "Race"), rows)
    for k in number:
        file = tmp_path / "scans" / str(k) / "MNINonLinear" / "T1w_restore_brain.nii.gz"
        write_scan(file, people.image[k])
    config = load_config(CONFIG, "tiny", ["anti_fraction=0.25", *settings(tmp_path, regions, "hcp", train=16)])
    assert {one.training for one in cells(config, None)} == {"attribute_sex", "attribute_race"}
    sets = training_sets(config)
    assert list(sets) == [None] and len(sets[None]) == 16
    test = source(config.data).tests("brain")["A"]
    assert np.bincount(2 * test.label("sex") + test.label("race")).tolist() == [4] * 4


def test_what_does_not_fit_is_refused(adni_files, regions, tmp_path):
    def loaded(*overrides, **other):
        return load_config(CONFIG, "tiny", [*settings(adni_files, regions, **other), *overrides])

    with pytest.raises(ConfigError, match=r"data\.regions ''; expected a file or folder for data\.layout=adni"):
        load_config(CONFIG, "tiny", settings(adni_files, ""))
    with pytest.raises(ConfigError, match=r"data\.folder=.*nowhere; expected a file or folder that exists"):
        loaded(folder=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"data\.external_races ''"):
        loaded(external_table=adni_files / "external.csv")
    with pytest.raises(ConfigError, match=r"report\.csv; expected data\.layout=adni or oasis3 or hcp, not simulated"):
        load_config(CONFIG, "tiny", [f"data.table={adni_files / 'report.csv'}"])
    with pytest.raises(DataError, match=r"report\.csv: data\.test 80: 9 subjects of diagnosis 0.*; expected 10"):
        cells(loaded(test=80), None)
    with pytest.raises(DataError, match=r"data\.train 40, tied to sex: 7 subjects of diagnosis 0, sex 0.*; expected 9"):
        training_sets(loaded("anti_fraction=0.1", train=40))
    away = AFFINE.copy()
    away[0, 3] += 96
    write_nifti(tmp_path / "away.nii.gz", LABELS, away, np.int16)
    with pytest.raises(DataError, match=r"away\.nii\.gz: \d+ % of its labels in the template's brain; expected 50 %"):
        source(loaded(regions=tmp_path / "away.nii.gz").data).space()
