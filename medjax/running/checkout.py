"""Checkouts: folders with `experiments/` and `configs/`, from which experiments are run and listed."""

import ast
from pathlib import Path
from typing import NamedTuple

from medjax.errors import MedjaxError
from medjax.running.config import did_you_mean, presets
from medjax.running.modules import load_module


class ExperimentEntry(NamedTuple):
    """One entry of `medjax experiments`: name, title, paper, state and presets."""

    name: str
    title: str
    source: str  # authors and arXiv id of the paper; empty without a paper
    state: str  # "ready", "planned", or what is wrong
    presets: tuple[str, ...]


def find_root(folder: Path | None = None) -> Path:
    """Find the checkout at `folder` (default: the current directory), which may also be its `experiments` folder.

    Raises:
        MedjaxError: there is none.
    """
    here = (folder or Path.cwd()).resolve()
    for root in (here, here.parent) if here.name == "experiments" else (here,):
        if (root / "experiments").is_dir() and (root / "configs").is_dir():
            return root
    raise MedjaxError(
        f"no experiments in {folder or 'the current directory'}: expected a folder with experiments/ and configs/; "
        "go to a medjax checkout or pass --experiments DIR"
    )


def experiment_file(root: Path, name: str) -> Path:
    """File of an experiment, experiments/NAME.py.

    Raises:
        MedjaxError: there is no such experiment, or it is planned only.
    """
    file = root / "experiments" / f"{name}.py"
    if name in _names(root):
        return file
    if name in _papers(root):
        raise MedjaxError(f"experiment '{name}' is planned, not written yet; `medjax experiments` lists those that are")
    known = [*_papers(root), *_names(root)]
    raise MedjaxError(f"no experiment '{name}'; `medjax experiments` lists them{did_you_mean(name, known)}")


def list_experiments(root: Path) -> list[ExperimentEntry]:
    """List the papers' experiments in the papers' order, then the others."""
    papers = _papers(root)
    others = [name for name in _names(root) if name not in papers]
    return [_listed(root, name, *papers[name]) for name in papers] + [
        _listed(root, name, _summary(root / "experiments" / f"{name}.py")) for name in others
    ]


def _listed(root: Path, name: str, title: str, authors: str = "", arxiv: str = "") -> ExperimentEntry:
    source = f"{authors}, arXiv {arxiv}" if authors else ""
    if name not in _names(root):
        return ExperimentEntry(name, title, source, "planned", ())
    try:
        return ExperimentEntry(name, title, source, "ready", presets(root / "configs" / f"{name}.py"))
    except Exception as error:  # a list of experiments survives one whose config is being edited
        return ExperimentEntry(name, title, source, f"broken config: {type(error).__name__}", ())


def _names(root: Path) -> list[str]:
    return sorted(file.stem for file in (root / "experiments").glob("*.py") if not file.stem.startswith("_"))


def _papers(root: Path) -> dict[str, tuple[str, str, str]]:
    file = root / "experiments" / "__init__.py"
    return getattr(load_module(file, "experiments"), "PAPERS", {}) if file.is_file() else {}


def _summary(file: Path) -> str:
    """The first line of its docstring, without running it."""
    try:
        return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
    except SyntaxError:
        return "(does not parse)"
