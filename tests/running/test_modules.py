"""Files of a checkout are run with the helpers that lie beside them."""

import pytest

from medjax.running.modules import load_module


@pytest.mark.parametrize("init", [True, False])
def test_each_checkout_has_its_own_helpers(tmp_path, monkeypatch, init):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for name in ("one", "other"):
        folder = tmp_path / name / "some_experiments"
        folder.mkdir(parents=True)
        if init:
            (folder / "__init__.py").write_text("")
        (folder / "_helper.py").write_text(f"NAME = {name!r}\n")
        (folder / "main.py").write_text("from some_experiments._helper import NAME\n")
    for name in ("one", "other", "one"):
        module = load_module(tmp_path / name / "some_experiments" / "main.py", "some_experiments.main")
        assert name == module.NAME


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_module(tmp_path / "experiments" / "absent.py", "experiments.absent")
