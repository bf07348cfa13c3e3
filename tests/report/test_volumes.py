"""An image, its picture and its standard deviation lie side by side."""

import numpy as np

from medjax.io.nifti import read_nifti
from medjax.report.figures import PET
from medjax.report.volumes import write_volume


def test_files_are_written_side_by_side(tmp_path):
    image = np.random.default_rng(0).uniform(size=(8, 9, 3)).astype(np.float32)
    affine, path = np.diag([2.0, 2.0, 4.0, 1.0]), tmp_path / "a.nii.gz"
    assert write_volume(path, image, affine, PET, "image") == (path, tmp_path / "a.png")
    files = write_volume(path, image, affine, PET, "image", image / 2, "simulated")
    assert files == (path, tmp_path / "a.png", tmp_path / "a_sd.nii.gz")
    np.testing.assert_array_equal(read_nifti(files[0]).array, image)
    np.testing.assert_array_equal(read_nifti(files[2]).array, image / 2)
    assert files[1].read_bytes().startswith(b"\x89PNG") and set(tmp_path.iterdir()) == set(files)
