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
