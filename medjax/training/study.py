"""The networks of a study: trained side by side in populations and kept one by one, so that a killed study goes on.

    members = [Member(work, f"erm_{seed}", make, {"rate": 0.01}, steps=1000, every=50) for seed in seeds]
    kept = train(members, load)            of each what its Training's `finish` gave, or an error if it diverged

Members of equal `make`, `every`, `patience` and `kind` are a population: one program. What is trained side by side is
as `strategy` and `width` say, see `population`. `load(numbers)` gives the Training of those whose turn has come: their
data are read then, once for members that share them, and let go afterwards.

Every member is a stage of its work directory, which may be one of several, and has its lines in metrics.jsonl. A
population that is killed also goes on from its last checkpoint, and ends in the same numbers.
"""

import hashlib
import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int, PyTree
from numpy import ndarray

from medjax.errors import DataError, MedjaxError
from medjax.running.config import config_hash
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, append_jsonl, keep_jsonl, read_json, stages
from medjax.training import population
from medjax.training.fit import SECONDS, fit
from medjax.training.layout import parts
from medjax.training.population import Inputs, Make
from medjax.training.state import Info, TrainState, mean_loss


class Member(NamedTuple):
    """A network of a study: how it is trained, and where what becomes of it is kept."""

    work: WorkDir
    name: str  # of its stage, and of its lines in metrics.jsonl
    make: Make  # settings → its Algorithm; equal ones are compiled once
    settings: Mapping[str, float]  # traced
    steps: int
    every: int  # steps between validations, and lines
    patience: int | None = None  # steps without a lower validation loss after which it stops; None: it does not
    kind: Hashable = None  # members of different kinds do not train side by side: say their data differ in shape


class Training(NamedTuple):
    """What a member is trained with."""

    state: TrainState  # before the first step
    inputs: Inputs
    finish: Callable[[PyTree], PyTree]  # parameters → what is kept of the member, a nested dict of arrays
    validate: Callable[[PyTree], float] | None = None  # parameters → loss; with it, the best parameters are kept
    average: bool = False  # `finish` is given the moving average at the last step instead: not with patience


Load = Callable[[list[int]], Sequence[Training]]


def train(
    members: Sequence[Member],
    load: Load,
    strategy: str | None = None,
    width: int | None = None,
    seconds: float = SECONDS,
) -> list[PyTree | MedjaxError]:
    """What is kept of each member; an error in place of one whose loss is not finite, which is tried again next time.

    `seconds` are those between two checkpoints of a population.

    Raises:
        ConfigError: there is no such strategy or width.
        DataError: some of the members that train side by side have a validation loss, and others none; or one with
            patience wants its average, which would depend on how long those beside it go on.
        WorkdirError: a checkpoint, or what was kept, is of another version of this code.
    """

    def compute(missing: list[int]) -> Iterator[tuple[int, PyTree]]:
        turns: list[tuple[list[int], int]] = []
        for several in _populations(members, missing):
            each = parts(len(several), strategy, width, _bytes_a_member(members, load, several[0], width))
            turns += [([several[i] for i in part], len(each[0]) - len(part)) for part in each]
        for numbers, lacking in track(turns, "training"):
            training = load(numbers)
            every = [*numbers, *numbers[-1:] * lacking]  # filled up, so that one program serves all parts
            training = [*training, *[training[-1]] * lacking]
            done = _train_part([members[i] for i in every], training, len(numbers), strategy, width, seconds)
            yield from zip(numbers, done, strict=True)

    return stages([(member.work, member.name) for member in members], compute)


def _populations(members: Sequence[Member], numbers: Sequence[int]) -> list[list[int]]:
    """Numbers of members that one program trains."""
    found: dict[Hashable, list[int]] = {}
    for number in numbers:
        m = members[number]
        found.setdefault((m.make, m.every, m.patience, m.kind, *sorted(m.settings)), []).append(number)
    return list(found.values())


def _bytes_a_member(members: Sequence[Member], load: Load, number: int, width: int | None) -> int | None:
    """What one of a population takes of an accelerator's memory, which says how many of them it holds."""
    if width or jax.default_backend() == "cpu":
        return None
    [one] = load([number])
    state, member = population.stack([one.state]), members[number]
    return population.bytes_a_member(member.make, _settings([member]), state, one.inputs(int(one.state.step)))


def _train_part(
    members: Sequence[Member],
    training: Sequence[Training],
    wanted: int,
    strategy: str | None,
    width: int | None,
    seconds: float,
) -> Iterator[PyTree | MedjaxError]:
    """What the first `wanted` of members that train side by side come to; the others only fill the program up."""
    first, losses = members[0], [one.validate for one in training if one.validate is not None]
    if losses and len(losses) < len(training):
        lacking = next(m.name for m, one in zip(members, training, strict=True) if one.validate is None)
        raise DataError(f"{lacking}: no validation loss, which others beside it have; expected one, or another kind")
    if first.patience is not None and any(one.average for one in training):
        raise DataError(
            f"{first.name}: the average of a training that stops early; expected one of patience and average"
        )

    def report(number: int, step: int, infos: Info, **values: float) -> None:
        if number < wanted:
            append_jsonl(members[number].work, {"member": members[number].name, **mean_loss(infos, step), **values})

    def begin(steps: Int[ndarray, " member"]) -> None:
        for member, last in zip(members, steps.tolist(), strict=True):
            keep_jsonl(member.work, lambda row, m=member, last=last: row.get("member") != m.name or row["step"] <= last)

    folder = first.work.checkpoints / f"population_{_identity(members)}"
    done = fit(
        first.make, _settings(members), population.stack([one.state for one in training]),
        [member.steps for member in members], inputs=[one.inputs for one in training], every=first.every,
        strategy=strategy, width=width,
        validate=(lambda params, number: losses[number](params)) if losses else None, patience=first.patience,
        checkpoints=folder, seconds=seconds, report=report, begin=begin,
        progress=lambda steps: track(steps, first.name if wanted == 1 else f"{wanted} members"),
    )  # fmt: skip
    for number in range(wanted):
        if done.diverged[number]:
            step = int(done.state.members.step[number])
            yield DataError(f"{members[number].name}: the loss is not finite after step {step}; try a smaller rate")
        else:
            params = done.state.members.ema_params if training[number].average else done.params
            yield training[number].finish(population.member(params, number))
    shutil.rmtree(folder, ignore_errors=True)  # all of them are kept now


def _settings(members: Sequence[Member]) -> dict[str, jax.Array]:
    return {name: jnp.asarray([member.settings[name] for member in members]) for name in members[0].settings}


def _identity(members: Sequence[Member]) -> str:
    """Of a part: these members, and no others, go on from its checkpoint."""
    names = [(config_hash(read_json(member.work, "config.json")), member.name) for member in members]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:8]
