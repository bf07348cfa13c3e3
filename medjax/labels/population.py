"""Training dynamics of many networks that train side by side: seeds, kinds of error, fractions of wrong labels.

    for k, snapshot in training_dynamics(members, model, settings): …             of each member, as `audit` gives them
    for k, found in observe(makers, model, settings, label_scores): …             each when it is finished
    for k, state in continue_training(makers, model, settings): …                 from where each one stands

Members have one network and one `Settings`, but for the learning rate, and data of their own in equal shapes. A member
is the training that `audit` makes of its seed and data alone, to rounding; by the `strategy` and `width` of
`training.population` members are compiled and trained as one program. One whose loss is not finite ends with an error,
and the others go on.

The scores' states of all members that train side by side, maps of VOG above all, are held at once: `bytes_a_member`
counts them. `observe` and `continue_training` take part after part, as many members at a time as an accelerator's
memory holds unless a width is given, and make a member's data when its part begins.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import ConfigError, DataError, MedjaxError
from medjax.iterate import Algorithm, static_partial
from medjax.labels import dynamics, scores
from medjax.labels.audit import batches_of, probe_all
from medjax.labels.checks import ImageLabels, Images, check_run
from medjax.labels.dynamics import Settings
from medjax.labels.followed import Snapshot, advance, begin, snapshot
from medjax.labels.scores import LabelScore
from medjax.models.model import Network
from medjax.running.arrays import from_numbered, load_arrays, numbered, save_arrays
from medjax.training import population
from medjax.training.layout import parts
from medjax.training.state import TrainState

SECONDS = 60.0  # between a member's checkpoints, so that saving costs next to nothing


class Member(NamedTuple):
    """A training of its own."""

    seed: int
    images: Images
    labels: ImageLabels
    rate: float  # of learning
    weight: Float[np.ndarray, " image"] | None = None  # in the loss; None: 1


class Observed(NamedTuple):
    """A training that was followed to its end."""

    scores: dict[str, Float[np.ndarray, "probe image"]]  # every score after every probe
    measured: Float[np.ndarray, " probe"]  # what `measure` gave
    judged: int  # number of the probe at the end of early learning, when labels are to be judged
    state: TrainState  # then


def training_dynamics(
    members: Sequence[Member],
    model: Network,
    settings: Settings,
    label_scores: Mapping[str, LabelScore] | None = None,
    *,
    checkpoints: Sequence[Path] | None = None,
    seconds: float | int = SECONDS,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, Snapshot | DataError]]:
    """(number, snapshot) of every member after each probe of its images; its last one is at `settings.steps`.

    A snapshot's training state is a copy; the states of its scores are used up by the member's next probe.

    Args:
        label_scores: what to keep track of; default: all built-in scores.
        checkpoints: a folder for each member alone, where it is kept every `seconds` at a snapshot. Called again, with
            these members or others and by any strategy, those that are kept yield that snapshot once more and go on.
        strategy, width: see `training.population`; the backend's best if None.

    Raises:
        ConfigError, DataError, WorkdirError: as `audit.training_dynamics`, but for a loss that is not finite.
    """
    folders = [None] * len(members) if checkpoints is None else checkpoints
    chosen: dict[str, LabelScore] = {}
    runs = []
    for k, (one, folder) in enumerate(zip(members, folders, strict=True)):
        own = settings._replace(learning_rate=one.rate)
        chosen = check_run(model, one.images, one.labels, own, label_scores, "separate")
        run, resumed = begin(one.seed, model, one.images, one.labels, own, chosen, "separate", folder)
        runs.append(run)
        if resumed:
            yield k, snapshot(run, settings)
    saved = [time.monotonic()] * len(members)
    for k, train in _train(members, [run.train for run in runs], model, settings, settings.every, strategy, width):
        if isinstance(train, DataError):
            yield k, train
            continue
        images, labels = members[k].images, members[k].labels
        states, predictions = probe_all(model, chosen, train.params, runs[k].scores, images, labels)
        due = time.monotonic() - saved[k] >= seconds
        runs[k] = advance(runs[k], train, states, predictions, labels, folders[k] if due else None)
        saved[k] = time.monotonic() if due else saved[k]
        yield k, snapshot(runs[k], settings)


def observe(
    makers: Sequence[Callable[[], Member]],
    model: Network,
    settings: Settings,
    label_scores: Mapping[str, LabelScore],
    *,
    measure: Callable[[int, TrainState], float] = lambda number, state: float("nan"),
    checkpoints: Sequence[Path] | None = None,
    seconds: float | int = SECONDS,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, Observed | MedjaxError]]:
    """(number, what was seen of it) of every member when it is finished: `training_dynamics` to its end.

    A member that cannot be made, or whose loss is not finite, gives the error instead.

    Args:
        makers: of each member, called when its part of them begins.
        measure: a number of interest at every probe, of a member's number and state, such as the Dice on a test set.
        checkpoints: as in `training_dynamics`; what was seen is kept beside them, FOLDER.npz. Both are removed when the
            next member is asked for: keep what was yielded before.

    Raises:
        ConfigError: `settings.latest` is after the end, so that labels may never be judged.
        DataError, WorkdirError: as `training_dynamics`.
    """
    if settings.latest > settings.steps:
        raise ConfigError(f"labels judged by step {settings.latest} of {settings.steps}; expected one that is made")
    for part in _parts(makers, lambda one: one, model, settings, label_scores, strategy, width):
        members, failed = _made(makers, part.tolist())
        yield from failed.items()
        numbers = list(members)
        folders = None if checkpoints is None else [checkpoints[k] for k in numbers]
        files = {k: checkpoints[k].with_name(f"{checkpoints[k].name}.npz") for k in numbers if checkpoints is not None}
        seen = {k: load_arrays(files[k]) if k in files and files[k].is_file() else {} for k in numbers}
        for number, found in training_dynamics(
            list(members.values()), model, settings, label_scores, checkpoints=folders, seconds=seconds,
            strategy=strategy, width=width,
        ):  # fmt: skip
            k = numbers[number]
            if isinstance(found, DataError):
                yield k, found
                continue
            values = scores.evaluate(label_scores, found.states, members[k].labels)
            _note(seen[k], found, values, measure(k, found.state))
            if k in files:
                save_arrays(files[k], seen[k])
            if int(found.state.step) == settings.steps:
                yield k, _observed(seen[k], found.state)
                if checkpoints is not None:
                    shutil.rmtree(checkpoints[k], ignore_errors=True)
                    files[k].unlink(missing_ok=True)


def continue_training(
    makers: Sequence[Callable[[], tuple[TrainState, Member]]],
    model: Network,
    settings: Settings,
    *,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, TrainState | MedjaxError]]:
    """(number, state at the end) of every member, trained from its own state, at any step, on with its data.

    A member that cannot be made, or whose loss is not finite, gives the error instead. Makers are called when their
    part of the members begins. Otherwise as `audit.continue_training`.
    """
    for part in _parts(makers, lambda one: one[1], model, settings, {}, strategy, width):
        made, failed = _made(makers, part.tolist())
        yield from failed.items()
        numbers, states, members = list(made), [one for one, _ in made.values()], [one for _, one in made.values()]
        yield from ((k, state) for k, state in zip(numbers, states, strict=True) if int(state.step) >= settings.steps)
        for number, end in _train(members, states, model, settings, settings.steps, strategy, width):
            yield numbers[number], end


def bytes_a_member(one: Member, model: Network, settings: Settings, label_scores: Mapping[str, LabelScore]) -> int:
    """Device memory of a member: a step of its training, as far as the compiler says, and its scores' states."""
    begin = partial(scores.init, label_scores, len(one.images), one.labels.shape[1:])
    tracked = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(begin)))
    state = population.stack([dynamics.algorithm(model, settings).init(jax.random.key(one.seed), one.images)])
    weight = np.ones(len(one.images), np.float32)
    batch = batches_of(one.seed, one.images, one.labels, weight, settings.batch)(0)
    return tracked + (population.bytes_a_member(_make(model, settings), jnp.array([one.rate]), state, batch) or 0)


def _parts(
    makers: Sequence[Callable[[], Any]],
    member_of: Callable[[Any], Member],
    model: Network,
    settings: Settings,
    label_scores: Mapping[str, LabelScore],
    strategy: str | None,
    width: int | None,
) -> list[Int[np.ndarray, " member"]]:
    """Which members train side by side; on an accelerator the first one says how many of them fit."""
    size = None
    if not width and jax.default_backend() != "cpu":
        made, _ = _made(makers, range(min(1, len(makers))))
        size = bytes_a_member(member_of(made[0]), model, settings, label_scores) if made else None
    return parts(len(makers), strategy, width, size)


def _make(model: Network, settings: Settings) -> population.Make:
    return static_partial(_algorithm, model, settings._replace(learning_rate=0.0))


def _train(
    members: Sequence[Member],
    states: Sequence[TrainState],
    model: Network,
    settings: Settings,
    every: int,
    strategy: str | None,
    width: int | None,
) -> Iterator[tuple[int, TrainState | DataError]]:
    """(number, state) after each `every` steps and at the end of each, or once an error."""
    if not members:
        return
    first = np.array([int(state.step) for state in states])
    left = np.maximum(settings.steps - first, 0)
    inputs = []
    for one in members:
        weight = np.ones(len(one.images), np.float32) if one.weight is None else one.weight
        inputs.append(batches_of(one.seed, one.images, one.labels, weight, settings.batch))
    make = _make(model, settings)
    rates = jnp.array([one.rate for one in members], jnp.float32)
    reached, made = first.copy(), 0
    for now, infos in population.loop(
        make, rates, population.stack(states), left.tolist(), inputs=inputs, every=every, strategy=strategy, width=width
    ):
        made += len(infos.loss)
        for k in np.flatnonzero(reached < first + np.minimum(made, left)).tolist():
            train = population.member(now.members, k)
            reached[k] = first[k] + min(made, left[k])
            if int(train.step) == reached[k]:
                yield k, train
            else:
                reached[k] = first[k] + left[k]  # no more of it
                yield k, _not_finite(int(train.step))


def _made(makers: Sequence[Callable[[], Any]], part: Sequence[int]) -> tuple[dict[int, Any], dict[int, MedjaxError]]:
    """What the makers of a part gave, and the errors of those that gave nothing."""
    made: dict[int, Any] = {}
    failed: dict[int, MedjaxError] = {}
    for k in part:
        try:
            made[k] = makers[k]()
        except MedjaxError as error:
            failed[k] = error
    return made, failed


def _algorithm(model: Network, settings: Settings, rate: Array) -> Algorithm:
    return dynamics.algorithm(model, settings._replace(learning_rate=rate))


def _not_finite(step: int) -> DataError:
    return DataError(f"training: the loss or its gradient is not finite after step {step}; try a smaller learning rate")


def _note(seen: dict[str, Any], found: Snapshot, values: dict[str, np.ndarray], measured: float) -> None:
    """Add a snapshot to what was seen of a member, nested dicts of arrays."""
    step = int(found.state.step)
    seen[f"{step:09d}"] = {"scores": values, "measured": measured}
    if found.memorization and "judged" not in seen:
        seen["judged"] = {"probe": len(seen) - 1, "state": numbered(found.state)}


def _observed(seen: Mapping[str, Any], like: TrainState) -> Observed:
    probes = [seen[name] for name in sorted(seen.keys() - {"judged"})]
    each = {name: np.stack([probe["scores"][name] for probe in probes]) for name in probes[0]["scores"]}
    measured = np.array([float(probe["measured"]) for probe in probes])
    return Observed(each, measured, int(seen["judged"]["probe"]), from_numbered(seen["judged"]["state"], like))
