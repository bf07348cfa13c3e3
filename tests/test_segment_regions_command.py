"""`medjax segment train` and `predict` with regions and ignored voxels, by nnU-Net's dataset.json."""

import csv
import json

import numpy as np
import pytest

from medjax.io.nifti import read_nifti
from medjax.io.nnunet_raw import Scan, write_dataset
from medjax.tools.segment_model import load_model
from tests.segmentation.blobs import blobs
from tests.segmentation.commands import done, refused

IGNORE = 3
TRAIN = (
    "--base-width", "4", "--patch", "12,12,12", "--epochs", "1", "--iterations", "80", "--rate", "0.1", "--seed", "1",
)  # fmt: skip
LABELS = {"background": 0, "both": [1, 2], "dark": 2, "ignore": IGNORE}


def scan(seed):
    """Labelled in every second slice alone."""
    case = blobs(seed)
    labels = np.where(np.arange(16) % 2, case.labels, IGNORE).astype(np.int32)
    return Scan(f"case_{seed}", case.image, labels, case.spacing, np.eye(4))


def describe(data, **values):
    content = json.loads((data / "dataset.json").read_text()) | values
    (data / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    names = ("background", "bright", "dark", "ignore")
    write_dataset(folder / "data", [scan(seed) for seed in range(6)], ("MR",), names, test=[scan(7)])
    describe(folder / "data", labels=LABELS, regions_class_order=[1, 2])
    done("train", folder / "data", "-o", folder / "model", "--fold", "0", *TRAIN)
    return folder


def test_what_training_leaves(folder):
    plan = json.loads((folder / "model" / "plan.json").read_text())
    assert plan["regions"] == [[1, 2], [2]] and plan["region_order"] == [1, 2] and plan["ignore"] == IGNORE
    assert plan["network"]["settings"]["classes"] == 2
    description = json.loads((folder / "model" / "dataset.json").read_text())
    assert description["labels"] == LABELS and description["regions_class_order"] == [1, 2]
    with (folder / "model" / "fold_0" / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "both", "dark"] and min(float(row["both"]) for row in rows) > 0.6
    train = ("train", folder / "data", "-o", folder / "model", "--fold", "0", *TRAIN)
    assert "fold 0: finished already" in done(*train).stdout
    describe(folder / "data", regions_class_order=[1, 1])
    refused("its regions_class_order is [1, 2], here [1, 1]; expected one, or another folder", *train)
    describe(folder / "data", regions_class_order=[1, 2])


def test_the_dice_counts_labelled_voxels(folder):
    """By hand, from the prediction that validation has left."""
    with (folder / "model" / "fold_0" / "validation.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    found = read_nifti(folder / "model" / "fold_0" / "validation" / f"{row['case']}.nii.gz").array
    true = scan(int(row["case"].removeprefix("case_"))).labels
    assert found.max() == 2  # ignored voxels have a prediction, and it is a class
    for name, region in (("both", (1, 2)), ("dark", (2,))):
        a, b = (np.isin(one[true != IGNORE], region) for one in (found, true))
        assert float(row[name]) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_predictions_are_label_maps(folder):
    images = folder / "data" / "imagesTs"
    done("predict", folder / "model", images, "-o", folder / "said", "--probabilities", "--keep", "both=1")
    labels = read_nifti(folder / "said" / "case_7.nii.gz").array.astype(int)
    with np.load(folder / "said" / "case_7.npz") as file:
        probabilities = file["probabilities"]
    painted = np.where(probabilities[..., 1] > 0.5, 2, probabilities[..., 0] > 0.5)
    assert probabilities.shape == (16, 16, 16, 2) and (labels[labels > 0] == painted[labels > 0]).all()
    from scipy import ndimage

    assert ndimage.label(labels > 0, np.ones((3, 3, 3)))[1] == 1
    truth = blobs(7).labels
    a, b = np.isin(labels, (1, 2)), truth > 0
    assert load_model(folder / "model").labels == {"background": 0, "both": (1, 2), "dark": 2}
    assert a.any() and 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.3  # one of the two blobs is left, perhaps
    refused("--keep ignore=1; expected CLASS=N with one of both, dark", "predict", folder / "model", images, "-o",
            folder / "new", "--keep", "ignore=1")  # fmt: skip
