"""API pages: one a module of medjax, one a room with the first sentence of each of its modules.

They are written to docs/auto/api before Sphinx looks for pages, and filled by autodoc.
"""

import ast
import pkgutil
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "auto" / "api"
NOT_SHOWN = {"medjax.cli", "medjax.tools.template", "medjax.__main__"}  # the commands have their --help


def modules(package: str) -> list[str]:
    """Modules and packages directly inside a package, by name; none of a module."""
    found = pkgutil.iter_modules([str(ROOT / package.replace(".", "/"))], f"{package}.")
    return sorted(one.name for one in found if one.name not in NOT_SHOWN)


def docstring(name: str) -> str:
    """Docstring of a module, from its source."""
    path = ROOT / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def summary(name: str) -> str:
    """First line of a module's docstring."""
    return docstring(name).partition("\n")[0].replace("|", "\\|")


def room_page(name: str, inside: list[str]) -> str:
    """Markdown of a room: its docstring and a table of its modules.

    Modules of rooms are in no table of contents: the menu of every page would have hundreds of lines.
    """
    table = "".join(
        f"| [{one.removeprefix(f'{name}.')}]({one}.{'md' if modules(one) else 'rst'}) | {summary(one)} |\n"
        for one in inside
    )
    contents = "\n".join(inside) if name == "medjax" else ""
    orphan = "---\norphan: true\n---\n\n" if name.count(".") > 1 else ""
    text = f"{orphan}# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"
    text += f"\n| module | what it is |\n|---|---|\n{table}"
    return text + (f"\n```{{toctree}}\n:hidden:\n\n{contents}\n```\n" if contents else "")


def module_page(name: str) -> str:
    """reStructuredText of a module: what autodoc says of it. (In Markdown every page would keep all of Sphinx.)"""
    orphan = ":orphan:\n\n" if name.count(".") > 1 else ""
    return (
        f"{orphan}{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n"
        "   :members:\n   :undoc-members:\n   :show-inheritance:\n"
    )


def write_pages(app: Sphinx) -> None:
    """Write the pages that changed, remove those whose module is gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted, waiting = dict[Path, str](), ["medjax"]
    while waiting:
        name = waiting.pop()
        inside = modules(name)
        waiting += inside
        if inside:
            wanted[FOLDER / f"{name}.md"] = room_page(name, inside)
        else:
            wanted[FOLDER / f"{name}.rst"] = module_page(name)
    for old in {*FOLDER.glob("medjax*.*")} - {*wanted}:
        old.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Before the pages are looked for."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
