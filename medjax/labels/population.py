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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from medjax.errors import ConfigError, DataError, MedjaxError
from medjax.labels import scores
from medjax.labels.audit import probe_all
from medjax.labels.checks import check_run
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.members import TrainingRun, build_members, parallel_groups, train_states
from medjax.labels.scores import LabelScore
from medjax.labels.tracking import Snapshot, init_or_resume, record_probe, snapshot
from medjax.models.model import Network
from medjax.running.arrays import from_numbered_leaves, save_arrays, to_numbered_leaves
from medjax.running.workdir import load_kept
from medjax.training.fit import CHECKPOINT_SECONDS
from medjax.training.state import TrainState


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
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, Snapshot | DataError]]:
    """Snapshots, with the number of their member, after each probe; a member's last one is at `settings.steps`.

    A snapshot's training state is a copy; its score states are donated to the member's next probe.

    Args:
        label_scores: scores to update at each probe, by name; default: all built-in ones.
        checkpoints: a folder for each member alone, written at the first snapshot after every `seconds`. A later call,
            with these members or others and by any strategy, yields the saved snapshots once more and continues.
        seconds: between checkpoints.
        strategy, width: see `training.population`; None: the backend's best.
        mesh: devices among which every batch of one member after the other is divided, in place of a strategy.

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
    for k, train in train_states(
        runs, [run.train for run in tracked], model, settings, settings.probe_every, strategy, width, mesh
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
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, Observation | MedjaxError]]:
    """Observations, with the number of their member, each when its training is finished.

    A member that cannot be made, or whose loss is not finite, gives the error instead.

    Args:
        factories: functions that make a member's data, called when its group begins.
        label_scores: scores to update and record at each probe, by name.
        measure: a scalar of interest at every probe, of a member's number and state, such as the Dice on a test set.
        checkpoints: as in `training_dynamics`; what is recorded is saved beside them, FOLDER.npz. Both are removed when
            the next member is asked for: keep what was yielded before.
        seconds, strategy, width, mesh: as in `training_dynamics`.

    Raises:
        ConfigError: `settings.latest_judgement` is after the last step, so that labels may never be judged.
        DataError, WorkdirError: as `training_dynamics`.
    """
    if settings.latest_judgement > settings.steps:
        raise ConfigError(
            f"latest_judgement: step {settings.latest_judgement} of {settings.steps}; expected one of the steps"
        )
    for part in parallel_groups(factories, lambda one: one, model, settings, label_scores, strategy, width):
        members, failed = build_members(factories, part.tolist())
        yield from failed.items()
        numbers = list(members)
        folders = None if checkpoints is None else [checkpoints[k] for k in numbers]
        files = {k: checkpoints[k].with_name(f"{checkpoints[k].name}.npz") for k in numbers if checkpoints is not None}
        recorded = {k: _kept_record(files.get(k), None if checkpoints is None else checkpoints[k]) for k in numbers}
        for number, snap in training_dynamics(
            list(members.values()), model, settings, label_scores, checkpoints=folders, seconds=seconds,
            strategy=strategy, width=width, mesh=mesh,
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
    checkpoints: Sequence[Path] | None = None,
    seconds: float | int = CHECKPOINT_SECONDS,
    strategy: str | None = None,
    width: int | None = None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, TrainState | MedjaxError]]:
    """Final training states, with the number of their member, each continued from its own state on its own data.

    A member that cannot be made, or whose loss is not finite, gives the error instead. Factories are called when their
    group begins. Otherwise as `audit.continue_training`.

    Args:
        checkpoints: an npz file for each member alone, from which a later call goes on; removed when the next member is
            asked for.
        seconds: between two writings of it.
    """
    for part in parallel_groups(factories, lambda one: one[1], model, settings, {}, strategy, width):
        made, failed = build_members(factories, part.tolist())
        yield from failed.items()
        numbers, members = list(made), [one for _, one in made.values()]
        files = {k: checkpoints[k] for k in numbers} if checkpoints is not None else {}
        states = [_kept_state(files.get(k), state) for k, (state, _) in made.items()]
        yield from ((k, state) for k, state in zip(numbers, states, strict=True) if int(state.step) >= settings.steps)
        saved = dict.fromkeys(numbers, time.monotonic())
        for number, state in train_states(
            members, states, model, settings, settings.probe_every, strategy, width, mesh
        ):
            k = numbers[number]
            if isinstance(state, DataError) or int(state.step) >= settings.steps:
                yield k, state
                if k in files:
                    files[k].unlink(missing_ok=True)
            elif k in files and time.monotonic() - saved[k] >= seconds:
                save_arrays(files[k], to_numbered_leaves(state))
                saved[k] = time.monotonic()


def _kept_record(file: Path | None, checkpoint: Path | None) -> dict[str, Any]:
    """What was recorded of a member; where that is damaged, nothing, and its checkpoint is removed: it begins anew."""
    if file is None or checkpoint is None or not file.is_file():
        return {}
    kept = load_kept(file)
    if kept is None:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return kept or {}


def _kept_state(file: Path | None, state: TrainState) -> TrainState:
    """The training state in a file, or `state` where there is none, or it is damaged."""
    kept = None if file is None else load_kept(file)
    return state if kept is None else from_numbered_leaves(kept, state)


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
