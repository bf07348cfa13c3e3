"""Study of several networks, trained in populations and saved one by one, so that a stopped study resumes.

    members = [Member(work, f"erm_{seed}", make, {"rate": 0.01}, steps=1000, every=50) for seed in seeds]
    results = train(members, load)         of each the value of `finish`, or an error if it diverged

Members of equal `make`, `every`, `patience` and `kind` are a population: one program. `strategy` and `width` determine
which train in parallel, see `population`. `load(numbers)` gives the MemberTraining of those that train next: their data
are read then, once for members that share them, and released afterwards.

Every member is a stage of its work directory, which may be one of several, and has its lines in metrics.jsonl. A
population that was stopped also resumes from its last checkpoint, with the same numbers.
"""

import hashlib
import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Int, PyTree
from numpy import ndarray

from medjax.errors import DataError, MedjaxError
from medjax.running.config import config_hash
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, append_jsonl, filter_jsonl, read_json, stages
from medjax.training import population
from medjax.training.fit import CHECKPOINT_SECONDS, fit
from medjax.training.layout import member_groups
from medjax.training.population import Inputs, Make
from medjax.training.state import Info, TrainState, mean_loss


class StudyMember(NamedTuple):
    """Network of a study: its training algorithm, settings, early stopping, and work directory."""

    work: WorkDir
    name: str  # name of its stage, and of its lines in metrics.jsonl
    make: Make  # settings → its Algorithm; equal ones are compiled once
    settings: Mapping[str, float]  # traced: they differ within a population
    steps: int
    every: int  # steps between validations, and lines of metrics.jsonl
    patience: int | None = None  # steps without a lower validation loss after which it stops; None: no early stopping
    kind: Hashable = None  # members of different kinds are different populations, say of data of other shapes


class MemberTraining(NamedTuple):
    """Initial state, inputs and validation of a member's training."""

    state: TrainState  # training state before the first step
    inputs: Inputs
    finish: Callable[[PyTree], PyTree]  # parameters → result of the member, a nested dict of arrays
    # parameters → loss, or values with it as `validation`; with it, `finish` gets the best parameters
    validate: Callable[[PyTree], float | Mapping[str, float]] | None = None
    average: bool = False  # `finish` gets the moving average at the last step instead: not with patience


Load = Callable[[list[int]], Sequence[MemberTraining]]


def train(
    members: Sequence[StudyMember],
    load: Load,
    strategy: str | None = None,
    width: int | None = None,
    seconds: float = CHECKPOINT_SECONDS,
    mesh: Mesh | None = None,
) -> list[PyTree | MedjaxError]:
    """Results of each member; an error in place of one whose loss is not finite, which is tried again next time.

    Args:
        load: numbers of members → their MemberTrainings.
        strategy, width: see `population`; None: the backend's best.
        seconds: between two checkpoints of a population.
        mesh: devices among which every batch is divided, see `parallel`, in place of a strategy.

    Raises:
        ConfigError: there is no such strategy or width.
        DataError: some members of a population have a validation loss, and others none; or one has both patience and
            `average`, which would depend on how long the others train.
        WorkdirError: a checkpoint, or a result, is of another version of this code.
    """

    if mesh is not None:  # one after the other
        strategy, width = "loop", 1

    def compute(missing: list[int]) -> Iterator[tuple[int, PyTree]]:
        turns: list[tuple[list[int], int]] = []
        for several in _populations(members, missing):
            each = member_groups(len(several), strategy, width, _bytes_per_member(members, load, several[0], width))
            turns += [([several[i] for i in part], len(each[0]) - len(part)) for part in each]
        for numbers, lacking in track(turns, "training"):
            training = load(numbers)
            every = [*numbers, *numbers[-1:] * lacking]  # filled up, so that one program serves all parts
            training = [*training, *[training[-1]] * lacking]
            done = _train_part([members[i] for i in every], training, len(numbers), strategy, width, seconds, mesh)
            yield from zip(numbers, done, strict=True)

    return stages([(member.work, member.name) for member in members], compute)


def _populations(members: Sequence[StudyMember], numbers: Sequence[int]) -> list[list[int]]:
    """Populations: numbers of the members that one program trains."""
    found: dict[Hashable, list[int]] = {}
    for number in numbers:
        m = members[number]
        found.setdefault((m.make, m.every, m.patience, m.kind, *sorted(m.settings)), []).append(number)
    return list(found.values())


def _bytes_per_member(members: Sequence[StudyMember], load: Load, number: int, width: int | None) -> int | None:
    """Accelerator memory of a member in bytes, which determines how many train in parallel."""
    if width or jax.default_backend() == "cpu":
        return None
    [one] = load([number])
    state, member = population.stack([one.state]), members[number]
    return population.bytes_per_member(member.make, _settings([member]), state, one.inputs(int(one.state.step)))


def _train_part(
    members: Sequence[StudyMember],
    training: Sequence[MemberTraining],
    wanted: int,
    strategy: str | None,
    width: int | None,
    seconds: float,
    mesh: Mesh | None,
) -> Iterator[PyTree | MedjaxError]:
    """Results of the first `wanted` of the members that train in parallel; the others are padding."""
    first, losses = members[0], [one.validate for one in training if one.validate is not None]
    if losses and len(losses) < len(training):
        lacking = next(m.name for m, one in zip(members, training, strict=True) if one.validate is None)
        raise DataError(
            f"{lacking}: no validation loss, which others of its population have; expected one, or another kind"
        )
    if first.patience is not None and any(one.average for one in training):
        raise DataError(
            f"{first.name}: the average of a training that stops early; expected one of patience and average"
        )

    def report(number: int, step: int, infos: Info, **values: float) -> None:
        if number < wanted:
            append_jsonl(members[number].work, {"member": members[number].name, **mean_loss(infos, step), **values})

    def begin(steps: Int[ndarray, " member"]) -> None:
        for member, last in zip(members, steps.tolist(), strict=True):
            filter_jsonl(
                member.work, lambda row, m=member, last=last: row.get("member") != m.name or row["step"] <= last
            )

    folder = first.work.checkpoints / f"population_{_identity(members)}"
    done = fit(
        first.make, _settings(members), population.stack([one.state for one in training]),
        [member.steps for member in members], inputs=[one.inputs for one in training], every=first.every,
        strategy=strategy, width=width,
        validate=(lambda params, number: losses[number](params)) if losses else None, patience=first.patience,
        checkpoints=folder, seconds=seconds, report=report, begin=begin, mesh=mesh,
        progress=lambda steps: track(steps, first.name if wanted == 1 else f"{wanted} members"),
    )  # fmt: skip
    for number in range(wanted):
        if done.diverged[number]:
            step = int(done.state.members.step[number])
            yield DataError(f"{members[number].name}: the loss is not finite after step {step}; try a smaller rate")
        else:
            params = done.state.members.ema_params if training[number].average else done.params
            yield training[number].finish(population.member(params, number))
    shutil.rmtree(folder, ignore_errors=True)  # all of them are saved now


def _settings(members: Sequence[StudyMember]) -> dict[str, jax.Array]:
    return {name: jnp.asarray([member.settings[name] for member in members]) for name in members[0].settings}


def _identity(members: Sequence[StudyMember]) -> str:
    """Identity of a group: its checkpoint is for these members only."""
    names = [(config_hash(read_json(member.work, "config.json")), member.name) for member in members]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:8]
