"""Trees of arrays in one npz file, without pickles: the format of stages."""

import errno
import os
import zipfile
from pathlib import Path

import jax
import ml_dtypes  # noqa: F401 (registers bfloat16 and its kin with NumPy by name)
import numpy as np
from jaxtyping import PyTree

from medjax.atomic import replacing
from medjax.errors import DataError, WorkdirError, type_and_message
from medjax.io.files import read_npz

MAX_DEPTH = 64  # dicts in dicts


def save_arrays(path: Path, tree: PyTree) -> None:
    """Save the leaves of a tree (arrays, numbers, strings) to an npz file, whole or not at all.

    Raises:
        TypeError: a leaf is no array, number or string; of typed PRNG keys save `jax.random.key_data(key)`.
        OSError: the file cannot be written.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for key, leaf in _named_leaves(tree).items():
            array = np.asarray(leaf)
            if array.dtype.hasobject:
                raise TypeError(f"{path.stem}: '{key}' is {type(leaf).__name__}; expected arrays or numbers")
            if array.dtype.kind == "V":  # bfloat16 and kin, which npy cannot name
                key, array = f"{key}@{array.dtype.name}", array.view(f"u{array.itemsize}")
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_arrays(path: Path, like: PyTree | None = None) -> PyTree:
    """Load a tree of NumPy arrays from an npz file: nested dicts, or the structure of `like`.

    Raises:
        FileNotFoundError: there is none.
        DataError: the file is damaged.
        WorkdirError: its entries are not those of `like`.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    arrays = dict(_extended(path, name, array) for name, array in read_npz(path, "arrays that medjax wrote").items())
    if like is None:
        return _nested(path, arrays)
    wanted = list(_named_leaves(like))
    if wanted != list(arrays):
        odd = sorted(set(wanted) ^ set(arrays))
        raise WorkdirError(
            f"{path} holds other entries than this code expects ({', '.join(odd[:3])}); "
            "it was written by another version: delete it or use another folder"
        )
    return jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))


def to_numbered_leaves(tree: PyTree) -> dict[str, PyTree]:
    """Leaves of any tree by their numbers, which a stage keeps without `like`; typed PRNG keys as their data."""
    leaves = jax.tree.leaves(tree)
    return {f"{k:04d}": jax.random.key_data(leaf) if _is_key(leaf) else leaf for k, leaf in enumerate(leaves)}


def from_numbered_leaves(kept: dict[str, PyTree], like: PyTree) -> PyTree:
    """Tree from the leaves of `to_numbered_leaves`; `like` has its structure, with arrays or shapes as leaves.

    Keys are of JAX's default kind.

    Raises:
        WorkdirError: it has another number of leaves.
    """
    wanted, structure = jax.tree.flatten(like)
    if len(wanted) != len(kept):
        raise WorkdirError(f"{len(kept)} arrays were kept; expected {len(wanted)}: written by another version")
    arrays = [kept[name] for name in sorted(kept)]
    leaves = [
        jax.random.wrap_key_data(array) if _is_key(leaf) else array for array, leaf in zip(arrays, wanted, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def is_nested_dict(tree: PyTree) -> bool:
    """Whether `tree` is dicts of dicts … of leaves, with names as keys, so that it is loaded without `like`."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return isinstance(tree, dict) and all(
        isinstance(entry, jax.tree_util.DictKey) and isinstance(entry.key, str) and not set("/@") & set(entry.key)
        for path in paths
        for entry in path
    )


def _is_key(leaf: PyTree) -> bool:
    return jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key)


def _named_leaves(tree: PyTree) -> dict[str, PyTree]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _extended(path: Path, name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and array, of the type that the name's end says, if any."""
    key, _, extension = name.partition("@")
    try:
        return key, array.view(np.dtype(extension)) if extension else array
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: array {name!r}: {type_and_message(error)}; expected what medjax wrote") from error


def _nested(path: Path, arrays: dict[str, np.ndarray]) -> dict:
    tree: dict = {}
    for key, array in arrays.items():
        *parents, last = key.split("/")
        branch = tree
        for parent in parents[:MAX_DEPTH]:
            branch = branch.setdefault(parent, {}) if isinstance(branch, dict) else branch
        if len(parents) > MAX_DEPTH or not isinstance(branch, dict) or last in branch:
            raise DataError(f"{path}: array {key[:99]!r}; expected a path of names, none of it another array's")
        branch[last] = array
    return tree
