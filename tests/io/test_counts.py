"""Counts files: round trips, their layout on disk, and everything that is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io import counts as files
from medjax.io.counts import Counts

SHAPE = (4, 5, 3)  # view, bin, plane


def example(**changes):
    generator = np.random.default_rng(0)
    sinogram = generator.poisson(3, SHAPE).astype(np.float32)
    base = Counts(
        counts=sinogram,
        additive=generator.random(SHAPE, np.float32),
        multiplicative=generator.random(SHAPE, np.float32),
        scanner="mmr",
        metadata={"tracer": "fdg", "duration_s": 1.5, "thinned": [0.1, 0.01]},
    )
    return replace(base, **changes)


@pytest.mark.parametrize("with_truth", [False, True])
def test_write_then_read_gives_the_same(tmp_path, with_truth):
    truth = {"truth": np.ones((2, 3, 4), np.float32), "affine": np.diag([2.0, 2, 2, 1])} if with_truth else {}
    written = example(**truth)
    files.write_counts(tmp_path / "scan.npz", written)
    back = files.read_counts(tmp_path / "scan.npz")
    for name in ("counts", "additive", "multiplicative", "truth", "affine"):
        np.testing.assert_array_equal(getattr(back, name), getattr(written, name))
    assert (back.scanner, back.metadata) == (written.scanner, written.metadata)
    assert back.counts.dtype == np.float32 and back.counts.flags.c_contiguous
    assert [file.name for file in tmp_path.iterdir()] == ["scan.npz"]


def test_disk_order_is_plane_view_bin(tmp_path):
    written = example()
    files.write_counts(tmp_path / "scan.npz", written)
    with np.load(tmp_path / "scan.npz", allow_pickle=False) as archive:
        assert archive["counts"].shape == (3, 4, 5)
        assert archive["counts"][2, 1, 4] == written.counts[1, 4, 2]
        assert json.loads(str(archive["metadata"])) == written.metadata


def entries(**changes):
    ones = np.ones((3, 4, 5))
    base = {"counts": np.ones((3, 4, 5), np.uint16), "additive": ones, "multiplicative": ones, "scanner": "mmr"}
    return {name: value for name, value in (base | changes).items() if value is not None}


def test_a_file_by_hand_needs_four_entries(tmp_path):
    np.savez(tmp_path / "scan.npz", **entries())
    back = files.read_counts(str(tmp_path / "scan.npz"))
    assert back.counts.shape == SHAPE and back.scanner == "mmr" and back.metadata == {} and back.truth is None


def with_value(value):
    array = np.ones((3, 4, 5))
    array[1, 2, 3] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": None}, "no counts; expected counts, additive, multiplicative and scanner"),
        ({"scanner": None, "additive": None}, "no additive, scanner"),
        ({"additive": np.ones((3, 5, 4))}, r"additive has .* \(5, 4, 3\); the counts have \(4, 5, 3\)"),
        ({"multiplicative": np.ones((3, 4))}, r"multiplicative is float64 of shape \(3, 4\); expected numbers on 3"),
        ({"counts": np.full((3, 4, 5), "a")}, "counts is <U1"),
        ({"counts": np.full((3, 4, 5), None)}, "cannot be read as npz"),
        ({"counts": with_value(-1)}, "counts is empty or has negative"),
        ({"counts": with_value(np.nan)}, "counts is empty or has negative"),
        ({"additive": with_value(-0.1)}, "additive is empty or has negative"),
        ({"multiplicative": with_value(np.inf)}, "multiplicative is empty or has negative"),
        ({"metadata": "{"}, "metadata is not JSON"),
        ({"metadata": "[1]"}, "metadata is a JSON list"),
        ({"truth": np.full((2, 2, 2), np.nan)}, "truth has NaN"),
        ({"truth": np.ones((2, 2))}, "truth is float64 of shape"),
        ({"affine": np.eye(3)}, "affine of shape"),
    ],
)
def test_files_that_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / "scan.npz", **entries(**changes))
    with pytest.raises(DataError, match=message) as caught:
        files.read_counts(tmp_path / "scan.npz")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda content: content[:300], lambda content: b"", lambda content: b"text"])
def test_damaged_files_are_refused(tmp_path, damage):
    files.write_counts(tmp_path / "scan.npz", example())
    (tmp_path / "scan.npz").write_bytes(damage((tmp_path / "scan.npz").read_bytes()))
    with pytest.raises(DataError, match=r"scan\.npz: cannot be read as npz"):
        files.read_counts(tmp_path / "scan.npz")
    with pytest.raises(DataError, match="no such file"):
        files.read_counts(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("scan.txt", {}, r"ends in \.npz"),
        ("scan.npz", {"counts": -example().counts}, "counts is empty or has negative"),
        ("scan.npz", {"metadata": {"scanner": object()}}, "metadata cannot be JSON"),
        ("scan.npz", {"metadata": {"dose": float("nan")}}, "metadata cannot be JSON"),
    ],
)
def test_what_is_not_written(tmp_path, name, changes, message):
    with pytest.raises(DataError, match=message):
        files.write_counts(tmp_path / name, example(**changes))
    assert not list(tmp_path.iterdir())
