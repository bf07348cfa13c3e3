"""Work directories: one holder at a time, whole files whatever happens, stages that are computed once."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from medjax import atomic
from medjax.errors import MedjaxError, WorkdirError
from medjax.running.arrays import from_numbered_leaves, load_arrays, save_arrays, to_numbered_leaves
from medjax.running.workdir import append_jsonl, open_workdir, record_timings, save_figure, stage, write_json

CONFIG = {"experiment": "toy", "config": {"rate": 0.5, "levels": (1, 2), "model": {"width": 8}}}
HOLDER = """
import sys, time
from pathlib import Path
from medjax.running.workdir import open_workdir
with open_workdir(Path(sys.argv[1]), {}):
    print("held", flush=True)
    time.sleep(60)
"""


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def full(*_arguments, **_keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_it_holds_its_config_as_json(tmp_path):
    with open_workdir(tmp_path / "runs" / "a", CONFIG) as work:
        there = json.loads((work.path / "config.json").read_text())
    assert there == {"experiment": "toy", "config": {"rate": 0.5, "levels": [1, 2], "model": {"width": 8}}}


def test_the_same_config_opens_it_again_and_another_is_refused(tmp_path):
    with open_workdir(tmp_path, CONFIG):
        pass
    with open_workdir(tmp_path, {"config": ConfigDict(CONFIG["config"]), "experiment": "toy"}):
        pass
    other = {"experiment": "toy", "config": {"rate": 0.5, "levels": (1, 2), "model": {"width": 16}}}
    with (
        pytest.raises(WorkdirError, match=r"config\.model\.width is 8 there and 16 here"),
        open_workdir(tmp_path, other),
    ):
        pass
    with pytest.raises(WorkdirError, match=r"config\.levels is \[1, 2\] there and absent here"):
        open_workdir(tmp_path, {"experiment": "toy", "config": {"rate": 0.5}}).__enter__()
    with pytest.raises(WorkdirError, match='experiment is "toy" there and "other" here'):
        open_workdir(tmp_path, CONFIG | {"experiment": "other"}).__enter__()


def test_a_run_that_fails_before_it_keeps_anything_leaves_no_directory(tmp_path):
    def fail(path, keep):
        with pytest.raises(MedjaxError), open_workdir(path, {"seed": 0}) as work:
            if keep:
                stage(work, "fit", lambda: {"x": np.ones(1)})
            raise MedjaxError("no")

    fail(tmp_path / "new", keep=False)
    (tmp_path / "mine").mkdir()
    fail(tmp_path / "mine", keep=False)  # was there before: it stays
    fail(tmp_path / "begun", keep=True)
    fail(tmp_path / "begun", keep=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "mine"]
    assert (tmp_path / "begun" / "checkpoints" / "fit.npz").is_file()


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkdirError, match=rf"by process {holder.pid}; wait for it or choose another folder$"):
            open_workdir(tmp_path, {}).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with open_workdir(tmp_path, {}):
        pass


def test_two_holders_in_one_process_are_refused_too(tmp_path):
    with open_workdir(tmp_path, {}), pytest.raises(WorkdirError, match=f"in use by process {os.getpid()}"):
        open_workdir(tmp_path, {}).__enter__()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    with open_workdir(tmp_path, {}):
        pass
    part = tmp_path / "checkpoints" / f".fit.npz{atomic.TEMPORARY_SUFFIX}"
    mine = tmp_path / "checkpoints" / ".mine.tmp"
    part.write_bytes(b"half"), mine.write_bytes(b"kept")
    with open_workdir(tmp_path, {}):
        assert (part.exists(), mine.exists()) == (False, True)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, function):
    with open_workdir(tmp_path, {}) as work:
        write_json(work, "timings.json", {"a": 1})
        before = files(tmp_path)
        monkeypatch.setattr(os, function, full)
        for write in (
            lambda: write_json(work, "timings.json", {"a": 2}),
            lambda: stage(work, "fit", lambda: {"x": np.ones(3)}),
            lambda: save_figure(work, "curve", Figure()),
        ):
            with pytest.raises(OSError, match=f"{os.strerror(errno.ENOSPC)}.*{tmp_path}"):
                write()
        assert files(tmp_path) == before
        assert json.loads((tmp_path / "timings.json").read_text()) == {"a": 1}


def test_a_disk_that_fills_up_inside_a_file_leaves_no_part(tmp_path):
    """The kernel itself refuses after 100 kB: the file is half written when the error comes."""
    script = """
import resource, sys
import numpy as np
from pathlib import Path
from medjax.running.arrays import save_arrays
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_arrays(Path(sys.argv[1]) / "small.npz", {"x": np.ones(1000)})
save_arrays(Path(sys.argv[1]) / "large.npz", {"x": np.ones(100_000)})
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr and "large.npz" in done.stderr.splitlines()[-1]
    assert files(tmp_path) == {"small.npz"}


def test_a_log_keeps_whole_lines_when_the_disk_is_full(tmp_path, monkeypatch):
    with open_workdir(tmp_path, {}) as work:
        append_jsonl(work, {"step": 0})
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]) if len(data) > 8 else full())
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            append_jsonl(work, {"step": 1})
        monkeypatch.undo()
        append_jsonl(work, {"step": 2, "loss": jnp.float32(0.5), "flat": float("nan"), "shape": np.arange(2)})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0}, {"step": 2, "loss": 0.5, "flat": None, "shape": [0, 1]}]


@pytest.mark.parametrize(
    ("there", "kept"), [(b'{"a": 1}\n{"b"', b'{"a": 1}\n'), (b'{"a', b""), (b"{}\n", b"{}\n"), (b"", b"")]
)
def test_half_a_line_of_a_killed_run_is_dropped(tmp_path, there, kept):
    (tmp_path / "metrics.jsonl").write_bytes(there)
    with open_workdir(tmp_path, {}):
        assert (tmp_path / "metrics.jsonl").read_bytes() == kept


def test_a_stage_is_computed_once_and_comes_back_the_same(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"a": jnp.arange(6.0).reshape(2, 3).T, "deep": {"n": 3, "half": jnp.ones(2, jnp.bfloat16)}, "file": 0.1}

    with open_workdir(tmp_path, {}) as work:
        first = stage(work, "fit", compute)
    with open_workdir(tmp_path, {}) as work:
        second = stage(work, "fit", compute)
    assert len(calls) == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert isinstance(one, np.ndarray)
        assert (one.dtype, one.shape, one.strides, one.tobytes()) == (two.dtype, two.shape, two.strides, two.tobytes())
    assert second["deep"]["half"].dtype == jnp.bfloat16
    assert second["file"] == 0.1
    assert json.loads((tmp_path / "timings.json").read_text()).keys() == {"fit.seconds"}


class Fit(NamedTuple):
    image: np.ndarray
    steps: tuple[np.ndarray, np.ndarray]


def test_a_stage_of_any_structure_needs_like(tmp_path):
    fit = Fit(np.ones((2, 2)), (np.zeros(1), np.arange(3)))
    with open_workdir(tmp_path, {}) as work:
        with pytest.raises(TypeError, match="stage 'bare' gave Fit; expected nested dicts of arrays, or pass like="):
            stage(work, "bare", lambda: fit)
        stage(work, "fit", lambda: fit, like=fit)
    with open_workdir(tmp_path, {}) as work:
        kept = stage(work, "fit", pytest.fail, like=jax.eval_shape(lambda: fit))
    assert isinstance(kept, Fit)
    chex.assert_trees_all_equal(kept, fit)


def test_a_kept_stage_of_another_structure_is_refused(tmp_path):
    with open_workdir(tmp_path, {}) as work:
        stage(work, "fit", lambda: {"old": 1.0})
    with open_workdir(tmp_path, {}) as work, pytest.raises(WorkdirError, match=r"\(new, old\).*another folder$"):
        stage(work, "fit", pytest.fail, like={"new": 1.0})


def test_a_name_serves_one_stage(tmp_path):
    with open_workdir(tmp_path, {}) as work:
        stage(work, "fit", lambda: {"seed": 0})
        with pytest.raises(ValueError, match="stage 'fit' exists already"):
            stage(work, "fit", lambda: {"seed": 1})
        with pytest.raises(ValueError, match="no plain name"):
            stage(work, "../fit", lambda: {})


def test_pickles_and_typed_keys_are_refused(tmp_path):
    with pytest.raises(TypeError, match="expected arrays or numbers"):
        save_arrays(tmp_path / "a.npz", {"x": object()})
    with pytest.raises(TypeError, match="key_data"):
        save_arrays(tmp_path / "a.npz", {"x": jax.random.key(0)})
    assert files(tmp_path) == set()


ARRAYS = arrays.arrays(
    st.sampled_from(["f4", "f8", "i4", "u2", "c8", "?", "U3"]), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)
)


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text("abyz.=_ ß", min_size=1), ARRAYS | st.dictionaries(st.text("ab", min_size=1), ARRAYS, min_size=1)
    )
)
def test_arrays_come_back_bit_for_bit(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree.npz"
    save_arrays(path, tree)
    kept = load_arrays(path)
    assert jax.tree.structure(kept) == jax.tree.structure(tree)
    for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(kept), strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())


def test_an_outsider_can_read_a_stage(tmp_path):
    with open_workdir(tmp_path, {}) as work:
        stage(work, "fit", lambda: {"deep": {"x": np.arange(3)}})
    with np.load(tmp_path / "checkpoints" / "fit.npz") as kept:
        assert kept["deep/x"].tolist() == [0, 1, 2]


def test_timings_add_up_across_resumes(tmp_path):
    for timings in ({"fit.seconds": 1.0}, {"fit.calls_per_second": 5.0}, {"fit.seconds": 2.0}):
        with open_workdir(tmp_path, {}) as work:
            record_timings(work, timings)
    assert json.loads((tmp_path / "timings.json").read_text()) == {"fit.seconds": 2.0, "fit.calls_per_second": 5.0}


def test_equal_figures_are_equal_bytes(tmp_path):
    def figure():
        figure = Figure()
        figure.subplots().plot([1, 2, 3])
        return figure

    with open_workdir(tmp_path, {}) as work:
        one, two = save_figure(work, "one", figure()), save_figure(work, "two", figure())
    assert one == tmp_path / "figures" / "one.png"
    assert one.read_bytes() == two.read_bytes()
    assert b"atplotlib" not in one.read_bytes()


def test_a_tree_with_a_key_is_kept_by_the_numbers_of_its_leaves(tmp_path):
    tree = {"b": (np.arange(3), jax.random.key(7)), "a": jnp.float32(2)}
    save_arrays(tmp_path / "tree.npz", {"state": to_numbered_leaves(tree)})
    found = from_numbered_leaves(load_arrays(tmp_path / "tree.npz")["state"], jax.eval_shape(lambda: tree))
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert found["b"][0].tolist() == [0, 1, 2] and float(found["a"]) == 2.0
    assert jax.random.uniform(found["b"][1]) == jax.random.uniform(jax.random.key(7))
    with pytest.raises(WorkdirError, match="3 arrays were kept; expected 1"):
        from_numbered_leaves(to_numbered_leaves(tree), {"a": 1.0})


def test_a_folder_whose_name_is_no_utf8_is_refused_and_left_alone(tmp_path):
    with (
        pytest.raises(WorkdirError, match="a name that is not UTF-8; expected a work directory whose whole path is"),
        open_workdir(tmp_path / os.fsdecode(b"caf\xff"), ConfigDict()),
    ):
        pass
    assert not any(tmp_path.iterdir())
