"""Experiments to run: those of the folder that the command stands in, and those that came with medjax.

They are listed from their source; only what is run is executed.
"""

from pathlib import Path
from typing import NamedTuple

import medjax
from medjax.errors import MedjaxError
from medjax.running.config import PRESETS, did_you_mean
from medjax.running.declarations import COMPUTED, first_line, has_name, literal, parse_source
from medjax.running.progress import say

UNKNOWN_PRESETS = ("presets in the file",)


class ExperimentEntry(NamedTuple):
    """One entry of `medjax experiments`: name, title, paper, state and presets."""

    name: str
    title: str
    source: str  # authors and arXiv id of the paper; empty without a paper
    state: str  # "ready", "planned", or what is wrong
    presets: tuple[str, ...]


def bundled_root() -> Path | None:
    """Folder with the experiments/ and configs/ that came with medjax: in its package, or the checkout it runs from."""
    package = Path(medjax.__file__).resolve().parent
    return next((root for root in (package / "bundled", package.parent) if _has_experiments(root)), None)


def find_root(folder: Path | None = None, name: str | None = None) -> Path:
    """Find the folder that holds experiments/ and configs/.

    It is `folder`, which may also be its `experiments` folder. By default it is the current directory, or else what
    came with medjax: also where an experiment `name` is asked for that only medjax has.

    Raises:
        MedjaxError: there is none.
    """
    here = (folder or Path.cwd()).resolve()
    own = next((root for root in (here, here.parent) if _has_experiments(root) and _is_inside(here, root)), None)
    bundled = bundled_root() if folder is None else None
    if own is not None and (name is None or bundled is None or name not in _names(bundled) or name in _names(own)):
        return own
    if bundled is not None:
        return bundled
    raise MedjaxError(
        f"no experiments in {folder or 'the current directory'}: expected a folder with experiments/ and configs/; "
        "pass another --experiments DIR, or write one with `medjax new NAME`"
    )


def default_workdirs(root: Path, folder: Path | None = None) -> Path:
    """Folder of work directories that no option names: `runs` beside the experiments of `root`.

    It is the current directory's for experiments that came with medjax, unless `folder` names their checkout. Nothing
    is written into an installed package.
    """
    elsewhere = folder is None and not _is_inside(Path.cwd().resolve(), root)
    return (Path.cwd() if in_installed_package(root) or elsewhere else root) / "runs"


def in_installed_package(root: Path) -> bool:
    """Whether `root` is the folder of an installed package, where nothing is to be written, and no checkout."""
    return root == Path(medjax.__file__).resolve().parent / "bundled"


def announce_run(root: Path, name: str, config_file: Path | None = None) -> None:
    """Say which files are run, unless they came with medjax."""
    if root != bundled_root() or config_file is not None:
        own = f"experiments/{name}.py and {config_file or f'configs/{name}.py'}"
        say(f"running {own} of {root}")


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


def find_experiments(folder: Path | None = None) -> list[tuple[Path, ExperimentEntry]]:
    """Experiments that `medjax run` finds, each with its root: of `folder`, or of the current one and then of medjax.

    Raises:
        MedjaxError: there are none.
    """
    root = find_root(folder)
    found, bundled = [(root, entry) for entry in list_experiments(root)], bundled_root()
    if folder is None and bundled is not None and bundled != root:
        own, others = _names(root), _names(bundled)
        found = [one for one in found if one[1].name in own or one[1].name not in others]
        found += [(bundled, entry) for entry in list_experiments(bundled) if entry.name not in own]
    return found


def list_experiments(root: Path) -> list[ExperimentEntry]:
    """List the papers' experiments in the papers' order, then the others, without running any of their files."""
    papers = _papers(root)
    others = [name for name in _names(root) if name not in papers]
    return [_listed(root, name, *papers[name]) for name in papers] + [
        _listed(root, name, _summary(root / "experiments" / f"{name}.py")) for name in others
    ]


def _has_experiments(root: Path) -> bool:
    return (root / "experiments").is_dir() and (root / "configs").is_dir()


def _is_inside(here: Path, root: Path) -> bool:
    """Whether `here` is `root` or its experiments/."""
    return here in (root, root / "experiments")


def _listed(root: Path, name: str, title: str, authors: str = "", arxiv: str = "") -> ExperimentEntry:
    source = f"{authors}, arXiv {arxiv}" if authors else ""
    if name not in _names(root):
        return ExperimentEntry(name, title, source, "planned", ())
    return ExperimentEntry(name, title, source, *_config_state(root / "configs" / f"{name}.py"))


def _config_state(file: Path) -> tuple[str, tuple[str, ...]]:
    """State and presets of a config file."""
    if not file.is_file():
        return "no config", ()
    try:
        tree = parse_source(file)
    except (SyntaxError, OSError) as error:
        return f"broken config: {type(error).__name__}", ()
    if not has_name(tree, "get_config"):
        return "broken config: no get_config", ()
    presets = literal(tree, "PRESETS", PRESETS)
    named = isinstance(presets, tuple | list) and all(isinstance(one, str) for one in presets)
    return "ready", tuple(presets) if named else UNKNOWN_PRESETS


def _names(root: Path) -> list[str]:
    files = (root / "experiments").glob("*.py")
    return sorted(file.stem for file in files if not file.stem.startswith("_") and file.is_file())


def _papers(root: Path) -> dict[str, tuple[str, str, str]]:
    """PAPERS of experiments/__init__.py, where it is written out: name → title, authors, arXiv number."""
    file = root / "experiments" / "__init__.py"
    try:
        papers = literal(parse_source(file), "PAPERS", {}) if file.is_file() else {}
    except (SyntaxError, OSError):
        return {}
    if papers is COMPUTED or not isinstance(papers, dict):
        return {}
    whole = {name: paper for name, paper in papers.items() if isinstance(name, str) and _is_paper(paper)}
    return {name: tuple(paper) for name, paper in whole.items()}


def _is_paper(paper: object) -> bool:
    return isinstance(paper, tuple | list) and len(paper) == 3 and all(isinstance(text, str) for text in paper)


def _summary(file: Path) -> str:
    """The first line of its docstring."""
    try:
        return first_line(parse_source(file))
    except (SyntaxError, OSError):
        return "(does not parse)"
