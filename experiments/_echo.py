"""One cell of the study of wrong labels: a kind of error, a share of wrong labels and a seed.

The training dynamics of its plain run are followed; at the end of early learning the labels are judged, and from there
every strategy goes on with labels of its own. All are judged on clean labels of hearts that were not trained on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax.labels import scores
from medjax.labels.audit import continue_training, predict, training_dynamics
from medjax.labels.dynamics import Settings
from medjax.labels.errors import Corrupted
from medjax.labels.refurbish import predict_proba, quality, refurbish
from medjax.labels.thresholds import otsu
from medjax.metrics.detection import auroc, average_precision
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network
from medjax.phantoms.echo import Echo
from medjax.training.state import TrainState

LOSS, VOG = "dice_mean", "vog"  # what flags for `refurbish_loss`, and for `drop` and `refurbish_vog`


class Judgement(NamedTuple):
    """The training when the labels were judged, at the end of early learning."""

    state: TrainState
    scores: dict[str, Any]
    teacher: np.ndarray  # probabilities by the averaged parameters, for repair


def clean_dice(model: Network, state: TrainState, test: Echo) -> float:
    """Mean over test images of the mean Dice of the structures, by the averaged parameters."""
    predictions = predict(model, state.ema_params, test.images)
    return float(np.mean([mean_dice(one, true) for one, true in zip(predictions, test.labels, strict=True)]))


def plain_run(
    seed: int, model: Network, data: Echo, wrong: Corrupted, test: Echo, s: Settings
) -> tuple[Judgement, dict[str, Any]]:
    """The plain run: the training when its labels were judged, and its dynamics, arrays over probes."""
    rows: list[dict[str, float]] = []
    dice: list[float] = []
    judgement: Judgement | None = None
    detectors = scores.built_in()
    found: dict[str, Any] = {}
    for snapshot in training_dynamics(seed, model, data.images, wrong.labels, s, detectors):
        found = scores.evaluate(detectors, snapshot.states, wrong.labels)
        rows.append({name: float(auroc(score, wrong.corrupted)) for name, score in found.items()})
        dice.append(clean_dice(model, snapshot.state, test))
        if judgement is None and snapshot.memorization:
            teacher = predict_proba(model, snapshot.state.ema_params, data.images)
            judgement = Judgement(jax.tree.map(jnp.array, snapshot.state), found, teacher)
    assert judgement is not None  # `latest` is within the run, see `run`
    right = ~wrong.corrupted
    return judgement, {
        "test_dice": np.array(dice),
        "auroc": {name: np.array([row[name] for row in rows]) for name in found},
        "average_precision": {name: float(average_precision(score, wrong.corrupted)) for name, score in found.items()},
        "poor_among_right": {name: float(auroc(score[right], data.hard[right])) for name, score in found.items()},
        "epoch_asked": int(judgement.state.step) * s.batch / len(data.images),
    }


def strategies(
    seed: int, model: Network, data: Echo, wrong: Corrupted, test: Echo, judgement: Judgement, s: Settings
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Test Dice of each strategy, and of its labels the Dice with the truth and the flags' recall."""
    ones = np.ones(len(data.images), np.float32)

    def trained(labels: np.ndarray, weight: np.ndarray) -> float:
        end = continue_training(seed, model, judgement.state, data.images, labels, weight, s)
        return clean_dice(model, end, test)

    flags = {name: otsu(judgement.scores[name]) for name in (LOSS, VOG)}
    dice = {
        "drop": trained(wrong.labels, np.where(flags[VOG], 0, ones).astype(np.float32)),
        "oracle": trained(wrong.labels, np.where(wrong.corrupted, 0, ones).astype(np.float32)),
    }
    became = {f"as_given_{n}": quality(wrong.labels, wrong.clean, flags[n], wrong.corrupted) for n in (LOSS, VOG)}
    for strategy, name in (("refurbish_loss", LOSS), ("refurbish_vog", VOG)):
        labels = refurbish(wrong.labels, flags[name], judgement.teacher).labels.argmax(-1).astype(np.int32)
        dice[strategy] = trained(labels, ones)
        hits = float((flags[name] & wrong.corrupted).sum())
        became[strategy] = quality(labels, wrong.clean, flags[name], wrong.corrupted) | {
            "recall": hits / max(float(wrong.corrupted.sum()), 1.0),
            "precision": hits / max(float(flags[name].sum()), 1.0),
        }
    return dice, became


def leaves(tree: dict[str, Any], change: Callable[[Any], Any] = np.asarray) -> dict[str, Any]:
    """The same nested dict of arrays, as a stage keeps it."""
    return {name: leaves(value, change) if isinstance(value, dict) else change(value) for name, value in tree.items()}
