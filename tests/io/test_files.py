"""What is opened: no folders, pipes, other encodings, damaged archives or bombs."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medjax import memory
from medjax.errors import DataError
from medjax.io import files


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    cases = {"pipe": "a pipe or a device", ".": "is a folder", "absent": "no such file", "link": "no such file"}
    for name, found in cases.items():
        with pytest.raises(DataError, match=found):
            files.read_text(tmp_path / name, "a table")
    with pytest.raises(DataError, match="a pipe or a device"):
        files.read_bytes(Path("/dev/zero"), "an image")


@pytest.mark.parametrize(
    "content, found",
    [
        ("größe".encode("latin-1"), "line 1 is not UTF-8"),
        ("a\nb\n\xff".encode("latin-1"), "line 3 is not UTF-8"),
        ("a".encode("utf-16"), "UTF-16"),
        ("a".encode("utf-32"), "UTF-32"),
        (b"a\0b", "binary"),
    ],
)
def test_text_in_another_encoding_is_named(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=found):
        files.read_text(tmp_path / "t.csv", "a table")


def test_text_with_a_byte_order_mark_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json_object(tmp_path / "a.json", "settings") == {"a": 1}
    for text in ("[" * 100_000, "9" * 5000, "{", "[]"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(DataError):
            files.read_json_object(tmp_path / "b.json", "settings")
    with pytest.raises(DataError, match="expected settings of 0"):
        files.read_text(tmp_path / "a.json", "settings", max_bytes=0)


def npz(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array: np.ndarray, **options: bool) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def test_archives(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    whole = npz(tmp_path / "whole.npz", {"a.npy": npy(array), "b.npy": npy(np.array("text"))})
    read = files.read_npz(whole, "counts")
    np.testing.assert_array_equal(read["a"], array)
    assert str(read["b"]) == "text"
    content = whole.read_bytes()
    huge = npy(array).replace(b"(2, 3)", b"(9999999999, 999999)"[:6].ljust(6))
    damaged = {
        "cut": content[: len(content) // 2],
        "rubbish": b"PK" + bytes(range(250)),
        "flipped": content[:150] + bytes([content[150] ^ 255]) + content[151:],
        "empty": b"",
    }
    for name, one in damaged.items():
        (tmp_path / name).write_bytes(one)
        with pytest.raises(DataError, match=name):
            files.read_npz(tmp_path / name, "counts")
    for name, member in {
        "object": npy(np.array([{}], object), allow_pickle=True),
        "shape": huge,
        "long": npy(array).replace(b"(2, 3)", b"(2,99)"),
        "none": b"no array",
    }.items():
        with pytest.raises(DataError, match=name):
            files.read_npz(npz(tmp_path / name, {"a.npy": member}), "counts")


def test_an_npy_that_declares_more_than_it_has(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    (tmp_path / "a.npy").write_bytes(npy(array))
    np.testing.assert_array_equal(files.read_npy(tmp_path / "a.npy", "scores"), array)
    (tmp_path / "b.npy").write_bytes(npy(array).replace(b"(2, 3)", b"(2,99)"))
    with pytest.raises(DataError, match=r"b\.npy"):
        files.read_npy(tmp_path / "b.npy", "scores")


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path / "bomb.npz", {"a.npy": npy(np.zeros(2**20))})
    monkeypatch.setattr(files, "MAX_EXPANSION", 0)
    with pytest.raises(DataError, match="expand to"):
        files.read_npz(path, "counts")


def test_memory_is_compared_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < memory.available_memory() < 2**60
    memory.check_memory("small", 1.0)
    with pytest.raises(DataError, match=r"--size 999999: needs .* GiB of memory, .* use less"):
        memory.check_memory("--size 999999", 1e18, "use less")
