"""Images and masks from PNG and NIfTI files: values, axes, and what does not fit together."""

import nibabel
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.images import LabeledImage, fit_to_grid, read_image, read_labeled, resize

Image = pytest.importorskip("PIL.Image")


def nifti(path, array, affine=None):
    nibabel.Nifti1Image(np.asarray(array, np.float32), np.eye(4) if affine is None else affine).to_filename(path)
    return path


def test_grey_colour_and_palette_pictures(tmp_path):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(gray).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([gray] * 3, -1)).save(tmp_path / "rgb.png")
    palette = Image.fromarray(gray, "L").convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.putdata(list(gray.ravel()))
    palette.save(tmp_path / "palette.png")
    for name, shift in (("grey", 0), ("rgb", 0), ("palette", 0)):
        array, affine = read_image(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(array, gray + shift)
        assert affine is None


def test_one_slice_is_a_picture_and_more_are_a_volume(tmp_path):
    affine = np.diag([2.0, 3, 4, 1])
    array, found = read_image(nifti(tmp_path / "a.nii.gz", np.ones((5, 6, 1)), affine))
    assert array.shape == (5, 6) and np.array_equal(found, affine)
    assert read_image(nifti(tmp_path / "b.nii.gz", np.ones((5, 6, 7))))[0].shape == (5, 6, 7)


@pytest.mark.parametrize(
    ("message", "image", "mask"),
    [
        (r"\(5, 6\), its image a.nii.gz has \(6, 6\)", np.ones((6, 6, 1)), np.ones((5, 6, 1))),
        (
            "NaN or infinite",
            np.where(np.eye(6)[..., None] * np.arange(6) == 1, np.nan, 1.0),
            np.ones((6, 6, 1)),
        ),
        ("no class numbers", np.ones((6, 6, 1)), 0.4 * np.ones((6, 6, 1))),
        ("no class numbers", np.ones((6, 6, 1)), -np.ones((6, 6, 1))),
        ("label 5; expected 0 to 2", np.ones((6, 6, 1)), 5 * np.ones((6, 6, 1))),
    ],
)
def test_what_does_not_fit_is_refused(message, image, mask, tmp_path):
    with pytest.raises(DataError, match=message):
        read_labeled(nifti(tmp_path / "a.nii.gz", image), nifti(tmp_path / "m.nii.gz", mask), classes=3)


def test_another_affine_and_another_kind_of_file_are_refused(tmp_path):
    image = nifti(tmp_path / "a.nii.gz", np.ones((6, 6, 1)))
    with pytest.raises(DataError, match="its affine is not that of a"):
        read_labeled(image, nifti(tmp_path / "m.nii.gz", np.ones((6, 6, 1)), np.diag([2.0, 1, 1, 1])))
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match="an image in colours"):
        read_image(tmp_path / "colours.png")
    draw = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(draw).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    with pytest.raises(DataError, match="half"):
        read_image(tmp_path / "half.png")
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(DataError, match="neither an image such as PNG nor NIfTI"):
        read_image(tmp_path / "no.png")


def test_a_finer_or_coarser_grid_shows_the_same_field():
    rows, columns = np.meshgrid((np.arange(40) + 0.5) / 40, (np.arange(60) + 0.5) / 60, indexing="ij")
    label = ((rows - 0.5) ** 2 + (columns - 0.3) ** 2 < 0.04).astype(np.int32)
    image, named = fit_to_grid(LabeledImage((100 * rows).astype(np.float32), label, None), (20, 80))
    assert named.mean() == pytest.approx(label.mean(), abs=0.01)
    assert image.min() < 0.02 and image.max() > 0.98 and (np.diff(image[:, 0]) >= 0).all()
    middle = resize(rows, (20, 30), 1)
    np.testing.assert_allclose(middle[2:-2, 5], ((np.arange(20) + 0.5) / 20)[2:-2], atol=1e-6)
    with pytest.raises(DataError, match="2 axes; expected 3"):
        fit_to_grid(LabeledImage(rows, label, None), (8, 8, 8))


def test_a_nifti_of_two_axes_is_a_picture(tmp_path):
    assert read_image(nifti(tmp_path / "a.nii.gz", np.ones((5, 6))))[0].shape == (5, 6)
