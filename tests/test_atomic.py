"""Atomic writes: whole or not at all, with two writers, links in the way, errors and kills between two files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medjax import atomic
from medjax.atomic import remove_leftovers, replacing, replacing_together, write_text
from medjax.errors import DataError
from medjax.tools.checks import check_no_overwrite

KILLED = """
import os, sys
from pathlib import Path
from medjax import atomic
folder, when = Path(sys.argv[1]), int(sys.argv[2])
calls = [0]
def dying(real):
    def call(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == when:
            os.kill(os.getpid(), 9)
        return real(*arguments, **keywords)
    return call
atomic.os.replace, atomic.Path.rename = dying(os.replace), dying(Path.rename)
with atomic.replacing_together(folder / "a", folder / "b") as (a, b):
    a.write_text("new")
    b.write_text("new")
"""


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with replacing(path) as one, replacing(path) as two:
        one.write(b"1" * 10)
        two.write(b"2" * 5)
    assert path.read_bytes() == b"1" * 10
    assert [*tmp_path.iterdir()] == [path]


def test_a_link_under_an_old_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "00")
    (tmp_path / f".00{atomic.TEMPORARY_SUFFIX}").symlink_to(victim)
    with pytest.raises(OSError, match="f"):
        write_text(tmp_path / "f", "x")
    assert victim.read_text() == "mine"


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = tmp_path / "run" / f".x{atomic.TEMPORARY_SUFFIX}"
    dead.parent.mkdir()
    dead.write_text("half")
    path = tmp_path / "run" / "live"
    with replacing(path) as file, replacing_together(tmp_path / "run" / "c") as (part,):
        file.write(b"whole")
        part.write_text("c")
        remove_leftovers(tmp_path)
        assert not dead.exists()
    assert path.read_text() == "whole"
    assert (tmp_path / "run" / "c").read_text() == "c"


def test_the_next_writer_removes_what_a_dead_one_had_not_completed(tmp_path: Path) -> None:
    dead = tmp_path / f".x{atomic.TEMPORARY_SUFFIX}"
    dead.mkdir()
    (dead / "a").write_text("half")
    with replacing_together(tmp_path / "b") as (part,), replacing_together(tmp_path / "c") as (other,):
        part.write_text("b")
        other.write_text("c")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "c"]


def test_without_locks_files_are_written_and_no_leftover_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(atomic.fcntl, "flock", unsupported)
    live = tmp_path / f".x{atomic.TEMPORARY_SUFFIX}"
    live.write_text("half")
    write_text(tmp_path / "f", "whole")
    with replacing_together(tmp_path / "g") as (part,):
        part.write_text("g")
    remove_leftovers(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == [live.name, "f", "g"]


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("old")
    second.write_text("old")
    with pytest.raises(DataError, match=str(first)), replacing_together(first, second) as (a, _):
        a.write_text("new")
        raise DataError(f"{a}: not finite")
    assert (first.read_text(), second.read_text()) == ("old", "old")

    real = os.replace
    fail = iter([False, True])
    monkeypatch.setattr(
        atomic.os, "replace", lambda *names: real(*names) if not next(fail) else Path("/no/such").stat()
    )
    with pytest.raises(OSError, match="such"), replacing_together(first, second) as (a, b):
        a.write_text("new")
        b.write_text("new")
    assert (first.read_text(), second.read_text()) == ("old", "old")
    monkeypatch.setattr(atomic.os, "replace", real)
    with replacing_together(first, second) as (a, _):
        a.write_text("new")
    assert first.read_text() == "new"
    assert [*tmp_path.iterdir()] == [first], "what was not written leaves, and nothing is left over"


@pytest.mark.parametrize("when", [1, 2, 3, 4, 5])
def test_killed_between_two_files_no_old_one_stands_beside_a_new_one(tmp_path: Path, when: int) -> None:
    for name in "ab":
        (tmp_path / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(when)], check=False)
    assert done.returncode == -9
    contents = {(tmp_path / name).read_text() for name in "ab" if (tmp_path / name).exists()}
    assert len(contents) <= 1
    remove_leftovers(tmp_path)
    contents = [(one.name, one.read_text()) for one in sorted(tmp_path.iterdir())]
    assert contents == [(name, "old" if when == 1 else "new") for name in "ab"], "nothing is lost, nothing left over"


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "m.nii.gz"
    source.write_text("")
    link, hard = tmp_path / "link.nii.gz", tmp_path / "hard.nii.gz"
    link.symlink_to(source)
    os.link(source, hard)
    for output in (source, link, hard, tmp_path / "x" / ".." / "m.nii.gz"):
        with pytest.raises(DataError, match="is the input"):
            check_no_overwrite([output], [None, source])
    with pytest.raises(DataError, match="two outputs"):
        check_no_overwrite([tmp_path / "new", tmp_path / "." / "new"], [])
    check_no_overwrite([tmp_path / "new"], [source, 3])


def test_text_with_bytes_of_file_names_is_written(tmp_path):
    name = os.fsdecode(b"caf\xff")
    write_text(tmp_path / "a.json", json.dumps({"file": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text()) == {"file": name}
