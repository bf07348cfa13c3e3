"""Tracking of a training by label scores: its state from probe to probe, in memory and in checkpoints.

    run, resumed = init_or_resume(seed, model, images, labels, settings, label_scores, "separate", checkpoints)
    run = record_probe(run, train, states, predictions, labels, checkpoints)   after a probe of all images
    snapshot(run, settings)                                                    training state, scores, agreement

Both `audit`, of one training, and `population`, of many, track trainings so: a checkpoint of one is one of the other.
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
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.refurbish import end_of_early_learning
from medjax.labels.scores import LabelScore, States
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network
from medjax.training.checkpoint import restore, save
from medjax.training.state import TrainState


class TrackedRun(NamedTuple):
    """Resumable state of a tracked training: network, label scores, and agreement with the labels."""

    train: TrainState  # training state of the network
    scores: States  # states of the label scores
    agreement: Float[np.ndarray, " probe"]  # mean Dice of predictions with the labels; NaN: probes to come
    identity: dict[str, Shaped[np.ndarray, "8"]]  # SHA-256 of seed, data, settings …; empty without checkpoints


class Snapshot(NamedTuple):
    """State of a tracked training after a probe of all images."""

    state: TrainState
    states: States  # states of the scores, for `scores.evaluate`
    agreement: float  # mean Dice of the network's predictions with the training labels
    memorization: bool  # early learning has ended, or the latest step is reached


def init_or_resume(
    seed: int,
    model: Network,
    images: Images,
    labels: ImageLabels,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore],
    probe: str,
    checkpoints: Path | None = None,
) -> tuple[TrackedRun, bool]:
    """Tracked run before its first step, or that of its last checkpoint; and whether it is resumed.

    Args:
        seed: random seed of network weights, batches and augmentation.
        model: segmentation network.
        images: training images.
        labels: training labels, which may be wrong.
        settings: training hyper-parameters.
        label_scores: label scores to track.
        probe: kind of probe: separate or in_step.
        checkpoints: folder of the checkpoints; None: none are kept.

    Raises:
        WorkdirError: `checkpoints` holds another run: of another seed, data, settings or scores.
    """
    train = dynamics.algorithm(model, settings).init(jax.random.key(seed), images)
    states = scores.init(label_scores, len(images), labels.shape[1:])
    probes = np.full(-(-settings.steps // settings.probe_every), np.nan)
    if checkpoints is None:
        return TrackedRun(train, states, probes, {}), False
    fresh = TrackedRun(train, states, probes, _digests(seed, images, labels, settings, probe, label_scores))
    found = restore(checkpoints, fresh)
    if found is None:
        return fresh, False
    saved: TrackedRun = found[1]
    other = [name for name, digest in fresh.identity.items() if not np.array_equal(saved.identity[name], digest)]
    if other:
        where = f"{checkpoints} holds another run"
        raise WorkdirError(f"{where}: other {', '.join(other)}; delete it or give another folder")
    return saved, True


def record_probe(
    run: TrackedRun,
    train: TrainState,
    states: States,
    predictions: ImageLabels,
    labels: ImageLabels,
    checkpoints: Path | None,
) -> TrackedRun:
    """Tracked run after one more probe; saved where `checkpoints` is a folder.

    Args:
        run: tracked run before the probe.
        train: training state at the probe.
        states: states of the label scores after the probe.
        predictions: classes that the network predicts at the probe.
        labels: training labels.
        checkpoints: folder of the checkpoints; None: nothing is saved.
    """
    agreement = np.array(run.agreement)
    each = [mean_dice(one, given) for one, given in zip(predictions, labels, strict=True)]
    agreement[np.isnan(agreement).argmax()] = np.mean(each)
    now = TrackedRun(train, states, agreement, run.identity)
    if checkpoints is not None:
        save(checkpoints, int(train.step), now, keep=1)
    return now


def snapshot(run: TrackedRun, settings: TrainingSettings) -> Snapshot:
    """Snapshot of a run at its latest probe."""
    known = np.asarray(run.agreement)
    known = known[~np.isnan(known)]
    late = int(run.train.step) >= settings.latest_judgement
    return Snapshot(run.train, run.scores, float(known[-1]), end_of_early_learning(known) or late)


def _digests(
    seed: int, images: np.ndarray, labels: np.ndarray, s: TrainingSettings, kind: str, chosen: Mapping[str, LabelScore]
) -> dict[str, np.ndarray]:
    """SHA-256 of what identifies a run, by name; settings are printed, without addresses in memory."""
    printed = re.sub(r" at 0x[0-9a-f]+", "", repr(s._replace(learning_rate=float(s.learning_rate))))
    parts = {
        "seed": str(seed).encode(),
        "settings": f"{kind} {printed}".encode(),
        "images": np.ascontiguousarray(images).tobytes(),
        "labels": np.ascontiguousarray(labels).tobytes(),
        "scores": repr(list(chosen)).encode(),
    }
    return {name: np.frombuffer(hashlib.sha256(part).digest(), np.uint32) for name, part in parts.items()}
