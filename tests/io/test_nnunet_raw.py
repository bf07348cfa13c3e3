"""nnU-Net's layout there and back, and what is wrong with a folder in one line."""

import json

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.nifti import write_nifti
from medjax.io.nnunet_raw import Scan, list_cases, read_dataset, read_scan, write_dataset

AFFINE = np.array([[0.0, 2.0, 0, 5], [-1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])


def scan(name, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(5, 6, 4, 2)).astype(np.float32)
    return Scan(name, image, rng.integers(0, 3, (5, 6, 4)).astype(np.int32), (1.5, 2.0, 3.0), AFFINE)


@pytest.fixture
def folder(tmp_path):
    scans = [scan("case_a"), scan("case_b", 1)]
    write_dataset(tmp_path, scans, ("MR", "CT"), ("background", "liver", "spleen"), test=[scan("case_t", 2)])
    return tmp_path


def change(folder, **values):
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_there_and_back(folder):
    data = read_dataset(folder)
    assert data.channels == ("MR", "CT") and data.labels == {"background": 0, "liver": 1, "spleen": 2}
    assert data.classes == 3 and [one.name for one in data.training] == ["case_a", "case_b"]
    assert (folder / "imagesTr" / "case_b_0001.nii.gz").is_file() and (folder / "labelsTr" / "case_b.nii.gz").is_file()
    for case, wanted in zip(data.training, (scan("case_a"), scan("case_b", 1)), strict=True):
        found = read_scan(case, data.classes)
        np.testing.assert_array_equal(found.image, wanted.image)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.affine, AFFINE)
        assert found.spacing == pytest.approx((1.5, 2.0, 3.0)) and found.image.dtype == np.float32
    (test,) = data.test
    assert test.name == "case_t" and test.labels is None and read_scan(test, 3).labels is None


def test_without_test_images_and_with_other_endings(tmp_path):
    write_dataset(tmp_path, [scan("x_0003")], ("MR", "CT"), ("background", "a", "b"), ending=".nii")
    data = read_dataset(tmp_path)
    assert data.test == () and data.training[0].name == "x_0003" and data.ending == ".nii"


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("no channel_names of kind dict", {"channel_names": None}),
        ("no numTraining of kind int", {"numTraining": "2"}),
        ("numTraining 3; expected 2", {"numTraining": 3}),
        (r"channel_names \['1', '2'\]; expected numbers from 0", {"channel_names": {"1": "MR", "2": "CT"}}),
        ("file_ending '.mha'; expected .nii or .nii.gz", {"file_ending": ".mha"}),
        ("regions, and no regions_class_order", {"labels": {"background": 0, "all": [1, 2]}}),
        ("'ignore' is 3; expected 2, one above", {"labels": {"background": 0, "a": 1, "ignore": 3}}),
        ("background is None", {"labels": {"a": 0, "b": 1}}),
        ("expected the numbers 0, 1, … without gaps", {"labels": {"background": 0, "a": 2}}),
        ("expected the numbers 0, 1, … without gaps", {"labels": {"background": 0}}),
        ("channel name 'nonorm' asks nnU-Net for another", {"channel_names": {"0": "MR", "1": "nonorm"}}),
        ("'Rescale_to_0_1' asks", {"channel_names": {"0": "Rescale_to_0_1", "1": "CT"}}),
        ("'rgb_to_0_1' asks", {"channel_names": {"0": "rgb_to_0_1", "1": "CT"}}),
        ("case_a_0002.nii.gz: no such file; expected 3 channels", {"channel_names": {"0": "a", "1": "b", "2": "c"}}),
        ("case_a_0001.nii.gz: channel 1; expected 1", {"channel_names": {"0": "a"}}),
    ],
)
def test_what_dataset_json_says_wrong(folder, message, values):
    change(folder, **values)
    with pytest.raises(DataError, match=message):
        read_dataset(folder)


def test_files_that_are_missing(folder, tmp_path):
    with pytest.raises(DataError, match=r"dataset.json: no such file; expected the description"):
        read_dataset(folder / "absent")
    (folder / "labelsTr" / "case_b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"labelsTr/case_b.nii.gz: no such file; expected the labels of case_b_0000"):
        read_dataset(folder)
    (folder / "imagesTr" / "case_a_0000.nii.gz").unlink()
    with pytest.raises(DataError, match=r"imagesTr/case_a_0000.nii.gz: no such file; expected 2 channels"):
        read_dataset(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_dataset(folder)
    with pytest.raises(DataError, match=r"no file named like CASE_0000.nii.gz"):
        list_cases(folder / "labelsTr", 1, ".nii.gz")


def test_voxels_that_cannot_be(folder):
    case = read_dataset(folder).training[0]
    one = scan("case_a")
    write_nifti(case.labels, one.labels[:4], AFFINE)
    with pytest.raises(DataError, match=r"shape \(4, 6, 4\); expected that of case_a_0000.nii.gz, \(5, 6, 4\)"):
        read_scan(case, 3)
    write_nifti(case.labels, one.labels, np.diag([1.0, 1, 1, 1]))
    with pytest.raises(DataError, match=r"another affine than case_a_0000.nii.gz"):
        read_scan(case, 3)
    write_nifti(case.labels, one.labels, AFFINE)
    with pytest.raises(DataError, match=r"case_a.nii.gz: label 2; expected 0 to 1"):
        read_scan(case, 2)
    write_nifti(case.labels, one.labels / 2, AFFINE)
    with pytest.raises(DataError, match="values that are no labels"):
        read_scan(case, 3)
    write_nifti(case.images[1], one.image[:, :5, :, 1], AFFINE)
    with pytest.raises(DataError, match=r"case_a_0001.nii.gz: shape \(5, 5, 4\)"):
        read_scan(case, 3)


def test_nan_and_other_dimensions(folder):
    import nibabel

    case = read_dataset(folder).training[0]
    for array, message in (
        (np.full((5, 6, 4), np.nan, np.float32), "NaN or infinite voxels"),
        (np.zeros((5, 6, 4, 2), np.float32), "expected a 3-D volume"),
    ):
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), case.images[0])
        with pytest.raises(DataError, match=message):
            read_scan(case, 3)


def test_what_cannot_be_written(tmp_path):
    names = ("background", "a", "b")
    with pytest.raises(DataError, match="no labels; expected them"):
        write_dataset(tmp_path, [scan("x")._replace(labels=None)], ("MR", "CT"), names)
    with pytest.raises(DataError, match="2 channels; expected 1"):
        write_dataset(tmp_path, [scan("x")], ("MR",), names)
    with pytest.raises(DataError, match="expected 'background' first"):
        write_dataset(tmp_path, [scan("x")], ("MR", "CT"), ("a", "b"))
    assert not (tmp_path / "dataset.json").exists()
