"""Comparison of strategies against wrong labels, on data sets where it is known which labels are wrong.

    comparisons = compare(cells, model, settings, label_scores, {"drop": drop_flagged("vog"), "oracle": drop_corrupted})

The plain run of every cell trains on the labels as they are, with its label scores tracked; at the end of its early
learning the labels are judged. From there every strategy continues with labels or weights of its own. All are tested on
held-out images. Plain runs are one population and continued ones another; each is a stage of its cell's work directory
when it is finished.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from medjax.errors import MedjaxError
from medjax.labels import dynamics, population
from medjax.labels.audit import segmentation_dice
from medjax.labels.checks import ImageLabels, Images
from medjax.labels.detection import auroc_curves, detection
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.errors import CorruptedLabels
from medjax.labels.members import TrainingRun
from medjax.labels.refurbish import predict_proba
from medjax.labels.scores import LabelScore
from medjax.labels.strategies import Strategy, StrategyInputs, correction_quality
from medjax.models.model import Network
from medjax.running.arrays import from_numbered_leaves, to_numbered_leaves
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stages
from medjax.training.state import TrainState

StageData = dict[str, Any]  # nested dicts of arrays


class Cell(NamedTuple):
    """Cell of the comparison: a data set with wrong labels, a seed and learning rate, and its work directory."""

    work: WorkDir
    name: str  # name of its stage; those of its strategies end with it
    seed: int  # random seed of labels, network weights and batches
    learning_rate: float  # peak learning rate
    images: Images  # training images
    clean: ImageLabels  # the true labels
    corrupt: Callable[[], CorruptedLabels]  # function that makes the labels to train on, when they are needed
    hard: Bool[np.ndarray, " image"]  # images of poor quality
    test_images: Images
    test_labels: ImageLabels  # correct labels
    strategies: Collection[str]  # names of those that continue its plain run; none: scores are compared alone


class Comparison(NamedTuple):
    """Metrics of the strategies and label scores in a cell."""

    metrics: dict[
        str, Any
    ]  # by group: `dice` of each strategy, `auroc` of each score, `labels_all` of refurbished ones …
    curves: Mapping[str, np.ndarray]  # AUROC of each score for corrupted labels, after every probe


def compare(
    cells: Sequence[Cell],
    model: Network,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore],
    strategies: Mapping[str, Strategy],
    *,
    strategy: str | None = None,
    width: int | None = None,
) -> list[Comparison | MedjaxError]:
    """Comparison of the strategies in every cell, or the error that ended it.

    Metrics are those of `detection` and `auroc/SCORE` at the end of the plain run; `auroc_at_memorization/SCORE` and
    `memorization_epoch` when the labels were judged; `dice/plain` and `dice/STRATEGY` on the test images; and, of the
    labels that a strategy refurbished, see `correction_quality`, `labels_GROUP/STRATEGY` and, as they were before,
    `labels_GROUP/uncorrected_SCORE`.

    Args:
        label_scores: scores to track, by name.
        strategies: strategies by name; none is called `plain`.
        strategy, width: of the population's training, see `training.population`.
    """
    train = _Training(model, settings, label_scores, strategies, strategy, width)
    plain = stages([(cell.work, cell.name) for cell in cells], partial(_plain_runs, train, cells))
    good = [k for k, data in enumerate(plain) if cells[k].strategies and not isinstance(data, MedjaxError)]
    runs = [(cells[k], plain[k]["judgement"], name) for k in good for name in cells[k].strategies]
    names = [(cell.work, f"{name}_{cell.name}") for cell, _, name in runs]
    ends = stages(names, partial(_continued_runs, train, runs))
    continued = [k for k in good for _ in cells[k].strategies]
    for k, end in zip(continued, ends, strict=True):
        plain[k] = _join(plain[k], end)
    return [one if isinstance(one, MedjaxError) else Comparison(one["metrics"], one["curves"]) for one in plain]


class _Training(NamedTuple):
    """Settings that all members share."""

    model: Network
    settings: TrainingSettings
    label_scores: Mapping[str, LabelScore]
    strategies: Mapping[str, Strategy]
    strategy: str | None
    width: int | None


def _join(plain: StageData | MedjaxError, end: StageData | MedjaxError) -> StageData | MedjaxError:
    """Metrics of a cell with those of a strategy added."""
    if isinstance(plain, MedjaxError) or isinstance(end, MedjaxError):
        return plain if isinstance(plain, MedjaxError) else end
    metrics = plain["metrics"]
    return plain | {"metrics": metrics | {name: metrics.get(name, {}) | values for name, values in end.items()}}


def _plain_runs(
    t: _Training, cells: Sequence[Cell], numbers: list[int]
) -> Iterator[tuple[int, StageData | MedjaxError]]:
    """Metrics of the plain runs of these cells, with the cell's number, and the state that strategies continue from."""
    mine = [cells[number] for number in numbers]
    wrong: dict[int, CorruptedLabels] = {}

    def member(k: int) -> TrainingRun:
        wrong[k] = mine[k].corrupt()
        return TrainingRun(mine[k].seed, mine[k].images, wrong[k].labels, mine[k].learning_rate)

    runs = population.observe(
        [partial(member, k) for k in range(len(mine))], t.model, t.settings, t.label_scores,
        measure=lambda k, state: _test_dice(t, mine[k], state),
        checkpoints=[cell.work.checkpoints / f"{cell.name}_training" for cell in mine], strategy=t.strategy,
        width=t.width,
    )  # fmt: skip
    for k, found in track(runs, "plain runs"):
        if isinstance(found, MedjaxError):
            yield numbers[k], found
            continue
        labels, _, corrupted = wrong.pop(k)
        curves = auroc_curves(found.scores, corrupted)
        metrics: StageData = detection({name: each[-1] for name, each in found.scores.items()}, corrupted, mine[k].hard)
        metrics |= {
            "dice": {"plain": found.measurements[-1]},
            "auroc": {name: each[-1] for name, each in curves.items()},
            "auroc_at_memorization": {name: each[found.judgement] for name, each in curves.items()},
            "memorization_epoch": int(found.state.step) * t.settings.batch / len(labels),
        }
        small = labels.astype(np.min_scalar_type(labels.max()))
        judged: StageData = {"labels": small, "corrupted": corrupted, "state": to_numbered_leaves(found.state)}
        judged |= {"scores": {name: each[found.judgement] for name, each in found.scores.items()}}
        yield (
            numbers[k],
            {"metrics": metrics, "curves": curves, "judgement": judged if mine[k].strategies else {}},
        )


def _continued_runs(
    t: _Training, runs: Sequence[tuple[Cell, StageData, str]], numbers: list[int]
) -> Iterator[tuple[int, StageData | MedjaxError]]:
    """Metrics of these runs, with their number, each continued by a strategy after its cell's labels were judged."""
    mine = [runs[number] for number in numbers]
    init = dynamics.algorithm(t.model, t.settings).init
    like = jax.eval_shape(init, jax.random.key(0), mine[0][0].images)
    label_metrics: dict[int, StageData] = {}

    def member(k: int) -> tuple[TrainState, TrainingRun]:
        cell, judged, name = mine[k]
        state = from_numbered_leaves(judged["state"], like)
        teacher = partial(predict_proba, t.model, state.ema_params, cell.images)
        given = judged["labels"].astype(cell.clean.dtype)
        judgement = StrategyInputs(given, judged["scores"], judged["corrupted"], teacher)
        correction = t.strategies[name](judgement)
        label_metrics[k] = {}
        if correction.refurbished_by is not None:
            before, after = correction_quality(correction, judgement, cell.clean)
            label_metrics[k] = {f"labels_{group}": {name: value} for group, value in after.items()}
            for group, value in before.items():
                label_metrics[k][f"labels_{group}"][f"uncorrected_{correction.refurbished_by}"] = value
        return state, TrainingRun(cell.seed, cell.images, correction.labels, cell.learning_rate, correction.weight)

    ends = population.continue_training(
        [partial(member, k) for k in range(len(mine))], t.model, t.settings,
        checkpoints=[cell.work.checkpoints / f"{name}_{cell.name}_training.npz" for cell, _, name in mine],
        strategy=t.strategy, width=t.width,
    )  # fmt: skip
    for k, end in track(ends, "runs from the end of early learning"):
        cell, _, name = mine[k]
        failed = isinstance(end, MedjaxError)
        yield numbers[k], end if failed else {"dice": {name: _test_dice(t, cell, end)}, **label_metrics[k]}


def _test_dice(t: _Training, cell: Cell, state: TrainState) -> float:
    return segmentation_dice(t.model, state, cell.test_images, cell.test_labels)
