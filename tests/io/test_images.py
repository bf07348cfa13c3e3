"""Images and masks from PNG and NIfTI files: values, axes, and what does not fit together."""

import nibabel
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.images import read_image, resize

Image = pytest.importorskip("PIL.Image")


def nifti(path, array, affine=None):
    nibabel.Nifti1Image(np.asarray(array, np.float32), np.eye(4) if affine is None else affine).to_filename(path)
    return path


def test_grey_pictures_of_every_mode_are_one_channel(tmp_path):
    """Grey as it is saved by any program: with opacity, as three equal channels, through a palette of greys."""
    gray = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
    plain = Image.fromarray(gray)
    palette = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert("P")
    palette.putpalette([value for value in gray.ravel().tolist() for _ in range(3)])
    for k, mode in enumerate(("L", "LA", "RGB", "RGBA")):
        plain.convert(mode).save(tmp_path / f"{k}.png")
    palette.save(tmp_path / "4.png")
    for k in range(5):
        array, affine = read_image(tmp_path / f"{k}.png")
        np.testing.assert_array_equal(array, gray)
        assert affine is None
    np.testing.assert_array_equal(read_image(tmp_path / "4.png", labels=True)[0].ravel(), np.arange(12))


def test_pictures_whose_values_are_not_known_are_refused(tmp_path):
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(np.stack([gray, gray], -1), "LA").save(tmp_path / "glass.png")
    with pytest.raises(DataError, match=r"glass.png: transparent in places"):
        read_image(tmp_path / "glass.png")
    colours = Image.fromarray(gray).convert("P")
    colours.putpalette(list(range(144)))
    colours.save(tmp_path / "colours.png")
    with pytest.raises(DataError, match=r"colours.png: an image in colours"):
        read_image(tmp_path / "colours.png")
    np.testing.assert_array_equal(read_image(tmp_path / "colours.png", labels=True)[0], gray)
    Image.fromarray(np.where(gray > 20, 255, 0).astype(np.uint8)).save(tmp_path / "mask.jpg")
    assert read_image(tmp_path / "mask.jpg")[0].shape == (6, 8)
    with pytest.raises(DataError, match=r"mask.jpg: JPEG, which changes values"):
        read_image(tmp_path / "mask.jpg", labels=True)


def test_one_slice_is_a_picture_and_more_are_a_volume(tmp_path):
    affine = np.diag([2.0, 3, 4, 1])
    array, found = read_image(nifti(tmp_path / "a.nii.gz", np.ones((5, 6, 1)), affine))
    assert array.shape == (5, 6) and np.array_equal(found, affine)
    assert read_image(nifti(tmp_path / "b.nii.gz", np.ones((5, 6, 7))))[0].shape == (5, 6, 7)


def test_another_kind_of_file_is_refused(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match="an image in colours"):
        read_image(tmp_path / "colours.png")
    draw = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(draw).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    with pytest.raises(DataError, match="half"):
        read_image(tmp_path / "half.png")
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read as an image of PNG"):
        read_image(tmp_path / "no.png")


def test_a_finer_or_coarser_grid_shows_the_same_field():
    rows = np.tile((np.arange(40) + 0.5)[:, None] / 40, 60)
    middle = resize(rows, (20, 30), 1)
    np.testing.assert_allclose(middle[2:-2, 5], ((np.arange(20) + 0.5) / 20)[2:-2], atol=1e-6)


def test_a_nifti_of_two_axes_is_a_picture(tmp_path):
    assert read_image(nifti(tmp_path / "a.nii.gz", np.ones((5, 6))))[0].shape == (5, 6)
