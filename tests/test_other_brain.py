"""A T1 with FreeSurfer's labels becomes a subject of the PET experiments."""

import numpy as np
import pytest

from experiments._pet import bench, scan
from experiments._pet_other import other_subjects
from medjax.errors import DataError
from medjax.io.nifti import write_nifti

GREY, WHITE, VENTRICLE = 3, 2, 4  # FreeSurfer's numbers
AFFINE = np.array([[-3.0, 0, 0, 90], [0, 0, 3, -90], [0, -3, 0, 90], [0, 0, 0, 1]])  # as FreeSurfer lays axes


def written(folder, labels):
    write_nifti(folder / "labels.nii.gz", labels.astype(np.float32), AFFINE)
    write_nifti(
        folder / "t1.nii.gz", np.select([labels == WHITE, labels == GREY], [110.0, 70.0], 0).astype("f4"), AFFINE
    )


def test_a_ball_of_tissues_becomes_a_head(tmp_path):
    radius = 3 * np.linalg.norm(np.indices((50, 50, 50)) - 24.5, axis=0)
    written(tmp_path, np.select([radius < 20, radius < 50, radius < 60], [VENTRICLE, WHITE, GREY], 0))
    b = bench("ring_2d", 48, 5.0)
    first, second = other_subjects(b, tmp_path)
    truth = first.truth
    assert truth.affine[2, 3] == pytest.approx(24.5 * -3 + 90 + 10, abs=0.2)  # 10 mm above the middle
    inside = [truth.activity[24, 24 + k, 0] for k in (0, 7, 11)]  # ventricle, white, grey
    assert inside[0] < inside[1] < inside[2] and truth.activity[0, 0, 0] == 0
    assert truth.brain_mask.sum() * 25 == pytest.approx(np.pi * (60**2 - 10**2), rel=0.05)
    assert second.truth.brain_mask.sum() < truth.brain_mask.sum() < truth.head_mask.sum()
    cases = scan(b, [first, second], (10.0,), 2, seed=0)
    assert cases.number == 4 and np.isfinite(cases.counts).all() and not cases.lesions.any()


def test_what_is_no_segmented_brain_is_refused(tmp_path):
    b = bench("ring_2d", 48, 5.0)
    written(tmp_path, np.full((20, 20, 20), VENTRICLE))
    with pytest.raises(DataError, match="no grey or white matter"):
        other_subjects(b, tmp_path)
    write_nifti(tmp_path / "t1.nii.gz", np.ones((20, 20, 19), np.float32), AFFINE)
    with pytest.raises(DataError, match="expected one grid"):
        other_subjects(b, tmp_path)
