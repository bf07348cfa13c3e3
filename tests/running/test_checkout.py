"""Experiments are found in a folder or in what came with medjax, and are listed without being run."""

import shutil
from pathlib import Path

import pytest

import medjax
from medjax.errors import MedjaxError
from medjax.running.checkout import default_workdirs, find_root, list_experiments
from medjax.running.experiment import run_experiment
from tests.toy_experiment import CONFIG, EXPERIMENT


@pytest.fixture
def root(make_checkout) -> Path:
    return make_checkout(CONFIG, EXPERIMENT)


@pytest.mark.parametrize("inside", ["", "experiments"])
def test_the_root_is_the_folder_or_its_experiments(root, monkeypatch, inside):
    assert find_root(root / inside) == root
    monkeypatch.chdir(root / inside)
    assert find_root() == root


def test_where_there_are_no_experiments_it_says_what_to_do(root, monkeypatch):
    with pytest.raises(MedjaxError, match=r"no experiments in elsewhere: .*--experiments DIR.*`medjax new NAME`"):
        find_root(Path("elsewhere"))
    monkeypatch.setattr(medjax, "__file__", str(root / "installed" / "medjax" / "__init__.py"))
    monkeypatch.chdir(root / "configs")
    with pytest.raises(MedjaxError, match="no experiments in the current directory"):
        find_root()


def test_elsewhere_the_experiments_are_those_that_came_with_medjax(root, monkeypatch):
    """Of the checkout that medjax runs from; of `bundled` in an installed package, into which nothing is written."""
    checkout = Path(__file__).parents[2]
    assert find_root(name="toy") == root
    assert find_root(name="label_flips") == checkout
    assert default_workdirs(root) == root / "runs"
    assert default_workdirs(checkout) == root / "runs"
    assert default_workdirs(checkout, checkout) == checkout / "runs"
    (root / "empty").mkdir()
    monkeypatch.chdir(root / "empty")
    assert find_root() == checkout
    package = root / "site" / "medjax"
    shutil.copytree(root / "experiments", package / "bundled" / "experiments")
    (package / "bundled" / "configs").mkdir()
    monkeypatch.setattr(medjax, "__file__", str(package / "__init__.py"))
    assert find_root() == package / "bundled"
    for folder in (None, package / "bundled"):
        assert default_workdirs(package / "bundled", folder) == root / "empty" / "runs"


MARKER = "from pathlib import Path\n(Path(__file__).parents[1] / 'executed').touch()\n"


def test_listing_executes_no_file_and_running_says_which(root, capsys):
    """Not experiments/__init__.py, nor a config with presets computed at run time."""
    (root / "experiments" / "__init__.py").write_text(f"{MARKER}PAPERS = {{'toy': ('A toy paper', 'Anybody', '1.1')}}")
    (root / "experiments" / "other.py").write_text(f'"""Another."""\n{MARKER}')
    for name in ("toy", "other"):
        (root / "configs" / f"{name}.py").write_text(f"{MARKER}PRESETS = tuple('ab')\ndef get_config(preset): ...")
    presets = ("presets in the file",)
    assert list_experiments(root) == [
        ("toy", "A toy paper", "Anybody, arXiv 1.1", "ready", presets),
        ("other", "Another.", "", "ready", presets),
    ]
    assert not (root / "executed").exists()
    with pytest.raises(MedjaxError):
        run_experiment("toy", "c", root=root)
    assert (root / "executed").exists()
    (root / "configs" / "toy.py").write_text(CONFIG)
    run_experiment("toy", "tiny")
    assert capsys.readouterr().out.startswith(f"running experiments/toy.py and configs/toy.py of {root}\n")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (b"PRESETS = ('one', 'two')\nfrom elsewhere import get_config", ("ready", ("one", "two"))),
        (b"if x:\n    PRESETS = ('one',)\nget_config = print", ("ready", ("presets in the file",))),
        (b"from elsewhere import *", ("ready", ("tiny", "small", "paper"))),
        (b"from elsewhere import PRESETS, get_config", ("ready", ("presets in the file",))),
        (b"PRESETS = 3\ndef get_config(preset): ...", ("ready", ("presets in the file",))),
        (b"a = 1", ("broken config: no get_config", ())),
        (b"1 1", ("broken config: SyntaxError", ())),
        (b"\0", ("broken config: SyntaxError", ())),
        (b"\xff\xfe", ("broken config: SyntaxError", ())),
        (b"a = " + b"(" * 10_000, ("broken config: SyntaxError", ())),
        (b"a = " + b"-" * 100_000 + b"1", ("broken config: SyntaxError", ())),
    ],
)
def test_presets_are_listed_from_the_source(root, text, state):
    (root / "configs" / "toy.py").write_bytes(text)
    assert list_experiments(root)[0][3:] == state


def test_a_list_survives_odd_papers_and_files(root):
    (root / "configs" / "toy.py").unlink()
    (root / "experiments" / "folder.py").mkdir()
    for papers in ("{'toy': ('a', 'b')}", "{'toy': 3, 4: ('a', 'b', 'c')}", "3", "len", "{'toy': ('a', 'b', x)}"):
        (root / "experiments" / "__init__.py").write_text(f"PAPERS = {papers}")
        [toy] = list_experiments(root)
        assert (toy.name, toy.source, toy.state) == ("toy", "", "no config")


def test_the_list_has_the_papers_first_then_the_others(root):
    papers = {"later": ("A later paper", "Somebody", "0000.00000"), "toy": ("A toy paper", "Anybody", "1111.11111")}
    (root / "experiments" / "__init__.py").write_text(f"PAPERS = {papers!r}")
    (root / "experiments" / "_helper.py").touch()
    (root / "experiments" / "demo.py").write_text('"""A demo.\n\nMore."""\nraise SystemExit("it ran")')
    (root / "configs" / "demo.py").write_text("1 1")
    later, toy, demo = list_experiments(root)
    assert later == ("later", "A later paper", "Somebody, arXiv 0000.00000", "planned", ())
    assert toy == ("toy", "A toy paper", "Anybody, arXiv 1111.11111", "ready", ("tiny", "small", "paper"))
    assert demo == ("demo", "A demo.", "", "broken config: SyntaxError", ())
    with pytest.raises(MedjaxError, match="'later' is planned, not written yet"):
        run_experiment("later", "tiny", root=root)


def test_the_ten_papers_are_listed():
    listed = list_experiments(Path(__file__).parents[2])
    assert len([line for line in listed if line.source]) == 10
    assert listed[0].name == "echo_label_errors"
    assert listed[9].source == "Webber et al., arXiv 2412.04319"
