"""Chunked evaluation: many cases, a few at a time, through one compiled program of fixed size and memory.

run = map_in_chunks(jax.jit(jax.vmap(reconstruct)), size=8)
images = run(keys, scans, betas)                            any number of cases, along the first axis of every leaf
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from medjax.errors import DataError

PyTree = Any


def map_in_chunks(function: Callable[..., PyTree], size: int) -> Callable[..., PyTree]:
    """Map a batched `function` over cases (first axes of the arguments' leaves), `size` at a time, to NumPy arrays.

    `function` always gets `size` cases: the last chunk is padded with the last case, and its results are cropped.

    Raises:
        DataError: `size` is below 1; (when called) there is no case, or leaves have different numbers of them.
    """
    if size < 1:
        raise DataError(f"chunks of {size} cases; expected 1 or more")

    def run(*arguments: PyTree) -> PyTree:
        counts = {len(leaf) for leaf in jax.tree.leaves(arguments)}
        if len(counts) != 1 or 0 in counts:
            raise DataError(f"cases: leaves have {sorted(counts)} of them; expected one number, 1 or more")
        [count], parts = counts, list[PyTree]()
        for first in range(0, count, size):
            index = np.minimum(np.arange(first, first + size), count - 1)
            results = function(*_take(arguments, index))
            parts.append(_take(jax.tree.map(np.asarray, results), slice(count - first)))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    return run


def _take(tree: PyTree, index: Any) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], tree)
