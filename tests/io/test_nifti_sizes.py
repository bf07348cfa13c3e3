"""NIfTI images that are legal but absurd: voxels of kilometres or picometres, grids far from one another in size."""

import nibabel
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.nifti import Volume, read_nifti, resample
from medjax.segmentation import patches
from medjax.segmentation.plan import Case, fingerprint, plan

IMAGE = np.arange(512, dtype=np.float32).reshape(8, 8, 8)


@pytest.mark.parametrize("side", [1e6, 1e-9, 2e4, 5e-5])
@pytest.mark.parametrize("axis", range(3))
def test_voxels_of_no_scanner_are_refused(tmp_path, side, axis):
    sides = [1.0, 1.0, 1.0, 1.0]
    sides[axis] = side
    nibabel.save(nibabel.Nifti1Image(IMAGE, np.diag(sides)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz: voxels of .* mm; expected 0\.0001 to 10000 along each axis"):
        read_nifti(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("side", [1e-3, 1e3])
def test_microscopes_and_bodies_in_a_voxel_are_read(tmp_path, side):
    nibabel.save(nibabel.Nifti1Image(IMAGE, np.diag([side, side, side, 1])), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array, IMAGE)


def test_the_mean_over_a_voxel_that_holds_the_whole_image_ends(tmp_path):
    tilt = np.deg2rad(20)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    source = turned.copy()
    source[:3, :3] *= 1e-4  # a ratio of 10⁸: weights of so many voxels would be 800 MB
    found = resample(Volume(IMAGE, source), (2, 2, 2), np.diag([1e4, 1e4, 1e4, 1.0]))
    assert np.isfinite(found.array).all() and found.array.max() < 1e-6


def test_images_whose_resampled_grid_exceeds_the_memory_are_refused():
    labels = np.zeros((16, 16, 16), np.int32)
    labels[4:8, 4:8, 4:8] = 1
    image = np.random.default_rng(0).random((16, 16, 16, 1)).astype(np.float32)
    own = plan(fingerprint([Case(image, labels, (1.0, 1.0, 1.0))], 2), patch=(8, 8, 8), base_width=2)
    with pytest.raises(
        DataError, match=r"image of 16000 × 16000 × 16000 voxels at the plan's spacing: needs .* of mem"
    ):
        patches.prepare_image(image, (1e3, 1e3, 1e3), own)
