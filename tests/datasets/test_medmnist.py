"""MedMNIST's npz: images and labels as in the file, and what is wrong with a file in one line."""

import numpy as np
import pytest

from medjax.datasets import medmnist
from medjax.errors import DataError

RNG = np.random.default_rng(0)


def arrays(space=(6, 5), **changed):
    """A file's arrays: 4, 2 and 3 images."""
    found = {}
    for split, number in (("train", 4), ("val", 2), ("test", 3)):
        found[f"{split}_images"] = RNG.integers(0, 256, (number, *space)).astype(np.uint8)
        found[f"{split}_labels"] = (np.arange(number) % 2)[:, None].astype(np.uint8)
    return {name: array for name, array in (found | changed).items() if array is not None}


def written(tmp_path, **changed):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays(**changed))
    return path


@pytest.mark.parametrize(("space", "shape"), [((6, 5), (6, 5, 1)), ((6, 5, 4), (6, 5, 4, 1)), ((6, 5, 3), (6, 5, 3))])
def test_images_are_scaled_and_labels_are_flat(tmp_path, space, shape):
    """In grey, of volumes, and in colour."""
    path = written(tmp_path, space=space)
    splits, raw = medmnist.read(path), np.load(path)
    assert [len(one.labels) for one in splits] == [4, 2, 3]
    assert splits.test.images.shape == (3, *shape) and splits.test.images.dtype == np.float32
    np.testing.assert_allclose(255 * splits.train.images.reshape(4, *space), raw["train_images"], rtol=1e-6)
    assert splits.train.labels.tolist() == [0, 1, 0, 1]


def test_labels_may_have_one_axis(tmp_path):
    assert medmnist.read(written(tmp_path, test_labels=np.array([1, 0, 1]))).test.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_labels": None}, "no val_labels; expected the arrays train_images, train_labels, val_images"),
        (
            {"test_labels": np.zeros((3, 14), np.uint8)},
            r"shape \(3, 14\) for 3 images; .*several labels",
        ),
        ({"test_labels": np.zeros(2, np.uint8)}, r"test_labels of shape \(2,\) for 3 images; expected one label"),
        ({"val_labels": np.array([0.5, 1.0])}, "val_labels are float64, from 0.5; expected classes 0, 1"),
        ({"val_labels": np.array([-1, 1])}, "val_labels are int64, from -1; expected classes 0, 1"),
        ({"train_images": np.full((4, 6, 5), 0.5)}, "train_images are float64, 0.5 … 0.5; expected whole numbers"),
        ({"train_images": np.full((4, 6, 5), 300)}, "train_images are int64, 300 … 300; expected whole numbers"),
        (
            {"train_images": np.zeros((4, 30), np.uint8)},
            r"shape \(4, 30\); expected \(image, \*space\)",
        ),
        ({"train_images": np.zeros((4, 7, 5), np.uint8)}, r"images of \[\(6, 5, 1\), \(7, 5, 1\)\] in its splits"),
        ({"train_images": np.array([{}] * 4, object)}, r"holds Python objects"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        medmnist.read(written(tmp_path, **changed))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"PK nonsense", "cannot be read"), (b"", "cannot be read")]
)
def test_what_is_no_npz_is_refused(tmp_path, content, message):
    path = tmp_path / "set.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        medmnist.read(path)
