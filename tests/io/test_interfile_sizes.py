"""Interfile headers and list mode whose sizes or contents cannot be: one line, and nothing is allocated."""

import os
import tracemalloc
import warnings

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.interfile_header import MAX_HEADER_BYTES, read_header
from medjax.pet.io import load_scan
from tests.io.test_interfile import ONE_SEGMENT
from tests.io.test_siemens_listmode import HEADER, WORDS, save

DIGITS = "9" * 5000
SIZES = ("size [1] := 6", "{ 4}", "size [3] := 7", "bytes per pixel := 4", "dimensions := 4", "[4] := 1")
LENGTHS = ("Number of rings                          := 64", "Inner ring diameter (cm)                 := 65.6")
BAD = ("nan", "inf", DIGITS, "-1", "1e400", "x", "{}")
LIST = ("rings:=3", "(bits):=32", "compression:=1", "difference:=1", "projections:=4", "views:=2", "bytes:=0")
MMR = HEADER.replace("rings:=3", "rings:=64").replace("projections:=4", "projections:=344")
MMR = MMR.replace("views:=2", "views:=252").replace("difference:=1", "difference:=60")


def refused(run) -> str:
    """The message of a DataError that takes little memory."""
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        run()
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message and "data." in message
    return message


def header(folder, text: str, content: bytes = b"\0" * 672):
    (folder / "total_mult.s").write_bytes(content)
    (folder / "data.hs").write_text(text)
    return folder / "data.hs"


@pytest.mark.parametrize("bad", [*BAD, str(10**9), str(10**8)])
@pytest.mark.parametrize("entry", SIZES)
def test_declared_sizes_that_the_data_do_not_have(tmp_path, entry, bad):
    assert entry in ONE_SEGMENT
    key, _, _ = entry.partition(":=")
    text = ONE_SEGMENT.replace(entry, f"{key}:= {bad}" if ":=" in entry else f"{{ {bad}}}")
    path = header(tmp_path, text)
    assert len(refused(lambda: interfile.read_sinogram(path))) < 400


@pytest.mark.parametrize("bad", ["nan", "inf", "1e400", DIGITS, "x"])
@pytest.mark.parametrize("entry", LENGTHS)
def test_lengths_of_a_scanner_that_are_no_numbers(tmp_path, entry, bad):
    path = header(tmp_path, ONE_SEGMENT.replace(entry, f"{entry.partition(':=')[0]}:= {bad}"))
    assert len(refused(lambda: interfile.read_geometry(path))) < 400


@pytest.mark.parametrize("scale", ["nan", "1e300", "0", "-1", "1e-300"])
def test_scales_that_float32_does_not_hold(tmp_path, scale):
    path = header(tmp_path, ONE_SEGMENT.replace("number of time", f"image scaling factor := {scale}\nnumber of time"))
    assert "image scaling factor" in refused(lambda: interfile.read_sinogram(path))


def test_data_that_are_no_file_of_their_own(tmp_path):
    def message(name: str) -> str:
        path = header(tmp_path, ONE_SEGMENT.replace("total_mult.s", name))
        return refused(lambda: interfile.read_sinogram(path))

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert "'fifo': is a pipe or a device" in message("fifo")
    assert "is a pipe or a device" in message("/dev/zero")
    assert "'folder': is a folder" in message("folder")
    assert "names itself as its data file" in message("data.hs")
    assert "no such file" in message("9" * 200)


@pytest.mark.parametrize("size", [0, 671, 673, 6720])
def test_data_that_are_short_or_long(tmp_path, size):
    path = header(tmp_path, ONE_SEGMENT, b"\0" * size)
    with pytest.raises(DataError, match=rf"total_mult\.s: {size} bytes; its header data\.hs has 672"):
        interfile.read_sinogram(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe" + ONE_SEGMENT.encode("utf-16-le"), "text in UTF-16; expected an Interfile header"),
        (os.urandom(1000), "not an Interfile header"),
        (b"", "not an Interfile header"),
        (b"!INTERFILE :=\n" + b"; comment\n" * (MAX_HEADER_BYTES // 8), "no END OF INTERFILE"),
    ],
)
def test_headers_that_are_no_text_of_a_header(tmp_path, content, message):
    (tmp_path / "data.hs").write_bytes(content)
    assert message in refused(lambda: read_header(tmp_path / "data.hs"))


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    path = header(tmp_path, ONE_SEGMENT.replace("number of time", "\x1b[31mred := 1\nnumber of time"))
    with pytest.warns(UserWarning, match=r"unknown keys, ignored: \\x1b \[31mred|unknown keys, ignored: \\x1b"):
        interfile.read_sinogram(path)


@pytest.mark.parametrize("bad", [*BAD, str(10**9), str(10**8)])
@pytest.mark.parametrize("entry", LIST)
def test_list_mode_headers_that_cannot_be(tmp_path, entry, bad):
    assert entry in HEADER
    save(tmp_path, HEADER.replace(entry, f"{entry.partition(':=')[0]}:={bad}"))
    (tmp_path / "tiny.l.hdr").rename(tmp_path / "data.hdr")
    if entry == "bytes:=0":
        bad = refused(lambda: siemens_listmode.read_events(tmp_path / "data.hdr")) if bad in BAD else ""
        return
    assert len(refused(lambda: siemens_listmode.read_header(tmp_path / "data.hdr"))) < 400


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tiny.l").write_bytes(b"\0" * 7), "expected whole words of 4 bytes"),
        (lambda folder: (folder / "tiny.l").write_bytes(b""), "expected whole words of 4 bytes"),
        (lambda folder: (folder / "tiny.l").write_bytes(b"9" * 400), "its header has 354033792 bins"),
        (lambda folder: (folder / "tiny.l.hdr").unlink(), "no header"),
        (lambda folder: (folder / "tiny.l.hdr").write_text("9" * 10**6), "no header"),
        (lambda folder: ((folder / "tiny.l").unlink(), os.mkfifo(folder / "tiny.l")), "is a pipe or a device"),
        (lambda folder: (folder / "tiny.l").unlink(), "no such file"),
    ],
)
def test_list_mode_that_cannot_be_read_is_one_line(tmp_path, spoil, message):
    save(tmp_path, MMR.replace("counts:=5", "counts:=50"), WORDS)
    spoil(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not a word beside the error
        with pytest.raises(DataError, match=message) as caught:
            load_scan(tmp_path / "tiny.l", "mmr")
    assert "\n" not in str(caught.value)


def test_the_scanner_is_compared_before_events_are_read(tmp_path):
    words = np.full(100, 2**30 - 1, np.uint32)  # an address beyond the last bin, which reading would tell of
    save(tmp_path, HEADER, words)
    with pytest.raises(DataError, match=r"tiny\.l\.hdr: 3 rings; mmr has 64|2 views, 4 bins, 3 rings; mmr has 252"):
        load_scan(tmp_path / "tiny.l", "mmr")
