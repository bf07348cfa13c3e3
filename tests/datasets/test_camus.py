"""CAMUS's layout, imitated by two tiny patients."""

import numpy as np
import pytest

from medjax.datasets.camus import camus, split
from medjax.errors import DataError
from medjax.io.nifti import write_nifti


@pytest.fixture
def folder(tmp_path):
    for number, quality in ((1, "Good"), (2, "Poor")):
        name = f"patient{number:04d}"
        (tmp_path / name).mkdir()
        for view in ("2CH", "4CH"):
            (tmp_path / name / f"Info_{view}.cfg").write_text(f"ED: 1\nES: 18\nImageQuality: {quality}\nEF: 60\n")
            for phase in ("ED", "ES"):
                image, label = np.full((40, 60, 1), 51.0, np.float32), np.zeros((40, 60, 1), np.float32)
                label[10:20, 30:45] = 2 if phase == "ES" else 1
                write_nifti(tmp_path / name / f"{name}_{view}_{phase}.nii.gz", image, np.eye(4))
                write_nifti(tmp_path / name / f"{name}_{view}_{phase}_gt.nii.gz", label, np.eye(4))
    return tmp_path


def test_views_phases_quality_and_orientation(folder):
    data = camus(folder, 32)
    assert data.images.shape == (8, 32, 32, 1) and list(data.group) == [0, 1, 2, 3] * 2
    np.testing.assert_allclose(data.images, 0.2, atol=1e-5)
    np.testing.assert_array_equal(data.hard, [False] * 4 + [True] * 4)
    rows, columns = np.nonzero(data.labels[0] == 1)
    assert rows.mean() / 32 == pytest.approx(37.5 / 60, abs=0.02)  # down is the file's second axis
    assert columns.mean() / 32 == pytest.approx(15 / 40, abs=0.02)
    assert data.labels[1].max() == 2 and len(camus(folder, 32, patients=1).images) == 4


def test_what_is_not_camus_is_refused(folder, tmp_path_factory):
    with pytest.raises(DataError, match="expected the folder database_nifti"):
        camus(tmp_path_factory.mktemp("empty"), 32)
    label = folder / "patient0001" / "patient0001_2CH_ED_gt.nii.gz"
    write_nifti(label, np.zeros((40, 59, 1), np.float32), np.eye(4))
    with pytest.raises(DataError, match=r"shape \(40, 59\); expected that of patient0001_2CH_ED.nii.gz, \(40, 60\)"):
        camus(folder, 32)
    write_nifti(label, np.full((40, 60, 1), 7, np.float32), np.eye(4))
    with pytest.raises(DataError, match="label 7; expected 0 to 3"):
        camus(folder, 32)


def test_parts_share_no_patient(folder):
    data = camus(folder, 32)
    data = data._replace(images=data.images + np.arange(8, dtype=np.float32)[:, None, None, None])
    for seed in range(3):
        first, second = split(data, seed, 4, 4)
        numbers = [sorted(np.round(part.images[:, 0, 0, 0] - 0.2).astype(int) // 4) for part in (first, second)]
        assert sorted(numbers) == [[0] * 4, [1] * 4] and list(first.group) == [0, 1, 2, 3]
        np.testing.assert_array_equal(first.hard, [bool(numbers[0][0])] * 4)
    assert len(split(data, 0, 4)) == 1
    for sizes in ((6, 2), (8, 4)):
        with pytest.raises(DataError, match=r"CAMUS: 8 images for parts of . and .; expected multiples of 4"):
            split(data, 0, *sizes)
