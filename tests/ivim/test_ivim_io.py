"""A diffusion scan as arrays or files: voxels that can be fitted, regions of labels, noise of air, maps in space."""

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.io.nifti import write_nifti
from medjax.ivim.io import read_regions, read_scan, read_sigma
from medjax.ivim.maps import volume

B = np.array([0, 10, 50, 200, 800], np.float32)
DRAW = np.random.default_rng(0)


@pytest.fixture
def frames():
    array = DRAW.uniform(1, 2, (4, 3, 2, 5)).astype(np.float32)
    array[0, 0, 0, 1], array[1, 0, 0], array[2, 0, 0, 0] = np.nan, 0, -1
    return array


def test_usable_voxels_are_finite_and_somewhere_above_0(frames):
    scan = read_scan(frames, B)
    wanted = np.ones((4, 3, 2), bool)
    wanted[0, 0, 0] = wanted[1, 0, 0] = False
    np.testing.assert_array_equal(scan.usable, wanted)
    assert scan.remark == (
        "1 voxels with NaN or infinite values left out; 1 voxels with values of 0 or below in some frame, fitted"
    )
    mask = np.zeros((4, 3, 2))
    mask[1:, 0] = 1
    masked = read_scan(frames, B, mask)
    np.testing.assert_array_equal(masked.usable, wanted & (mask > 0))
    assert masked.remark.startswith("1 voxels without signal above 0 left out; 1 voxels with values")


def test_regions_and_maps_are_of_the_usable_voxels(frames, tmp_path):
    scan = read_scan(frames, B)
    labels = np.zeros((4, 3, 2), np.float32)
    labels[0], labels[3] = 2, 7
    write_nifti(tmp_path / "labels.nii.gz", labels, np.eye(4))
    for given in (labels, tmp_path / "labels.nii.gz"):
        regions = read_regions(given, scan)
        assert {name: int(inside.sum()) for name, inside in regions.items()} == {"all": 22, "2": 5, "7": 6}
    values = DRAW.normal(size=22).astype(np.float32)
    values[0] = np.inf
    back = volume(values, scan.usable)
    np.testing.assert_array_equal(back[scan.usable], np.r_[0, values[1:]])
    assert not back[~scan.usable].any()
    with pytest.raises(DataError, match=r"array: values that are no labels, such as 3\.5"):
        read_regions(labels / 2, scan)


def test_sigma_of_residuals_of_a_number_and_of_air(frames, tmp_path):
    air = np.zeros((40, 30, 2), np.float32)
    air[10:] = 1
    noise = 3 * np.hypot(*DRAW.normal(size=(2, 40, 30, 2, 5))).astype(np.float32)
    write_nifti(tmp_path / "air.nii.gz", air, np.eye(4))
    scan = read_scan(noise, B)
    assert read_sigma("residual", scan) is None and read_sigma("2.5", scan) == read_sigma(2.5, scan) == 2.5
    assert read_sigma(str(tmp_path / "air.nii.gz"), scan) == pytest.approx(3, rel=0.03)
    for given in ("much", "-1", 0.0):
        with pytest.raises(ConfigError, match="expected residual, a number above 0 or a mask of air"):
            read_sigma(given, scan)


def test_what_does_not_fit_the_scan_is_named(frames):
    with pytest.raises(DataError, match="b-values: 4 b-values; the scan has 5 frames"):
        read_scan(frames, B[:4])
    with pytest.raises(DataError, match=r"array: shape \(4, 3, 1\); expected that of the scan, \(4, 3, 2\)"):
        read_scan(frames, B, np.ones((4, 3, 1)))
    with pytest.raises(DataError, match="the scan: 24 voxels to fit, none of them finite"):
        read_scan(np.full((4, 3, 2, 5), np.nan, np.float32), B)
