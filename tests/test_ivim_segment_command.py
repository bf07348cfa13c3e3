"""`medjax ivim fit --segment MODEL`: from a scan to the table of regions, by a network whose labels are known."""

import csv
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.errors import ConfigError
from medjax.io.nifti import Series, read_nifti, write_nifti
from medjax.ivim.io import read_scan
from medjax.ivim.signal import Ivim, signal
from medjax.running.parts import load_part
from medjax.tools.ivim_fit import fit_scan
from medjax.tools.ivim_segment import Baseline, ScanSegmentation, baseline, region_masks
from tests.segmentation.ordinal import NETWORK, write_model

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 4, 5], [0, 0, 0, 1]])
B = np.array([0, 10, 20, 0, 50, 75, 100, 200, 400, 1000], np.float32)
SHAPE = (9, 8, 4)
S0 = np.array([20.0, 60.0, 100.0], np.float32)  # of the background and of the two lungs
FIT = ("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps", "--segment", "model", "--network", NETWORK)


def truth():
    """True labels: two lungs side by side, and background around them."""
    labels = np.zeros(SHAPE, np.int32)
    labels[1:4, 2:7, 1:3], labels[5:8, 2:7, 1:3] = 1, 2
    return labels


def frames(bvalues=B):
    """(x, y, z, frame); f is 0.2 in one lung and 0.4 in the other. In single b = 0 frames alone, labels are wrong."""
    labels = truth()
    f = np.array([0.3, 0.2, 0.4], np.float32)[labels]
    tissue = Ivim(S0[labels], f, np.full(SHAPE, 1.7e-3, np.float32), np.full(SHAPE, 22e-3, np.float32))
    clean = np.moveaxis(np.asarray(signal(tissue, bvalues)), 0, -1)
    array = clean + 0.2 * np.random.default_rng(0).normal(size=clean.shape)
    ghost = 18 * np.where(np.indices(SHAPE).sum(0) % 2, 1, -1)
    for frame, sign in zip(np.flatnonzero(bvalues == 0), (1, -1), strict=False):
        array[..., frame] += sign * 2 * ghost
    return array.astype(np.float32)


def thresholds(cuts=(40.0, 80.0)):
    """Intensities as z-scores of the b = 0 frame."""
    values = S0[truth()]
    return [(cut - values.mean()) / values.std() for cut in cuts]


def write_scan(array, bvalues=B):
    image = nibabel.Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, "dwi.nii.gz")
    Path("dwi.bval").write_text(" ".join(f"{b:g}" for b in bvalues))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan(frames())
    write_model(tmp_path / "model", (2.0, 2.0, 4.0), thresholds())
    return tmp_path


def fit(*arguments):
    return CliRunner().invoke(cli.app, ["ivim", "fit", *map(str, arguments)], prog_name="medjax")


def refused(message, *arguments):
    result = fit(*arguments)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert not Path("maps").exists()


def table():
    with Path("maps/regions.csv").open() as file:
        return {(row["region"], row["parameter"]): row for row in csv.DictReader(file)}


def test_one_command_from_the_scan_to_the_table(here):
    result = fit(*FIT)
    assert result.exit_code == 0, result.output
    assert "segmented the mean of 2 frames of b = 0; labels.nii.gz: left lung 1, right lung 2" in result.stdout
    labels = nibabel.load("maps/labels.nii.gz")
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_allclose(labels.affine, AFFINE)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), truth())
    np.testing.assert_array_equal(read_nifti("maps/D.nii.gz").array > 0, truth() > 0)  # the foreground is the mask
    rows = table()
    assert list(dict.fromkeys(name for name, _ in rows)) == ["all", "left lung", "right lung"]
    assert [int(rows[name, "f"]["voxels"]) for name in ("all", "left lung", "right lung")] == [60, 30, 30]
    assert float(rows["left lung", "f"]["median"]) == pytest.approx(0.2, abs=0.02)
    assert float(rows["right lung", "f"]["median"]) == pytest.approx(0.4, abs=0.02)


def test_a_mask_is_fitted_and_the_labels_stay_whole(here):
    """The same numbers as with the prediction as mask and labels of a command of two steps."""
    mask = np.zeros(SHAPE, np.float32)
    mask[:5] = 1
    write_nifti("mask.nii.gz", mask, AFFINE)
    assert fit(*FIT, "--mask", "mask.nii.gz").exit_code == 0
    np.testing.assert_array_equal(read_nifti("maps/labels.nii.gz").array, truth())
    rows = table()
    inside = [int(rows[name, "f"]["voxels"]) for name in ("all", "left lung", "right lung")]
    assert inside == [5 * 8 * 4, 30, 0]
    two = fit("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "two", "--mask", "mask.nii.gz", "--labels",
              "maps/labels.nii.gz")  # fmt: skip
    assert two.exit_code == 0 and not Path("two/labels.nii.gz").exists()
    named = Path("two/regions.csv").read_text().replace("\n1,", "\nleft lung,").replace("\n2,", "\nright lung,")
    assert named == Path("maps/regions.csv").read_text()


def test_a_notebook_gets_what_the_command_writes(here):
    assert fit(*FIT).exit_code == 0
    found = fit_scan(Series(frames(), AFFINE), B, segment="model", network=load_part(NETWORK, "--network"))
    assert found.segmentation is not None and list(found.regions) == ["all", "left lung", "right lung"]
    np.testing.assert_array_equal(found.segmentation.labels, truth())
    np.testing.assert_allclose(found.maps["f"], read_nifti("maps/f.nii.gz").array, rtol=1e-6)
    with pytest.raises(ConfigError, match="frames without an affine"):
        fit_scan(frames(), B, segment="model")


def test_what_a_model_cannot_do_is_refused_and_nothing_written(here, tmp_path):
    write_nifti("labels.nii.gz", truth(), AFFINE)
    refused("--labels with --segment: both give the regions", *FIT, "--labels", "labels.nii.gz")
    refused(
        "--network without --segment MODEL", "dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps", "--network", NETWORK
    )
    refused("model: its network ordinal.py:net .* is not built in; expected --network", *FIT[:7])
    refused("absent/plan.json: no such file", *FIT[:6], "absent", *FIT[7:])
    write_model(tmp_path / "pair", (2.0, 2.0, 4.0), thresholds(), channels=("T2", "ADC"))
    refused("pair: a model of 2 channels; expected one of one channel", *FIT[:6], "pair", *FIT[7:])
    write_model(tmp_path / "blind", (2.0, 2.0, 4.0), (50.0, 60.0))
    refused("blind: no structure found in the b = 0 frame of dwi.nii.gz", *FIT[:6], "blind", *FIT[7:])
    write_scan(frames(B + 50), B + 50)
    refused("dwi.nii.gz: lowest b-value 50 s/mm²; expected frames of b = 0, or 10 at most", *FIT)


def test_another_orientation_and_mirrored_sides_are_said(here, tmp_path):
    write_model(tmp_path / "other", (2.0, 2.0, 4.0), thresholds(), orientations=("ASR",), mirror=(0,))
    result = fit(*FIT[:6], "other", *FIT[7:])
    assert result.exit_code == 0
    first, second = result.stderr.splitlines()
    assert first == "medjax: dwi.nii.gz: another orientation than ASR, that of the training cases"
    assert second.startswith("medjax: dwi.nii.gz: left lung and right lung may be exchanged")


def test_the_baseline_is_the_mean_of_the_finite_frames_of_the_lowest_b():
    array = np.random.default_rng(1).random((3, 4, 2, 10)).astype(np.float32)
    array[0, 0, 0, 0], array[1, 1, 1, [0, 3]] = np.nan, np.inf
    found = baseline(read_scan(array, B))
    expected = array[..., [0, 3]].astype(float).mean(-1)
    expected[0, 0, 0], expected[1, 1, 1] = array[0, 0, 0, 3], 0
    np.testing.assert_allclose(found.image, expected, rtol=1e-6)
    assert (found.b_value, found.frames) == (0.0, 2)
    assert baseline(read_scan(array, np.maximum(B, 5))).b_value == 5.0


def test_regions_of_several_classes_overlap_and_none_takes_the_name_of_all():
    labels = truth()
    structures = {"lungs": (1, 2), "right": 2, "all": 1}
    masks = region_masks(ScanSegmentation(labels, structures, 3, Baseline(S0[labels], 0.0, 1)))
    assert list(masks) == ["lungs", "right", "all (label)"]
    np.testing.assert_array_equal(masks["lungs"], labels > 0)
    np.testing.assert_array_equal(masks["right"], labels == 2)
