"""Grids of cells: a study computes each combination of its settings once, and a run that was killed goes on after it.

    found = cells(work, product(KINDS, FRACTIONS, range(seeds)), compute, "cells")       {(kind, fraction, seed): …}

`compute(kind, fraction, seed)` gives a nested dict of arrays, which is kept as a stage of the work directory under
`cell_name`. Cells that are computed together, as the members of a population, are kept by `workdir.stages`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage

PyTree = Any  # jaxtyping's would import JAX


def cells(
    work: WorkDir,
    keys: Iterable[tuple[Any, ...]],
    compute: Callable[..., PyTree],
    description: str,
    like: PyTree | None = None,
) -> dict[tuple[Any, ...], PyTree]:
    """`compute(*key)` of every key, or what it gave before; under a progress bar named `description`."""
    every = list(keys)
    return {key: stage(work, cell_name(key), partial(compute, *key), like) for key in track(every, description)}


def cell_name(key: tuple[Any, ...]) -> str:
    """What a cell is called in a work directory: `random_0.25_0` for ("random", 0.25, 0)."""
    return "_".join(f"{value:g}".replace("+", "") if isinstance(value, float) else str(value) for value in key)
