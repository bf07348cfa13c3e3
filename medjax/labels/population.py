"""Training dynamics of a population of networks, trained in parallel: seeds, kinds of error, fractions of wrong labels.

    for k, snapshot in training_dynamics(runs, model, settings): …                of each member, as in `audit`
    for k, observation in observe(factories, model, settings, label_scores): …    each when it is finished
    for k, state in continue_training(factories, model, settings): …              each from its own training state

Members share one network and one `TrainingSettings`, but for the learning rate; their data have equal shapes. A member
is trained as `audit` trains on its seed and data alone, to rounding; by the `strategy` and `width` of
`training.population` members are compiled and trained as one program. One whose loss is not finite ends with an error,
and the others go on.

The score states of all members that train in parallel, maps of VOG above all, are held at once: `bytes_per_member`
counts them. `observe` and `continue_training` take group after group, as many members at a time as an accelerator's
memory holds unless a width is given, and make a member's data when its group begins.
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
from medjax.labels.audit import batches, probe_all
from medjax.labels.checks import ImageLabels, Images, check_run
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.scores import LabelScore
from medjax.labels.tracking import Snapshot, init_or_resume, record_probe, snapshot
from medjax.models.model import Network
from medjax.running.arrays import from_numbered_leaves, load_arrays, save_arrays, to_numbered_leaves
from medjax.training import population
from medjax.training.fit import CHECKPOINT_SECONDS
from medjax.training.layout import member_groups
from medjax.training.state import TrainState


class TrainingRun(NamedTuple):
    """Seed, data and learning rate of one member's training."""

    seed: int
    images: Images
    labels: ImageLabels
    learning_rate: float
    weight: Float[np.ndarray, " image"] | None = None  # weight of each image in the loss; None: 1


class Observation(NamedTuple):
    """Scores and measurements of a finished training at every probe, and its state when labels are judged."""

    scores: dict[str, Float[np.ndarray, "probe image"]]  # every score after every probe
    measurements: Float[np.ndarray, " probe"]  # values of `measure`
    judgement: int  # index of the probe at the end of early learning, when labels are judged
    state: TrainState  # training state at that probe


def training_dynamics(
    runs: Sequence[TrainingRun],
    model: Network,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore] | None = None,
    *,
    checkpoints: Sequence[Path] | None = None,
    seconds: float | int = CHECKPOINT_SECONDS,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, Snapshot | DataError]]:
    """Snapshots, with the number of their member, after each probe; a member's last one is at `settings.steps`.

    A snapshot's training state is a copy; its score states are donated to the member's next probe.

    Args:
        label_scores: scores to update at each probe, by name; default: all built-in ones.
        checkpoints: a folder for each member alone, written at the first snapshot after every `seconds`. A later call,
            with these members or others and by any strategy, yields the saved snapshots once more and continues.
        seconds: between checkpoints.
        strategy, width: see `training.population`; None: the backend's best.

    Raises:
        ConfigError, DataError, WorkdirError: as `audit.training_dynamics`, but for a loss that is not finite.
    """
    folders = [None] * len(runs) if checkpoints is None else checkpoints
    chosen: dict[str, LabelScore] = {}
    tracked = []
    for k, (one, folder) in enumerate(zip(runs, folders, strict=True)):
        own = settings._replace(learning_rate=one.learning_rate)
        chosen = check_run(model, one.images, one.labels, own, label_scores, "separate")
        run, resumed = init_or_resume(one.seed, model, one.images, one.labels, own, chosen, "separate", folder)
        tracked.append(run)
        if resumed:
            yield k, snapshot(run, settings)
    saved = [time.monotonic()] * len(runs)
    for k, train in _train(
        runs, [run.train for run in tracked], model, settings, settings.probe_every, strategy, width
    ):
        if isinstance(train, DataError):
            yield k, train
            continue
        images, labels = runs[k].images, runs[k].labels
        states, predictions = probe_all(model, chosen, train.params, tracked[k].scores, images, labels)
        due = time.monotonic() - saved[k] >= seconds
        tracked[k] = record_probe(tracked[k], train, states, predictions, labels, folders[k] if due else None)
        saved[k] = time.monotonic() if due else saved[k]
        yield k, snapshot(tracked[k], settings)


def observe(
    factories: Sequence[Callable[[], TrainingRun]],
    model: Network,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore],
    *,
    measure: Callable[[int, TrainState], float] = lambda number, state: float("nan"),
    checkpoints: Sequence[Path] | None = None,
    seconds: float | int = CHECKPOINT_SECONDS,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, Observation | MedjaxError]]:
    """Observations, with the number of their member, each when its training is finished.

    A member that cannot be made, or whose loss is not finite, gives the error instead.

    Args:
        factories: functions that make a member's data, called when its group begins.
        label_scores: scores to update and record at each probe, by name.
        measure: a scalar of interest at every probe, of a member's number and state, such as the Dice on a test set.
        checkpoints: as in `training_dynamics`; what is recorded is saved beside them, FOLDER.npz. Both are removed when
            the next member is asked for: keep what was yielded before.
        seconds, strategy, width: as in `training_dynamics`.

    Raises:
        ConfigError: `settings.latest_judgement` is after the last step, so that labels may never be judged.
        DataError, WorkdirError: as `training_dynamics`.
    """
    if settings.latest_judgement > settings.steps:
        raise ConfigError(
            f"latest_judgement: step {settings.latest_judgement} of {settings.steps}; expected one of the steps"
        )
    for part in _groups(factories, lambda one: one, model, settings, label_scores, strategy, width):
        members, failed = _build(factories, part.tolist())
        yield from failed.items()
        numbers = list(members)
        folders = None if checkpoints is None else [checkpoints[k] for k in numbers]
        files = {k: checkpoints[k].with_name(f"{checkpoints[k].name}.npz") for k in numbers if checkpoints is not None}
        recorded = {k: load_arrays(files[k]) if k in files and files[k].is_file() else {} for k in numbers}
        for number, snap in training_dynamics(
            list(members.values()), model, settings, label_scores, checkpoints=folders, seconds=seconds,
            strategy=strategy, width=width,
        ):  # fmt: skip
            k = numbers[number]
            if isinstance(snap, DataError):
                yield k, snap
                continue
            values = scores.evaluate(label_scores, snap.states, members[k].labels)
            _record(recorded[k], snap, values, measure(k, snap.state))
            if k in files:
                save_arrays(files[k], recorded[k])
            if int(snap.state.step) == settings.steps:
                yield k, _observation(recorded[k], snap.state)
                if checkpoints is not None:
                    shutil.rmtree(checkpoints[k], ignore_errors=True)
                    files[k].unlink(missing_ok=True)


def continue_training(
    factories: Sequence[Callable[[], tuple[TrainState, TrainingRun]]],
    model: Network,
    settings: TrainingSettings,
    *,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, TrainState | MedjaxError]]:
    """Final training states, with the number of their member, each continued from its own state on its own data.

    A member that cannot be made, or whose loss is not finite, gives the error instead. Factories are called when their
    group begins. Otherwise as `audit.continue_training`.
    """
    for part in _groups(factories, lambda one: one[1], model, settings, {}, strategy, width):
        made, failed = _build(factories, part.tolist())
        yield from failed.items()
        numbers, states, members = list(made), [one for one, _ in made.values()], [one for _, one in made.values()]
        yield from ((k, state) for k, state in zip(numbers, states, strict=True) if int(state.step) >= settings.steps)
        for number, end in _train(members, states, model, settings, settings.steps, strategy, width):
            yield numbers[number], end


def bytes_per_member(
    run: TrainingRun, model: Network, settings: TrainingSettings, label_scores: Mapping[str, LabelScore]
) -> int:
    """Device memory of a member in bytes: a step of its training, as far as the compiler says, and its score states."""
    init = partial(scores.init, label_scores, len(run.images), run.labels.shape[1:])
    tracked = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(init)))
    state = population.stack([dynamics.algorithm(model, settings).init(jax.random.key(run.seed), run.images)])
    weight = np.ones(len(run.images), np.float32)
    batch = batches(run.seed, run.images, run.labels, weight, settings.batch)(0)
    return tracked + (
        population.bytes_per_member(_make(model, settings), jnp.array([run.learning_rate]), state, batch) or 0
    )


def _groups(
    factories: Sequence[Callable[[], Any]],
    member_of: Callable[[Any], TrainingRun],
    model: Network,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore],
    strategy: str | None,
    width: int | None,
) -> list[Int[np.ndarray, " member"]]:
    """Members that train in parallel; on an accelerator as many as its memory holds, by the size of the first."""
    size = None
    if not width and jax.default_backend() != "cpu":
        made, _ = _build(factories, range(min(1, len(factories))))
        size = bytes_per_member(member_of(made[0]), model, settings, label_scores) if made else None
    return member_groups(len(factories), strategy, width, size)


def _make(model: Network, settings: TrainingSettings) -> population.Make:
    return static_partial(_algorithm, model, settings._replace(learning_rate=0.0))


def _train(
    members: Sequence[TrainingRun],
    states: Sequence[TrainState],
    model: Network,
    settings: TrainingSettings,
    every: int,
    strategy: str | None,
    width: int | None,
) -> Iterator[tuple[int, TrainState | DataError]]:
    """Training states, with the number of their member, after each `every` steps and at its end, or once an error."""
    if not members:
        return
    first = np.array([int(state.step) for state in states])
    left = np.maximum(settings.steps - first, 0)
    inputs = []
    for one in members:
        weight = np.ones(len(one.images), np.float32) if one.weight is None else one.weight
        inputs.append(batches(one.seed, one.images, one.labels, weight, settings.batch))
    make = _make(model, settings)
    rates = jnp.array([one.learning_rate for one in members], jnp.float32)
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


def _build(
    factories: Sequence[Callable[[], Any]], part: Sequence[int]
) -> tuple[dict[int, Any], dict[int, MedjaxError]]:
    """Values of the factories of a group, and the errors of those that failed."""
    made: dict[int, Any] = {}
    failed: dict[int, MedjaxError] = {}
    for k in part:
        try:
            made[k] = factories[k]()
        except MedjaxError as error:
            failed[k] = error
    return made, failed


def _algorithm(model: Network, settings: TrainingSettings, rate: Array) -> Algorithm:
    return dynamics.algorithm(model, settings._replace(learning_rate=rate))


def _not_finite(step: int) -> DataError:
    return DataError(f"training: the loss or its gradient is not finite after step {step}; try a smaller learning rate")


def _record(recorded: dict[str, Any], snap: Snapshot, values: dict[str, np.ndarray], measurement: float) -> None:
    """Add a snapshot to the records of a member, nested dicts of arrays."""
    step = int(snap.state.step)
    recorded[f"{step:09d}"] = {"scores": values, "measurement": measurement}
    if snap.memorization and "judgement" not in recorded:
        recorded["judgement"] = {"probe": len(recorded) - 1, "state": to_numbered_leaves(snap.state)}


def _observation(recorded: Mapping[str, Any], like: TrainState) -> Observation:
    probes = [recorded[name] for name in sorted(recorded.keys() - {"judgement"})]
    each = {name: np.stack([probe["scores"][name] for probe in probes]) for name in probes[0]["scores"]}
    measurements = np.array([float(probe["measurement"]) for probe in probes])
    at = recorded["judgement"]
    return Observation(each, measurements, int(at["probe"]), from_numbered_leaves(at["state"], like))
