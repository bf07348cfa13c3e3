"""Damaged files of work directories, and damaged checkpoints: one line that says what to delete, or computed again."""

import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from damages import ARCHIVES, JSON, in_one_line

from medjax.errors import WorkdirError
from medjax.running.experiment import _record_environment, has_result
from medjax.running.workdir import WorkDir, filter_jsonl, open_workdir, read_json, record_timings, stage, write_json
from medjax.training import checkpoint

FILES = ("config.json", "timings.json", "metrics.json", "environment.json")


@pytest.fixture
def work(tmp_path):
    with open_workdir(tmp_path / "work", {"seed": 0}) as work:
        yield work


def opened(work: WorkDir) -> None:
    with open_workdir(work.path.with_name("work"), {"seed": 0}):
        pass


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", JSON)
def test_files_that_are_no_json_object(work, file, damage):
    (work.path / file).write_bytes(JSON[damage])
    message = in_one_line(lambda: read_json(work, file), file)
    assert "(delete it" in message


@pytest.mark.parametrize("file", FILES)
def test_folders_and_pipes_of_that_name(work, file):
    (work.path / file).unlink(missing_ok=True)
    (work.path / file).mkdir()
    in_one_line(lambda: read_json(work, file), file)
    (work.path / file).rmdir()
    os.mkfifo(work.path / file)
    in_one_line(lambda: read_json(work, file), file)


@pytest.mark.parametrize("file", ["metrics.json", "report.html", "metrics.jsonl"])
def test_pipes_stop_before_anything_is_changed(tmp_path, file):
    os.mkfifo(tmp_path / file)
    with pytest.raises(WorkdirError, match=rf"{file}: is a pipe or a device; expected .*"), open_workdir(tmp_path, {}):
        pass
    assert [one.name for one in tmp_path.iterdir()] == [file]
    (tmp_path / file).rename(tmp_path / "other")  # not a run's
    with open_workdir(tmp_path, {}):
        pass


def test_a_damaged_config_or_log_stops_before_anything_is_changed(tmp_path):
    with open_workdir(tmp_path, {"seed": 0}):
        pass
    for name, content in {"config.json": b"[]", "metrics.jsonl": None}.items():
        before = (tmp_path / name).read_bytes() if content else b""
        if content:
            (tmp_path / name).write_bytes(content)
        else:
            os.mkfifo(tmp_path / name)

        def again():
            with open_workdir(tmp_path, {"seed": 0}):
                pass

        in_one_line(again, name)
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(before)


@pytest.mark.parametrize("earlier", [1, "a", {}, None, True])
def test_an_environment_whose_past_is_no_list(work, earlier):
    write_json(work, "environment.json", {"earlier": earlier})
    message = in_one_line(lambda: _record_environment(work, work.path), "environment.json")
    assert "'earlier' is a JSON" in message and message.endswith("delete the file")


@pytest.mark.parametrize("content", [b"[]", b"null", b"{", b'{"a": []}', b'{"a": "text"}'])
def test_damaged_metrics_are_made_again(work, content, capsys):
    (work.path / "metrics.json").write_bytes(content)
    assert not has_result(work)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("line", [b"{", b"[]", b"7", b'"text"', b"null", b'{"other": 1}', b"\xff", b"[" * 9999, b"\0"])
def test_records_that_are_none(work, line):
    (work.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    in_one_line(lambda: filter_jsonl(work, lambda row: row["step"] < 2), "metrics.jsonl")


@pytest.mark.parametrize("damage", [*ARCHIVES, "one number"])
def test_a_damaged_stage_is_computed_again(work, damage, capsys):
    file = work.checkpoints / "fit.npz"
    stage(work, "fit", lambda: {"a": np.arange(999.0)})
    own = {"one number": lambda content: content.replace(b"\x3f", b"\x40")}
    file.write_bytes((ARCHIVES | own)[damage](file.read_bytes()))
    work.stages.clear()
    np.testing.assert_array_equal(stage(work, "fit", lambda: {"a": np.arange(999.0)})["a"], np.arange(999.0))
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1 and "fit.npz is damaged" in message
    record_timings(work, {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints, and a tree like theirs."""
    folder = tmp_path_factory.mktemp("checkpoints") / "all"
    for step in (1, 2):
        checkpoint.save(folder, step, {"a": jnp.full(99, float(step)), "n": step})
    return folder


CHECKPOINT_DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "rubbish": lambda file: file.write_bytes(bytes(range(256))),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that the storage abandons
@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGES)
def test_damaged_checkpoints(saved, damage, tmp_path, capfd):
    """Every file of the last checkpoint in turn: it is read all the same, or refused by name, and the one before is."""
    like = {"a": jnp.zeros(99), "n": 0}
    refused = 0
    files = [path.relative_to(saved) for path in (saved / "2").rglob("*") if path.is_file()]
    for number, file in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        CHECKPOINT_DAMAGES[damage](folder / file)
        try:
            assert float(checkpoint.restore(folder, like)[1]["a"][0]) in (1.0, 2.0)
            continue
        except WorkdirError as error:
            message = str(error)
        refused += 1
        assert len(message.splitlines()) == 1 and f"{folder / '2'} is damaged" in message and "delete it" in message
        shutil.rmtree(folder / "2")
        assert checkpoint.restore(folder, like)[0] == 1
    assert refused
    assert not capfd.readouterr().err


def test_rubbish_beside_checkpoints(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "all")
    (folder / "notes.txt").write_text("rubbish")
    (folder / "3").mkdir()
    like = {"a": jnp.zeros(99), "n": 0}
    with pytest.raises(WorkdirError, match=r"3 is damaged.*delete it to go on from the checkpoint before"):
        checkpoint.restore(folder, like)
