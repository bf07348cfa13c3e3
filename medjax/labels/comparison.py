"""Strategies against wrong labels compared on data sets where it is known which labels are wrong: two populations.

    found = compare(cases, model, settings, label_scores, {"drop": drop_flagged("vog"), "oracle": drop_corrupted})

The plain run of every case trains on the labels as they are and is followed; at the end of early learning, each at its
own, its labels are judged. From there every strategy goes on with labels or weights of its own. All are tested on
images that no training saw. Plain runs are one population and continued ones another; each member is kept as a stage of
its case's work directory when it is finished.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from medjax.labels.dynamics import Settings
from medjax.labels.errors import Corrupted
from medjax.labels.population import Member
from medjax.labels.refurbish import predict_proba
from medjax.labels.scores import LabelScore
from medjax.labels.strategies import Judgement, Strategy, remedy_quality
from medjax.models.model import Network
from medjax.running.arrays import from_numbered, numbered
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stages
from medjax.training.state import TrainState

Kept = dict[str, Any]  # what a stage keeps: nested dicts of arrays


class Case(NamedTuple):
    """A data set with wrong labels, how a network trains on it, and where that is kept."""

    work: WorkDir
    name: str  # of its stage, and the end of its strategies'
    seed: int
    rate: float  # of learning
    images: Images
    clean: ImageLabels  # the true labels
    corrupt: Callable[[], Corrupted]  # gives the labels to train on, when they are needed
    hard: Bool[np.ndarray, " image"]  # images that are hard to read
    test_images: Images
    test_labels: ImageLabels
    compared: bool  # whether strategies go on from its plain run


class Compared(NamedTuple):
    """What was found on a case."""

    metrics: dict[str, Any]  # by group: `dice` of each strategy, `auroc` of each score, `labels_all` of repaired ones …
    curves: Mapping[str, np.ndarray]  # AUROC of each score for wrong labels, after every probe


def compare(
    cases: Sequence[Case],
    model: Network,
    settings: Settings,
    label_scores: Mapping[str, LabelScore],
    strategies: Mapping[str, Strategy],
    *,
    strategy: str | None = None,
    width: int | None = None,
) -> list[Compared | MedjaxError]:
    """What was found on every case, or what went wrong with it.

    Metrics are those of `detection` at the end of the plain run, and `auroc/SCORE`; `auroc_asked/SCORE` and
    `epoch_asked` when the labels were judged; `dice/plain` and `dice/STRATEGY` on the test images; and of the labels
    that a strategy repaired `labels_GROUP/STRATEGY` and, as they were, `labels_GROUP/as_given_SCORE`: `remedy_quality`.

    Args:
        strategies: by name; none is called `plain`.
        strategy, width: how members train side by side, see `training.population`.
    """
    train = _Training(model, settings, label_scores, strategies, strategy, width)
    plain = stages([(case.work, case.name) for case in cases], partial(_plain_runs, train, cases))
    good = [k for k, kept in enumerate(plain) if cases[k].compared and not isinstance(kept, MedjaxError)]
    runs = [(cases[k], plain[k]["judged"], name) for k in good for name in strategies]
    places = [(case.work, f"{name}_{case.name}") for case, _, name in runs]
    ends = stages(places, partial(_continued_runs, train, runs))
    for k, end in zip((k for k in good for _ in strategies), ends, strict=True):
        plain[k] = _joined(plain[k], end)
    return [kept if isinstance(kept, MedjaxError) else Compared(kept["metrics"], kept["curves"]) for kept in plain]


class _Training(NamedTuple):
    """What all members have in common."""

    model: Network
    settings: Settings
    label_scores: Mapping[str, LabelScore]
    strategies: Mapping[str, Strategy]
    strategy: str | None
    width: int | None


def _joined(plain: Kept | MedjaxError, end: Kept | MedjaxError) -> Kept | MedjaxError:
    """What was found on a case, with a strategy's metrics."""
    if isinstance(plain, MedjaxError) or isinstance(end, MedjaxError):
        return plain if isinstance(plain, MedjaxError) else end
    metrics = plain["metrics"]
    return plain | {"metrics": metrics | {name: metrics.get(name, {}) | values for name, values in end.items()}}


def _plain_runs(t: _Training, cases: Sequence[Case], numbers: list[int]) -> Iterator[tuple[int, Kept | MedjaxError]]:
    """(number, how well each score finds the wrong labels, and all that strategies need to go on) of these cases."""
    mine = [cases[number] for number in numbers]
    wrong: dict[int, Corrupted] = {}

    def member(k: int) -> Member:
        wrong[k] = mine[k].corrupt()
        return Member(mine[k].seed, mine[k].images, wrong[k].labels, mine[k].rate)

    runs = population.observe(
        [partial(member, k) for k in range(len(mine))], t.model, t.settings, t.label_scores,
        measure=lambda k, state: _tested(t, mine[k], state),
        checkpoints=[case.work.checkpoints / f"{case.name}_training" for case in mine], strategy=t.strategy,
        width=t.width,
    )  # fmt: skip
    for k, found in track(runs, "plain runs"):
        if isinstance(found, MedjaxError):
            yield numbers[k], found
            continue
        labels, _, corrupted = wrong.pop(k)
        curves = auroc_curves(found.scores, corrupted)
        metrics: Kept = detection({name: each[-1] for name, each in found.scores.items()}, corrupted, mine[k].hard)
        metrics |= {
            "dice": {"plain": found.measured[-1]},
            "auroc": {name: each[-1] for name, each in curves.items()},
            "auroc_asked": {name: each[found.judged] for name, each in curves.items()},
            "epoch_asked": int(found.state.step) * t.settings.batch / len(labels),
        }
        small = labels.astype(np.min_scalar_type(labels.max()))
        judged: Kept = {"labels": small, "corrupted": corrupted, "state": numbered(found.state)}
        judged |= {"scores": {name: each[found.judged] for name, each in found.scores.items()}}
        yield numbers[k], {"metrics": metrics, "curves": curves, "judged": judged if mine[k].compared else {}}


def _continued_runs(
    t: _Training, runs: Sequence[tuple[Case, Kept, str]], numbers: list[int]
) -> Iterator[tuple[int, Kept | MedjaxError]]:
    """(number, metrics) of these runs, each from where the labels of a case were judged on by a strategy."""
    mine = [runs[number] for number in numbers]
    init = dynamics.algorithm(t.model, t.settings).init
    like = jax.eval_shape(init, jax.random.key(0), mine[0][0].images)
    became: dict[int, Kept] = {}

    def member(k: int) -> tuple[TrainState, Member]:
        case, judged, name = mine[k]
        state = from_numbered(judged["state"], like)
        teacher = partial(predict_proba, t.model, state.ema_params, case.images)
        given = judged["labels"].astype(case.clean.dtype)
        judgement = Judgement(given, judged["scores"], judged["corrupted"], teacher)
        remedy = t.strategies[name](judgement)
        became[k] = {}
        if remedy.repaired_by is not None:
            before, after = remedy_quality(remedy, judgement, case.clean)
            became[k] = {f"labels_{group}": {name: value} for group, value in after.items()}
            for group, value in before.items():
                became[k][f"labels_{group}"][f"as_given_{remedy.repaired_by}"] = value
        return state, Member(case.seed, case.images, remedy.labels, case.rate, remedy.weight)

    ends = population.continue_training(
        [partial(member, k) for k in range(len(mine))], t.model, t.settings, strategy=t.strategy, width=t.width
    )
    for k, end in track(ends, "runs from the end of early learning"):
        case, _, name = mine[k]
        failed = isinstance(end, MedjaxError)
        yield numbers[k], end if failed else {"dice": {name: _tested(t, case, end)}, **became[k]}


def _tested(t: _Training, case: Case, state: TrainState) -> float:
    return segmentation_dice(t.model, state, case.test_images, case.test_labels)
