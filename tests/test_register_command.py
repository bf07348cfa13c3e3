"""`medjax register`: two images in, the warped one and its transforms out; bad input is one line and writes nothing."""

import csv
import re
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from medjax import cli
from medjax.io.displacement_fields import read_displacement_field
from medjax.io.itk_transforms import read_itk_affine, write_itk_affine
from medjax.io.nifti import Volume, read_nifti, write_nifti
from medjax.registration.network_file import NetworkSettings, TrainedNetwork, built_in, example_inputs, save
from medjax.tools.register import register_images
from medjax.tools.register_apply import apply_transforms

FAST = ("--iterations", "12,8", "--similarity", "mse")
RNG = np.random.default_rng(0)


def blobs(points):
    """Smooth image of a world point, (…, 3) mm: two ellipsoids with a texture, and their labels."""
    first = (((points - [0, 0, 0]) / [16, 12, 10]) ** 2).sum(-1)
    second = (((points - [5, 4, 2]) / [6, 5, 5]) ** 2).sum(-1)
    texture = np.sin(points / [4.0, 3.6, 4.4]).sum(-1)
    image = (100 + 15 * texture) / (1 + np.exp(4 * (first - 1))) + 60 / (1 + np.exp(4 * (second - 1)))
    return image.astype("float32"), np.where(second < 1, 2, np.where(first < 1, 1, 0))


def on_grid(shape, affine, moved=lambda points: points):
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    return blobs(moved(points))


def centered(shape, matrix):
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


SHAPE, OTHER = (20, 18, 16), (18, 17, 21)
FIXED = centered(SHAPE, np.diag([2.0, 2.0, 2.0]))
MOVING = centered(OTHER, np.array([[0, 0, 2.0], [0, -2.2, 0], [1.8, 0, 0]]))  # swapped and flipped, other voxels


def truth(points):
    """Where the moving image has what the fixed one has: shifted, turned by 6 degrees and bent."""
    turn = np.radians(6)
    linear = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    bend = 1.5 * np.sin(points[..., [1, 2, 0]] / 8)
    return (points + bend) @ linear.T + [3, -2, 1]


def back(points):
    """The inverse of truth, by fixed-point iteration."""
    found = points.copy()
    for _ in range(60):
        found = found + points - truth(found)
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, shape, affine, moved in (("fixed", SHAPE, FIXED, lambda p: p), ("moving", OTHER, MOVING, back)):
        image, labels = on_grid(shape, affine, moved)
        write_nifti(folder / f"{name}.nii.gz", image, affine)
        write_nifti(folder / f"{name}_labels.nii.gz", labels, affine)  # as floats
    return folder


@pytest.fixture
def here(images, tmp_path, monkeypatch):
    for file in images.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.app, ["register", *map(str, arguments)], prog_name="medjax")


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(message, *arguments):
    before = sorted(Path().iterdir())
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert sorted(Path().iterdir()) == before


@pytest.fixture(scope="module")
def result(images, tmp_path_factory):
    """All outputs of one registration, and what was printed."""
    out = tmp_path_factory.mktemp("out")
    printed = done(
        images / "fixed.nii.gz", images / "moving.nii.gz", "-o", out / "warped.nii.gz", "--field", out / "field.nii.gz",
        "--inverse-field", out / "inverse.nii.gz", "--affine", out / "affine.mat", "--figure", out / "figure.png",
        "--fixed-labels", images / "fixed_labels.nii.gz", "--moving-labels", images / "moving_labels.nii.gz", *FAST,
    )  # fmt: skip
    return out, printed


def test_images_of_other_orientation_and_voxels_are_registered(result, images):
    out, printed = result
    dice = r"Dice ([\d.]+) before, ([\d.]+) after; folds 0.00%, SD of log Jacobian [\d.]+; .*\n"
    line = re.fullmatch(rf"registering to 20 × 18 × 16 voxels, deformable\n{dice}", printed)
    assert line, printed
    assert float(line[1]) < 0.8 and float(line[2]) > 0.9
    warped, fixed = read_nifti(out / "warped.nii.gz"), read_nifti(images / "fixed.nii.gz")
    np.testing.assert_allclose(warped.affine, fixed.affine)
    assert np.corrcoef(warped.array.ravel(), fixed.array.ravel())[0, 1] > 0.99
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_field_is_the_whole_map(result):
    """Near the truth where there is something to see, and the inverse leads back."""
    out, _ = result
    field, inverse = read_displacement_field(out / "field.nii.gz"), read_displacement_field(out / "inverse.nii.gz")
    np.testing.assert_allclose(inverse.affine, MOVING, atol=1e-4)
    voxels = RNG.uniform(6, 11, (30, 3))
    points = voxels @ FIXED[:3, :3].T + FIXED[:3, 3]
    at = [ndimage.map_coordinates(one, voxels.T, order=1) for one in field.displacement_mm]
    mapped = points + np.transpose(at)
    error = np.linalg.norm(mapped - truth(points), axis=1)
    assert np.linalg.norm(points - truth(points), axis=1).mean() > 3
    assert error.mean() < 1.5
    theirs = (mapped - MOVING[:3, 3]) @ np.linalg.inv(MOVING[:3, :3]).T
    at = [ndimage.map_coordinates(one, theirs.T, order=1) for one in inverse.displacement_mm]
    np.testing.assert_allclose(mapped + np.transpose(at), points, atol=0.6)


def test_equal_input_gives_equal_files(result, here):
    out, _ = result
    done("fixed.nii.gz", "moving.nii.gz", "-o", "w.nii.gz", "--field", "f.nii.gz", *FAST)
    assert Path("w.nii.gz").read_bytes() == (out / "warped.nii.gz").read_bytes()
    first, second = (read_displacement_field(file).displacement_mm for file in (out / "field.nii.gz", "f.nii.gz"))
    np.testing.assert_array_equal(first, second)


def test_apply_gives_the_warped_image_and_labels(result, here):
    out, printed = result
    done("apply", "moving.nii.gz", "fixed.nii.gz", "-t", out / "field.nii.gz", "-o", "again.nii.gz")
    np.testing.assert_allclose(read_nifti("again.nii.gz").array, read_nifti(out / "warped.nii.gz").array, atol=0.05)
    done("apply", "moving_labels.nii.gz", "fixed.nii.gz", "-t", out / "field.nii.gz", "-o", "labels.nii.gz", "--labels")
    assert nibabel.load("labels.nii.gz").get_data_dtype() == np.uint8
    found, fixed = read_nifti("labels.nii.gz").array, read_nifti("fixed_labels.nii.gz").array
    dice = np.mean(
        [2 * ((found == k) & (fixed == k)).sum() / ((found == k).sum() + (fixed == k).sum()) for k in (1, 2)]
    )
    assert f"{dice:.3f} after" in printed


def test_a_chain_and_its_inverse(here):
    """A shift by two voxels and another by three, in files of both kinds."""
    one, two = np.eye(4), np.eye(4)
    one[0, 3], two[0, 3] = 4.0, 6.0
    write_itk_affine("one.txt", one)
    write_itk_affine("two.mat", two)
    image = read_nifti("fixed.nii.gz").array
    done("apply", "fixed.nii.gz", "fixed.nii.gz", "-t", "one.txt", "-t", "two.mat", "-o", "shifted.nii.gz")
    np.testing.assert_allclose(read_nifti("shifted.nii.gz").array[:-5], image[5:], atol=1e-3)
    done("apply", "fixed.nii.gz", "fixed.nii.gz", "-t", "one.txt", "-t", "two.mat", "-o", "back.nii.gz", "--invert")
    np.testing.assert_allclose(read_nifti("back.nii.gz").array[5:], image[:-5], atol=1e-3)


def rows_of(name):
    with Path(name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_points(result, here):
    out, _ = result
    Path("points.csv").write_text("name,x,y,z\na,1,2,3\nb,-4,5,0\n")
    done("points", "points.csv", "-t", out / "field.nii.gz", "-o", "moving.csv")
    rows = rows_of("moving.csv")
    found = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    assert [row["name"] for row in rows] == ["a", "b"]
    assert np.linalg.norm(found - truth(np.array([[1.0, 2, 3], [-4, 5, 0]])), axis=1).max() < 2
    done("points", "moving.csv", "-t", out / "field.nii.gz", "-o", "again.csv", "--invert")
    again = [[float(row[axis]) for axis in "xyz"] for row in rows_of("again.csv")]
    np.testing.assert_allclose(again, [[1, 2, 3], [-4, 5, 0]], atol=0.5)
    Path("lps.csv").write_text("x,y,z\n-1,-2,3\n")
    done("points", "lps.csv", "-t", out / "field.nii.gz", "-o", "moving_lps.csv", "--lps")
    (row,) = rows_of("moving_lps.csv")
    np.testing.assert_allclose([-float(row["x"]), -float(row["y"]), float(row["z"])], found[0], atol=1e-3)


def test_rigid_only_keeps_lengths(here):
    done(
        "fixed.nii.gz",
        "moving.nii.gz",
        "-o",
        "w.nii.gz",
        "--affine",
        "a.txt",
        "--kind",
        "rigid",
        *FAST[2:],
        "--iterations",
        "40,20",
    )
    linear = read_itk_affine("a.txt")[:3, :3]
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-4)
    assert 8 < np.degrees(np.arctan2(linear[1, 0], linear[0, 0])) < 16  # the bend turns too, by 1.5 / 8 at most


def test_slices_are_registered_in_their_plane(tmp_path):
    plane = np.diag([2.0, 2.0, 4.0, 1.0])
    plane[:3, 3] = [-19, -17, 0]
    fixed, _ = on_grid((20, 18, 1), plane)
    moving, _ = on_grid((20, 18, 1), plane, lambda points: points - [4.0, -2.0, 0.0])
    found = register_images(
        Volume(fixed, plane), Volume(moving, plane), tmp_path / "w.nii.gz", field=tmp_path / "f.nii.gz",
        figure=tmp_path / "f.png", kind="affine", iterations="20,10", similarity="mse",
    )  # fmt: skip
    np.testing.assert_allclose(found.field.displacement_mm[:, 10, 9], [4, -2], atol=0.3)
    assert nibabel.load(tmp_path / "f.nii.gz").shape == (20, 18, 1, 1, 2)
    again = apply_transforms(Volume(moving, plane), Volume(fixed, plane), [tmp_path / "f.nii.gz"])
    np.testing.assert_allclose(again.array, found.warped.array, atol=0.05)


def test_images_far_apart_are_brought_together(here):
    """The header of the moving image says that it is half a metre away: centres of mass are the start."""
    image = read_nifti("fixed.nii.gz")
    far = FIXED.copy()
    far[:3, 3] += [500, 0, 0]
    write_nifti("far.nii.gz", image.array, far)
    done("fixed.nii.gz", "far.nii.gz", "-o", "w.nii.gz", "--kind", "rigid", *FAST)
    assert np.corrcoef(read_nifti("w.nii.gz").array.ravel(), image.array.ravel())[0, 1] > 0.99


def test_a_mask_decides_what_counts(here):
    write_nifti("mask.nii.gz", np.pad(np.ones((12, 10, 8)), 4), FIXED)
    done("fixed.nii.gz", "moving.nii.gz", "-o", "w.nii.gz", "--mask", "mask.nii.gz", "--kind", "rigid", *FAST)


def test_a_network_gives_the_start_and_is_refined(here):
    """One that was not trained gives nearly no displacement, which the last level improves."""
    for axes, name in ((3, "network.npz"), (2, "planes.npz")):
        settings = NetworkSettings((2, 2), axes=axes)
        model = built_in(settings)
        params = jax.jit(model.init)(jax.random.key(0), *example_inputs(settings))
        save(Path(name), TrainedNetwork(model, params, settings))
    images = ("fixed.nii.gz", "moving.nii.gz", "-o", "w.nii.gz", "--network")
    refused("planes.npz: a network of 2-D images", *images, "planes.npz", *FAST)
    refused("--network with --kind affine; expected deformable", *images, "network.npz", "--kind", "affine", *FAST)
    done(*images, "network.npz", *FAST)
    found, fixed = read_nifti("w.nii.gz").array, read_nifti("fixed.nii.gz").array
    assert np.corrcoef(found.ravel(), fixed.ravel())[0, 1] > 0.99


def test_bad_input(here):
    pair, out = ("fixed.nii.gz", "moving.nii.gz"), ("-o", "w.nii.gz")
    image = read_nifti("fixed.nii.gz").array
    write_nifti("slice.nii.gz", image[:, :, :1], FIXED)
    write_nifti("constant.nii.gz", 0 * image + 3, FIXED)
    write_nifti("half.nii.gz", np.full(SHAPE, 0.5), FIXED)
    write_nifti("empty.nii.gz", np.zeros(SHAPE), FIXED)
    nan = np.where(np.arange(image.size).reshape(SHAPE) == 99, np.nan, image)
    nibabel.save(nibabel.Nifti1Image(nan, FIXED), "nan.nii.gz")
    both = ("--fixed-labels", "half.nii.gz", "--moving-labels", "moving_labels.nii.gz")
    refused("2-D, and fixed.nii.gz 3-D", "fixed.nii.gz", "slice.nii.gz", *out)
    refused("constant.nii.gz: a constant image", "fixed.nii.gz", "constant.nii.gz", *out)
    refused("nan.nii.gz: 1 NaN", "nan.nii.gz", "moving.nii.gz", *out)
    refused("half.nii.gz: values that are no labels", *pair, *out, *both)
    refused("expected both or none", *pair, *out, *both[:2])
    refused("moving_labels.nii.gz: shape", *pair, *out, "--mask", "moving_labels.nii.gz")
    refused("empty.nii.gz: all voxels are 0", *pair, *out, "--mask", "empty.nii.gz")
    refused("is the input", *pair, "-o", "fixed.nii.gz")
    refused("two outputs of that name", *pair, *out, "--field", "w.nii.gz")
    refused("no such file", "fixed.nii.gz", "none.nii.gz", *out)
    refused("ends in .txt", *pair, *out, "--affine", "a.xfm")
    refused("--kind", *pair, *out, "--kind", "nonlinear")
    refused("--similarity", *pair, *out, "--similarity", "cc")
    refused("--iterations", *pair, *out, "--iterations", "10,x")
    write_itk_affine("plane.txt", np.eye(3))
    apply = ("apply", "fixed.nii.gz", "fixed.nii.gz", *out, "-t")
    refused("plane.txt: a 2-D transform", *apply, "plane.txt")
    refused("expected a displacement field", *apply, "moving.nii.gz")
    write_itk_affine("zero.txt", np.diag([0.0, 1, 1, 1]))
    refused("zero.txt: singular", *apply, "zero.txt")
    write_itk_affine("a.txt", np.eye(4))
    refused("no labels", "apply", "half.nii.gz", "fixed.nii.gz", *out, "-t", "a.txt", "--labels")
    Path("points.csv").write_text("x,y\n1,2\n")
    refused("no column z", "points", "points.csv", "-t", "a.txt", "-o", "p.csv")
    Path("points.csv").write_text("x,y,z\n1,2,a\n")
    refused("expected numbers in mm", "points", "points.csv", "-t", "a.txt", "-o", "p.csv")
