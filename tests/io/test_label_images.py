"""Label images and scores from files: values as classes, pairs by name, logits of probabilities."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from medjax.errors import DataError
from medjax.io.label_images import list_files, pair_files, read_classes, read_labels, read_scores
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
    with pytest.raises(DataError, match="cannot be read as one array"):
        read_scores(tmp_path / "b.npy", logits.shape, softmax=False)
