"""Folds of `medjax segment train`: nnU-Net's splits_final.json, read, checked, written, part of what a model is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.nifti import read_nifti
from medjax.io.nnunet_raw import read_dataset, write_dataset
from medjax.io.nnunet_splits import Split, read_splits, splits_text
from medjax.segmentation.nnunet import folds
from medjax.tools import segment_train
from medjax.tools.segment_splits import choose_splits, cross_validation_text
from tests.segmentation import sides as sides_file
from tests.segmentation.commands import done, refused
from tests.segmentation.sides import NAMES, sides

BRIEF = ("--patch", "16,16,16", "--epochs", "1", "--iterations", "2", "--rate", "0.3", "--base-width", "4",
         "--mirror", "none", "--network", f"{sides_file.__file__}:net")  # fmt: skip
CASES = [f"case_{seed}" for seed in range(5)]
OWN = [{"train": ["case_3", "case_0"], "val": ["case_2", "case_1"]}, {"train": ["case_0", "case_1"], "val": ["case_3"]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splits")
    write_dataset(folder / "data", [sides(seed) for seed in range(5)], ("MR",), NAMES)
    (folder / "own.json").write_text(json.dumps(OWN))
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """Model of two folds of the user's, and what its training says."""
    train = ("train", folder / "data", "-o", folder / "model", *BRIEF)
    return folder / "model", done(*train, "--splits", folder / "own.json").stdout


def test_the_folds_are_the_users(folder, trained):
    model, stdout = trained
    assert f"splits of {folder / 'own.json'}: 2 folds; 2 of 5 cases are in no validation set" in stdout
    for number, names in enumerate((["case_1", "case_2"], ["case_3"])):
        rows = (model / f"fold_{number}" / "validation.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == names
    assert not (model / "fold_2").exists() and (model / "keep.json").exists()
    assert " of 3 of 5 cases\n" in stdout and "cross-validation: Dice 0." in stdout
    written = json.loads((model / "splits_final.json").read_text())
    assert written == [{"train": ["case_0", "case_3"], "val": ["case_1", "case_2"]}, OWN[1]]


def test_a_folds_validation_is_as_nnunets(folder, trained, tmp_path):
    """Label images and their summary, which is that of `evaluate`; its Dice is in validation.csv."""
    fold = trained[0] / "fold_0"
    written = sorted(path.name for path in (fold / "validation").iterdir())
    assert written == ["case_1.nii.gz", "case_2.nii.gz", "summary.json"]
    again = ("evaluate", fold / "validation", folder / "data" / "labelsTr", "-o", tmp_path / "own.json", "--chill")
    assert "3 of 5 cases have no prediction and are left out, case_0" in done(*again).stderr
    assert (tmp_path / "own.json").read_bytes() == (fold / "validation" / "summary.json").read_bytes()
    first = json.loads((tmp_path / "own.json").read_text())["metric_per_case"][0]["metrics"]
    every = json.loads((trained[0] / "summary.json").read_text())["metric_per_case"]
    assert [Path(one["prediction_file"]).name for one in every] == [f"case_{k}.nii.gz" for k in (1, 2, 3)]
    assert every[0]["metrics"] == first and every[0]["reference_file"].endswith("/data/labelsTr/case_1.nii.gz")
    row = (fold / "validation.csv").read_text().splitlines()[1].split(",")
    np.testing.assert_allclose([first[label]["Dice"] for label in "12"], [float(one) for one in row[1:]], rtol=1e-6)


def test_folds_of_older_versions_are_finished_too(folder, trained, tmp_path):
    """Their predictions are arrays, not NIfTI; validated anew they are replaced."""
    shutil.copytree(trained[0], tmp_path / "model")
    validation = tmp_path / "model" / "fold_1" / "validation"
    labels = read_nifti(validation / "case_3.nii.gz").array.astype(np.uint8)
    shutil.rmtree(validation)
    validation.mkdir()
    np.savez_compressed(validation / "case_3.npz", labels=labels)
    again = ("train", folder / "data", "-o", tmp_path / "model", "--splits", folder / "own.json", *BRIEF)
    assert "fold 1: finished already" in done(*again).stdout
    (validation.parent / "validation.csv").unlink()
    assert "fold 1: finished already" not in done(*again).stdout
    np.testing.assert_array_equal(read_nifti(validation / "case_3.nii.gz").array, labels)


def test_a_model_is_of_its_folds(folder, trained, tmp_path):
    model, _ = trained
    train = ("train", folder / "data", "-o", model, *BRIEF)
    again = done(*train, "--splits", model / "splits_final.json").stdout  # in another order than the user's
    assert "fold 0: finished already" in again and "fold 1: finished already" in again
    refused("model: its splits is of 2 folds, SHA-256 ", *train)
    refused(", here of the seed; expected one, or another folder", *train)
    one = tmp_path / "one.json"
    one.write_text(json.dumps(OWN[:1]))
    refused(", here of 1 fold, SHA-256 ", *train, "--splits", one)
    refused("--fold 1; expected 0 to 0, or all", *train, "--splits", one, "--fold", "1")
    other = tmp_path / "other"
    other.mkdir()
    (other / "splits_final.json").write_text(json.dumps(OWN))
    refused("other folds than those of the seed; expected the same", "train", folder / "data", "-o", other, *BRIEF)
    assert [path.name for path in other.iterdir()] == ["splits_final.json"]


def test_without_splits_the_folds_are_those_of_the_seed(folder, tmp_path):
    """They are written, and given back as splits they are the same model; one of an older version has no such file."""
    train = ("train", folder / "data", "-o", tmp_path / "model", "--fold", "3", "--seed", "2", *BRIEF)
    assert "splits of" not in done(*train).stdout
    file = tmp_path / "model" / "splits_final.json"
    written = read_splits(file, CASES)
    assert written == [Split(*(tuple(CASES[k] for k in part) for part in one)) for one in folds(5, 2)]
    said = done(*train, "--splits", file).stdout
    assert f"splits of {file}: 5 folds\n" in said and "fold 3: finished already" in said
    description = tmp_path / "model" / "dataset.json"
    content = json.loads(description.read_text())
    assert content["settings"].pop("splits") == "of the seed"
    description.write_text(json.dumps(content))
    assert "fold 3: finished already" in done(*train).stdout
    refused("its splits is of the seed, here of 2 folds", *train[:-2], *BRIEF[-2:], "--fold", "1", "--splits",
            folder / "own.json")  # fmt: skip
    file.write_text(json.dumps(OWN))
    refused("splits_final.json: other folds than those of the seed", *train)


def test_the_data_sets_own_splits_are_used(folder, tmp_path):
    data = read_dataset(folder / "data")
    assert choose_splits(data, None, 0).setting == "of the seed"
    (tmp_path / "many.json").write_text(json.dumps([OWN[0]] * 7))
    many = choose_splits(data, tmp_path / "many.json", 0)
    assert many.seeds == len(many.folds) == 7  # so that seed 0 and seed 1 have no fold's seed in common
    with pytest.raises(Exception, match=r"--seed 700000000; expected 0 to 613566755"):
        choose_splits(data, tmp_path / "many.json", 700_000_000)
    own = folder / "data" / "splits_final.json"
    own.write_text(splits_text([Split(("case_0",), ("case_4",))]))
    chosen = choose_splits(data, None, 0)
    own.unlink()
    np.testing.assert_array_equal(chosen.folds, [[[0], [4]]])


def test_no_fold_has_the_seed_of_another(folder, tmp_path, monkeypatch):
    seeds = list[int]()
    monkeypatch.setattr(segment_train, "_train_fold", lambda *given: seeds.append(given[-1]["seed"]))
    (tmp_path / "seven.json").write_text(json.dumps([OWN[0]] * 7))
    for splits, seed in ((None, 0), (None, 1), (tmp_path / "seven.json", 0), (tmp_path / "seven.json", 1)):
        output = tmp_path / f"{splits is None}{seed}"
        segment_train.train(
            folder / "data", output, splits=splits, seed=seed, patch=(16, 16, 16), network=sides_file.net
        )
    assert seeds == [*range(10), *range(14)]


def test_a_cross_validation_says_of_how_many_cases_it_is():
    one, other = np.array([0.5, np.nan]), np.array([1.0, 0.25])
    assert cross_validation_text({0: {"a": one}, 1: {"b": other}}, 2) == "cross-validation: Dice 0.5000 of 2 cases"
    twice = cross_validation_text({0: {"a": one}, 1: {"a": other}}, 2)
    assert twice == "cross-validation: Dice 0.5000 of 1 of 2 cases, 2 predictions"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "not JSON"),
        ("[]", "no list of folds; expected [{'train': [cases], 'val': [cases]}, …]"),
        ('{"train": ["a"], "val": ["b"]}', "no list of folds"),
        ([["a"], ["b"]], "fold 0: no 'train' that is a list of case names"),
        ([{"train": ["a"]}], "fold 0: no 'val' that is a list"),
        ([{"train": [1], "val": ["b"]}], "fold 0: no 'train' that is a list of case names"),
        ([{"train": [], "val": ["b"]}], "fold 0: 'train' is empty; expected one case or more"),
        ([{"train": ["a"], "val": []}], "fold 0: 'val' is empty"),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a", "z"], "val": ["b"]}], "fold 1: 'train' has z; expected tra"),
        ([{"train": ["a", "a"], "val": ["b"]}], "fold 0: 'train' has a more than once; expected every case once"),
        ([{"train": ["a", "b"], "val": ["b"]}], "fold 0: b is in 'train' and in 'val'"),
    ],
)
def test_splits_that_cannot_be_are_one_line(content, message, tmp_path):
    file = tmp_path / "splits.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as error:
        read_splits(file, ["a", "b"])
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"no such file; expected nnU-Net's splits_final.json"):
        read_splits(tmp_path / "none.json", ["a"])
