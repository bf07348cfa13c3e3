"""List mode: the real mMR file's known numbers; tiny files by hand for the format and for all that is refused."""

import os
import tracemalloc

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.io import siemens_listmode

HEADER = """!INTERFILE:=
%SMS-MI header name space:=PETLINK bin address
!data offset in bytes:=0
name of data file := tiny.l
data format:=CoincidenceList
number of rings:=3
%number of TOF time bins:=1
image duration (sec):=1.5
%total listmode word counts:=5
%LM event and tag words format (bits):=32
%axial compression:=1
%maximum ring difference:=1
%patient orientation:=HFS
%number of projections:=4
%number of views:=2
"""
PROMPT, TAG = 1 << 30, 1 << 31
# 7 sinograms of 2 views and 4 bins: 3 direct, 2 of difference +1, 2 of −1
WORDS = [TAG | 12345, PROMPT | 13, 13, PROMPT | (3 * 8 + 5), PROMPT | (6 * 8 + 7)]


def save(folder, header=HEADER, words=WORDS):
    (folder / "tiny.l").write_bytes(np.array(words, "<u4").tobytes())
    (folder / "tiny.l.hdr").write_text(header)
    return folder / "tiny.l.hdr"


@pytest.mark.parametrize("name", ["tiny.l.hdr", "tiny.l"])
def test_words_become_events(tmp_path, name):
    save(tmp_path)
    (tmp_path / "a.hdr").write_bytes(b"another program's")
    header, events = siemens_listmode.read_events(tmp_path / name)
    assert (header.bins, header.views, header.rings, header.sinograms, header.duration_s) == (4, 2, 3, 7, 1.5)
    assert events.address.tolist() == [13, 13, 29, 55] and events.address.dtype == np.int32
    assert events.prompt.tolist() == [True, False, True, True]


def test_chunks_join_up(tmp_path, monkeypatch):
    words = np.random.default_rng(0).integers(0, 56, 1000) | np.random.default_rng(1).choice([PROMPT, 0, TAG], 1000)
    path = save(tmp_path, HEADER.replace("counts:=5", "counts:=1000"), words)
    whole = siemens_listmode.read_events(path)[1]
    monkeypatch.setattr(siemens_listmode, "CHUNK", 7)
    header, chunked = siemens_listmode.read_events(path)
    np.testing.assert_array_equal(whole.address, chunked.address)
    np.testing.assert_array_equal(whole.prompt, chunked.prompt)
    prompts, delayeds = siemens_listmode.rebin(header, chunked, 1)
    assert prompts.sum() == whole.prompt.sum() > 100 and delayeds.sum() == (~whole.prompt).sum() > 100


def test_sinogram_rings_by_hand():
    sums, distances = siemens_listmode.sinogram_rings(3, 2)
    assert sums.tolist() == [0, 2, 4, 1, 3, 1, 3, 2, 2]  # (0,0) (1,1) (2,2); (0,1) (1,2) twice; (0,2) twice
    assert distances.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_rebin_by_hand(tmp_path):
    header, events = siemens_listmode.read_events(save(tmp_path))
    prompts, delayeds = siemens_listmode.rebin(header, events, max_ring_difference=1)
    assert prompts.shape == (2, 4, 5) and prompts.dtype == np.float32
    # address 13 is sinogram 1 (plane 2), view 1, bin 1; 29 is sinogram 3 (plane 1); 55 is sinogram 6 (plane 3), bin 3
    assert np.argwhere(prompts).tolist() == [[1, 1, 1], [1, 1, 2], [1, 3, 3]]
    assert np.argwhere(delayeds).tolist() == [[1, 1, 2]]
    assert siemens_listmode.rebin(header, events, 0)[0].sum() == 1
    with pytest.raises(DataError, match="max_ring_difference: 2; expected 0 to 1"):
        siemens_listmode.rebin(header, events, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("CoincidenceList", "Sinogram"), "expected CoincidenceList"),
        (("(bits):=32", "(bits):=48"), r"format \(bits\) is 48; expected 32"),
        (("compression:=1", "compression:=11"), "axial compression is 11; expected 1"),
        (("TOF time bins:=1", "TOF time bins:=13"), "tof time bins is '13'; expected 1"),
        (("%number of views:=2\n", ""), "number of views is ''"),
        (("projections:=4", "projections:=4.5"), "projections is '4.5'; expected a whole number"),
        (("difference:=1", "difference:=3"), "maximum ring difference 3 of 3 rings"),
        (("tiny.l", "gone.l"), "gone.l: no such file"),
        (("views:=2", "views:=1"), "address 55 after word 0; its header has 28"),
    ],
)
def test_headers_that_are_refused(tmp_path, change, message):
    assert change[0] in HEADER
    with pytest.raises(DataError, match=message) as caught:
        siemens_listmode.read_events(save(tmp_path, HEADER.replace(*change)))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("address", [56, 1 << 29, (1 << 30) - 1])
def test_addresses_beyond_the_last_sinogram_are_refused(tmp_path, address):
    with pytest.raises(DataError, match=f"address {address} after word 0; its header has 56 bins"):
        siemens_listmode.read_events(save(tmp_path, words=[*WORDS[:4], address]))


@pytest.mark.parametrize("size", [0, 19])
def test_a_file_that_ends_inside_a_word_is_refused(tmp_path, size):
    path = save(tmp_path)
    os.truncate(tmp_path / "tiny.l", size)
    with pytest.raises(DataError, match=f"tiny.l: {size} bytes; expected whole words"):
        siemens_listmode.read_events(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        siemens_listmode.read_events(tmp_path / "tiny.l.hdr")
    with pytest.raises(DataError, match="no such file"):
        siemens_listmode.read_events(tmp_path / "tiny.l")
    save(tmp_path).unlink()
    with pytest.raises(DataError, match="no header"):
        siemens_listmode.read_events(tmp_path / "tiny.l")
    (tmp_path / "tiny.l.hdr").write_bytes((tmp_path / "tiny.l").read_bytes())
    with pytest.raises(DataError, match="not an Interfile header"):
        siemens_listmode.read_events(tmp_path / "tiny.l.hdr")


def test_a_cut_file_is_read_with_a_warning(tmp_path):
    path = save(tmp_path, words=WORDS[:3])
    with pytest.warns(UserWarning, match="3 of the 5 words"):
        _, events = siemens_listmode.read_events(path)
    assert events.address.size == 2


@pytest.fixture(scope="module")
def mmr(test_data):
    with pytest.warns(UserWarning, match="254816 of the 331257106 words"):
        return siemens_listmode.read_events(test_data / "pet_listmode" / "PET_ACQ_small.l.hdr")


def test_real_file(mmr):
    header, events = mmr
    assert (header.sinograms, header.views, header.bins, header.rings) == (4084, 252, 344, 64)
    assert (events.prompt.sum(), (~events.prompt).sum()) == (218_881, 35_320)
    prompts, delayeds = siemens_listmode.rebin(header, events, max_ring_difference=5)
    assert prompts.shape == (252, 344, 127)
    assert (prompts.sum(), delayeds.sum()) == (29_119, 5_891)


def test_no_real_event_touches_a_virtual_crystal(mmr):
    """Every ninth crystal of the mMR is a gap: an address decoded with another order of its axes would be found out."""
    header, events = mmr
    view, bin_ = np.divmod(events.address % (header.views * header.bins), header.bins)
    offset = bin_ - 172
    first, second = (view + (offset >> 1)) % 504, (view - ((offset + 1) >> 1) + 252) % 504
    assert not np.any((first % 9 == 0) | (second % 9 == 0))


def timed(tmp_path, milliseconds=100, a_millisecond=10):
    """A scan of one tag a millisecond; event k of millisecond t is address (t + k) mod 56, every third one delayed."""
    words = []
    for t in range(milliseconds):
        kinds = [(PROMPT if k % 3 else 0) | ((t + k) % 56) for k in range(a_millisecond)]
        words += [TAG | t, *kinds, TAG | (7 << 28) | 5]  # the last one is none of time
    header = HEADER.replace("counts:=5", f"counts:={len(words)}").replace("(sec):=1.5", f"(sec):={milliseconds / 1000}")
    return save(tmp_path, header, words)


@pytest.mark.parametrize("chunk", [7, 1000, siemens_listmode.CHUNK])
def test_events_of_each_frame(tmp_path, monkeypatch, chunk):
    path = timed(tmp_path)
    monkeypatch.setattr(siemens_listmode, "CHUNK", chunk)
    frames = [(0.0, 0.02), (0.02, 0.0205), (0.05, 0.1)]
    header, chunks = siemens_listmode.read_event_chunks(path, frames)
    chunks = list(chunks)
    assert [c.frame for c in chunks] == sorted(c.frame for c in chunks) and header.words == 1200
    for number, times in enumerate((range(20), range(20, 21), range(50, 100))):
        own = [c.events for c in chunks if c.frame == number]
        address = np.concatenate([events.address for events in own])
        assert address.tolist() == [(t + k) % 56 for t in times for k in range(10)]
        assert sum(int(events.prompt.sum()) for events in own) == 6 * len(times)


def test_frames_that_cover_the_scan_hold_all_events(tmp_path):
    path = timed(tmp_path)
    with (tmp_path / "tiny.l").open("r+b") as file:  # a last tag at the very end, with events after it
        file.seek(-8, os.SEEK_END)
        file.write(np.array([TAG | 100, PROMPT | 3], "<u4").tobytes())
    whole = siemens_listmode.read_events(path)[1]
    for frames in (None, [(0.0, 0.1)], [(0.0, 0.03), (0.03, 0.07), (0.07, 0.1)]):
        events = [chunk.events for chunk in siemens_listmode.read_event_chunks(path, frames)[1]]
        np.testing.assert_array_equal(np.concatenate([e.address for e in events]), whole.address)
        np.testing.assert_array_equal(np.concatenate([e.prompt for e in events]), whole.prompt)


def test_chunks_that_are_refused(tmp_path):
    path = timed(tmp_path)
    for frames, message in (
        ([(0.0, 0.2)], "frame 1, 0 to 0.2 s, ends after the scan, which lasts 0.1 s"),
        ([(0.0, 0.05), (0.04, 0.06)], "frame 2, 0.04 to 0.06 s, begins before"),
        ([], "frames: 0; expected 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            siemens_listmode.read_event_chunks(path, frames)
    os.truncate(tmp_path / "tiny.l", 4 * 1200 - 1)
    with pytest.raises(DataError, match="4799 bytes; expected whole words"):
        siemens_listmode.read_event_chunks(path)
    path = save(tmp_path, words=[TAG | 9, PROMPT | 1, TAG | 5, PROMPT | 1, PROMPT | 1])
    assert len(list(siemens_listmode.read_event_chunks(path)[1])) == 1  # without frames times do not count
    with pytest.raises(DataError, match="time tag of 5 ms at word 2, after one of 9 ms") as caught:
        list(siemens_listmode.read_event_chunks(path, [(0.0, 1.0)])[1])
    assert "\n" not in str(caught.value)
    path = save(tmp_path, words=[*WORDS[:4], 60])
    with pytest.raises(DataError, match="address 60 after word 0; its header has 56 bins"):
        list(siemens_listmode.read_event_chunks(path)[1])


def test_memory_of_a_file_of_many_chunks_is_that_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(siemens_listmode, "CHUNK", 1 << 14)
    path, peaks = timed(tmp_path, 2000, 100), []
    for frames in (None, [(0.1, 1.0), (1.0, 1.9)]):
        _, chunks = siemens_listmode.read_event_chunks(path, frames)
        tracemalloc.start()
        number = sum(chunk.events.prompt.size for chunk in chunks)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert number == (200_000 if frames is None else 180_000)
    assert max(peaks) < 20 * (1 << 14) < (2000 * 102 * 4) / 2  # bytes: 20 a word of one chunk; the file has 12 chunks


def test_frames_of_the_real_file(test_data):
    """One time tag a millisecond: the 613 ms in frames of 100 ms hold all events."""
    path = test_data / "pet_listmode" / "small_listmode_file.l"
    frames = [(k / 10, (k + 1) / 10) for k in range(7)]
    with pytest.warns(UserWarning, match="words in its header"):
        _, chunks = siemens_listmode.read_event_chunks(path, frames)
    prompts, delayeds = np.zeros(7, int), np.zeros(7, int)
    for frame, events in chunks:
        prompts[frame] += events.prompt.sum()
        delayeds[frame] += (~events.prompt).sum()
    assert (prompts.sum(), delayeds.sum()) == (218_881, 35_320)
    rates = (prompts + delayeds) / [100] * 1.0
    np.testing.assert_allclose(rates[:6], 254_201 / 613, rtol=0.05)  # events a millisecond
    np.testing.assert_allclose(rates[6], 13 / 100 * 254_201 / 613, rtol=0.1)
