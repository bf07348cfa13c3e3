"""Grids of cells: each combination of a study's settings is computed once; an interrupted run resumes after the last.

    found = compute_cells(work, product(KINDS, FRACTIONS, range(seeds)), compute, "cells")  {(kind, fraction, seed): …}

`compute(kind, fraction, seed)` returns a nested dict of arrays, which is kept as a stage of the work directory under
`cell_name`. Cells that are computed together, as the members of a population, are stages of `workdir.stages`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage

PyTree = Any  # jaxtyping's would import JAX


def compute_cells(
    work: WorkDir,
    keys: Iterable[tuple[Any, ...]],
    compute: Callable[..., PyTree],
    description: str,
    like: PyTree | None = None,
) -> dict[tuple[Any, ...], PyTree]:
    """Compute every cell, `compute(*key)`, or load it if it was computed before.

    Args:
        work: work directory that keeps the cells.
        keys: the settings of each cell.
        compute: settings → nested dict of arrays.
        description: name of the progress bar.
        like: structure of the result, if it is no nested dict.
    """
    every = list(keys)
    return {key: stage(work, cell_name(key), partial(compute, *key), like) for key in track(every, description)}


def cell_name(key: tuple[Any, ...]) -> str:
    """Name of a cell in a work directory: `random_0.25_0` for ("random", 0.25, 0)."""
    return "_".join(f"{value:g}".replace("+", "") if isinstance(value, float) else str(value) for value in key)
