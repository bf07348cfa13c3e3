"""Working copies of experiments, with the files they share, and a template of a new one.

files = new_experiment("mine", source="label_flips")     experiments/mine.py, experiments/flips/…, configs/mine.py, …
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medjax.atomic import replacing_together
from medjax.errors import ConfigError, DataError
from medjax.running.checkout import bundled_root, experiment_file
from medjax.running.declarations import parse_source
from medjax.tools.checks import as_paths, check_output_folder

ROOMS = ("experiments", "configs")
INITS = {
    "experiments": '"""One module an experiment: a docstring and `run(config, work) -> Result`."""\n',
    "configs": '"""One module an experiment, same file name: `get_config(preset)` is its ConfigDict."""\n',
}


class NewExperiment(NamedTuple):
    """Files of a new experiment."""

    folder: Path  # holds experiments/ and configs/
    experiment: Path
    config: Path
    shared: tuple[Path, ...]  # other files that were written


def new_experiment(name: str, folder: Path | str = ".", source: str | None = None) -> NewExperiment:
    """Write the experiment `name` and its config: a copy of one that came with medjax, or else a template.

    Args:
        name: name of the new experiment; without a `source`, that of one of medjax's makes a copy of it.
        folder: folder of experiments/ and configs/, which are made where they are not there.
        source: experiment of medjax to copy.

    Raises:
        ConfigError: no name of a Python module.
        DataError: a file to write is there already with another content, or the experiment is.
        MedjaxError: no experiment `source`.
    """
    (folder,) = as_paths(folder)
    if not (name.isascii() and name.isidentifier()) or name.startswith("_"):
        raise ConfigError(f"new {name}; expected a name of letters, digits and underscores, such as my_experiment")
    check_output_folder(folder)
    root = bundled_root()
    if source is None and root is not None and (root / "experiments" / f"{name}.py").is_file():
        source = name
    if source is None:
        contents = _template(name)
    elif root is None:
        raise DataError(f"--from {source}: this medjax came without experiments; expected an installed wheel")
    else:
        experiment_file(root, source)
        contents = _copies(root, name, source)
    return _write(folder, name, contents)


def shared_files(root: Path, name: str) -> list[Path]:
    """Files below `root` that an experiment and its config import, directly or not, themselves first."""
    found = [root / room / f"{name}.py" for room in ROOMS]
    for file in found:
        for module in _imports(file):
            parts = module.split(".")
            for end in range(2, len(parts) + 1):
                path = root.joinpath(*parts[:end])
                found += [one for one in (path / "__init__.py", path.with_suffix(".py")) if one.is_file()]
        found[:] = dict.fromkeys(found)
    return found


def _imports(file: Path) -> Iterator[str]:
    """Dotted names of experiments and configs that a file imports; `from a import b` gives a.b."""
    for node in ast.walk(parse_source(file)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (one for one in names if one.partition(".")[0] in ROOMS)


def _copies(root: Path, name: str, source: str) -> dict[Path, str]:
    """Relative path → text of the files of an experiment of medjax under a new name."""
    renamed = {Path(room) / f"{source}.py": Path(room) / f"{name}.py" for room in ROOMS}
    paths = {file: file.relative_to(root) for file in shared_files(root, source)}
    return {renamed.get(path, path): file.read_text(encoding="utf-8") for file, path in paths.items()}


def _template(name: str) -> dict[Path, str]:
    folder = Path(__file__).parent / "template"
    return {
        Path(room) / f"{name}.py": (folder / file).read_text(encoding="utf-8")
        for room, file in zip(ROOMS, ("experiment.py", "config.py"), strict=True)
    }


def _write(folder: Path, name: str, contents: dict[Path, str]) -> NewExperiment:
    """Write the files, all or none; equal ones that are there stay."""
    experiment, config = (folder / room / f"{name}.py" for room in ROOMS)
    for room, text in INITS.items():
        if not (folder / room / "__init__.py").exists():
            contents = contents | {Path(room) / "__init__.py": text}
    for path, text in contents.items():
        file = folder / path
        if file.exists() and (file in (experiment, config) or not _is_equal(file, text)):
            raise DataError(f"{file}: is there already; expected another name or folder, `medjax new NAME DIR`")
    new = {folder / path: text for path, text in contents.items() if not (folder / path).exists()}
    for parent in dict.fromkeys(file.parent for file in new):
        parent.mkdir(parents=True, exist_ok=True)
    with replacing_together(*new) as parts:
        for part, text in zip(parts, new.values(), strict=True):
            part.write_text(text, encoding="utf-8")
    return NewExperiment(folder, experiment, config, tuple(file for file in new if file not in (experiment, config)))


def _is_equal(file: Path, text: str) -> bool:
    return file.is_file() and file.read_bytes() == text.encode()
