"""Import of Python files by path: experiments and configs of a checkout, parts of a user."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from medjax.errors import MedjaxError, type_and_message


class UserCodeError(MedjaxError):
    """An error that a user's experiment or config raised; `frames` is the traceback inside that user's files."""

    def __init__(self, file: Path, error: Exception) -> None:
        super().__init__(f"{file}: {type_and_message(error)}")
        extracted = traceback.extract_tb(error.__traceback__)
        first = next((n for n, frame in enumerate(extracted) if frame.filename == str(file)), len(extracted))
        own = [frame for frame in extracted[first:] if not frame.filename.startswith("<frozen importlib")]
        at = traceback.format_exception_only(error)[:-1] if isinstance(error, SyntaxError) else []
        self.frames = "".join([*traceback.format_list(own), *at])


@contextmanager
def running_user_code(file: Path) -> Iterator[None]:
    """Context that runs code of a user's `file`.

    Raises:
        UserCodeError: it raised an error that is none of medjax's own, nor one of the operating system.
    """
    try:
        yield
    except (MedjaxError, OSError):
        raise
    except Exception as error:  # whatever a user's file raises
        raise UserCodeError(file, error) from error


def load_module(file: Path, name: str) -> ModuleType:
    """Import `file` as the module `name`; the folder above its own becomes importable, so that files can share helpers.

    Helpers are those of the file's own checkout, also where another checkout's were imported before.

    Raises:
        FileNotFoundError: there is no such file.
        UserCodeError: running it raised an error.
    """
    folder = file.resolve().parent
    sys.path[:] = [str(folder.parent), *(path for path in sys.path if path != str(folder.parent))]
    for known, module in list(sys.modules.items()):
        if (
            known.partition(".")[0] == folder.name
            and folder not in Path(getattr(module, "__file__", None) or "").resolve().parents
        ):
            del sys.modules[known]
    if not (folder / "__init__.py").exists() and folder.name not in sys.modules:
        package = ModuleType(folder.name)  # else a package of that name further down the path would be preferred
        package.__path__ = [str(folder)]
        sys.modules[folder.name] = package
    with running_user_code(file):
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
