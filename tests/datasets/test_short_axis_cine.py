"""The layouts of ACDC and M&Ms, imitated by tiny subjects."""

import nibabel
import numpy as np
import pytest

from medjax.datasets.acdc import acdc_subjects, read_acdc, read_acdc_cine
from medjax.datasets.mnms import mnms_subjects, read_mnms
from medjax.datasets.short_axis import parse_body
from medjax.errors import DataError

SHAPE = (8, 7, 3)
INFO = "ED: 1\nES: 4\nGroup: DCM\nHeight: 180.0\nNbFrame: 5\nWeight: 80.0\n"
HEADER = ",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight\n"
ROW = "0,A0S9V9,Siemens,A,2,1,4,70,DCM,M,180.0,80.0\n"


def write(path, array, spacing=(1.5, 1.5, 10.0)):
    image = nibabel.Nifti1Image(np.asarray(array, np.float32), np.diag([*spacing, 1.0]))
    image.header.set_zooms((*spacing, *[1.0] * (np.ndim(array) - 3)))
    path.parent.mkdir(exist_ok=True)
    nibabel.save(image, path)


def label_image(lv, myocardium, rv):
    labels = np.zeros(SHAPE)
    labels[1, 1], labels[2, 2:4], labels[4, 4:7] = lv, myocardium, rv
    return labels


@pytest.fixture
def patient(tmp_path):
    folder = tmp_path / "training" / "patient001"
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text(INFO)
    cine = np.arange(np.prod(SHAPE) * 5.0).reshape(*SHAPE, 5)
    write(folder / "patient001_4d.nii.gz", cine)
    for frame in (1, 4):
        write(folder / f"patient001_frame{frame:02d}.nii.gz", cine[..., frame - 1])
        write(folder / f"patient001_frame{frame:02d}_gt.nii.gz", label_image(3, 2, 1))
    return folder


@pytest.fixture
def mnms(tmp_path):
    (tmp_path / "table.csv").write_text(HEADER + ROW)
    cine = np.arange(np.prod(SHAPE) * 5.0).reshape(*SHAPE, 5)
    labels = np.zeros_like(cine)
    labels[..., 4] = labels[..., 1] = label_image(1, 2, 3)
    write(tmp_path / "A0S9V9" / "A0S9V9_sa.nii.gz", cine)
    write(tmp_path / "A0S9V9" / "A0S9V9_sa_gt.nii.gz", labels)
    return tmp_path


def read_only(folder):
    return read_mnms(folder, mnms_subjects(folder / "table.csv")["A0S9V9"])


def test_acdc_frames_labels_and_body(patient):
    assert acdc_subjects(patient.parent) == [patient]
    study, cine = read_acdc(patient), read_acdc_cine(patient)
    np.testing.assert_array_equal(study.image, cine.array[..., [0, 3]])
    assert study.spacing == cine.spacing == (1.5, 1.5, 10.0) and (study.ed, study.es) == (0, 1)
    assert [np.sum(study.labels[..., 1] == code) for code in (1, 2, 3)] == [9, 6, 3]
    assert (study.name, study.group) == ("patient001", "DCM") and (study.height_cm, study.weight_kg) == (180, 80)


def test_both_data_sets_give_the_same_codes(patient, mnms):
    study, other = read_acdc(patient), read_only(mnms)
    np.testing.assert_array_equal(other.labels, study.labels)
    assert other.image[0, 0, 0].tolist() == [1.0, 4.0] and other.group == "DCM"
    assert (other.height_cm, other.weight_kg) == (study.height_cm, study.weight_kg)
    subject = mnms_subjects(mnms / "table.csv")["A0S9V9"]
    assert (subject.vendor, subject.site, subject.ed, subject.es) == ("A", "2", 1, 4)


def test_acdc_refuses(patient):
    info, stem = patient / "Info.cfg", str(patient / "patient001_frame")
    for text, complaint in (
        (INFO.replace("ES: 4\n", ""), "Info.cfg: no ES; expected lines such as 'ES: 1'"),
        (INFO.replace("ES: 4", "ES: 1"), "ED and ES are both frame 1; expected two frames"),
        (INFO.replace("ES: 4", "ES: 9"), "ES is frame 9; expected a frame from 1 to 5"),
        (INFO.replace("ES: 4", "ES: four"), "ES is 'four'; expected the number of a frame"),
        (INFO.replace("ES: 4", "ES: 3"), r"patient001_frame03.nii.gz: no such file"),
    ):
        info.write_text(text)
        with pytest.raises(DataError, match=complaint):
            read_acdc(patient)
    info.write_text(INFO)
    good = nibabel.load(f"{stem}04_gt.nii.gz").get_fdata()
    for labels, complaint in (
        (good[:-1], r"expected that of patient001_frame04.nii.gz, \(8, 7, 3\)"),
        (label_image(3, 2, 5), "frame04_gt.nii.gz: label 5; expected 0 and RV 1, MYO 2, LV 3"),
        (0 * good, "no left ventricle at ES; expected the annotated frame"),
    ):
        write(patient / "patient001_frame04_gt.nii.gz", labels)
        with pytest.raises(DataError, match=complaint):
            read_acdc(patient)
    write(patient / "patient001_frame04_gt.nii.gz", good, (1.5, 1.5, 8.0))
    with pytest.raises(DataError, match="another affine"):
        read_acdc(patient)
    info.unlink()
    with pytest.raises(DataError, match="no such file; expected lines"):
        read_acdc(patient)
    with pytest.raises(DataError, match="expected the folder training or testing"):
        acdc_subjects(patient)


def test_acdc_without_height_or_group(patient):
    (patient / "Info.cfg").write_text(INFO.replace("Height: 180.0\n", "").replace("Group: DCM\n", ""))
    study = read_acdc(patient)
    assert np.isnan(study.height_cm) and study.weight_kg == 80 and study.group == ""


def test_mnms_refuses(mnms):
    for row, complaint in (
        (ROW.replace(",2,1,4,70", ",2,4,4,70"), "A0S9V9: ED and ES are both frame 4"),
        (ROW.replace(",2,1,4,70", ",2,,4,70"), "A0S9V9: ED is ''; expected the number of a frame"),
        (ROW.replace(",2,1,4,70", ",2,1,7,70"), "A0S9V9_sa.nii.gz: ES is frame 7; expected a frame from 0 to 4"),
        (ROW.replace(",2,1,4,70", ",2,1,2,70"), "no left ventricle at ES, frame 2"),
        (ROW + ROW, "two rows of A0S9V9"),
    ):
        (mnms / "table.csv").write_text(HEADER + row)
        with pytest.raises(DataError, match=complaint):
            read_only(mnms)
    (mnms / "table.csv").write_text(HEADER + ROW)
    write(mnms / "A0S9V9" / "A0S9V9_sa_gt.nii.gz", np.full((*SHAPE, 5), 4))
    with pytest.raises(DataError, match="label 4; expected 0 and LV 1, MYO 2, RV 3"):
        read_only(mnms)
    (mnms / "table.csv").write_text(HEADER.replace("Centre", "Center") + ROW)
    with pytest.raises(DataError, match="no column Centre"):
        read_only(mnms)


def test_height_and_weight_that_are_no_number_are_unknown():
    assert parse_body({"Height": "180.0", "Weight": "80"}) == (180, 80)
    for text in ("", "0", "nan", "inf", "unknown"):
        assert np.isnan(parse_body({"Height": text})).all()
