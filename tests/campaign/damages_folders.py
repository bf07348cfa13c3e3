"""Damages of folders."""

import os
import shutil
from pathlib import Path

import numpy as np

from tests.campaign.damage_kinds import KINDS, Kind, damages_of, kind, remove


@kind("/")
def folder_empty(path: Path, rng: np.random.Generator) -> None:
    remove(path)
    path.mkdir()


@kind("/")
def folder_is_a_file(path: Path, rng: np.random.Generator) -> None:
    remove(path)
    path.write_text("a file\n")


def some_file(path: Path, rng: np.random.Generator) -> Path:
    files = sorted(one for one in path.rglob("*") if one.is_file() and one.name != ".lock")
    return files[int(rng.integers(len(files)))]


for number in range(8):

    def a_damaged_file(path: Path, rng: np.random.Generator) -> None:
        one = some_file(path, rng)
        kinds = damages_of(one)
        kinds[int(rng.integers(len(kinds)))].damage(one, rng)

    KINDS.append(Kind(f"folder_with_a_damaged_file_{number}", ("/",), a_damaged_file, harmless=True))


@kind("/", harmless=True)
def folder_with_odd_names(path: Path, rng: np.random.Generator) -> None:
    one = some_file(path, rng)
    for name in ("$\\foo$", "{0}%s", "<b>", "=1+1", "a\nb", "\udcff", " "):
        shutil.copy(one, one.with_name(name + one.name))


@kind("/", harmless=True)
def folder_with_a_link_to_itself(path: Path, rng: np.random.Generator) -> None:
    (path / "again").symlink_to(path.resolve())


@kind("/", harmless=True)
def folder_with_a_pipe(path: Path, rng: np.random.Generator) -> None:
    one = some_file(path, rng)
    remove(one)
    os.mkfifo(one)
