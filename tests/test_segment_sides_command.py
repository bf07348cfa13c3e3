"""`medjax segment train`: sides that labels name, data of one slice, data that changed, folds that start together."""

import csv
import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medjax.atomic import write_csv
from medjax.errors import WorkdirError
from medjax.io.nifti import read_nifti
from medjax.io.nnunet_raw import read_dataset, write_dataset, write_label_nifti
from medjax.segmentation.plan import fingerprint, plan
from medjax.tools.segment_model import plan_and_network, read_description
from medjax.tools.segment_planning import parse_axes, plan_dataset
from tests.segmentation import sides as sides_file
from tests.segmentation.blobs import blobs
from tests.segmentation.commands import done, refused
from tests.segmentation.sides import AFFINE, NAMES, sides

SETTINGS = ("--patch", "16,16,16", "--epochs", "1", "--iterations", "60", "--rate", "0.3", "--base-width", "4",
            "--network", f"{sides_file.__file__}:net")  # fmt: skip


def dice(model, fold=0):
    with (model / f"fold_{fold}" / "validation.csv").open(newline="") as text:
        return np.array([[float(row[name]) for name in NAMES[1:]] for row in csv.DictReader(text)])


@pytest.fixture
def data(tmp_path):
    write_dataset(tmp_path / "data", [sides(seed) for seed in range(6)], ("MR",), NAMES, test=[sides(7)])
    return tmp_path / "data"


def renamed(data, *names):
    content = json.loads((data / "dataset.json").read_text())
    content["labels"] = {name: number for number, name in enumerate(("background", *names))}
    (data / "dataset.json").write_text(json.dumps(content))


def test_named_sides_are_told_apart_unless_all_axes_are_mirrored(data, tmp_path):
    """Left–right runs along y here. nnU-Net mirrors it: Dice of the named ones 0.50 and 0.47 by the tiny U-Net."""
    said = done("train", data, "-o", tmp_path / "model", "--fold", "0", *SETTINGS)
    assert "labels name a side (kidney_left, kidney_right): not mirrored along y" in said.stdout
    assert json.loads((tmp_path / "model" / "plan.json").read_text())["mirror"] == [0, 2]
    assert dice(tmp_path / "model").min() > 0.8
    all_axes = ("train", data, "-o", tmp_path / "all", "--fold", "0", *SETTINGS, "--mirror", "x,y,z")
    assert "takes away; --mirror x,z keeps it" in done(*all_axes).stderr
    assert dice(tmp_path / "all").mean() < 0.6
    refused("its mirror is x,y,z, here all but left-right", *all_axes[:-2])
    done("predict", tmp_path / "model", data / "imagesTs", "-o", tmp_path / "said", *SETTINGS[-2:])
    found, truth = read_nifti(tmp_path / "said" / "case_7.nii.gz").array, sides(7).labels
    assert all(
        2 * ((found == k) & (truth == k)).sum() > 0.8 * ((found == k).sum() + (truth == k).sum()) for k in (1, 2)
    )


def test_mirror_images_without_names_are_a_warning(data):
    renamed(data, "one", "other")
    settings = {"base_width": 4, "memory_gb": 1.0, "patch": (16, 16, 16)}
    expected = "labels one and other are mirror images along y, .* --mirror x,z turns it off there"
    with pytest.warns(UserWarning, match=expected):
        assert plan_dataset(read_dataset(data), **settings).mirror == (0, 1, 2)
    for mirror in ((0, 2), (0, 1, 2), ()):  # a choice that was made needs no advice
        assert plan_dataset(read_dataset(data), mirror=mirror, **settings).mirror == mirror
    train = ("train", data, "-o", data.parent / "model", *SETTINGS)
    refused("--mirror x,x; expected some of x, y, z", *train, "--mirror", "x,x")
    refused("--mirror sideways; expected some of x, y, z, as in --mirror x,z, or none", *train, "--mirror", "sideways")
    assert parse_axes("none") == () and parse_axes("z, X") == (0, 2) and parse_axes(None) is None


def test_cases_of_several_orientations_are_a_warning(tmp_path):
    """Names say a side, and the arrays have it at different ends."""
    flipped = sides(5)._replace(affine=AFFINE * [[1, -1, 1, 1]] + [[0, 0, 0, 15], [0] * 4, [0] * 4, [0] * 4])
    write_dataset(tmp_path, [sides(4), flipped], ("MR",), NAMES)
    settings = {"base_width": 4, "memory_gb": 1.0, "patch": (16, 16, 16)}
    with pytest.warns(UserWarning, match="cases are oriented PLS and PRS, .* expected one orientation: reorient"):
        assert plan_dataset(read_dataset(tmp_path), **settings).orientations == ("PLS", "PRS")
    with pytest.warns(UserWarning, match="--mirror x,y,z: labels name a side"):  # mirrored, both are seen
        plan_dataset(read_dataset(tmp_path), mirror=(0, 1, 2), **settings)


def test_one_slice_trains_and_predicts(tmp_path):
    scans = [sides(seed, (16, 16, 1)) for seed in range(5)]
    write_dataset(tmp_path / "data", scans, ("MR",), NAMES, test=[sides(7, (16, 16, 1))])
    settings = ("--base-width", "4", "--epochs", "1", "--iterations", "60", "--rate", "0.05")
    said = done("train", tmp_path / "data", "-o", tmp_path / "model", "--fold", "0", *settings)
    plan = json.loads((tmp_path / "model" / "plan.json").read_text())
    assert plan["flat_axis"] == 2 and plan["patch"] == [16, 16, 1] and "mirrored along x,z" in said.stdout
    assert dice(tmp_path / "model").min() > 0.5
    done("predict", tmp_path / "model", tmp_path / "data" / "imagesTs", "-o", tmp_path / "said")
    found = read_nifti(tmp_path / "said" / "case_7.nii.gz").array
    assert found.shape == (16, 16, 1) and set(np.unique(found)) == {0, 1, 2}


def test_data_that_changed_are_noticed(data, tmp_path):
    """Also where the fold is finished: it said so, over labels that it has not seen."""
    train = ("train", data, "-o", tmp_path / "model", "--fold", "0", *SETTINGS)
    done(*train)
    case, labels = data / "labelsTr" / "case_3.nii.gz", sides(3).labels
    content = case.read_bytes()
    case.write_bytes(gzip.compress(gzip.decompress(content), compresslevel=1))  # the same labels, compressed otherwise
    assert "fold 0: finished already" in done(*train).stdout
    labels[8, 8, 8] = 1 - labels[8, 8, 8]
    write_label_nifti(case, labels.clip(0, 2), AFFINE, 3)
    refused("model: image or labels of case_3 have changed since it was planned; expected the same", *train)
    case.write_bytes(content)
    description = tmp_path / "model" / "dataset.json"
    older = json.loads(description.read_text())
    del older["digests"]
    description.write_text(json.dumps(older))
    assert "an older version planned it and kept no digests of the cases" in done(*train).stderr


def test_a_finished_fold_is_known_by_its_contents(data, tmp_path):
    train = ("train", data, "-o", tmp_path / "model", "--fold", "0", *SETTINGS)
    done(*train)
    fold = tmp_path / "model" / "fold_0"
    whole = {name: (fold / name).read_bytes() for name in ("params.npz", "validation.csv")}
    for spoil in (
        lambda: (fold / "params.npz").unlink(),
        lambda: (fold / "validation.csv").write_text(""),
        lambda: write_csv(fold / "validation.csv", ("case", *NAMES[1:]), []),
        lambda: (fold / "validation" / "case_2.npz").unlink(missing_ok=True) or (fold / "best.npz").write_bytes(b""),
    ):
        spoil()
        assert "finished already" not in done(*train).stdout
        assert {name: (fold / name).read_bytes() for name in whole} == whole
    assert "fold 0: finished already" in done(*train).stdout


def test_a_model_is_not_written_over_its_data(data, tmp_path):
    refused(f"{data}/dataset.json: is the input", "train", data, "-o", data, *SETTINGS)
    (tmp_path / "link").symlink_to(data)
    refused("link/dataset.json: is the input", "train", data, "-o", tmp_path / "link", *SETTINGS)
    assert json.loads((data / "dataset.json").read_text())["numTraining"] == 6 and not (data / "plan.json").exists()


def test_folds_that_start_together_share_one_plan(data, tmp_path):
    """Two processes of two folds: one plan, none of the folds is lost."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    together = [
        subprocess.Popen(
            [sys.executable, "-m", "medjax", "segment", "train", "data", "-o", "model", "--fold", fold, *SETTINGS],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
        )
        for fold in "01"
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], said
    for fold in (0, 1):
        assert dice(tmp_path / "model", fold).min() > 0.8
        assert f"fold {fold}: finished already" in done(
            "train", data, "-o", tmp_path / "model", "--fold", fold, *SETTINGS
        ).stdout  # fmt: skip


def test_of_two_that_plan_at_once_the_second_takes_the_first_ones_plan_or_is_refused(tmp_path):
    """The second plans while the first writes: it was written over, and epochs of both were mixed."""
    own_plan = plan(fingerprint([blobs(0)], 3), base_width=4, patch=(12, 12, 12))
    other = replace(own_plan, batch=7)

    def described(epochs):
        return {"channel_names": ["MR"], "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii",
                "cases": ["one"], "settings": {"epochs": epochs}, "digests": {"one": "1"}}  # fmt: skip

    def planned(epochs, late):
        def make_plan():
            folder = tmp_path / f"{epochs}"
            plan_and_network(folder, described(1), "plain_unet", lambda: own_plan)
            return late

        return plan_and_network(tmp_path / f"{epochs}", described(epochs), "plain_unet", make_plan)

    assert planned(1, other)[0] == own_plan
    with pytest.raises(WorkdirError, match="its epochs is 1, here 2; expected one, or another folder"):
        planned(2, other)
    assert read_description(tmp_path / "2").plan == own_plan
