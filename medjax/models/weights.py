"""Weights of a trained model as one file: an npz with a JSON header, read without pickle.

    save_weights(path, params, {"widths": (16, 32)}, np.float16)
    params, header = load_weights(path, like=jax.eval_shape(model.init, key, *examples))

An array's name is its path through nested dicts, such as `head/kernel`; the header is the entry `settings`. So no name
in these dicts may hold a `/`, and no array of the outermost may have one of the `RESERVED_NAMES`.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from medjax.atomic import replacing
from medjax.errors import DataError, type_and_message
from medjax.io.files import parse_json, read_npz
from medjax.models.model import Network
from medjax.models.saved_settings import short_repr

HEADER = "settings"
MAX_DEPTH = 64  # dicts in dicts
RESERVED_NAMES = (HEADER, "file", "allow_pickle")  # the last two are arguments of NumPy's `savez`


def save_weights(path: Path, params: PyTree, header: dict[str, Any], dtype: Any = None) -> None:
    """Save weights, nested dicts of arrays, and a header of JSON values (tuples become lists).

    With a `dtype`, float16 say (a rounding of 5e-4), floating-point arrays are stored as that.

    Raises:
        DataError: a value is not finite, as it is or as that dtype, or a name cannot be used; nothing is written.
        OSError: it cannot be written.
    """
    _check_names(path, params)
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in _named(params).items():
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.asarray(leaf, dtype if floating and dtype is not None else None)
            stored = stored if stored.dtype.kind != "V" else np.asarray(leaf, np.float32)  # bfloat16: NumPy has none
        if floating and not np.isfinite(stored).all():
            raise DataError(f"{path}: weights {name} are not finite; nothing is written")
        arrays[name] = stored
    buffer = io.BytesIO()
    entries: dict[str, Any] = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)} | arrays
    np.savez_compressed(buffer, **entries)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def load_weights(path: Path, like: PyTree = None) -> tuple[PyTree, dict[str, Any]]:
    """Weights and header: nested dicts of arrays, of float32 where they were stored as less, or a tree like `like`.

    `like` is what `jax.eval_shape` gives of a model's init: names and shapes must be those, and types become those.

    Raises:
        DataError: there is none, not such a file, or one of other arrays than `like`, of other types than real numbers
            of 8 bytes at most, or of values that are not finite.
    """
    header, arrays = _read(path)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            found = f"weights {short_repr(name)} are {array.dtype}"
            raise DataError(f"{path}: {found}; expected float32, or other real numbers of at most 8 bytes")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: weights {name} are not finite")
    return (_nested(path, arrays) if like is None else _like(path, arrays, like)), header


def fit_weights(path: Path, params: PyTree, like: PyTree) -> PyTree:
    """Weights of `load_weights(path)` as a tree like `like`, for a reader that knows `like` by the header only.

    Raises:
        DataError: names or shapes are others.
    """
    return _like(path, _named(params), like)


def initial_shapes(path: Path, model: Network, examples: Callable[[], tuple[Any, ...]]) -> PyTree:
    """Shapes of a network's weights, for `like`, of a network made of a file's settings; nothing is computed.

    `examples` makes the inputs of its `init`, as tracers: of any size without memory.

    Raises:
        DataError: the network cannot be made; it names `path`.
    """
    try:
        return jax.eval_shape(lambda key: model.init(key, *examples()), jax.random.key(0))
    except Exception as error:  # whatever a network raises
        raise DataError(f"{path}: no network can be made of its settings ({type_and_message(error)})") from error


def _like(path: Path, arrays: dict[str, Any], like: PyTree) -> PyTree:
    expected = _named(like)
    _check(path, arrays, expected)
    leaves = [jnp.asarray(arrays[name], one.dtype) for name, one in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check_names(path: Path, params: PyTree) -> None:
    names = [
        [jax.tree_util.keystr((key,), simple=True) for key in way]
        for way, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    slashed = next((part for way in names for part in way if "/" in part), None)
    if slashed is not None:
        raise DataError(f"{path}: weights {slashed!r}; expected names without '/'; nothing is written")
    joined = ["/".join(way) for way in names]
    if odd := next((name for name in joined if name in RESERVED_NAMES or joined.count(name) > 1), None):
        why = "is a name that the file needs itself" if odd in RESERVED_NAMES else "is there twice"
        raise DataError(f"{path}: weights {odd!r}: that {why}; nothing is written")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    expected = f"weights: an npz of arrays with an entry `{HEADER}`"
    arrays = read_npz(path, expected)
    header = arrays.pop(HEADER, None)
    if header is None or header.dtype != np.uint8 or header.ndim != 1:
        raise DataError(f"{path}: no entry `{HEADER}` of bytes; expected {expected}")
    settings = parse_json(header.tobytes(), f"{path}: {HEADER}", "a JSON object")
    if not isinstance(settings, dict):
        raise DataError(f"{path}: {HEADER} is a JSON {type(settings).__name__}; expected a JSON object")
    small = {name: array.dtype.kind == "f" and array.dtype.itemsize < 4 for name, array in arrays.items()}
    return settings, {name: array.astype(np.float32) if small[name] else array for name, array in arrays.items()}


def _check(path: Path, arrays: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check arrays by name against those that a network has: names, kinds of number, shapes, and finite values.

    Raises:
        DataError: one differs; it names `path` and the array.
    """
    if wrong := sorted(arrays.keys() ^ expected.keys()):
        lacking = wrong[0] in expected
        raise DataError(f"{path}: weights {wrong[0]} are {'missing' if lacking else 'none of this network'}")
    for name, one in expected.items():
        if arrays[name].shape != one.shape:
            raise DataError(f"{path}: weights {name} have shape {arrays[name].shape}; expected {one.shape}")
        floating = jnp.issubdtype(one.dtype, jnp.floating)
        if floating != jnp.issubdtype(arrays[name].dtype, jnp.floating) or arrays[name].dtype.itemsize > 8:
            raise DataError(f"{path}: weights {name} are {arrays[name].dtype}; expected {one.dtype}")
        with np.errstate(over="ignore"):
            finite = not floating or np.isfinite(np.asarray(arrays[name], one.dtype)).all()
        if not finite:
            raise DataError(f"{path}: weights {name} are not finite as {one.dtype}")


def _named(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _nested(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        branch = tree
        for parent in parents[:MAX_DEPTH]:
            branch = branch.setdefault(parent, {}) if isinstance(branch, dict) else branch
        if len(parents) > MAX_DEPTH or not isinstance(branch, dict) or last in branch:
            raise DataError(f"{path}: weights {short_repr(name)}; expected a path of names, none of it another array's")
        with np.errstate(over="ignore"):
            branch[last] = jax.device_put(array)
    return tree
