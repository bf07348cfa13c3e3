"""Label images and scores from files: values as classes, pairs by name, logits of probabilities."""

import nibabel
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from medjax.errors import DataError
from medjax.io.label_images import (
    LabeledImage,
    as_labels,
    fit_to_grid,
    list_files,
    pair_files,
    read_classes,
    read_labeled,
    read_labels,
    read_pair,
    read_scores,
)  # fmt: skip
from medjax.io.nifti import write_nifti

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
LABELS = np.random.default_rng(0).choice([0, 85, 170], (4, 3, 2))


def test_label_values_become_classes_in_the_order_given(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", LABELS, AFFINE)
    values, affine = read_labels(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(values, LABELS)
    np.testing.assert_allclose(affine, AFFINE)
    for known in ([0, 85, 170], [170, 0, 85]):
        classes, _ = read_classes(tmp_path / "a.nii.gz", known)
        np.testing.assert_array_equal(np.array(known)[classes], LABELS)
    with pytest.raises(DataError, match=r"a.nii.gz: label 85; expected 0, 170"):
        read_classes(tmp_path / "a.nii.gz", [0, 170])
    write_nifti(tmp_path / "b.nii.gz", LABELS / 2, AFFINE)
    with pytest.raises(DataError, match=r"b.nii.gz: values that are no labels"):
        read_labels(tmp_path / "b.nii.gz")


def test_files_pair_up_by_their_names_without_endings(tmp_path):
    for folder, names in (("p", ("x.nii", "y.png", "notes.txt")), ("t", ("x.nii.gz", "y.nii"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    paired = pair_files(tmp_path / "p", tmp_path / "t")
    assert {name: (one.name, other.name) for name, (one, other) in paired.items()} == {
        "x": ("x.nii", "x.nii.gz"), "y": ("y.png", "y.nii")
    }  # fmt: skip
    assert list(pair_files(tmp_path / "p" / "x.nii", tmp_path / "t" / "y.nii")) == ["y"]
    (tmp_path / "p" / "y.png").unlink()
    with pytest.raises(DataError, match=r"p: no y, which .*t has"):
        pair_files(tmp_path / "p", tmp_path / "t")
    (tmp_path / "t" / "x.png").touch()
    with pytest.raises(DataError, match="two files named x"):
        list_files(tmp_path / "t")


def test_probabilities_give_logits_with_their_softmax(tmp_path):
    logits = np.random.default_rng(1).normal(size=(4, 3, 1, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", logits)
    np.testing.assert_array_equal(read_scores(tmp_path / "a.npy", logits.shape, softmax=False), logits)
    np.savez(tmp_path / "a.npz", softmax(logits, axis=-1)[:, :, 0])  # a slice is a volume of one
    found = read_scores(tmp_path / "a.npz", logits.shape, softmax=True)
    np.testing.assert_allclose(found, log_softmax(logits, axis=-1), atol=1e-5)
    with pytest.raises(DataError, match="values that are no probabilities"):
        read_scores(tmp_path / "a.npy", logits.shape, softmax=True)
    with pytest.raises(DataError, match=r"shape \(4, 3, 1, 3\); expected \(4, 3, 1, 2\)"):
        read_scores(tmp_path / "a.npy", (4, 3, 1, 2), softmax=False)
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="cannot be read as npy"):
        read_scores(tmp_path / "b.npy", logits.shape, softmax=False)


def nifti(path, array, affine=None):
    nibabel.Nifti1Image(np.asarray(array, np.float32), np.eye(4) if affine is None else affine).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("message", "image", "mask"),
    [
        (r"\(5, 6\); expected that of a.nii.gz, \(6, 6\)", np.ones((6, 6, 1)), np.ones((5, 6, 1))),
        (
            "NaN or infinite",
            np.where(np.eye(6)[..., None] * np.arange(6) == 1, np.nan, 1.0),
            np.ones((6, 6, 1)),
        ),
        ("no labels", np.ones((6, 6, 1)), 0.4 * np.ones((6, 6, 1))),
        ("no labels", np.ones((6, 6, 1)), -np.ones((6, 6, 1))),
        ("label 5; expected 0 to 2", np.ones((6, 6, 1)), 5 * np.ones((6, 6, 1))),
    ],
)
def test_what_does_not_fit_is_refused(message, image, mask, tmp_path):
    with pytest.raises(DataError, match=message):
        read_labeled(nifti(tmp_path / "a.nii.gz", image), nifti(tmp_path / "m.nii.gz", mask), classes=3)


def test_labels_are_whole_numbers_from_0_but_for_rounding():
    np.testing.assert_array_equal(as_labels(np.array([0, 1.00001, 2.9995, 40000]), "a"), [0, 1, 3, 40000])
    np.testing.assert_array_equal(as_labels(np.array([0, 255], np.uint8), "a"), [0, 255])
    for values in ([1.002], [-1], [np.nan], [3e9], [0.5, 1]):
        with pytest.raises(DataError, match=r"a: values that are no labels, such as .* in 1 of"):
            as_labels(np.array(values), "a")


def test_masks_of_another_place_are_refused(tmp_path):
    """A rotation of 0.009 moves no entry by 0.01 and the far edge of 400 mm by 3.6: every reader of two files."""
    near, far = np.eye(4), np.eye(4)
    near[:2, 3], far[:2, 3] = -200, -200
    far[:2, :2] = [[np.cos(0.009), -np.sin(0.009)], [np.sin(0.009), np.cos(0.009)]]
    image = nifti(tmp_path / "a.nii.gz", np.ones((400, 4, 1)), near)
    mask = nifti(tmp_path / "m.nii.gz", np.ones((400, 4, 1)), far)
    for read in (lambda: read_labeled(image, mask), lambda: read_pair(mask, image, [0, 1])):
        with pytest.raises(DataError, match=r"m.nii.gz: another affine than .*a.nii.gz, corners up to 3.6 mm \(3.6"):
            read()


def test_a_finer_or_coarser_grid_shows_the_same_field():
    rows, columns = np.meshgrid((np.arange(40) + 0.5) / 40, (np.arange(60) + 0.5) / 60, indexing="ij")
    label = ((rows - 0.5) ** 2 + (columns - 0.3) ** 2 < 0.04).astype(np.int32)
    image, named = fit_to_grid(LabeledImage((100 * rows).astype(np.float32), label, None), (20, 80))
    assert named.mean() == pytest.approx(label.mean(), abs=0.01)
    assert image.min() < 0.02 and image.max() > 0.98 and (np.diff(image[:, 0]) >= 0).all()
    with pytest.raises(DataError, match="2 axes; expected 3"):
        fit_to_grid(LabeledImage(rows, label, None), (8, 8, 8))
