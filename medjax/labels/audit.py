"""Label audit: train a network on labels that may be wrong, and score every label by the training dynamics.

    for snapshot in training_dynamics(seed, model, images, labels, settings):    every `settings.probe_every` steps
        scores.evaluate(scores.built_in(), snapshot.states, labels)["vog"]       high: suspect
        snapshot.memorization            early learning has ended: judge the labels now

The network is any segmentation Model; none is built here. Images are `(image, *space, channel)` in about 0 … 1, labels
class numbers. From any snapshot training can continue with other labels and weights of images (`continue_training`).
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from medjax import iterate
from medjax.iterate import Algorithm
from medjax.labels import dynamics, scores
from medjax.labels.checks import ImageLabels, Images, check_run
from medjax.labels.dynamics import Batch, TrainingSettings
from medjax.labels.probe import probe
from medjax.labels.scores import LabelScore, States, Trackers
from medjax.labels.tracking import Snapshot, init_or_resume, record_probe, snapshot
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network, finest_logits
from medjax.training.batches import Batches, from_arrays
from medjax.training.parallel import on_mesh, replicate
from medjax.training.state import TrainState, require_finite_loss

__all__ = ["Snapshot", "continue_training", "predict", "segmentation_dice", "training_dynamics"]


PROBED = 32  # images probed at once


def training_dynamics(
    seed: int,
    model: Network,
    images: Images,
    labels: ImageLabels,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore] | None = None,
    probe: Literal["separate", "in_step"] = "separate",
    checkpoints: Path | None = None,
    mesh: Mesh | None = None,
) -> Iterator[Snapshot]:
    """Snapshots of a training on `labels`, one after each probe; the next one reuses its memory: copy what you keep.

    Args:
        seed: random seed of the network's weights, the order of images and their augmentation.
        model: a segmentation network.
        label_scores: scores to update at each probe, by name; default: all built-in ones that `probe` allows.
        probe: "separate" probes all images without augmentation every `settings.probe_every` steps; "in_step" uses the
            training steps' own backward passes, see `dynamics`, which have gradients of the loss only.
        checkpoints: folder for this run alone, written at every snapshot; a later call yields the last snapshot once
            more and continues, bit for bit.
        mesh: devices among which every batch is divided, see `training.parallel`; probes are on each of them.

    Raises:
        ConfigError: a score needs gradients that it does not name or that in-step probes do not have.
        DataError: images that the network does not take, fewer than a batch, labels beyond `settings.classes`, images
            outside 0 … 1 (augmentation would clip them), or a loss that is not finite.
        WorkdirError: `checkpoints` holds another run: of another seed, data, settings or scores.
    """
    chosen = check_run(model, images, labels, settings, label_scores, probe)
    run, resumed = init_or_resume(seed, model, images, labels, settings, chosen, probe, checkpoints)
    if resumed:
        yield snapshot(run, settings)
    probes = _in_step if probe == "in_step" else _separate
    one = _Training(seed, model, images, labels, np.ones(len(images), np.float32), settings, mesh)
    for train, states, predictions in probes(one, chosen, run.train, run.scores):
        run = record_probe(run, train, states, predictions, labels, checkpoints)
        yield snapshot(run, settings)


def continue_training(
    seed: int,
    model: Network,
    state: TrainState,
    images: Images,
    labels: ImageLabels | Float[np.ndarray, "image *space class"],
    weight: Float[np.ndarray, " image"],
    settings: TrainingSettings,
    mesh: Mesh | None = None,
) -> TrainState:
    """Final state of a training continued from `state` with these labels and weights, in the first run's batches.

    Args:
        seed: that of the first run.
        labels: class numbers, or the probability of every class.
        weight: weight of each image in the loss.
        mesh: as in `training_dynamics`.
    """
    one, algorithm = _Training(seed, model, images, labels, weight, settings, mesh), dynamics.algorithm(model, settings)
    return iterate.last(one.loop(algorithm, state, int(state.step), settings.steps), state)


def predict(model: Network, params: PyTree, images: Images, batch: int = 32) -> ImageLabels:
    """Predicted class of every voxel, in batches of `batch` images."""
    parts = [_classes(model, params, images[k : k + batch]) for k in range(0, len(images), batch)]
    return np.concatenate([np.asarray(part) for part in parts])


def segmentation_dice(model: Network, state: TrainState, images: Images, labels: ImageLabels) -> float:
    """Mean Dice, over structures and then images, of the EMA parameters' predictions."""
    predictions = predict(model, state.ema_params, images)
    return float(np.mean([mean_dice(one, true) for one, true in zip(predictions, labels, strict=True)]))


def probe_all(
    model: Network,
    label_scores: Mapping[str, LabelScore],
    params: PyTree,
    states: States,
    images: Images,
    labels: ImageLabels,
    batch: int = PROBED,
) -> tuple[States, ImageLabels]:
    """Score states after a probe of all images without augmentation, and the predicted classes.

    Args:
        model: segmentation network.
        label_scores: label scores by name.
        params: parameters of the network.
        states: score states before the probe; donated.
        images: images to probe.
        labels: their labels, which may be wrong.
        batch: number of images probed at once.
    """
    trackers, gradients = scores.trackers(label_scores), scores.required_gradients(label_scores)
    predictions = []
    for k in range(0, len(images), batch):
        part = slice(k, k + batch)
        index = jnp.arange(k, min(k + batch, len(images)))
        states, own = _probed(model, trackers, gradients, params, states, index, images[part], labels[part])
        predictions.append(np.asarray(own))
    return states, np.concatenate(predictions)


def batches(
    seed: int,
    images: Images,
    labels: ImageLabels | Float[np.ndarray, "image *space class"],
    weight: Float[np.ndarray, " image"],
    batch: int,
) -> Batches:
    """Batches of images by number, shuffled anew each epoch; `weight` is each image's in the loss, `batch` their size.

    Where epochs join, the index of an image's second copy in a batch is beyond all images: JAX drops its score update.
    """
    arrays: tuple[Any, ...] = (images, labels, weight, np.arange(len(images), dtype=np.int32))
    data = Batch(*arrays)
    batch_of = from_arrays(data, batch, seed)

    def unique(number: int) -> Batch:
        found = batch_of(number)
        first = np.isin(np.arange(batch), np.unique(found.index, return_index=True)[1])
        return found._replace(index=np.where(first, found.index, len(images)).astype(np.int32))

    return unique


# ── separate and in-step probes: (training state, score states, predictions) at every snapshot ──


class _Training(NamedTuple):
    """What a training needs but for its state."""

    seed: int
    model: Any
    images: Any
    labels: Any
    weight: Any
    settings: TrainingSettings
    mesh: Mesh | None

    def loop(self, algorithm: Algorithm, start: Any, step: int, every: int) -> Iterator[tuple[Any, Any]]:
        """States and Infos after each `every` steps from `step` on."""
        inputs = batches(self.seed, self.images, self.labels, self.weight, self.settings.batch)
        method, start = on_mesh(self.mesh, algorithm, start)
        check = require_finite_loss  # not the state: a score may be infinite at first
        left = self.settings.steps - step
        return iterate.loop(method, start, left, inputs=inputs, every=every, check=check, donate=True)


def _separate(
    one: _Training, chosen: Any, train: TrainState, states: States
) -> Iterator[tuple[TrainState, States, np.ndarray]]:
    states = states if one.mesh is None else replicate(one.mesh, states)  # those of a checkpoint are on one device
    algorithm = dynamics.algorithm(one.model, one.settings)
    for now, _ in one.loop(algorithm, train, int(train.step), one.settings.probe_every):
        states, predictions = probe_all(one.model, chosen, now.params, states, one.images, one.labels)
        yield now, states, predictions


def _in_step(
    one: _Training, chosen: Any, train: TrainState, states: States
) -> Iterator[tuple[TrainState, States, np.ndarray]]:
    algorithm = dynamics.tracking_algorithm(one.model, one.settings, scores.trackers(chosen))
    for now, _ in one.loop(algorithm, algorithm.init(train, states), int(train.step), one.settings.probe_every):
        yield now.train, now.states, predict(one.model, now.train.params, one.images)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _probed(
    model: Network,
    trackers: Trackers,
    gradients: tuple[str, ...],
    params: PyTree,
    states: States,
    index: Array,
    images: Array,
    labels: Array,
) -> tuple[States, Array]:
    """Score states after a probe of these images, and the predicted classes."""
    seen = probe(partial(finest_logits, model), params, images, labels, gradients)
    return scores.update(trackers, states, index, seen), jnp.argmax(seen.logits, axis=-1)


@partial(jax.jit, static_argnums=0)
def _classes(model: Network, params: PyTree, images: Array) -> Array:
    return jnp.argmax(finest_logits(model, params, images), axis=-1)
