"""The networks of several studies trained side by side, each kept as a stage of its own study's work directory.

    kept = train_members([(work, "unet") for work in works], make, settings, start, inputs, steps)
    kept[0]["params"], kept[0]["diverged"]

A study that finds its network kept trains nothing, and a population that was killed goes on with the members that are
not finished. One study is the population of one.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stages
from medjax.training import population
from medjax.training.fit import Report, fit
from medjax.training.layout import parts
from medjax.training.population import Inputs, Make

Start = Callable[[int], tuple[PyTree, Array]]


def train_members(
    places: Sequence[tuple[WorkDir, str]],
    make: Make,
    settings: PyTree,
    start: Start,
    inputs: Callable[[int], Inputs],
    steps: int,
    *,
    every: int = 100,
    strategy: str | None = None,
    width: int | None = None,
    report: Report = lambda member, step, infos, **values: None,
) -> list[dict[str, Any]]:
    """`ema_params` of each member after `steps`, as `params`, and whether it `diverged`; NumPy.

    Args:
        places: where each member is kept: a work directory, and the name of the stage.
        make, settings: see `population`; leaves of `settings` have a first axis of members.
        start: (member) → parameters and key before the first step.
        inputs: (member) → its inputs, a function of the step. Asked for only where it is trained.
        strategy, width: see `layout`.
        report: see `fit`.

    Raises:
        DataError, ConfigError, WorkdirError: as `fit` and `stages`.
    """

    def compute(missing: list[int]) -> Iterator[tuple[int, PyTree]]:
        for part in parts(len(missing), strategy, width):
            members = [missing[k] for k in part]
            own = _take(settings, np.array(members))
            params, keys = zip(*map(start, members), strict=True)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
            done = fit(
                make, own, population.init(make, own, stacked, jnp.stack(keys)), steps,
                inputs=[inputs(member) for member in members], every=every, strategy=strategy, width=width,
                checkpoints=_folder([places[member] for member in members]),
                report=lambda k, *infos, members=members, **values: report(members[k], *infos, **values),
                progress=partial(track, description=f"training {places[members[0]][1]}"),
            )  # fmt: skip
            for k, member in enumerate(members):
                average = jax.tree.map(np.asarray, population.member(done.state.members.ema_params, k))
                yield member, {"params": average, "diverged": done.diverged[k]}

    return stages(places, compute)


def _take(settings: PyTree, members: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[members], settings)


def _folder(places: Iterable[tuple[WorkDir, str]]) -> Any:
    """Checkpoints of exactly these members: in the first one's work directory, named by all of theirs."""
    every = list(places)
    names = "\n".join(f"{work.path.resolve().name}/{name}" for work, name in every)
    work, name = every[0]
    return work.checkpoints / f"{name}-{zlib.crc32(names.encode()):08x}"
