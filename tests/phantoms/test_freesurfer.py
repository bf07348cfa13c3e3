"""A T1 with FreeSurfer's labels becomes a head: a ball of tissues whose volumes are known."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.nifti import write_nifti
from medjax.phantoms.brain import ACTIVITY
from medjax.phantoms.freesurfer import read_head, resample_head

GREY, WHITE, VENTRICLE = 3, 2, 4  # FreeSurfer's numbers
AFFINE = np.array([[-3.0, 0, 0, 90], [0, 0, 3, -90], [0, -3, 0, 90], [0, 0, 0, 1]])  # as FreeSurfer lays axes
MIDDLE = (24.5 * -3 + 90, 24.5 * 3 - 90, 24.5 * -3 + 90)


def written(folder, labels):
    write_nifti(folder / "labels.nii.gz", labels.astype(np.float32), AFFINE)
    write_nifti(
        folder / "t1.nii.gz", np.select([labels == WHITE, labels == GREY], [110.0, 70.0], 0).astype("f4"), AFFINE
    )


def test_a_ball_of_tissues_becomes_a_head(tmp_path):
    radius = 3 * np.linalg.norm(np.indices((50, 50, 50)) - 24.5, axis=0)
    written(tmp_path, np.select([radius < 20, radius < 50, radius < 60], [VENTRICLE, WHITE, GREY], 0))
    head = read_head(tmp_path)
    np.testing.assert_allclose(head.center_of_mass_mm, MIDDLE, atol=1e-3)
    x, y, z = head.center_of_mass_mm
    low, high = (resample_head(head, (5.0, 5.0, 5.0), (49, 49, 1), (x, y, z + up)) for up in (10.0, 30.0))
    assert low.affine[2, 3] == pytest.approx(MIDDLE[2] + 10, abs=1e-3)
    values = [float(low.activity[24, 24 + k, 0]) for k in (0, 7, 11)]
    fdg = ACTIVITY["fdg"]
    np.testing.assert_allclose(values, [fdg.fluid, fdg.white, fdg.gray], rtol=0.15)
    assert low.activity[0, 0, 0] == 0 and not low.lesions.any()
    for brain, up in ((low, 10), (high, 30)):
        assert brain.brain_mask.sum() * 25 == pytest.approx(np.pi * (60**2 - up**2), rel=0.05)
    assert low.brain_mask.sum() < low.head_mask.sum()
    assert low.t1[24, 31, 0] == pytest.approx(1, abs=0.02)  # white matter, the brightest


def test_what_is_no_segmented_brain_is_refused(tmp_path):
    written(tmp_path, np.full((20, 20, 20), VENTRICLE))
    with pytest.raises(DataError, match="no grey or white matter"):
        read_head(tmp_path)
    write_nifti(tmp_path / "t1.nii.gz", np.ones((20, 20, 19), np.float32), AFFINE)
    with pytest.raises(DataError, match=r"expected that of t1\.nii\.gz"):
        read_head(tmp_path)
