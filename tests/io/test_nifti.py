"""NIfTI round trips against nibabel, resampling against SciPy and points, and files that must be refused."""

import gzip
import resource

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medjax.errors import DataError
from medjax.io import nifti
from medjax.io.nifti import Volume

AFFINE = nifti.grid_affine((5, 6, 7), (2.0, 3.0, 4.0), (10.0, -20.0, 30.0))


def volume(shape=(5, 6, 7), seed=0):
    return np.random.default_rng(seed).uniform(1, 2, shape).astype(np.float32)


def rotation(degrees):
    """About z."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return matrix


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
@pytest.mark.parametrize(("shape", "read"), [((5, 6, 7), nifti.read_nifti), ((5, 6, 7, 3), nifti.read_nifti_series)])
def test_write_then_read_gives_the_same(tmp_path, name, shape, read):
    array, affine = volume(shape), rotation(30) @ AFFINE
    nifti.write_nifti(tmp_path / name, array, affine)
    back = read(tmp_path / name)
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)
    header = nibabel.load(tmp_path / name).header
    assert header.get_xyzt_units()[0] == "mm" and header.get_data_dtype() == np.float32
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-4)
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    assert header["qform_code"] and header["sform_code"] and header.get_data_shape() == shape
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_reads_scaled_integers_as_nibabel_does(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    back = nifti.read_nifti(str(tmp_path / "scaled.nii.gz"))
    np.testing.assert_allclose(back.array, nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()[..., 0])


def test_qform_serves_where_there_is_no_sform(tmp_path):
    image = nibabel.Nifti1Image(volume(), AFFINE)
    image.set_sform(None)
    image.set_qform(AFFINE, code=1)
    nibabel.save(image, tmp_path / "q.nii")
    np.testing.assert_allclose(nifti.read_nifti(tmp_path / "q.nii").affine, AFFINE, atol=1e-5)


def save(path, array=None, affine=AFFINE, units="mm", codes=(1, 1)):
    image = nibabel.Nifti1Image(volume() if array is None else array, affine)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[252:256] = np.array(codes, "<i2").tobytes()  # qform_code, sform_code
    path.write_bytes(content)


def sheared():
    affine = AFFINE.copy()
    affine[0, 1] = 0.3
    return affine


def far(distance):
    affine = AFFINE.copy()
    affine[0, 3] = distance
    return affine


def with_nan():
    array = volume()
    array[1, 2, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"not an image" * 100), "cannot be read"),
        (lambda path: path.write_bytes(gzip.compress(b"\0" * 1000)), "cannot be read"),
        (lambda path: save(path, volume((4, 4, 4, 2))), r"shape \(4, 4, 4, 2\)"),
        (lambda path: save(path, volume((4,))), r"shape \(4,\)"),
        (
            lambda path: save(path, codes=(0, 0)),
            r"left and right are not known; .*image.set_sform\(image.affine, 1\)",
        ),
        (lambda path: save(path, affine=sheared(), codes=(0, 1)), "sheared"),
        (lambda path: save(path, with_nan()), "1 NaN or infinite"),
        (
            lambda path: save(path, np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))),
            "expected whole or real",
        ),
    ],
)
def test_files_that_are_refused(tmp_path, make, message):
    path = tmp_path / "image.nii"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        nifti.read_nifti(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("units", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_in_a_unit_that_is_stated_become_mm(tmp_path, units, factor):
    save(tmp_path / "image.nii", affine=np.diag([factor, factor, factor, 1]) @ AFFINE, units=units)
    np.testing.assert_allclose(nifti.read_nifti(tmp_path / "image.nii").affine, AFFINE, rtol=1e-6)


def test_a_checksum_that_does_not_match_is_refused(tmp_path):
    """A μ of 0.0096 turned to 0.05 in a block that is stored as it is: only the checksum tells."""
    path = tmp_path / "mu.nii.gz"
    image = nibabel.Nifti1Image(np.full((5, 6, 7), 0.0096, np.float32), AFFINE)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=0))
    np.testing.assert_array_equal(nifti.read_nifti(path).array, np.float32(0.0096))
    content, value = path.read_bytes(), np.float32(0.0096).tobytes()
    at = content.rindex(value)
    path.write_bytes(content[:at] + np.float32(0.05).tobytes() + content[at + 4 :])
    assert nibabel.load(path).get_fdata().max() > 0.04  # nibabel takes it
    with pytest.raises(DataError, match=r"mu.nii.gz: cannot be read, damaged \(CRC check failed"):
        nifti.read_nifti(path)
    path.write_bytes(content[:-8])
    with pytest.raises(DataError, match="damaged"):
        nifti.read_nifti(path)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume((20, 20, 20)), AFFINE), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read"):
        nifti.read_nifti(path)
    nibabel.save(nibabel.MGHImage(volume(), AFFINE), tmp_path / "image.mgh")
    with pytest.raises(DataError, match="expected NIfTI"):
        nifti.read_nifti(tmp_path / "image.mgh")


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, name):
    nifti.write_nifti(tmp_path / name, volume(), AFFINE)
    before = (tmp_path / name).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            nifti.write_nifti(tmp_path / name, volume((30, 30, 30)), AFFINE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "array", "affine", "message"),
    [
        ("image.img", volume(), AFFINE, "ends in"),
        ("image.nii", with_nan(), AFFINE, "finite"),
        ("image.nii", volume(), sheared(), "sheared"),
        ("image.nii", volume(), np.diag([1.0, 0, 1, 1]), "singular"),
        ("image.nii", 1e39 * volume().astype(float), AFFINE, "finite"),
        ("image.nii", volume(), far(1e39), "origin .* single precision"),
        ("image.nii", volume(), far(1e9 + 31), "origin .* single precision"),
        ("image.nii", volume(), np.full((4, 4), np.nan), "not finite"),
    ],
)
def test_what_is_not_written(tmp_path, name, array, affine, message):
    with pytest.raises(DataError, match=message):
        nifti.write_nifti(tmp_path / name, array, affine)
    assert not list(tmp_path.iterdir())


def test_an_integer_type_holds_what_is_written_or_nothing_is(tmp_path):
    labels = np.arange(210).reshape(5, 6, 7)
    nifti.write_nifti(tmp_path / "labels.nii", labels, AFFINE, np.uint8)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "labels.nii").dataobj, labels)
    for values in (labels + 50, labels - 1, labels / 2, np.where(labels == 3, np.nan, labels)):
        with pytest.raises(DataError, match="values that uint8 does not hold"):
            nifti.write_nifti(tmp_path / "other.nii", values, AFFINE, np.uint8)


def test_grid_affine_centres_the_grid():
    assert nifti.voxel_mm(AFFINE) == (2.0, 3.0, 4.0)
    middle = AFFINE @ [2, 2.5, 3, 1]
    np.testing.assert_allclose(middle[:3], [10, -20, 30])
    np.testing.assert_allclose(nifti.voxel_mm(rotation(20) @ AFFINE), (2, 3, 4))
    with pytest.raises(DataError, match="positive"):
        nifti.grid_affine((5, 6, 7), (2.0, 0.0, 4.0))


def point_volume(index, shape=(11, 13, 9), affine=None):
    array = np.zeros(shape, np.float32)
    array[index] = 1
    return Volume(array, np.diag([2.0, 2, 2, 1]) if affine is None else affine)


def centroid_mm(volume):
    index = np.array(ndimage.center_of_mass(volume.array))
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3]


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_point_keeps_its_place_on_a_flipped_shifted_finer_grid(order):
    source = point_volume((2, 9, 4))  # x = 4 mm, y = 18 mm, z = 8 mm
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = [30, -10, -4]
    result = nifti.resample(source, (40, 50, 30), flipped, order)
    np.testing.assert_allclose(centroid_mm(result), [4, 18, 8], atol=0.51 if order == 0 else 1e-3)
    peak = np.unravel_index(result.array.argmax(), result.array.shape)
    if order:
        assert peak == (26, 28, 12)  # x = 30 − 26 = 4: left stays left


def test_swapped_axes():
    source = Volume(volume((5, 6, 7)), AFFINE)
    swap = AFFINE[:, [2, 0, 1, 3]]  # the new first axis runs along z
    result = nifti.resample(source, (7, 5, 6), swap)
    np.testing.assert_allclose(result.array, source.array.transpose(2, 0, 1), rtol=1e-6)


def test_finer_and_rotated_grids_are_scipys():
    source = Volume(volume((12, 11, 10)), np.diag([2.0, 2, 2, 1]))
    for grid in (nifti.grid_affine((30, 25, 20), 0.7, (11, 10, 9)), rotation(25) @ np.diag([1.5, 1.5, 1.5, 1])):
        matrix = np.linalg.inv(source.affine) @ grid
        expected = ndimage.affine_transform(
            source.array, matrix[:3, :3], matrix[:3, 3], (30, 25, 20), order=1, mode="grid-constant"
        )
        result = nifti.resample(source, (30, 25, 20), grid)
        np.testing.assert_allclose(result.array, expected, atol=2e-6)


def test_whole_factors_are_block_means():
    array = volume((12, 8, 6))
    source = Volume(array, nifti.grid_affine((12, 8, 6), 1.0))
    result = nifti.resample(source, (4, 4, 3), nifti.grid_affine((4, 4, 3), (3.0, 2.0, 2.0)))
    np.testing.assert_allclose(result.array, array.reshape(4, 3, 4, 2, 3, 2).mean((1, 3, 5)), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(*[st.floats(1, 4)] * 3),
    center=st.tuples(*[st.floats(-2, 2)] * 3),
    index=st.integers(0, 11 * 13 * 9 - 1),
)
def test_coarser_grids_keep_the_integral_and_the_place_of_a_point(sizes, center, index):
    source = point_volume(np.unravel_index(index, (11, 13, 9)), affine=nifti.grid_affine((11, 13, 9), 1.0))
    grid = nifti.grid_affine((24, 26, 20), sizes, center)
    result = nifti.resample(source, (24, 26, 20), grid)
    np.testing.assert_allclose(result.array.sum(dtype=float) * np.prod(sizes), 1, rtol=1e-5)
    assert np.all(np.abs(centroid_mm(result) - centroid_mm(source)) <= np.array(sizes) / 2 + 0.5)


@pytest.mark.parametrize("order", [1, 3])
def test_a_rotated_coarser_grid_does_not_alias(order):
    stripes = np.indices((40, 40, 5)).sum(0) % 2  # a chessboard of one voxel: its mean is 0.5 everywhere
    source = Volume(stripes.astype(np.float32), nifti.grid_affine((40, 40, 5), 1.0))
    grid = rotation(20) @ nifti.grid_affine((8, 8, 1), 2.6)
    result = nifti.resample(source, (8, 8, 1), grid, order)
    np.testing.assert_allclose(result.array, 0.5, atol=0.1)
    smooth = Volume(ndimage.gaussian_filter(point_volume((20, 20, 2), (40, 40, 5)).array, (4, 4, 0)), source.affine)
    coarse = nifti.resample(smooth, (16, 16, 1), rotation(20) @ nifti.grid_affine((16, 16, 1), (2.6, 2.6, 5.0)), order)
    np.testing.assert_allclose(coarse.array.sum() * 2.6**2 * 5, smooth.array.sum(), rtol=0.02)


def test_labels_stay_labels():
    labels = Volume((volume((12, 12, 12)) * 5).round(), np.eye(4))
    result = nifti.resample(labels, (6, 6, 6), nifti.grid_affine((6, 6, 6), 1.7, (5.0, 5.0, 5.0)), order=0)
    assert set(np.unique(result.array)) <= set(np.unique(labels.array))


def test_a_sheared_grid_is_refused():
    with pytest.raises(DataError, match="grid to resample to: sheared"):
        nifti.resample(Volume(volume(), AFFINE), (3, 3, 3), sheared())


def test_reach_is_to_the_edges_of_what_is_not_zero():
    array = np.zeros((5, 6, 7), np.float32)
    array[1:3, 4, 2:6] = 1
    one = Volume(array, AFFINE)
    np.testing.assert_allclose(one.center_mm, (10.0, -20.0, 30.0), atol=1e-4)
    ends = [AFFINE[:3, :3] @ index + AFFINE[:3, 3] for index in ((0.5, 3.5, 1.5), (2.5, 4.5, 5.5))]
    point = (8.0, 0.0, 100.0)
    np.testing.assert_allclose(nifti.extent_mm(one, point), np.abs(np.subtract(ends, point)).max(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(nifti.extent_mm(Volume(0 * array, AFFINE), point), np.zeros(3))
