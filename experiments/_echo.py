"""One cell of the study of wrong labels: a kind of error, a share of wrong labels and a seed.

Its plain run is watched; when the network stops learning fast it is asked what it suspects, and from there every
strategy goes on with labels of its own. All are judged on clean labels of hearts that were not trained on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax.labels import scores
from medjax.labels.audit import Settings, go_on, network, predicted, watch
from medjax.labels.errors import Corrupted
from medjax.labels.refurbish import probabilities, quality, refurbish
from medjax.labels.thresholds import otsu
from medjax.metrics.detection import auroc, average_precision
from medjax.metrics.overlap import mean_dice
from medjax.phantoms.echo import Echo
from medjax.training.old_state import TrainState

LOSS, VOG = "dice_mean", "vog"  # what flags for `refurbish_loss`, and for `drop` and `refurbish_vog`


class Asked(NamedTuple):
    """The moment when the labels were judged."""

    state: TrainState
    scores: dict[str, Any]
    teacher: np.ndarray  # what the averaged parameters say, for repair


def clean_dice(state: TrainState, test: Echo, s: Settings) -> float:
    """Mean over test images of the mean Dice of the structures, by the averaged parameters."""
    said = predicted(state.average, test.images, s)
    return float(np.mean([mean_dice(one, true) for one, true in zip(said, test.labels, strict=True)]))


def watched(seed: int, data: Echo, wrong: Corrupted, test: Echo, s: Settings) -> tuple[Asked, dict[str, Any]]:
    """The plain run: the moment when it was asked, and what it showed, arrays over probes."""
    rows: list[dict[str, float]] = []
    dice: list[float] = []
    asked: Asked | None = None
    found: dict[str, Any] = {}
    for moment in watch(seed, data.images, wrong.labels, s):
        found = scores.scores(moment.log, jnp.asarray(wrong.labels))
        rows.append({name: float(auroc(score, wrong.bad)) for name, score in found.items()})
        dice.append(clean_dice(moment.state, test, s))
        if asked is None and moment.turned:
            teacher = probabilities(network(s), moment.state.average, data.images)
            asked = Asked(jax.tree.map(jnp.array, moment.state), found, teacher)
    assert asked is not None  # `latest` is within the run, see `run`
    right = ~wrong.bad
    return asked, {
        "test_dice": np.array(dice),
        "auroc": {name: np.array([row[name] for row in rows]) for name in found},
        "average_precision": {name: float(average_precision(score, wrong.bad)) for name, score in found.items()},
        "poor_among_right": {name: float(auroc(score[right], data.hard[right])) for name, score in found.items()},
        "epoch_asked": int(asked.state.step) * s.batch / len(data.images),
    }


def strategies(
    seed: int, data: Echo, wrong: Corrupted, test: Echo, asked: Asked, s: Settings
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Test Dice of each strategy, and what became of the labels: their Dice with the truth, the flags' hits."""
    ones = np.ones(len(data.images), np.float32)

    def trained(labels: np.ndarray, weight: np.ndarray) -> float:
        return clean_dice(go_on(seed, asked.state, data.images, labels, weight, s), test, s)

    flags = {name: otsu(asked.scores[name]) for name in (LOSS, VOG)}
    dice = {
        "drop": trained(wrong.labels, np.where(flags[VOG], 0, ones).astype(np.float32)),
        "oracle": trained(wrong.labels, np.where(wrong.bad, 0, ones).astype(np.float32)),
    }
    became = {f"as_given_{n}": quality(wrong.labels, wrong.clean, flags[n], wrong.bad) for n in (LOSS, VOG)}
    for strategy, name in (("refurbish_loss", LOSS), ("refurbish_vog", VOG)):
        labels = refurbish(wrong.labels, flags[name], asked.teacher).labels.argmax(-1).astype(np.int32)
        dice[strategy] = trained(labels, ones)
        hits = float((flags[name] & wrong.bad).sum())
        became[strategy] = quality(labels, wrong.clean, flags[name], wrong.bad) | {
            "recall": hits / max(float(wrong.bad.sum()), 1.0),
            "precision": hits / max(float(flags[name].sum()), 1.0),
        }
    return dice, became


def leaves(tree: dict[str, Any], change: Callable[[Any], Any] = np.asarray) -> dict[str, Any]:
    """The same nested dict of arrays, as a stage keeps it."""
    return {name: leaves(value, change) if isinstance(value, dict) else change(value) for name, value in tree.items()}
