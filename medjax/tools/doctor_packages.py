"""Packages that an installation has, and the versions that medjax and its requirements ask for.

requirements = read_requirements()
required_packages(requirements)            Package("jax", "0.10.2", ">=0.10", "medjax"), …
extra_packages(requirements, "data")       those of an extra
"""

import platform
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import medjax


class Package(NamedTuple):
    """A package that medjax requires, or that another one of them does."""

    name: str
    version: str  # empty: not installed
    required: str  # versions, such as ">=0.10"; empty: any
    by: str = "medjax"  # what requires it


def read_requirements() -> list[str]:
    """Requirements of medjax, Python's first: of its checkout's pyproject.toml, or of the installed package."""
    file = Path(medjax.__file__).resolve().parent.parent / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    if project.get("name") == "medjax":
        extras = project.get("optional-dependencies", {})
        more = [f'{one}; extra == "{extra}"' for extra, ones in extras.items() for one in ones]
        return [f"Python{project['requires-python']}", *project["dependencies"], *more]
    try:
        found = metadata.metadata("medjax")
    except metadata.PackageNotFoundError:
        return []
    return [f"Python{found['Requires-Python']}", *(metadata.requires("medjax") or [])]


def required_packages(requirements: list[str]) -> list[Package]:
    """Packages that medjax requires without an extra, and those that these require in their turn."""
    direct = _packages(requirements, "", "medjax")
    return direct + [more for one in direct if one.version for more in _packages(_requires(one.name), "", one.name)]


def extras_of(requirements: list[str]) -> list[str]:
    """Names of the optional extras, but for those of developers."""
    from packaging.requirements import Requirement

    markers = [str(Requirement(text).marker or "") for text in requirements]
    names = [text.split('extra == "')[1].split('"')[0] for text in markers if 'extra == "' in text]
    return [name for name in dict.fromkeys(names) if name not in ("dev", "docs")]


def extra_packages(requirements: list[str], extra: str) -> list[Package]:
    """Packages of an extra of medjax; of `jax[cuda12]` those that JAX's extra brings."""
    from packaging.requirements import Requirement

    out = list[Package]()
    for text in requirements:
        one = Requirement(text)
        if _applies(one, extra) and not _applies(one, ""):
            nested = [more for name in one.extras for more in _packages(_requires(one.name), name, one.name)]
            plain = {more.name for more in _packages(_requires(one.name), "", one.name)}
            out += [more for more in nested if more.name not in plain] or [_package(one, "medjax")]
    return out


def _packages(requirements: list[str], extra: str, by: str) -> list[Package]:
    from packaging.requirements import Requirement

    return [_package(one, by) for one in map(Requirement, requirements) if _applies(one, extra)]


def _applies(requirement: Any, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _package(requirement: Any, by: str) -> Package:
    python = requirement.name == "Python"
    return Package(requirement.name, platform.python_version() if python else _version(requirement.name),
                   str(requirement.specifier), by)  # fmt: skip


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
