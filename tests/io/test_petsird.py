"""PETSIRD list mode: read by the package what is written here and the other way round; damage is one line."""

import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.errors import DataError, MedjaxError
from medjax.io.petsird import OtherBlock, is_petsird, read_petsird, write_petsird
from medjax.pet.petsird_events import read_petsird_scan
from tests.petsird_scan import header, petsird, time_blocks

HEADER = header()
BLOCKS = time_blocks(HEADER)


def same(one, other):
    assert (one.start_ms, one.stop_ms) == (other.start_ms, other.stop_ms)
    for found, expected in ((one.prompts, other.prompts), (one.delayeds, other.delayeds)):
        assert found.keys() == expected.keys()
        for pair in expected:
            np.testing.assert_array_equal(found[pair], expected[pair])


@pytest.mark.parametrize("name", ["scan.petsird", "scan.ndjson"])
def test_round_trip(tmp_path, name):
    write_petsird(tmp_path / name, HEADER, iter(BLOCKS))
    found, blocks = read_petsird(tmp_path / name)
    for one, other in zip(blocks, BLOCKS, strict=True):
        same(one, other)
    assert found.scanner.model_name == "blocks" and is_petsird(tmp_path / name)
    write_petsird(tmp_path / f"again_{name}", found, BLOCKS)  # a header that was read
    assert (tmp_path / f"again_{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_the_package_reads_what_is_written_and_is_read(tmp_path):
    write_petsird(tmp_path / "ours.petsird", HEADER, BLOCKS)
    with petsird.BinaryPETSIRDReader(str(tmp_path / "ours.petsird")) as reader:
        assert reader.read_header() == HEADER
        theirs = list(reader.read_time_blocks())
    events = theirs[1].value.prompt_events[1][0]
    assert [[*e.detection_bins, e.tof_idx] for e in events] == BLOCKS[1].prompts[1, 0].tolist()
    other = petsird.TimeBlock.BedMovementTimeBlock(petsird.BedMovementTimeBlock())
    with petsird.BinaryPETSIRDWriter(str(tmp_path / "theirs.petsird")) as writer:
        writer.write_header(HEADER)
        writer.write_time_blocks(iter(theirs[:2]))
        writer.write_time_blocks([other, *theirs[2:]])
    found, blocks = read_petsird(tmp_path / "theirs.petsird")
    read = list(blocks)
    assert isinstance(read[2], OtherBlock) and read.pop(2).kind == "BedMovementTimeBlock"
    for one, expected in zip(read, BLOCKS, strict=True):
        same(one, expected)
    own, expected = (h.scanner.detection_efficiencies for h in (found, HEADER))
    for k in range(2):
        np.testing.assert_array_equal(
            own.detection_bin_efficiencies[k], np.float32(expected.detection_bin_efficiencies[k])
        )
        np.testing.assert_array_equal(own.module_pair_sgidlut[1][k][1], expected.module_pair_sgidlut[1][k][1])


def test_numbers_of_any_length(tmp_path):
    """32-bit integers of all lengths, through the package and back, over its buffer's end."""
    rng = np.random.default_rng(0)
    events = (2 ** rng.uniform(0, 32, (40_000, 3))).astype(np.uint32)
    events[0] = 0, 127, 2**32 - 1
    memory = io.BytesIO()
    objects = [petsird.CoincidenceEvent(detection_bins=[a, b], tof_idx=c) for a, b, c in events.tolist()]
    with petsird.BinaryPETSIRDWriter(memory) as writer:
        writer.write_header(HEADER)
        block = petsird.EventTimeBlock(prompt_events=[[objects]])
        writer.write_time_blocks([petsird.TimeBlock.EventTimeBlock(block)])
    (tmp_path / "numbers.petsird").write_bytes(memory.getvalue())
    _, blocks = read_petsird(tmp_path / "numbers.petsird")
    np.testing.assert_array_equal(next(blocks).prompts[0, 0], events)


def written(tmp_path, name="scan.petsird"):
    write_petsird(tmp_path / name, HEADER, BLOCKS)
    return tmp_path / name


def refused(path):
    with pytest.raises(MedjaxError) as caught:
        read_petsird_scan(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 500
    return message


def test_files_that_are_none(tmp_path):
    for content in (b"", b"yar", b"yardl", b"!INTERFILE:=\n", b"{}", b"[" * 100_000, b"{" * 100_000, b"\x00" * 1000):
        path = tmp_path / "bad.petsird"
        path.write_bytes(content)
        assert "PETSIRD list mode of version 0.12" in refused(path)
    with pytest.raises(DataError, match="no such file"):
        read_petsird(tmp_path / "gone.petsird")


def test_other_versions(tmp_path):
    content = written(tmp_path).read_bytes()
    path = tmp_path / "other.petsird"
    path.write_bytes(content.replace(b'"name":"tofIdx"', b'"name":"tofIDX"', 1))
    message = "PETSIRD of another version, whose CoincidenceEvent differ; expected version 0.12"
    assert message in refused(path)
    path.write_bytes(content.replace(b'"protocol":{"name":"PETSIRD"', b'"protocol":{"name":"PRDSPET"', 1))
    assert "protocol 'PRDSPET'; expected PETSIRD" in refused(path)
    path.write_bytes(content[:5] + b"\x02" + content[6:])
    assert "version 2 of yardl's binary form; expected 1" in refused(path)
    lines = written(tmp_path, "scan.ndjson").read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["yardl"]["schema"]["types"].pop()
    (tmp_path / "other.ndjson").write_text(json.dumps(first) + "\n" + "".join(lines[1:]))
    assert "PETSIRD of another version" in refused(tmp_path / "other.ndjson")


def test_the_version_of_the_package(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.13.1")
    with pytest.raises(DataError, match=r"version 0.13.1 of the package petsird; expected 0.12"):
        read_petsird("any.petsird")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "petsird", None)
    with pytest.raises(DataError, match=r"pip install 'medjax\[petsird\]'"):
        read_petsird("any.petsird")


@pytest.mark.parametrize("name", ["scan.petsird", "scan.ndjson"])
def test_a_truncated_file(tmp_path, name):
    content = written(tmp_path, name).read_bytes()
    path = tmp_path / f"cut.{name}"
    for size in (20, len(content) // 3, len(content) - 10):
        path.write_bytes(content[:size])
        assert "damaged or truncated" in refused(path)
    path.write_bytes(content[:-1] if name.endswith("petsird") else content[:-3])
    assert "after 4 time blocks" in refused(path) or "after 3 time blocks" in refused(path)
    if name.endswith("petsird"):
        path.write_bytes(content + b"\x00")
        assert "1 bytes or more after the last one" in refused(path)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["scan.petsird", "scan.ndjson"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_flipped_and_cut_bytes(tmp_path_factory, name, flips, cut):
    """Any damage is one line or goes unseen; nothing else is raised, and no memory is taken for what is declared."""
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    if not (folder / name).exists():
        write_petsird(folder / name, HEADER, BLOCKS[:2])
    content = bytearray((folder / name).read_bytes())
    start = content.index(b"blocks") - 20  # past the definition of the format
    for where, value in flips:
        content[start + int(where * (len(content) - start))] = value
    path = folder / f"bad_{name}"
    path.write_bytes(content if cut is None else content[: int(cut * len(content))])
    try:
        read_petsird_scan(path)
    except MedjaxError as error:
        assert "\n" not in str(error) and str(path) in str(error)
