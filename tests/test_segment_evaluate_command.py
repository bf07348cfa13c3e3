"""`medjax segment evaluate` equals nnU-Net's own evaluation byte for byte; surface metrics; what cannot be is one line.

The fixtures are what compute_metrics_on_folder2 of nnunetv2 2.8.1 (nnUNetv2_evaluate_folder) has written for the files
that `write_cases` writes, with REGIONS and with LABELS as dataset.json.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medjax.io.nifti import write_nifti
from medjax.metrics.surface import surface_metrics
from medjax.tools.segment_evaluate import evaluate, tables
from tests.segmentation.commands import command, done, refused

FIXTURES = Path(__file__).parent / "segmentation" / "fixtures"
AFFINE = np.diag([-2.0, 1.5, 3.0, 1.0])
SURFACE = ("hd_mm", "hd95_max_mm", "hd95_pooled_mm", "assd_pooled_mm", "assd_mean_mm", "nsd_1.5mm")
LABELS = {"background": 0, "one": 1, "two": 2, "three": 3, "nowhere": 4}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inner": 3, "ignore": 4}


def write_cases(folder: Path, ignore: bool) -> None:
    """Four cases: two with errors, one empty in both, one whose prediction is empty."""
    x, y, z = np.indices((6, 5, 4))
    reference = np.where(x + y < 4, 0, (x * y + z) % 4)
    predicted = np.where((x + 2 * y + z) % 7 == 0, (reference + 1) % 4, reference)
    empty = np.zeros_like(reference)
    cases = {
        "case_1": (predicted, reference),
        "case_10": (empty, np.where(reference == 2, 2, 0)),
        "case_1-b": (empty, empty),  # nnU-Net sorts names with their ending: before case_1
        "case_2": (np.where(y > 1, 3, 1), np.where(z > 2, 3, 0)),
    }
    for name, (prediction, true) in cases.items():
        true = np.where(ignore & (x == 2), 4, true)
        for part, array in (("predicted", prediction), ("labelsTs", true)):
            (folder / part).mkdir(exist_ok=True)
            write_nifti(folder / part / f"{name}.nii.gz", array, AFFINE, np.uint8)


def write_description(folder: Path, labels: dict, **more) -> None:
    content = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz", **more}
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    write_cases(folder, ignore=False)
    write_description(folder, LABELS)
    return folder


@pytest.fixture
def copy(folder, tmp_path, monkeypatch):
    """The folder that the command stands in, to be spoilt."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "labels"), [("labels", LABELS), ("regions", REGIONS)])
def test_the_summary_is_nnunets(name, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cases(tmp_path, ignore="ignore" in labels)
    write_description(tmp_path, labels, regions_class_order=[1, 2, 3])
    result = done("evaluate", "predicted", "labelsTs")
    expected = (FIXTURES / f"nnunet_summary_{name}.json").read_bytes()
    assert (tmp_path / "predicted" / "summary.json").read_bytes() == expected
    assert ("nowhere: in no case, so that the foreground mean is NaN, as nnU-Net's; without: Dice 0.4521" in
            result.stderr) == (name == "labels")  # fmt: skip
    assert "wrote predicted/summary.json" in result.stdout
    done("evaluate", "predicted", "labelsTs", "-o", "again.json", "--dataset", "dataset.json")
    assert (tmp_path / "again.json").read_bytes() == expected


def test_surface_metrics_are_more_keys_of_it(folder, tmp_path):
    """As of whole masks, though they are cropped; their conventions are in their names."""
    both, output = (folder / "predicted", folder / "labelsTs"), tmp_path / "own.json"
    result = done("evaluate", *both, "-o", output, "--surface", "--tolerance", "1.5")
    assert "Surface metrics: medians over cases, distances in mm" in result.stdout
    content = json.loads(output.read_text())
    empty, _, missing, wrong = (case["metrics"] for case in content["metric_per_case"])
    _, y, z = np.indices((6, 5, 4))
    expected = surface_metrics(y > 1, z > 2, (2.0, 1.5, 3.0), tolerance=1.5)
    assert float(expected.hd) == 9.0
    np.testing.assert_allclose([wrong["3"][name] for name in SURFACE], np.array(expected), rtol=1e-6)
    assert missing["2"]["hd95_max_mm"] == np.inf and missing["2"]["nsd_1.5mm"] == 0
    assert np.isnan([empty["2"][name] for name in SURFACE]).all()
    assert content["mean"]["2"]["hd_mm"] == np.inf
    for metrics in (*content["mean"].values(), *(one for case in content["metric_per_case"] for one in
                                                 case["metrics"].values()), content["foreground_mean"]):  # fmt: skip
        for name in SURFACE:
            del metrics[name]
    plain = json.loads((FIXTURES / "nnunet_summary_labels.json").read_text())
    assert json.dumps(content["mean"]) == json.dumps(plain["mean"])  # NaN is not equal to itself
    assert json.dumps(content["foreground_mean"]) == json.dumps(plain["foreground_mean"])


def test_tables_have_means_of_overlap_and_medians_of_surface_metrics(folder):
    with pytest.warns(UserWarning, match="nowhere: in no case"):
        result = evaluate(folder / "predicted", folder / "labelsTs", surface=True)
    overlap, surface = tables(result)
    assert overlap.rows[1][:3] == ["two", "2", 2] and overlap.rows[-1][:3] == ["foreground mean", "", 4]
    one = dict(zip(surface.header, surface.rows[0], strict=True))
    own = [case[1]["hd_mm"] for case in result.metrics]  # of "one": NaN, finite, NaN, infinite
    assert one["structure"] == "one" and one["hd"] == np.median([own[1], own[3]]) == np.inf
    assert list(one) == ["structure", "hd", "hd95 max", "hd95 pooled", "assd pooled", "assd mean", "nsd 2mm"]
    assert np.isnan(surface.rows[3][1])


def test_no_surface_is_known_where_voxels_are_ignored(tmp_path):
    write_cases(tmp_path, ignore=True)
    folders = tmp_path / "predicted", tmp_path / "labelsTs"
    with pytest.warns(UserWarning, match="3 of 4 cases have ignored voxels, at whose border no surface is known"):
        result = evaluate(*folders, labels=["1", "2+3"], ignore=4, surface=True)
    assert np.isnan([case[1]["hd_mm"] for case in result.metrics]).all()
    assert result.metrics[1][(2, 3)]["TP"] + result.metrics[1][(2, 3)]["TN"] < 100  # of 120 voxels, 20 are ignored


def test_labels_of_ones_own(folder, tmp_path):
    """By number or region without a dataset.json, by name with one; what is not evaluated is background."""
    arguments = ("evaluate", tmp_path / "predicted", tmp_path / "labelsTs", "-o", tmp_path / "own.json")
    for name in ("predicted", "labelsTs"):
        shutil.copytree(folder / name, tmp_path / name)
    refused("--labels: none, and no dataset.json; expected --dataset, or names", *arguments)
    refused("--labels one; expected names of dataset.json or numbers", *arguments, "--labels", "one")
    warned = done(*arguments, "--labels", "1, 2+3").stderr
    assert "labels that are not evaluated count as background" not in warned
    regions = json.loads((tmp_path / "own.json").read_text())["mean"]
    done(*arguments, "--labels", "0,1,2+3")
    with_background = json.loads((tmp_path / "own.json").read_text())
    means = [with_background["mean"][key]["Dice"] for key in ("1", "(2, 3)")]
    assert with_background["foreground_mean"]["Dice"] == np.mean(means)  # background is no foreground, as nnU-Net's
    warned = done(*arguments, "--labels", "one,3", "--dataset", folder).stderr
    assert "labels that are not evaluated count as background: 2" in warned
    labels = json.loads((tmp_path / "own.json").read_text())["mean"]
    assert list(regions) == ["(2, 3)", "1"] and list(labels) == ["1", "3"] and regions["1"] == labels["1"]
    refused("--labels 5; expected some of one, two, three, nowhere, or names", *arguments, "--dataset", folder,
            "--labels", "5")  # fmt: skip


def test_cases_without_the_other_image(copy):
    both = ("evaluate", "predicted", "labelsTs")
    (copy / "predicted" / "case_2.nii.gz").unlink()
    refused("predicted: no case_2, which labelsTs has; expected all 4, or --chill for the 3 that are there", *both)
    assert not (copy / "predicted" / "summary.json").exists()
    assert "1 of 4 cases have no prediction and are left out, case_2" in done(*both, "--chill").stderr
    assert len(json.loads((copy / "predicted" / "summary.json").read_text())["metric_per_case"]) == 3
    (copy / "labelsTs" / "case_1.nii.gz").unlink()
    refused("labelsTs: no case_1, which predicted has; expected the labels of every prediction", *both, "--chill")


def test_images_that_cannot_be_compared(copy):
    both, image = ("evaluate", "predicted", "labelsTs"), copy / "predicted" / "case_2.nii.gz"
    write_nifti(image, np.full((6, 5, 4), 7), AFFINE)
    refused("predicted/case_2.nii.gz: label 7; expected 0, 1, 2, 3, 4, of dataset.json", *both)
    write_nifti(image, np.full((6, 5, 4), 0.5), AFFINE)
    refused("predicted/case_2.nii.gz: values that are no labels", *both)
    write_nifti(image, np.zeros((6, 5, 5)), AFFINE)
    refused("predicted/case_2.nii.gz: shape (6, 5, 5); expected that of labelsTs/case_2.nii.gz, (6, 5, 4)", *both)
    write_nifti(image, np.zeros((6, 5, 4)), np.diag([2.0, 1.5, 3.0, 1.0]))
    refused("predicted/case_2.nii.gz: another affine than labelsTs/case_2.nii.gz", *both)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("absent: no such folder", ["absent", "labelsTs"]),
        ("labelsTs: predictions and labels are one folder", ["labelsTs", "labelsTs"]),
        ("dataset.json: is the input ", ["predicted", "labelsTs", "-o", "dataset.json"]),
        ("predicted/predictions.json: is the input ", ["predicted", "labelsTs", "-o", "predicted/predictions.json"]),
        ("own.nii.gz: expected a name that ends in .json", ["predicted", "labelsTs", "-o", "own.nii.gz"]),
        ("none/own.json: no folder none", ["predicted", "labelsTs", "-o", "none/own.json"]),
        ("--tolerance -1; expected 0 or more", ["predicted", "labelsTs", "--tolerance", "-1"]),
        ("none.json: no such file; expected nnU-Net's", ["predicted", "labelsTs", "--dataset", "none.json"]),
        ("bad.json: not JSON", ["predicted", "labelsTs", "--dataset", "bad.json"]),
        ("list.json: a JSON list; expected nnU-Net", ["predicted", "labelsTs", "--dataset", "list.json"]),
        ("odd.json: label 'one' is 1.5; expected a number 0, 1,", ["predicted", "labelsTs", "--dataset", "odd.json"]),
        ("mha.json: file_ending '.mha'; expected .nii.gz or", ["predicted", "labelsTs", "--dataset", "mha.json"]),
    ],
)
def test_what_cannot_be_is_one_line(message, arguments, copy):
    (copy / "bad.json").write_text("{")
    (copy / "list.json").write_text("[]")
    for name, ending, one in (("odd", ".nii.gz", 1.5), ("mha", ".mha", 1)):
        (copy / f"{name}.json").write_text(json.dumps({"labels": {"background": 0, "one": one}, "file_ending": ending}))
    refused(message, "evaluate", *arguments)
    assert not (copy / "predicted" / "summary.json").exists()


def test_png_has_no_surface_in_mm(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("predicted", "labels"):
        (tmp_path / name).mkdir()
        image.fromarray(np.eye(6, dtype=np.uint8)).save(tmp_path / name / "one.png")
    both = (tmp_path / "predicted", tmp_path / "labels", "--labels", "1")
    assert command("evaluate", *both).exit_code == 0
    assert json.loads((tmp_path / "predicted" / "summary.json").read_text())["foreground_mean"]["Dice"] == 1
    refused("--surface: ", "evaluate", *both, "--surface")
