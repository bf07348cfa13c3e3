"""What the README tells a reader to type works as it stands (all but the two scripts and pip)."""

import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from medjax import cli
from medjax.models.model import Network
from medjax.running.parts import load_part

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[str]:
    lines = (line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines())
    return [line for line in lines if line.startswith("medjax ")]


def test_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["osem"].step == 56
    assert names["guided"].image.shape == names["grid"].shape
    assert names["images"].shape == (3, *names["grid"].shape)
    for more in blocks("py"):
        exec(compile(more, "README.md", "exec"), names)
    assert np.isfinite(names["image"]).all() and names["info"].reached_target.any()
    assert names["repaired"].labels.shape == (*names["wrong"].labels.shape, 4)
    assert np.isfinite(names["slope"]).all() and float(np.median(names["found"].parameters.f)) > 0.25


def test_commands(tmp_path, monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.chdir(tmp_path)
    assert len(commands()) >= 2
    for command in commands():
        with pytest.raises(SystemExit) as stop:
            cli.main(shlex.split(command)[1:])
        assert stop.value.code in (0, None), command
    assert (tmp_path / "osem.nii.gz").is_file() and (tmp_path / "sampled_sd.nii.gz").is_file()


def test_the_parts_are_parts(tmp_path):
    """The example file, loaded as a command loads it: one network of two or of three axes of space, and a threshold."""
    (text,) = (block for block in blocks("py") if block.startswith("# mine.py"))
    (tmp_path / "mine.py").write_text(text)
    net, highest = (load_part(f"{tmp_path}/mine.py:{name}").value for name in ("net", "highest"))
    planned = SimpleNamespace(classes=3)
    assert net(3) == net(planned) != net(2) and isinstance(net(planned), Network)
    for shape in ((2, 6, 5, 1), (2, 6, 5, 4, 2)):
        params = net(3).init(jax.random.key(0), np.zeros(shape, np.float32))
        logits = net(3).apply(params, np.ones(shape, np.float32))
        assert logits.shape == (*shape[:-1], 3) and np.ptp(logits) > 0
    assert np.flatnonzero(highest(np.arange(20.0))).tolist() == [18, 19]


def test_links_and_names_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (root / target).exists(), target
    papers = runpy.run_path(str(root / "experiments" / "__init__.py"))["PAPERS"]  # not another test's checkout
    assert all(f"`{name}`" in TEXT for name in papers)
