"""Ways to damage an input: each changes one file, or folder, in its place.

DAMAGES                 all of them
damages_of(path)        those that this file or folder can have
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Damage = Callable[[Path, np.random.Generator], None]


class Kind(NamedTuple):
    """A kind of damage."""

    name: str
    suffixes: tuple[str, ...]  # of the files that can have it; "": any file; "/": folders
    damage: Damage
    harmless: bool = False  # what is left may be valid, or is


KINDS: list[Kind] = []
TABLES, JSON, TEXT = (".csv",), (".json",), (".csv", ".json", ".bval", ".hs", ".hdr", ".txt", ".py")
NIFTI, NPZ, NPY, PNG = (".nii.gz",), (".npz",), (".npy",), (".png",)


def kind(*suffixes: str, harmless: bool = False) -> Callable[[Damage], Damage]:
    def add(damage: Damage) -> Damage:
        KINDS.append(Kind(damage.__name__, suffixes, damage, harmless))
        return damage

    return add


def damages_of(path: Path) -> list[Kind]:
    """Kinds of damage that a file or folder can have."""
    if path.is_dir():
        return [one for one in KINDS if "/" in one.suffixes]
    return [one for one in KINDS if "" in one.suffixes or path.name.endswith(one.suffixes or ("?",))]


def bytes_kind(name: str, change: Callable[[bytes, np.random.Generator], bytes], *suffixes: str, harmless=False):
    """Add a kind that rewrites the content of a file."""

    def damage(path: Path, rng: np.random.Generator) -> None:
        path.write_bytes(change(path.read_bytes(), rng))

    KINDS.append(Kind(name, suffixes or ("",), damage, harmless))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@kind("", "/")
def missing(path: Path, rng: np.random.Generator) -> None:
    remove(path)


@kind("")
def a_folder(path: Path, rng: np.random.Generator) -> None:
    remove(path)
    path.mkdir()


@kind("", "/")
def a_pipe(path: Path, rng: np.random.Generator) -> None:
    remove(path)
    os.mkfifo(path)


@kind("", "/")
def a_device(path: Path, rng: np.random.Generator) -> None:
    remove(path)
    path.symlink_to("/dev/zero")


@kind("", "/")
def a_loop_of_links(path: Path, rng: np.random.Generator) -> None:
    remove(path)
    path.symlink_to(path.name)


bytes_kind("empty", lambda content, rng: b"", "", harmless=False)
bytes_kind("cut_in_half", lambda content, rng: content[: len(content) // 2], *NIFTI, *NPZ, *NPY, *PNG, ".s")
bytes_kind("cut_in_half_by_words", lambda content, rng: content[: len(content) // 8 * 4], ".l", harmless=True)
bytes_kind("cut_by_a_byte", lambda content, rng: content[:-1], *NIFTI, *NPZ, *NPY, ".s", ".l")
bytes_kind("rubbish", lambda content, rng: rng.bytes(1000), "")
bytes_kind("zeros", lambda content, rng: bytes(1000), "")
bytes_kind("prose", lambda content, rng: b"This is no file of that kind.\n" * 3, "")
bytes_kind("appended", lambda content, rng: content + rng.bytes(100), "", harmless=True)


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, one of them in what is probably a header."""
    array = bytearray(content)
    places = [int(rng.integers(min(len(array), 400))), *rng.integers(len(array), size=3).tolist()] if array else []
    for place in places:
        array[place] ^= int(rng.integers(1, 256))
    return bytes(array)


for number in range(4):
    bytes_kind(f"flipped_{number}", flipped, "", harmless=True)
