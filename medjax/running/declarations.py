"""Declarations of a Python file, read from its source: nothing of it is executed."""

import ast
import warnings
from pathlib import Path
from typing import Any

COMPUTED = object()  # value of a name that only running the file would tell


def parse_source(file: Path) -> ast.Module:
    """Syntax tree of a file.

    Raises:
        SyntaxError: it is no Python, has null bytes or another encoding than it says, or is nested too deep.
        OSError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in its texts, say
            return ast.parse(file.read_bytes())
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from error


def literal(tree: ast.Module, name: str, default: Any = None) -> Any:
    """Value of a module's variable if it is written out, `COMPUTED` if it is not, `default` if there is none."""
    found = default
    for node in tree.body:
        if name in _bound_names(node):
            value = getattr(node, "value", None)
            try:
                found = ast.literal_eval(value) if isinstance(value, ast.expr) else COMPUTED
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                found = COMPUTED
    return found


def has_name(tree: ast.Module, name: str) -> bool:
    """Whether a module binds a name; an `import *` may bind any."""
    return any({name, "*"} & _bound_names(node) for node in tree.body)


def first_line(tree: ast.Module) -> str:
    """First line of a module's docstring; "" without one."""
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _bound_names(node: ast.stmt) -> set[str]:
    """Names that a statement binds; those inside a condition or loop too."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    stored = (one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
    return {one.id for one in stored}
