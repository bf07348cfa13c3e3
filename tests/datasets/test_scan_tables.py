"""ADNI, OASIS-3 and HCP: tiny imitations of their layouts, with a row for everything that is left out."""

import csv

import numpy as np
import pytest

from medjax.datasets import adni, hcp, oasis3
from medjax.datasets.image_list import by_threshold, by_value, read_volumes, subset
from medjax.datasets.scan_tables import read_scans
from medjax.errors import DataError
from medjax.io.nifti import write_nifti
from medjax.io.tables import read_table


def table(path, text):
    """A CSV of lines of words."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([cell.strip() for cell in line.split(",")] for line in text.strip().splitlines())
    return path


def scan(path, value=1.0, shape=(8, 10, 6), voxel=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(shape, np.float32)
    array[2:-2, 2:-2, 1:-1] = value * (1 + np.arange(shape[0] - 4))[:, None, None]
    write_nifti(path, array, np.diag([voxel] * 3 + [1.0]))


@pytest.fixture
def adni_files(tmp_path):
    report = table(
        tmp_path / "report.csv",
        """Image Data ID, Subject, Group, Sex, Age, Visit
           I1, 002_S_1, CN, F, 71.5, bl
           I2, 002_S_1, CN, F, 71.5, bl
           I3, 002_S_1, CN, F, 72.6, m12
           I4, 002_S_2, AD, M, 80, bl
           I5, 002_S_3, CN, M, 75, bl
           I6, 002_S_3, MCI, M, 76, m12
           I7, 002_S_4, AD, F, 16, bl
           I8, 002_S_5, AD, F, 66, bl
           I9, 002_S_6, AD, X, 66, bl
           I10, 002_S_2, AD, M, 81, m12
           I11, 002_S_7, AD, F, 70, bl
           I12, nan, AD, F, 70, bl
           I13, , AD, F, 70, bl
           I14, 002_S_1, nan, F, 74, m24""",
    )
    race = table(
        tmp_path / "race.csv",
        """subject_id, PTRACCAT
           002_S_1, 5.0
           002_S_1, NA
           002_S_1,
           002_S_1, 5
           002_S_2, 4
           002_S_3, 5
           002_S_5, 4
           002_S_5, 5""",
    )
    for number in range(1, 11):
        scan(tmp_path / "scans" / f"batch{number % 2}" / f"I{number}_MNI_Brain.nii.gz", number)
    return report, tmp_path / "scans", race


def test_adni(adni_files):
    report, folder, race = adni_files
    found = adni.adni(report, folder)
    assert found.ids == ["I1", "I3", "I4", "I8", "I10"]  # I1 is not I10
    assert found.subjects == ["002_S_1", "002_S_1", "002_S_2", "002_S_5", "002_S_2"]
    np.testing.assert_array_equal(found.label, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.attribute, [0, 0, 1, 0, 1])
    np.testing.assert_allclose(found.age, [71.5, 72.6, 80, 66, 81])
    assert found.dropped == {
        "without a subject": 2, "without a class": 3, "of subjects that change": 1, "outside the ages": 1,
        "without a file": 1, "of a visit twice": 1,
    }  # fmt: skip
    assert "I5" in adni.adni(report, folder, stable=None).ids
    by_race = adni.adni(report, folder, attribute=adni.RACE, race=race)
    assert by_race.ids == ["I1", "I3", "I4", "I10"]  # 002_S_5 has two races
    np.testing.assert_array_equal(by_race.attribute, [0, 0, 1, 1])
    sexes = adni.adni(report, folder, label=adni.SEX, attribute=by_threshold("Age", 75), ages=(18, 80.5))
    assert sexes.ids == ["I1", "I3", "I4", "I8"] and list(sexes.attribute) == [0, 0, 1, 0]


def test_volumes_are_resampled_one_by_one(adni_files):
    report, folder, _ = adni_files
    found = subset(adni.adni(report, folder), [2, 0])
    assert found.ids == ["I4", "I1"] and list(found.label) == [1, 0]
    plain = read_volumes(found.paths, (4, 4, 4), 4.0)
    assert plain.shape == (2, 4, 4, 4, 1) and plain.dtype == np.float32
    np.testing.assert_allclose(plain[0], 4 * plain[1], rtol=1e-5)  # grey values are I4's and I1's
    assert plain[0, 0].max() == 0 < plain[0, 1:3, 1:3, 1:3].min()  # around its centre
    volume = read_volumes(found.paths, (8, 10, 6), 2.0, z_score="volume")
    brain = read_volumes(found.paths, (8, 10, 6), 2.0, z_score="brain")
    np.testing.assert_allclose(
        [volume.mean(axis=(1, 2, 3, 4)), volume.std(axis=(1, 2, 3, 4))], [[0, 0], [1, 1]], atol=1e-5
    )
    inside = brain[0][read_volumes(found.paths, (8, 10, 6), 2.0)[0] > 0]
    assert inside.mean() == pytest.approx(0, abs=1e-5) and inside.std() == pytest.approx(1, abs=1e-5)
    assert brain[0, 0, 0, 0, 0] == 0 and volume[0, 0, 0, 0, 0] < 0


def test_constant_scans_are_not_standardised(tmp_path):
    write_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.float32), np.eye(4))
    for where in ("volume", "brain"):
        with pytest.raises(DataError, match=r"a\.nii: constant"):
            read_volumes([tmp_path / "a.nii"], (4, 4, 4), 1.0, z_score=where)
    with pytest.raises(DataError, match="none; expected at least one"):
        read_volumes([], (4, 4, 4), 1.0)


def test_oasis3(tmp_path):
    demographics = table(
        tmp_path / "demographics.csv",
        """OASISID, AgeatEntry, GENDER, race
           OAS30001, 65.0, 2, White
           OAS30002, 70.0, 1, Black
           OAS30003, 60.0, 1, ASIAN
           OAS30004, 50.0, 1, White
           OAS30005, 50.0, 1, nan
           OAS30006, 50.0, 1, White""",
    )
    cognition = table(
        tmp_path / "diagnoses.csv",
        """OASISID, NORMCOG, alzdis
           OAS30001, 1, 0
           OAS30001, ,
           OAS30001, 1,
           OAS30002, nan, NA
           OAS30002, 0, 1
           OAS30003, 1.0, 0.0
           OAS30004, 1, 0
           OAS30004, 0, 1
           OAS30005, 1,
           OAS30005, 0, 1
           OAS30006, 0,
           OAS30006, 0, 1""",
    )
    for name in (
        "OAS30001_MR_d0000_MNI_Brain", "OAS30001_MR_d0730_MNI_Brain", "OAS30003_MR_d0010",
        "sub-OAS30002/ses-d0365/sub-OAS30002_ses-d0365_T1w", "OAS30004_MR_d0010", "OAS30005_MR_d0010",
        "OAS30006_MR_d0010", "notes",
    ):  # fmt: skip
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    found = oasis3.oasis3(demographics, tmp_path / "scans", cognition=cognition)
    assert found.ids == ["OAS30001_d0000", "OAS30001_d0730", "OAS30003_d0010", "OAS30002_d0365"]
    assert found.subjects == ["OAS30001", "OAS30001", "OAS30003", "OAS30002"]
    np.testing.assert_array_equal(found.label, [0, 0, 0, 1])
    np.testing.assert_array_equal(found.attribute, [0, 0, 1, 1])
    np.testing.assert_allclose(found.age, [65, 67, 60 + 10 / 365, 71])
    assert found.dropped == {"without a class": 3}  # their diagnosis changed
    by_race = oasis3.oasis3(demographics, tmp_path / "scans", oasis3.SEX, oasis3.RACE, ages=(66, 99))
    assert by_race.ids == ["OAS30001_d0730", "OAS30002_d0365"] and list(by_race.attribute) == [0, 1]
    with pytest.raises(DataError, match="no column diagnosis"):
        oasis3.oasis3(demographics, tmp_path / "scans")
    with pytest.raises(DataError, match="expected scans of OASIS-3"):
        oasis3.oasis3(demographics, tmp_path / "scans", pattern="**/*T2w*")


def test_of_several_scans_of_a_day_a_pattern_takes_one(tmp_path):
    """FLAIR comes before T1w by name; of two runs the first is taken."""
    demographics = table(tmp_path / "people.csv", "OASISID, AgeatEntry, GENDER, race\nOAS30001, 65.0, 2, White")
    for name in ("FLAIR", "run-01_T1w", "run-02_T1w"):
        scan(tmp_path / "scans" / "sub-OAS30001" / "ses-d0129" / "anat" / f"sub-OAS30001_ses-d0129_{name}.nii.gz")
    settings = {"label": oasis3.SEX, "attribute": oasis3.RACE}
    with pytest.raises(DataError, match=r"_FLAIR.nii.gz and .*run-01_T1w.nii.gz are of one day; expected a pattern"):
        oasis3.oasis3(demographics, tmp_path / "scans", **settings)
    found = oasis3.oasis3(demographics, tmp_path / "scans", **settings, pattern="**/*T1w.nii*")
    assert [path.name for path in found.paths] == ["sub-OAS30001_ses-d0129_run-01_T1w.nii.gz"]
    assert found.dropped == {"of a visit twice": 1}


def test_hcp(tmp_path):
    open_table = table(
        tmp_path / "open.csv", "Subject, Gender, Age\n100206, M, 26-30\n100307, F, 26-30\n100408, M, 31-35"
    )
    restricted = table(
        tmp_path / "restricted.csv",
        """Subject, Age_in_Yrs, Race
           100307, 27, White
           100206, 29, Black or African Am.
           100408, 33, More than one""",
    )
    for subject in (100206, 100307, 100408):
        scan(tmp_path / "hcp" / str(subject) / "T1w" / "T1w_acpc_dc_restore_brain.nii.gz")
    found = hcp.hcp(open_table, tmp_path / "hcp", restricted=restricted)
    assert found.ids == found.subjects == ["100206", "100307"]
    np.testing.assert_array_equal([found.label, found.attribute], [[1, 0], [1, 0]])
    np.testing.assert_array_equal(found.age, [29, 27])
    ages = hcp.hcp(open_table, tmp_path / "hcp", hcp.SEX, by_value("Age", {"26-30": 0, "31-35": 1}))
    assert list(ages.attribute) == [0, 0, 1] and np.isnan(ages.age).all()


def test_tables_and_folders_that_do_not_fit(adni_files, tmp_path):
    report, folder, _ = adni_files
    rows = read_table(report, ("Subject",))
    settings = {"id": "Image Data ID", "subject": "Subject", "label": adni.DIAGNOSIS, "attribute": adni.SEX}
    with pytest.raises(DataError, match="no column Diagnosis; found Image Data ID, Subject"):
        read_scans(report, rows, folder, "x", **{**settings, "label": by_value("Diagnosis", {"CN": 0})})
    with pytest.raises(DataError, match="no column 'Scan'"):
        read_scans(report, rows, folder, "{Scan}.nii.gz", **settings)
    with pytest.raises(DataError, match=r"no image left \(2 without a subject, 3 without a class, 9 without a file\)"):
        read_scans(report, rows, folder, "{Image Data ID}.nii.gz", **settings)
    with pytest.raises(DataError, match="both match"):
        read_scans(report, rows, folder, "**/{Image Data ID}*.nii*", **settings)
    with pytest.raises(DataError, match="no such folder"):
        read_scans(report, rows, tmp_path / "nowhere", "x", **settings)
    with pytest.raises(DataError, match="'I1' occurs more than once"):
        read_scans(report, [rows[0], rows[0]], folder, "**/{Image Data ID}_*.nii*", **settings)
