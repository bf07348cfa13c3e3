"""Transform files against SimpleITK, ANTs and nitransforms where they are installed, and closed forms without them."""

import nibabel
import numpy as np
import pytest
import scipy.io
from scipy.spatial.transform import Rotation

from medjax.errors import DataError
from medjax.io.displacement_fields import read_displacement_field, write_displacement_field
from medjax.io.itk_transforms import flip_axes, read_itk_affine, write_itk_affine

RNG = np.random.default_rng(0)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, -20, 15], degrees=True).as_matrix() * [2.0, 1.5, 3.0]
OBLIQUE[:3, 3] = [-10, 20, 5]
PLANE = np.array([[-1.5, 0, 4], [0, 2, -7], [0, 0, 1]])
POINTS = RNG.uniform(-50, 50, (6, 3))


def affine(size):
    out = np.eye(size + 1)
    out[:-1] += RNG.normal(size=(size, size + 1)) * 0.2
    out[:-1, -1] *= 30
    return out


def apply(matrix, points):
    size = len(matrix) - 1
    return points[:, :size] @ matrix[:-1, :-1].T + matrix[:-1, -1]


def lps(points):
    return points * np.array([-1, -1, 1])[: points.shape[1]]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("ending", [".txt", ".tfm", ".mat"])
def test_affines_come_back(tmp_path, size, ending):
    matrix = affine(size)
    write_itk_affine(tmp_path / f"a{ending}", matrix)
    np.testing.assert_allclose(read_itk_affine(tmp_path / f"a{ending}"), matrix, atol=1e-12)


def text(path, kind, parameters, fixed=()):
    lines = ["#Insight Transform File V1.0", "#Transform 0", f"Transform: {kind}"]
    lines += [
        f"{key}: {' '.join(map(str, values))}"
        for key, values in (("Parameters", parameters), ("FixedParameters", fixed))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_center_and_axes_by_hand(tmp_path):
    """y = A (x − c) + c + t in LPS+: a quarter turn about z at c, and a shift along x."""
    file = text(tmp_path / "a.txt", "AffineTransform_double_3_3", [0, -1, 0, 1, 0, 0, 0, 0, 1, 7, 0, 0], [10, 20, 30])
    at = np.array([[11.0, 20.0, 30.0]])  # one mm to the left of c, goes to the back of it, and 7 mm to the left
    np.testing.assert_allclose(apply(read_itk_affine(file), lps(at)), lps(np.array([[17.0, 21.0, 30.0]])))


def test_ants_binary_by_hand(tmp_path):
    """What ANTsPy wrote of a scale of 1.1 along x about (4, 5, 6), shift (1, 2, 3)."""
    parameters = np.array([1.1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3], np.float32)
    content = {"AffineTransform_float_3_3": parameters[:, None], "fixed": np.array([4.0, 5, 6], np.float32)[:, None]}
    scipy.io.savemat(tmp_path / "a.mat", content, format="4")
    found = apply(read_itk_affine(tmp_path / "a.mat"), lps(np.array([[14.0, 5.0, 6.0]])))
    np.testing.assert_allclose(found, lps(np.array([[4 + 11 + 1, 7.0, 9.0]])), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters", "fixed"),
    [
        ("Euler3DTransform", [0.1, -0.2, 0.3, 4, 5, 6], [10, -20, 30, 0]),
        ("Euler3DTransform", [0.1, -0.2, 0.3, 4, 5, 6], [10, -20, 30, 1]),
        ("Euler2DTransform", [0.3, 4, 5], [10, -20]),
        ("VersorRigid3DTransform", [0.1, -0.2, 0.3, 4, 5, 6], [10, -20, 30]),
        ("TranslationTransform", [4, 5, 6], []),
        ("AffineTransform", RNG.normal(size=12).tolist(), [10, -20, 30]),
        ("AffineTransform", RNG.normal(size=6).tolist(), [10, -20]),
    ],
)
def test_kinds_are_simpleitks(tmp_path, name, parameters, fixed):
    sitk = pytest.importorskip("SimpleITK")
    size = 2 if "2D" in name or len(fixed) == 2 else 3
    file = text(tmp_path / "a.tfm", f"{name}_double_{size}_{size}", parameters, fixed)
    transform = sitk.ReadTransform(str(file))
    expected = [transform.TransformPoint(point) for point in lps(POINTS[:, :size]).tolist()]
    np.testing.assert_allclose(lps(apply(read_itk_affine(file), POINTS)), expected, atol=1e-9)


@pytest.mark.parametrize("size", [2, 3])
def test_simpleitk_reads_what_is_written(tmp_path, size):
    sitk = pytest.importorskip("SimpleITK")
    matrix = affine(size)
    for ending in (".txt", ".mat"):
        write_itk_affine(tmp_path / f"a{ending}", matrix)
        transform = sitk.ReadTransform(str(tmp_path / f"a{ending}"))
        found = [transform.TransformPoint(point) for point in lps(POINTS[:, :size]).tolist()]
        np.testing.assert_allclose(lps(np.array(found)), apply(matrix, POINTS), atol=1e-9)


def test_composite_is_simpleitks(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    parts = [sitk.AffineTransform(flip_axes(affine(3))[:3, :3].ravel().tolist(), [1.0, k, 3.0]) for k in range(2)]
    sitk.WriteTransform(both := sitk.CompositeTransform(parts), str(tmp_path / "both.tfm"))
    expected = [both.TransformPoint(point) for point in lps(POINTS).tolist()]
    np.testing.assert_allclose(lps(apply(read_itk_affine(tmp_path / "both.tfm"), POINTS)), expected, atol=1e-9)


def test_affines_are_nitransforms(tmp_path):
    linear = pytest.importorskip("nitransforms.linear")
    matrix = affine(3)
    write_itk_affine(tmp_path / "a.txt", matrix)
    theirs = linear.Affine.from_filename(tmp_path / "a.txt", fmt="itk")
    np.testing.assert_allclose(theirs.map(POINTS), apply(matrix, POINTS), atol=1e-6)


def test_antspy_reads_and_writes_the_same(tmp_path):
    ants = pytest.importorskip("ants")
    matrix = affine(3)
    write_itk_affine(tmp_path / "ours.mat", matrix)
    theirs = ants.read_transform(str(tmp_path / "ours.mat"))
    found = [ants.apply_ants_transform_to_point(theirs, point) for point in lps(POINTS).tolist()]
    np.testing.assert_allclose(lps(np.array(found)), apply(matrix, POINTS), atol=1e-3)
    ants.write_transform(theirs, str(tmp_path / "theirs.mat"))
    np.testing.assert_allclose(read_itk_affine(tmp_path / "theirs.mat"), matrix, atol=1e-4)


@pytest.mark.parametrize(("shape", "grid"), [((4, 5, 6), OBLIQUE), ((4, 5), PLANE)])
def test_fields_come_back_and_hold_lps(tmp_path, shape, grid):
    field = RNG.normal(size=(len(shape), *shape)).astype("float32")
    write_displacement_field(tmp_path / "f.nii.gz", field, grid)
    found = read_displacement_field(tmp_path / "f.nii.gz")
    np.testing.assert_array_equal(found.displacement_mm, field)
    np.testing.assert_allclose(found.affine, grid, atol=1e-5)
    image = nibabel.load(tmp_path / "f.nii.gz")
    assert image.shape == (*shape, *[1] * (4 - len(shape)), len(shape))
    assert image.header["intent_code"] == 1007
    first = np.asarray(image.dataobj)[..., 0].reshape(shape)
    np.testing.assert_array_equal(first, -field[0])


@pytest.mark.parametrize(("shape", "grid"), [((4, 5, 6), OBLIQUE), ((4, 5), PLANE)])
def test_fields_are_simpleitks(tmp_path, shape, grid):
    sitk = pytest.importorskip("SimpleITK")
    size = len(shape)
    field = RNG.normal(size=(size, *shape)).astype("float32")
    write_displacement_field(tmp_path / "f.nii.gz", field, grid)
    image = sitk.ReadImage(str(tmp_path / "f.nii.gz"), sitk.sitkVectorFloat64)
    assert (image.GetDimension(), image.GetNumberOfComponentsPerPixel()) == (size, size)
    transform = sitk.DisplacementFieldTransform(sitk.Image(image))
    for index in [(1,) * size, (3, 2, 4)[:size]]:
        point = grid[:-1, :-1] @ index + grid[:-1, -1]
        expected = point + field[(slice(None), *index)]
        found = np.array(transform.TransformPoint(lps(point[None])[0].tolist()))
        np.testing.assert_allclose(lps(found[None])[0], expected, atol=1e-4)
    sitk.WriteImage(image, str(tmp_path / "theirs.nii.gz"))
    theirs = read_displacement_field(tmp_path / "theirs.nii.gz")
    np.testing.assert_allclose(theirs.displacement_mm, field, atol=1e-6)
    np.testing.assert_allclose(theirs.affine, grid, atol=1e-4)


def test_fields_are_nitransforms(tmp_path):
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    field = np.ones((3, 8, 9, 10), np.float32) * np.array([1.0, 2.0, -3.0]).reshape(3, 1, 1, 1)
    write_displacement_field(tmp_path / "f.nii.gz", field.astype(np.float32), OBLIQUE)
    io = pytest.importorskip("nitransforms.io.itk")
    theirs = nonlinear.DenseFieldTransform(io.ITKDisplacementsField.from_filename(str(tmp_path / "f.nii.gz")))
    point = (OBLIQUE[:3, :3] @ [3, 4, 5] + OBLIQUE[:3, 3])[None]
    np.testing.assert_allclose(theirs.map(point), point + np.array([1.0, 2.0, -3.0]), atol=1e-3)


def test_bad_input(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)), tmp_path / "scalar.nii.gz")
    with pytest.raises(DataError, match="expected a displacement field"):
        read_displacement_field(tmp_path / "scalar.nii.gz")
    with pytest.raises(DataError, match="NaN"):
        write_displacement_field(tmp_path / "f.nii.gz", np.full((2, 3, 3), np.nan, np.float32), PLANE)
    with pytest.raises(DataError, match="affine to write"):
        write_displacement_field(tmp_path / "f.nii.gz", np.zeros((2, 3, 3), np.float32), OBLIQUE)
    with pytest.raises(DataError, match="ends in"):
        write_itk_affine(tmp_path / "a.xfm", np.eye(4))
    with pytest.raises(DataError, match="no such file"):
        read_itk_affine(tmp_path / "none.txt")
    for name, content in {"words.txt": b"hello", "bytes.txt": b"\xff\xfe", "damaged.mat": b"\x00\x00\x01"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_itk_affine(tmp_path / name)
    with pytest.raises(DataError, match="BSplineTransform"):
        read_itk_affine(text(tmp_path / "b.txt", "BSplineTransform_double_3_3_3", [0.0] * 10))
    with pytest.raises(DataError, match="no numbers"):
        read_itk_affine(text(tmp_path / "b.txt", "AffineTransform_double_2_2", ["a"] * 6))
