"""A training that is followed: what is kept of it from probe to probe, in memory and in checkpoints.

    run, resumed = begin(seed, model, images, labels, settings, label_scores, "separate", checkpoints)
    run = advance(run, train, states, predictions, labels, checkpoints)        after a probe of all images
    snapshot(run, settings)                                                    what a reader is given of it

Both `audit`, of one training, and `population`, of many, follow trainings so: a checkpoint of one is one of the other.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Shaped

from medjax.errors import WorkdirError
from medjax.labels import dynamics, scores
from medjax.labels.checks import ImageLabels, Images
from medjax.labels.dynamics import Settings
from medjax.labels.refurbish import end_of_early_learning
from medjax.labels.scores import LabelScore, States
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network
from medjax.training.checkpoint import restore, save
from medjax.training.state import TrainState


class Run(NamedTuple):
    """All that a followed training needs to go on."""

    train: TrainState
    scores: States
    agreement: Float[np.ndarray, " probe"]  # mean Dice with the labels given, at each probe; NaN: not made yet
    identity: dict[str, Shaped[np.ndarray, "8"]]  # digests of what makes it that run; none without checkpoints


class Snapshot(NamedTuple):
    """The training after a probe of all images."""

    state: TrainState
    states: States  # of the scores, for `scores.evaluate`
    agreement: float  # mean Dice of the network's predictions with the labels it was given
    memorization: bool  # early learning has ended, or the latest step is reached


def begin(
    seed: int,
    model: Network,
    images: Images,
    labels: ImageLabels,
    settings: Settings,
    label_scores: Mapping[str, LabelScore],
    probe: str,
    checkpoints: Path | None = None,
) -> tuple[Run, bool]:
    """The run before its first step, or as its last checkpoint has it; and whether that is so.

    Raises:
        WorkdirError: `checkpoints` holds another run: of another seed, data, settings or scores.
    """
    train = dynamics.algorithm(model, settings).init(jax.random.key(seed), images)
    states = scores.init(label_scores, len(images), labels.shape[1:])
    probes = np.full(-(-settings.steps // settings.every), np.nan)
    if checkpoints is None:
        return Run(train, states, probes, {}), False
    fresh = Run(train, states, probes, _digests(seed, images, labels, settings, probe, label_scores))
    found = restore(checkpoints, fresh)
    if found is None:
        return fresh, False
    kept: Run = found[1]
    other = [name for name, digest in fresh.identity.items() if not np.array_equal(kept.identity[name], digest)]
    if other:
        where = f"{checkpoints} holds another run"
        raise WorkdirError(f"{where}: other {', '.join(other)}; delete it or give another folder")
    return kept, True


def advance(
    run: Run, train: TrainState, states: States, predictions: ImageLabels, labels: ImageLabels, checkpoints: Path | None
) -> Run:
    """The run after one more probe, at which the network gave these predictions; kept, if there are checkpoints."""
    agreement = np.array(run.agreement)
    each = [mean_dice(one, given) for one, given in zip(predictions, labels, strict=True)]
    agreement[np.isnan(agreement).argmax()] = np.mean(each)
    now = Run(train, states, agreement, run.identity)
    if checkpoints is not None:
        save(checkpoints, int(train.step), now, keep=1)
    return now


def snapshot(run: Run, settings: Settings) -> Snapshot:
    """What a reader is given of a run that has been probed."""
    known = np.asarray(run.agreement)
    known = known[~np.isnan(known)]
    late = int(run.train.step) >= settings.latest
    return Snapshot(run.train, run.scores, float(known[-1]), end_of_early_learning(known) or late)


def _digests(
    seed: int, images: np.ndarray, labels: np.ndarray, s: Settings, kind: str, chosen: Mapping[str, LabelScore]
) -> dict[str, np.ndarray]:
    """Digests of what makes a run that run, by name; settings are printed, without addresses in memory."""
    printed = re.sub(r" at 0x[0-9a-f]+", "", repr(s._replace(learning_rate=float(s.learning_rate))))
    parts = {
        "seed": str(seed).encode(),
        "settings": f"{kind} {printed}".encode(),
        "images": np.ascontiguousarray(images).tobytes(),
        "labels": np.ascontiguousarray(labels).tobytes(),
        "scores": repr(list(chosen)).encode(),
    }
    return {name: np.frombuffer(hashlib.sha256(part).digest(), np.uint32) for name, part in parts.items()}
