"""The cells of the study (a kind of error, a fraction of wrong labels, a seed) and their two populations.

Plain runs train on the labels as they are; at the end of early learning, each at its own, labels are judged. From there
every strategy goes on with labels or weights of its own. All are tested on hearts that no training saw.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax.errors import MedjaxError
from medjax.labels import dynamics, population
from medjax.labels.audit import segmentation_dice
from medjax.labels.dynamics import Settings
from medjax.labels.errors import Corrupted, corrupt
from medjax.labels.population import Member, Observed
from medjax.labels.refurbish import predict_proba, quality, refurbish
from medjax.labels.scores import LabelScore
from medjax.labels.thresholds import otsu
from medjax.metrics.detection import auroc, average_precision
from medjax.models.model import Network
from medjax.phantoms.echo import Echo
from medjax.running.arrays import from_numbered, numbered
from medjax.running.cells import cell_name
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stages
from medjax.training.state import TrainState

LOSS, VOG = "dice_mean", "vog"  # what flags for `refurbish_loss`, and for `drop` and `refurbish_vog`
STRATEGIES = ("drop", "refurbish_loss", "refurbish_vog", "oracle")
Kept = dict[str, Any]  # what a stage keeps: nested dicts of arrays


class Cell(NamedTuple):
    """A plain run: whose it is, what is wrong with its labels, its images, and its learning rate."""

    work: WorkDir
    kind: str | None  # of error; None: the labels are true
    fraction: float  # of wrong labels
    seed: int
    target: float | None  # Dice of wrong labels with true ones
    repaired: bool  # whether runs go on from it
    rate: float
    train: Echo
    test: Echo

    @property
    def name(self) -> str:
        """Of its stage."""
        return cell_name((self.kind or "clean", self.fraction, self.seed))


class Training(NamedTuple):
    """What all members have in common."""

    model: Network
    settings: Settings
    label_scores: dict[str, LabelScore]
    strategy: str | None  # of the populations, as their width
    width: int | None


def run_cells(training: Training, cells: Sequence[Cell]) -> list[Kept | MedjaxError]:
    """The metrics of every cell by group, such as `dice` of each strategy, and AUROC over probes; or what went wrong."""
    found = stages([(cell.work, cell.name) for cell in cells], partial(_plain_runs, training, cells))
    good = [k for k, one in enumerate(found) if cells[k].repaired and not isinstance(one, MedjaxError)]
    runs = [(cells[k], found[k]["judged"], strategy) for k in good for strategy in STRATEGIES]
    places = [(cell.work, f"{strategy}_{cell.name}") for cell, _, strategy in runs]
    ends = stages(places, partial(_continued_runs, training, runs))
    for k, end in zip(np.repeat(good, len(STRATEGIES)).tolist(), ends, strict=True):
        if isinstance(end, MedjaxError):
            found[k] = end
        elif not isinstance(found[k], MedjaxError):
            for group, values in end.items():
                found[k]["metrics"].setdefault(group, {}).update(values)
    return found


def _plain_runs(
    training: Training, cells: Sequence[Cell], numbers: list[int]
) -> Iterator[tuple[int, Kept | MedjaxError]]:
    """(number, what is kept) of the plain runs of these cells."""
    wrong: dict[int, Corrupted] = {}

    def member(number: int) -> Member:
        cell = cells[number]
        wrong[number] = corrupt(cell.seed, cell.train.labels, cell.kind or "random", cell.fraction, cell.target)
        return Member(cell.seed, cell.train.images, wrong[number].labels, cell.rate)

    runs = population.observe(
        [partial(member, number) for number in numbers], training.model, training.settings, training.label_scores,
        measure=lambda k, state: _tested(training, state, cells[numbers[k]]),
        checkpoints=[cells[number].work.checkpoints / f"{cells[number].name}_training" for number in numbers],
        strategy=training.strategy, width=training.width,
    )  # fmt: skip
    for k, found in track(runs, "plain runs"):
        number, failed = numbers[k], isinstance(found, MedjaxError)
        yield number, found if failed else _judged(training, cells[number], wrong.pop(number), found)


def _judged(training: Training, cell: Cell, wrong: Corrupted, found: Observed) -> Kept:
    """How well each score finds the wrong labels, and all that runs need to go on."""
    curves = {name: np.array([float(auroc(one, wrong.corrupted)) for one in x]) for name, x in found.scores.items()}
    last, right = {name: values[-1] for name, values in found.scores.items()}, ~wrong.corrupted
    metrics = {
        "dice": {"plain": found.measured[-1]},
        "auroc": {name: values[-1] for name, values in curves.items()},
        "auroc_asked": {name: values[found.judged] for name, values in curves.items()},
        "average_precision": {name: float(average_precision(score, wrong.corrupted)) for name, score in last.items()},
        "poor_among_right": {name: float(auroc(score[right], cell.train.hard[right])) for name, score in last.items()},
        "epoch_asked": int(found.state.step) * training.settings.batch / len(cell.train.images),
    }
    judged: Kept = {"labels": wrong.labels.astype(np.uint8), "corrupted": wrong.corrupted}
    judged |= {"state": numbered(found.state), "scores": {name: x[found.judged] for name, x in found.scores.items()}}
    return {"metrics": metrics, "curves": curves, "judged": judged if cell.repaired else {}}


def _continued_runs(
    training: Training, runs: Sequence[tuple[Cell, Kept, str]], numbers: list[int]
) -> Iterator[tuple[int, Kept | MedjaxError]]:
    """(number, metrics) of these runs that go on from where the labels of a cell were judged, by a strategy."""
    init = dynamics.algorithm(training.model, training.settings).init
    like = jax.eval_shape(init, jax.random.key(0), runs[0][0].train.images)
    became: dict[int, dict[str, dict[str, float]]] = {}

    def member(number: int) -> tuple[TrainState, Member]:
        cell, judged, strategy = runs[number]
        state = from_numbered(judged["state"], like)
        wrong = Corrupted(judged["labels"].astype(np.int32), cell.train.labels, judged["corrupted"])
        teacher = partial(predict_proba, training.model, state.ema_params, cell.train.images)
        labels, weight, became[number] = relabel(strategy, wrong, judged["scores"], teacher)
        return state, Member(cell.seed, cell.train.images, labels, cell.rate, weight)

    ends = population.continue_training(
        [partial(member, number) for number in numbers], training.model, training.settings,
        strategy=training.strategy, width=training.width,
    )  # fmt: skip
    for k, end in track(ends, "runs from the end of early learning"):
        cell, _, strategy = runs[numbers[k]]
        failed = isinstance(end, MedjaxError)
        yield numbers[k], end if failed else {"dice": {strategy: _tested(training, end, cell)}, **became[numbers[k]]}


def relabel(
    strategy: str, wrong: Corrupted, found: dict[str, np.ndarray], teacher: Any
) -> tuple[np.ndarray, np.ndarray, dict[str, dict[str, float]]]:
    """Labels and weights of images to go on with; of repaired labels the Dice with the truth and the flags' recall."""
    ones = np.ones(len(wrong.labels), np.float32)
    if strategy in ("drop", "oracle"):
        suspect = wrong.corrupted if strategy == "oracle" else otsu(found[VOG])
        return wrong.labels, np.where(suspect, 0, ones).astype(np.float32), {}
    name = LOSS if strategy == "refurbish_loss" else VOG
    flags = otsu(found[name])
    labels = refurbish(wrong.labels, flags, teacher()).labels.argmax(-1).astype(np.int32)
    hits = float((flags & wrong.corrupted).sum())
    before, after = (quality(one, wrong.clean, flags, wrong.corrupted) for one in (wrong.labels, labels))
    became = {f"labels_{group}": {f"as_given_{name}": before[group], strategy: after[group]} for group in before}
    became["labels_recall"] = {strategy: hits / max(float(wrong.corrupted.sum()), 1.0)}
    became["labels_precision"] = {strategy: hits / max(float(flags.sum()), 1.0)}
    return labels, ones, became


def _tested(training: Training, state: TrainState, cell: Cell) -> float:
    return segmentation_dice(training.model, state, cell.test.images, cell.test.labels)
