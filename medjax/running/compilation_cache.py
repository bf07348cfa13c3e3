"""The cache of compiled programs on disk: where it is, and what becomes of entries that are damaged."""

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAILURE = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'")


def enable_compilation_cache() -> None:
    """Enable JAX's compilation cache in `cache_folder`, unless JAX_COMPILATION_CACHE_DIR or jax.config sets one.

    Small programs are kept too: a command has hundreds of them. Where the folder cannot be written, a line on stderr
    says so, and nothing is kept.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        print(f"medjax: no compilation cache ({error}): programs are compiled anew", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.showwarning = heal_cache(warnings.showwarning)


def cache_folder() -> Path:
    """Folder of the cache: medjax/xla in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medjax" / "xla"


def heal_cache(show: Callable[..., None]) -> Callable[..., None]:
    """A `warnings.showwarning` that shows all but what JAX says of damaged entries of its cache; these are removed.

    JAX does not write them atomically, and never again: a killed process, or a full disk, would leave a program that is
    compiled anew, with a warning, by every later command.
    """
    if getattr(show, "heals_cache", False):
        return show

    def show_or_heal(message: Any, *rest: Any, **more: Any) -> None:
        found = FAILURE.match(str(message))
        if found is None:
            show(message, *rest, **more)
        else:
            _remove_entries(found[1])

    show_or_heal.heals_cache = True  # pyrefly: ignore[missing-attribute]
    return show_or_heal


def _remove_entries(program: str) -> None:
    """Remove the entries of programs of a name; which of them is damaged is not known."""
    import jax

    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder:
        for entry in Path(folder).glob(f"{re.sub(r'[^A-Za-z0-9_.-]', '?', program)}-*-cache"):
            with contextlib.suppress(OSError):
                entry.unlink()
