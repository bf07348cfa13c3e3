"""`medjax segment train` and `predict` on a small data set; a stopped run goes on; bad input is one line."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from medjax.atomic import write_csv
from medjax.cli import app
from medjax.errors import DataError, WorkdirError
from medjax.io.nifti import read_nifti, write_nifti
from medjax.io.nnunet_raw import Scan, write_dataset
from medjax.metrics.overlap import overlap
from medjax.models.plain_unet import plain_unet
from medjax.models.unet import unet
from medjax.segmentation import nnunet
from medjax.segmentation.nnunet_predict import predict_case
from medjax.segmentation.plan_file import from_json, to_json
from medjax.tools.segment_model import (
    ModelDescription,
    choose_network,
    folder_network,
    load_model,
    read_description,
    write_description,
)
from medjax.tools.segment_train import train
from tests.segmentation.blobs import blobs

AFFINE = np.array([[0.0, 1, 0, 5], [-1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
# Seed 0: so few steps of so narrow a network never say "dark"; the four others that were tried learn both
TRAIN = (
    "--base-width", "4", "--patch", "12,12,12", "--epochs", "2", "--iterations", "60", "--rate", "0.1", "--seed", "1",
)  # fmt: skip


def command(*arguments):
    return CliRunner().invoke(app, ["segment", *map(str, arguments)])


def done(*arguments):
    result = command(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


def scan(seed):
    case = blobs(seed)
    return Scan(f"case_{seed}", case.image, case.labels, case.spacing, AFFINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    scans = [scan(seed) for seed in range(6)]
    write_dataset(folder / "data", scans, ("MR",), ("background", "bright", "dark"), test=[scan(7), scan(8)])
    said = done("train", folder / "data", "-o", folder / "model", "--fold", "0", *TRAIN)
    assert "patches of 12 × 12 × 12 voxels of 1 × 1 × 1 mm, 2 a batch; widths 4, 8" in said.stdout
    following = f"medjax segment predict {folder}/model {folder}/data/imagesTs -o predicted"
    assert f"segment its test images with: {following}\n" in said.stdout
    return folder


def rows(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_what_training_leaves(folder):
    fold = folder / "model" / "fold_0"
    assert from_json((folder / "model" / "plan.json").read_text()).patch == (12, 12, 12)
    progress = rows(fold / "progress.csv")
    assert [row["step"] for row in progress] == ["60", "120"] and float(progress[1]["loss"]) < float(
        progress[0]["loss"]
    )
    assert (fold / "figures" / "progress.png").read_bytes().startswith(b"\x89PNG")
    validation = rows(fold / "validation.csv")
    assert len(validation) == 2 and list(validation[0]) == ["case", "bright", "dark"]
    assert all(float(row[name]) > 0.5 for row in validation for name in ("bright", "dark"))
    assert not (folder / "model" / "keep.json").exists()  # four folds are missing
    again = done("train", folder / "data", "-o", folder / "model", "--fold", "0", *TRAIN)
    assert "fold 0: finished already" in again.stdout


def test_a_network_of_medjax_is_made_again_from_its_settings(folder, tmp_path):
    """Also where the defaults have changed since; plans written before they named a network have nnU-Net's."""
    design = read_description(folder / "model")
    p = design.plan
    assert design.network["name"] == "plain_unet" and design.network["settings"]["deep"] is True
    assert folder_network(folder, design) == plain_unet(3, p.widths, p.kernels, p.strides)
    wide = replace(p, widths=(8, 16))
    network, remembered = choose_network("unet", wide)
    older = remembered | {"settings": remembered["settings"] | {"deep": True}}
    write_description(tmp_path, ModelDescription(wide, older, design.dataset))
    assert network == unet(3, (8, 16))
    assert folder_network(tmp_path, read_description(tmp_path)) == unet(3, (8, 16), deep=True)
    with pytest.raises(WorkdirError, match="its network is unet, here plain_unet; expected the same, or another"):
        folder_network(tmp_path, read_description(tmp_path), "plain_unet")
    (tmp_path / "plan.json").write_text(to_json(p))
    assert folder_network(tmp_path, read_description(tmp_path), "plain_unet") == folder_network(folder, design)
    for network in ("unet", {"name": "unet"}, {"name": "unet", "settings": {"classes": 0}}):
        (tmp_path / "plan.json").write_text(json.dumps({**json.loads(to_json(p)), "network": network}))
        with pytest.raises(DataError, match=r"plan.json: network"):
            folder_network(tmp_path, read_description(tmp_path))


def test_a_model_for_a_notebook(folder):
    """One without files: load, predict; the training's result says the same as its table."""
    model = load_model(folder / "model", folds=[0])
    case = blobs(7)
    found = predict_case(model.network, model.params, case.image, case.spacing, model.plan, mirror=(), keep=model.keep)
    assert (np.asarray(overlap(found.labels, case.labels, 3).dice)[1:] > 0.5).all() and model.labels["dark"] == 2
    again = train(folder / "data", folder / "model", fold=0, base_width=4, patch=(12, 12, 12), epochs=2, iterations=60,
                  rate=0.1, seed=1)  # fmt: skip
    table = {
        row["case"]: [float(row["bright"]), float(row["dark"])] for row in rows(again.folder / "fold_0/validation.csv")
    }
    assert again.keep is None and list(again.dice) == [0] and again.network == model.network
    for name, values in again.dice[0].items():
        np.testing.assert_array_equal(values, table[name])


def test_predictions_are_right_and_where_the_images_are(folder):
    done("predict", folder / "model", folder / "data" / "imagesTs", "-o", folder / "said", "--probabilities")
    for seed in (7, 8):
        found = read_nifti(folder / "said" / f"case_{seed}.nii.gz")
        np.testing.assert_allclose(found.affine, AFFINE)
        labels, truth = found.array.astype(np.int32), blobs(seed).labels
        guess = np.array([2 * share / (1 + share) for share in ((truth == kind).mean() for kind in (1, 2))])
        assert (np.asarray(overlap(labels, truth, 3).dice)[1:] > guess + 0.5).all()
        with np.load(folder / "said" / f"case_{seed}.npz") as file:
            np.testing.assert_array_equal(file["probabilities"].argmax(-1), labels)


def test_components_are_kept_as_asked(folder):
    from scipy import ndimage

    images = ("predict", folder / "model", folder / "data" / "imagesTs", "--no-mirror", "--best", "-o", folder / "kept")
    done(*images, "--keep", "bright=1", "--keep", "2=1")
    labels = read_nifti(folder / "kept" / "case_7.nii.gz").array
    assert all(ndimage.label(labels == kind, np.ones((3, 3, 3)))[1] == 1 for kind in (1, 2))


def test_a_stopped_run_goes_on_to_the_same_end(folder, monkeypatch):
    save = nnunet.save

    def killed(*arguments, **options):
        save(*arguments, **options)
        raise KeyboardInterrupt

    model = folder / "stopped"
    with monkeypatch.context() as patched:
        patched.setattr(nnunet, "save", killed)
        assert command("train", folder / "data", "-o", model, "--fold", "0", *TRAIN).exit_code == 130
    assert not (model / "fold_0" / "params.npz").exists()
    said = done("train", folder / "data", "-o", model, "--fold", "0", *TRAIN)
    assert "fold 0: continuing after epoch 1" in said.stdout
    for name in ("params.npz", "best.npz", "progress.csv", "validation.csv"):
        assert (model / "fold_0" / name).read_bytes() == (folder / "model" / "fold_0" / name).read_bytes(), name


def test_all_folds_decide_on_components(folder):
    """The other folds are copies here: what counts is that all are there, and a speck of mine in every case."""
    model, fold_0 = folder / "adopting", folder / "model" / "fold_0"
    shutil.copytree(folder / "model", model)
    from medjax.segmentation.nnunet import folds

    for fold, (_, validation) in enumerate(folds(6, 1)):
        shutil.copytree(fold_0, model / f"fold_{fold}", dirs_exist_ok=True)
        dice = [(f"case_{number}", 1.0, 1.0) for number in validation.tolist()]
        write_csv(model / f"fold_{fold}" / "validation.csv", ("case", "bright", "dark"), dice)
        for number in validation.tolist():
            labels = blobs(number).labels.copy()
            empty = np.argwhere(labels == 0)
            labels[tuple(empty[np.abs(empty[:, None] - np.argwhere(labels == 1)).sum(-1).min(1).argmax()])] = 1
            np.savez_compressed(model / f"fold_{fold}" / "validation" / f"case_{number}.npz", labels=labels)
    said = done("train", folder / "data", "-o", model, *TRAIN)
    assert "one component is kept of: bright (" in said.stdout
    assert json.loads((model / "keep.json").read_text()) == {"1": 1}


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--fold 5; expected 0 to 4, or all", ["train", "data", "-o", "new", "--fold", "5"]),
        ("--patch 12,12; expected three whole numbers", ["train", "data", "-o", "new", "--patch", "12,12"]),
        ("absent/dataset.json: no such file", ["train", "absent", "-o", "new"]),
        ("its base_width is 4, here 5", ["train", "data", "-o", "model", *TRAIN, "--base-width", "5"]),
        ("--rate -1; expected more than 0", ["train", "data", "-o", "new", "--rate", "-1"]),
        ("--rate 0; expected more than 0", ["train", "data", "-o", "new", "--rate", "0"]),
        ("--rate nan; expected more than 0", ["train", "data", "-o", "new", "--rate", "nan"]),
        ("--rate 10000; expected 1,000 or less", ["train", "data", "-o", "new", "--rate", "1e4"]),
        ("--seed 1099511627776; expected 0 to 858993458", ["train", "data", "-o", "new", "--seed", "1099511627776"]),
        ("--memory-gb inf; expected 100,000 or less", ["train", "data", "-o", "new", "--memory-gb", "inf"]),
        ("--folds 0,0: fold_0 more than once", ["predict", "model", "data/imagesTs", "-o", "new", "--folds", "0,0"]),
        ("data/plan.json: no such file", ["predict", "data", "data/imagesTs", "-o", "new"]),
        ("fold_1 is missing; expected some of", ["predict", "model", "data/imagesTs", "-o", "new", "--folds", "1"]),
        ("data: no file named like CASE_0000", ["predict", "model", "data", "-o", "new"]),
        ("--keep grey=1; expected CLASS=N with one of bright, dark", ["predict", "model", "data/imagesTs", "-o", "new",
                                                                     "--keep", "grey=1"]),
        ("--keep bright=0; expected", ["predict", "model", "data/imagesTs", "-o", "new", "--keep", "bright=0"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(message, arguments, folder, monkeypatch):
    monkeypatch.chdir(folder)
    result = command(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and not (folder / "new").exists()


def refused(message, *arguments):
    result = command(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output + result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def edited(file, **values):
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def copies(folder, tmp_path):
    """Data set and model, to be spoilt."""
    for name in ("data", "model"):
        shutil.copytree(folder / name, tmp_path / name)
    return tmp_path


def test_a_model_is_of_one_data_set(copies):
    data, again = copies / "data", ("train", copies / "data", "-o", copies / "model", "--fold", "0", *TRAIN)
    for key, value, message in (
        (
            "labels",
            {"background": 0, "dark": 1, "bright": 2},
            "its labels is {'background': 0, 'bright': 1, 'dark': 2}",
        ),
        ("channel_names", {"0": "CT"}, "its channel_names is ['MR'], here ['CT']"),
    ):
        before = (data / "dataset.json").read_text()
        edited(data / "dataset.json", **{key: value})
        refused(message, *again)
        (data / "dataset.json").write_text(before)
    for part in ("imagesTr/case_{}_0000.nii.gz", "labelsTr/case_{}.nii.gz"):
        shutil.copy(data / part.format(5), data / part.format(9))
    edited(data / "dataset.json", numTraining=7)
    refused("1 cases differ, case_9 is in the data set, not in the model", *again)


def test_an_image_of_zeros_is_named(copies):
    image = copies / "data" / "imagesTr" / "case_3_0000.nii.gz"
    write_nifti(image, np.zeros((16, 16, 16), np.float32), AFFINE)
    refused(f"{image}: every voxel is 0", "train", copies / "data", "-o", copies / "new", *TRAIN)
    test = copies / "data" / "imagesTs" / "case_7_0000.nii.gz"
    write_nifti(test, np.zeros((16, 16, 16), np.float32), AFFINE)
    refused(f"{test}: image: every voxel is 0", "predict", copies / "model", test.parent, "-o", copies / "new")


def test_a_damaged_model_is_one_line(copies):
    model, fold = copies / "model", copies / "model" / "fold_0"
    train = ("train", copies / "data", "-o", model, "--fold", "0", *TRAIN)
    predict = ("predict", model, copies / "data" / "imagesTs", "-o", copies / "new")
    (fold / "validation.csv").unlink()
    (fold / "checkpoints" / "120" / "default" / "_METADATA").write_bytes(b"half")
    refused("fold_0/checkpoints/120 is damaged or holds other arrays", *train)
    refused("; delete its fold's folder to train the fold again", *train)
    (fold / "params.npz").write_bytes((fold / "params.npz").read_bytes()[:-50])
    refused("fold_0/params.npz: cannot be read as npz", *predict)
    edited(model / "dataset.json", labels=None)
    refused("model/dataset.json: no labels of kind dict", *predict)
    (model / "dataset.json").write_text("{")
    refused("model/dataset.json: not JSON", *train)
    edited(model / "plan.json", patch=None)
    refused("model/plan.json: plan: ", *predict)
