"""Batches: every example once an epoch, equal groups, any batch at any time, pairs of files, reading ahead."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from medjax.errors import DataError
from medjax.training.batches import balanced_indices, batch_indices, from_arrays, from_files, pairs, read_ahead

DATA = {"image": np.arange(20.0).reshape(10, 2), "label": np.arange(10)}


@given(some.integers(1, 30), some.integers(1, 12), some.integers(0, 5))
def test_batches_in_a_row_are_shuffled_epochs(count, batch, seed):
    epochs = 3
    numbers = range(-(-epochs * count // batch))
    row = np.concatenate([batch_indices(n, count, batch, seed) for n in numbers])
    for epoch in range(epochs):
        assert sorted(row[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_shuffles_differ_between_epochs_and_seeds_and_any_batch_can_be_asked_for_first():
    first, second = (np.stack([batch_indices(n, 100, 50, seed) for n in range(4)]) for seed in (0, 1))
    assert len({tuple(epoch) for rows in (first, second) for epoch in rows.reshape(2, 100)}) == 4
    np.testing.assert_array_equal(batch_indices(3, 100, 50, 0), first[3])


def test_every_batch_holds_equally_many_of_each_group_and_groups_have_epochs():
    groups = np.array(["common"] * 90 + ["rare"] * 6)
    rows = [balanced_indices(n, groups, 8, 3) for n in range(45)]
    assert all(Counter(groups[row]) == {"common": 4, "rare": 4} for row in rows)
    seen = Counter(np.concatenate(rows).tolist())
    assert {seen[i] for i in range(90)} == {2} and {seen[i] for i in range(90, 96)} == {30}
    common = np.concatenate([row[groups[row] == "common"] for row in rows])
    assert common[:90].tolist() != common[90:].tolist()
    with pytest.raises(DataError, match="a batch of 7 cannot hold equally many of 2 groups"):
        balanced_indices(0, groups, 7, 3)


def test_arrays_in_memory_stay_together():
    batches = from_arrays(DATA, 4, seed=0)
    batch = batches(2)
    assert batch["image"].shape == (4, 2)
    np.testing.assert_array_equal(batch["image"][:, 0], 2 * batch["label"])
    balanced = from_arrays(DATA, 4, seed=0, groups=DATA["label"] > 7)(0)
    assert (balanced["label"] > 7).sum() == 2


def test_bad_arrays_and_groups_are_refused():
    with pytest.raises(DataError, match=r"arrays of \[9, 10\] examples"):
        from_arrays(DATA | {"label": np.arange(9)}, 4, 0)
    with pytest.raises(DataError, match="no example"):
        from_files([], np.load, 4, 0)
    with pytest.raises(DataError, match="groups has 3 labels for 10 examples"):
        from_arrays(DATA, 4, 0, np.arange(3))
    with pytest.raises(DataError, match="a batch of 4 cannot"):
        from_arrays(DATA, 4, 0, np.arange(10) % 3)


def test_a_folder_of_images_and_masks(tmp_path):
    for folder, ending in (("images", "_0000.npy"), ("masks", ".npy")):
        (tmp_path / folder).mkdir()
        for i in range(5):
            np.save(tmp_path / folder / f"case.{i}{ending}", np.full((2, 3), i + 10 * (folder == "masks")))
    for name in (".hidden", "case.3_0001.npy"):  # the latter is nnU-Net's second channel
        (tmp_path / "images" / name).touch()
    found = pairs(tmp_path / "images", tmp_path / "masks")
    assert [image.name for image, _ in found] == [f"case.{i}_0000.npy" for i in range(5)]
    image, mask = from_files(found, lambda pair: tuple(map(np.load, pair)), 3, seed=1)(0)
    assert image.shape == (3, 2, 3)
    np.testing.assert_array_equal(mask, image + 10)

    (tmp_path / "masks" / "case.3.npy").unlink()
    with pytest.raises(DataError, match=r"do not pair up.*\['case.3', 'case.3_0001'\]"):
        pairs(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="do not pair up"):
        pairs(tmp_path / "empty", tmp_path / "empty")
    (tmp_path / "masks" / "case.4.png").touch()
    with pytest.raises(DataError, match=r"\['case.4'\]"):
        pairs(tmp_path / "masks", tmp_path / "masks")


def test_numbers_without_zeros_in_front_pair_up_beside_what_was_predicted_there(tmp_path):
    for folder, ending in (("images", "_0000.npy"), ("masks", ".npy")):
        (tmp_path / folder).mkdir()
        for i in (1, 10, 2):
            (tmp_path / folder / f"liver_{i}{ending}").touch()
    (tmp_path / "masks" / "predictions.json").touch()
    found = pairs(tmp_path / "images", tmp_path / "masks")
    assert [mask.name for _, mask in found] == ["liver_1.npy", "liver_10.npy", "liver_2.npy"]
    assert [image.name for image, _ in found] == [mask.name.replace(".npy", "_0000.npy") for _, mask in found]


def test_reading_ahead_gives_the_same_batches_and_works_while_the_caller_does():
    plain, began = from_arrays(DATA, 4, seed=0), []

    def slow(number):
        began.append((number, threading.current_thread() is threading.main_thread()))
        return plain(number)

    with read_ahead(slow, ahead=2) as batches:
        for number in (5, 6, 9):  # a resumed run starts anywhere
            np.testing.assert_array_equal(batches(number)["label"], plain(number)["label"])
        deadline = time.monotonic() + 10
        while (11, False) not in began and time.monotonic() < deadline:
            time.sleep(0.01)
    numbers = [number for number, _ in began if number != 8]  # which was passed over, perhaps before it began
    assert numbers == [5, 6, 7, 9, 10, 11] and not any(main for _, main in began)


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_asked_for():
    def broken(number):
        if number == 1:
            raise DataError("case1.png is damaged")
        return number

    with read_ahead(broken) as batches:
        assert batches(0) == 0
        with pytest.raises(DataError, match=r"case1\.png"):
            batches(1)
