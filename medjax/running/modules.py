"""Import of Python files by path: experiments and configs of a checkout, parts of a user."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_module(file: Path, name: str) -> ModuleType:
    """Import `file` as the module `name`; the folder above its own becomes importable, so that files can share helpers.

    Helpers are those of the file's own checkout, also where another checkout's were imported before.

    Raises:
        FileNotFoundError: there is no such file; and whatever running it raises.
    """
    folder = file.resolve().parent
    sys.path[:] = [str(folder.parent), *(path for path in sys.path if path != str(folder.parent))]
    for known, module in list(sys.modules.items()):
        if (
            known.partition(".")[0] == folder.name
            and folder not in Path(getattr(module, "__file__", None) or "").resolve().parents
        ):
            del sys.modules[known]
    return load_file(file, name)


def load_file(file: Path, name: str) -> ModuleType:
    """Import `file` as the module `name`, without making anything beside it importable.

    It is compiled from its source: bytecode kept beside it may be of an edition of the same second and length.

    Raises:
        FileNotFoundError: there is no such file; and whatever running it raises.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(2, "not a Python file", str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))
    return module
