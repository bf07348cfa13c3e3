"""Two folders of images and masks: one grid, class numbers, labels that were checked."""

import numpy as np
import pytest

from medjax.datasets.labeled_folders import digest, read, read_trusted
from medjax.errors import DataError
from medjax.io.nifti import write_nifti


@pytest.fixture
def folders(tmp_path):
    """Three images of different sides; masks of 0, 85 and 255."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for k, side in enumerate((16, 24, 32)):
        x = np.arange(side * side, dtype=np.float32).reshape(side, side, 1)
        mask = np.where(x < side * side / 2, 0, 255)
        mask[:2] = 85
        write_nifti(tmp_path / "images" / f"p{k}.nii.gz", x, np.eye(4))
        write_nifti(tmp_path / "masks" / f"p{k}.nii", mask, np.eye(4))
    return tmp_path / "images", tmp_path / "masks"


def test_images_come_on_one_grid_and_label_values_as_classes(folders, capsys):
    data = read(*folders, size=8)
    assert data.names == ["p0.nii.gz", "p1.nii.gz", "p2.nii.gz"] and data.images.shape == (3, 8, 8, 1)
    assert 0 <= data.images.min() < 0.1 and 0.9 < data.images.max() <= 1
    assert capsys.readouterr().out == "labels 0, 85, 255 are taken as classes 0 to 2\n"
    np.testing.assert_array_equal(data.labels[0], np.repeat([1, 0, 0, 0, 2, 2, 2, 2], 8).reshape(8, 8))
    other = data._replace(labels=data.labels[::-1])
    assert digest(data) == digest(data._replace()) != digest(other) and len(digest(data)) == 8


def test_swapped_folders_are_told(tmp_path):
    """Smooth images with every value from 0 to 255 look like labels of 256 structures."""
    steps = np.arange(32)[:, None, None] // 2 * 16 + np.arange(32)[None, :, None] // 2
    for name, array in (("images", steps.astype(np.float32)), ("masks", (steps > 99).astype(np.float32))):
        (tmp_path / name).mkdir()
        write_nifti(tmp_path / name / "a.nii", array, np.eye(4))
    assert read(tmp_path / "images", tmp_path / "masks", size=16).labels.max() == 1
    with pytest.raises(DataError, match="are IMAGES and MASKS swapped"):
        read(tmp_path / "masks", tmp_path / "images", size=16)
    few = np.repeat(np.repeat(np.arange(16, dtype=np.float32).reshape(4, 4), 8, 0), 8, 1)[..., None]  # grey, but blocks
    write_nifti(tmp_path / "images" / "a.nii", few, np.eye(4))
    with pytest.raises(DataError, match=r"16 different values, and the images up to 2; expected .*MASKS swapped"):
        read(tmp_path / "masks", tmp_path / "images", size=16)


def test_nnunets_folders_and_names_with_dots(folders, capsys):
    images, masks = folders
    for k in range(3):
        (images / f"p{k}.nii.gz").rename(images / f"p.{k}_0000.nii.gz")
        (masks / f"p{k}.nii").rename(masks / f"p.{k}.nii")
    write_nifti(images / "p.0_0001.nii.gz", np.zeros((16, 16, 1)), np.eye(4))
    data = read(images, masks, size=8)
    assert data.names == [f"p.{k}_0000.nii.gz" for k in range(3)]
    assert capsys.readouterr().out.startswith("several channels a case: the first one, _0000, is taken\n")
    file = images.parent / "trusted.csv"
    file.write_text("name,wrong\np.0,1\np.1_0000,0\np.2_0000.nii.gz,0\n")
    np.testing.assert_array_equal(read_trusted(file, data.names)[0], [0, 1, 2])


def test_structures_that_vanish_are_named(folders, capsys):
    images, masks = folders
    for k, side in enumerate((16, 24, 32)):
        mask = np.zeros((side, side, 1))
        mask[0, 0], mask[4:8, 4:8] = 1, 2
        write_nifti(masks / f"p{k}.nii", mask, np.eye(4))
    assert set(np.unique(read(images, masks, size=8).labels)) == {0, 2}
    assert capsys.readouterr().out == "labels 1 vanish at 8 voxels along each axis: a larger --size keeps them\n"
    for k, side in enumerate((16, 24, 32)):
        write_nifti(masks / f"p{k}.nii", np.diag([1.0] + [0] * (side - 1))[..., None], np.eye(4))
    with pytest.raises(DataError, match=r"all structures \(labels 1\) vanish at 8 voxels along each axis; expected"):
        read(images, masks, size=8)
    for k, side in enumerate((16, 24, 32)):
        write_nifti(masks / f"p{k}.nii", np.zeros((side, side, 1)), np.eye(4))
    with pytest.raises(DataError, match="every label is 0"):
        read(images, masks, size=8)


def test_grey_levels_of_a_lossy_mask_are_no_classes(folders, tmp_path):
    """A disc of 255 through JPEG has dozens of grey levels; saved as PNG nothing but their thinness tells."""
    from io import BytesIO

    image_module = pytest.importorskip("PIL.Image")
    images, masks = folders
    x, y = np.mgrid[:96, :96]
    disc = np.where((x - 40) ** 2 + (y - 50) ** 2 < 600, 255, 0).astype(np.uint8)
    for k in range(3):
        (masks / f"p{k}.nii").unlink()
        write_nifti(images / f"p{k}.nii.gz", np.float32(disc)[..., None], np.eye(4))
        image_module.fromarray(disc).save(squeezed := BytesIO(), "JPEG", quality=90)
        image_module.open(squeezed).save(masks / f"p{k}.png")
    with pytest.raises(DataError, match=r"masks: \d\d different values, of which \d+ fill .* not grey values"):
        read(images, masks, size=32)


def test_a_hundred_classes_without_gaps_are_classes(folders, capsys):
    images, masks = folders
    label = np.kron(np.arange(100).reshape(10, 10), np.ones((4, 4)))[..., None]
    for k in range(3):
        (masks / f"p{k}.nii").unlink()
        write_nifti(images / f"p{k}.nii.gz", np.float32(label), np.eye(4))
        write_nifti(masks / f"p{k}.nii.gz", label, np.eye(4))
    assert read(images, masks, size=40).labels.max() == 99 and capsys.readouterr().out == ""


def test_images_that_end_like_channels_are_no_channels(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for k in range(2):
            write_nifti(tmp_path / folder / f"img_000{k}.nii.gz", np.eye(8)[..., None], np.eye(4))
    assert len(read(tmp_path / "images", tmp_path / "masks", size=8).names) == 2 and capsys.readouterr().out == ""


def test_what_is_no_data_set_is_named(folders):
    with pytest.raises(DataError, match="images: 3 images; expected at least 4"):
        read(*folders, size=8, min_images=4)
    with pytest.raises(DataError, match="label 255; expected 0 to 2"):
        read(*folders, size=8, classes=3)


def test_checked_labels_by_name_with_or_without_ending(tmp_path):
    file = tmp_path / "trusted.csv"
    file.write_text("name,wrong\nb.png,1\na,0\n")
    numbers, wrong = read_trusted(file, ["a.png", "b.png"])
    np.testing.assert_array_equal(numbers, [1, 0])
    np.testing.assert_array_equal(wrong, [True, False])
    for row in ("a,-1", "c,1", "a,2", "a,no"):
        file.write_text(f"name,wrong\n{row}\n")
        with pytest.raises(DataError, match=r"expected columns name \(of an image\) and wrong \(0 or 1\)"):
            read_trusted(file, ["a.png", "b.png"])
