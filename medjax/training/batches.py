"""Batches as a function of (seed, number), so that a resumed training needs no state of its data loader.

Examples come in epochs, each a shuffle of its own, one after the other: batch n is the n-th piece of that sequence, and
may join the end of one epoch and the start of the next. grain is not used: its iterators are state to be checkpointed,
whereas here any batch can be asked for at any time, and reading ahead in threads keeps up with images read from disk.
"""

import functools
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PyTree, Shaped

from medjax.errors import DataError

Batches = Callable[[int], PyTree]
FIRST_CHANNEL = "_0000"  # ending of the name of nnU-Net's first channel


def batch_indices(number: int, count: int, batch: int, seed: int | tuple[int, ...]) -> Int[np.ndarray, " batch"]:
    """Indices of the examples in batch `number`: positions number·batch … in the sequence of shuffled epochs."""
    epochs, positions = np.divmod(number * batch + np.arange(batch), count)
    return np.array(
        [_permutation(count, seed, epoch)[one] for epoch, one in zip(epochs.tolist(), positions, strict=True)]
    )


def balanced_indices(
    number: int, groups: Shaped[np.ndarray, " example"], batch: int, seed: int
) -> Int[np.ndarray, " batch"]:
    """Indices of the examples in a group-balanced batch: equally many of every group, each in epochs of its own.

    Raises:
        DataError: `batch` is no multiple of the number of groups.
    """
    names = np.unique(groups)
    if batch % len(names):
        raise DataError(f"a batch of {batch} cannot hold equally many of {len(names)} groups; expected a multiple")
    each = batch // len(names)
    members = [np.flatnonzero(groups == name) for name in names]
    return np.concatenate([one[batch_indices(number, len(one), each, (seed, 1 + i))] for i, one in enumerate(members)])


def from_arrays(data: PyTree, batch: int, seed: int, groups: Shaped[np.ndarray, " example"] | None = None) -> Batches:
    """Batches of arrays in memory: `data` is a pytree of arrays whose first axis is the example.

    With `groups`, a label of each example, every batch holds equally many of each group.

    Raises:
        DataError: arrays or groups differ in length, there is no example, or `batch` does not suit the groups.
    """
    select = _selection(_length(data), batch, seed, groups)

    def batches(number: int) -> PyTree:
        examples = select(number)
        return jax.tree.map(lambda array: array[examples], data)

    return batches


def from_files(
    items: Sequence[Any],
    read: Callable[[Any], PyTree],
    batch: int,
    seed: int,
    groups: Shaped[np.ndarray, " example"] | None = None,
) -> Batches:
    """Batches of examples read from files.

    Args:
        items: files, or `pairs` of them, one an example.
        read: function item → pytree of arrays, of equal shapes for all.
        batch: number of examples in a batch.
        seed: random seed of the order.
        groups: group of each example, for batches balanced over groups.

    Raises:
        DataError: there is no item, or `groups` has another length, or `batch` does not suit it.
    """
    select = _selection(len(items), batch, seed, groups)

    def batches(number: int) -> PyTree:
        return jax.tree.map(lambda *arrays: np.stack(arrays), *(read(items[i]) for i in select(number)))

    return batches


def pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pairs of (image, mask) files of two folders, sorted; a pair has the same name without its ending.

    An image may be the first channel of nnU-Net's, NAME_0000 beside a mask NAME; its other channels are left out, and
    so are the JSON files that nnU-Net and `medjax segment predict` put beside label images.

    Raises:
        DataError: a folder is absent or empty, or an image or a mask has no partner, or several.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
    every = [
        [file for file in folder.glob("[!.]*") if file.is_file() and file.suffix != ".json"]
        for folder in (images, masks)
    ]
    cases = {name_without_ending(file) for file in every[1]}
    first = [(_case_name(file, cases), file) for file in _first_channels(every[0], cases)]
    found = [sorted(first), sorted((name_without_ending(file), file) for file in every[1])]
    names = [[name for name, _ in files] for files in found]
    if not names[0] or names[0] != names[1] or len(set(names[0])) < len(names[0]):
        odd = sorted(set(names[0]) ^ set(names[1])) or sorted({one for one in names[0] if names[0].count(one) > 1})
        raise DataError(f"{images} and {masks} do not pair up: expected one file of each name, not so {odd[:3]}")
    return [(image, mask) for (_, image), (_, mask) in zip(*found, strict=True)]


def name_without_ending(file: Path) -> str:
    """Name of a file without its ending, such as .nii.gz or .png; other dots belong to the name."""
    return Path(file.name.removesuffix(".gz")).stem


def _case_name(image: Path, masks: set[str]) -> str:
    """Name of an image's case: its own where a mask has it, else that without nnU-Net's number of the first channel."""
    name = name_without_ending(image)
    return name if name in masks else name.removesuffix(FIRST_CHANNEL)


def _first_channels(images: list[Path], masks: set[str]) -> list[Path]:
    """Images without the further channels, _0001 and so on, of cases whose mask has the name of the case."""

    def further(name: str) -> bool:
        case, _, channel = name.rpartition("_")
        return name not in masks and case in masks and len(channel) == 4 and channel.isdecimal() and int(channel) > 0

    return [file for file in images if not further(name_without_ending(file))]


@contextmanager
def read_ahead(batches: Batches, ahead: int = 2, threads: int = 1) -> Generator[Batches, None, None]:
    """Batches read ahead (prefetched): the next `ahead` are made in `threads` while the caller works with this one.

    An error in a thread is raised where the batch is asked for.
    """
    waiting: dict[int, Future] = {}
    pool = ThreadPoolExecutor(threads)

    def take(number: int) -> PyTree:
        for passed in [one for one in waiting if one < number]:
            waiting.pop(passed).cancel()
        for later in range(number, number + ahead + 1):
            if later not in waiting:
                waiting[later] = pool.submit(batches, later)
        return waiting.pop(number).result()

    try:
        yield take
    finally:
        pool.shutdown(cancel_futures=True)


def _selection(
    count: int, batch: int, seed: int, groups: Shaped[np.ndarray, " example"] | None
) -> Callable[[int], Int[np.ndarray, " batch"]]:
    if not count:
        raise DataError("there is no example to train on")
    if groups is None:
        return lambda number: batch_indices(number, count, batch, seed)
    if len(groups) != count:
        raise DataError(f"groups has {len(groups)} labels for {count} examples")
    balanced_indices(0, groups, batch, seed)  # complains now rather than at the first step
    return lambda number: balanced_indices(number, groups, batch, seed)


@functools.lru_cache(maxsize=16)  # an epoch is asked for once a batch
def _permutation(count: int, seed: int | tuple[int, ...], epoch: int) -> np.ndarray:
    entropy = (seed, epoch) if isinstance(seed, int) else (*seed, epoch)
    return np.random.default_rng(entropy).permutation(count)


def _length(data: PyTree) -> int:
    lengths = {len(array) for array in jax.tree.leaves(data)}
    if len(lengths) != 1:
        raise DataError(f"arrays of {sorted(lengths)} examples; expected equally many")
    return lengths.pop()
