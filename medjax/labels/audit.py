"""Train a network on labels as they are, and read from its training dynamics which labels are suspect.

    for snapshot in training_dynamics(seed, model, images, labels, settings):       probes, `settings.every` steps apart
        scores.evaluate(scores.built_in(), snapshot.states, labels)["vog"]       high: suspect
        snapshot.memorization            early learning has ended: now is the time to ask

The network is any segmentation Model; none is built here. Images are `(image, *space, channel)` in about 0 … 1, labels
class numbers. From any snapshot training can go on with other labels and other weights of images
(`continue_training`), as if they had been given from then on.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from medjax import iterate
from medjax.labels import dynamics, scores
from medjax.labels.checks import ImageLabels, Images, check_network, check_run
from medjax.labels.dynamics import Batch, Settings
from medjax.labels.followed import Snapshot, advance, begin, snapshot
from medjax.labels.probe import probe
from medjax.labels.scores import LabelScore, States, Trackers
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network, finest_logits
from medjax.training.batches import Batches, from_arrays
from medjax.training.state import TrainState, require_finite_loss

__all__ = ["Snapshot", "check_network", "continue_training", "predict", "segmentation_dice", "training_dynamics"]


def training_dynamics(
    seed: int,
    model: Network,
    images: Images,
    labels: ImageLabels,
    settings: Settings,
    label_scores: Mapping[str, LabelScore] | None = None,
    probe: Literal["separate", "riding"] = "separate",
    checkpoints: Path | None = None,
) -> Iterator[Snapshot]:
    """Snapshots of a training on `labels`, which goes on in the memory of what was yielded: copy what you keep.

    Args:
        label_scores: what to keep track of; default: all built-in scores that `probe` allows.
        probe: "separate" looks at every image as it is, `settings.every` steps apart, by the parameters of that step.
            "riding" takes the training steps' own backward passes, see `dynamics`: only gradients of the loss.
        checkpoints: a folder for this run alone. Training and scores are kept there at every snapshot; called again,
            it yields the last of them once more and goes on to the same bits.

    Raises:
        ConfigError: a score needs gradients that it does not name or that riding probes do not have.
        DataError: images that the network does not take, fewer than a batch, labels beyond `settings.classes`, images
            outside 0 … 1 (augmentation would cut them), or a loss that is not finite.
        WorkdirError: `checkpoints` holds another run: of another seed, data, settings or scores.
    """
    chosen = check_run(model, images, labels, settings, label_scores, probe)
    run, resumed = begin(seed, model, images, labels, settings, chosen, probe, checkpoints)
    if resumed:
        yield snapshot(run, settings)
    probed = _riding if probe == "riding" else _separate
    for train, states, predictions in probed(seed, model, images, labels, settings, chosen, run.train, run.scores):
        run = advance(run, train, states, predictions, labels, checkpoints)
        yield snapshot(run, settings)


def continue_training(
    seed: int,
    model: Network,
    state: TrainState,
    images: Images,
    labels: ImageLabels | Float[np.ndarray, "image *space class"],
    weight: Float[np.ndarray, " image"],
    settings: Settings,
) -> TrainState:
    """The state at the end, trained from `state` on with these labels and weights, in the batches of the first run."""
    return iterate.last(_train(seed, model, images, labels, weight, settings, state, settings.steps), state)


def predict(model: Network, params: PyTree, images: Images, batch: int = 32) -> ImageLabels:
    """The class of every voxel."""
    parts = [_classes(model, params, images[k : k + batch]) for k in range(0, len(images), batch)]
    return np.concatenate([np.asarray(part) for part in parts])


def segmentation_dice(model: Network, state: TrainState, images: Images, labels: ImageLabels) -> float:
    """Mean over images of the mean Dice of the structures, by the averaged parameters."""
    predictions = predict(model, state.ema_params, images)
    return float(np.mean([mean_dice(one, true) for one, true in zip(predictions, labels, strict=True)]))


def probe_all(
    model: Network,
    label_scores: Mapping[str, LabelScore],
    params: PyTree,
    states: States,
    images: Images,
    labels: ImageLabels,
    batch: int = 32,
) -> tuple[States, ImageLabels]:
    """The scores' states after a look at every image as it is, and the network's predictions; `states` are used up."""
    trackers, readings = scores.trackers(label_scores), scores.readings_of(label_scores)
    predictions = []
    for k in range(0, len(images), batch):
        part = slice(k, k + batch)
        index = jnp.arange(k, min(k + batch, len(images)))
        states, own = _probed(model, trackers, readings, params, states, index, images[part], labels[part])
        predictions.append(np.asarray(own))
    return states, np.concatenate(predictions)


def batches_of(
    seed: int,
    images: Images,
    labels: ImageLabels | Float[np.ndarray, "image *space class"],
    weight: Float[np.ndarray, " image"],
    batch: int,
) -> Batches:
    """Batch n; an image that is there twice, where epochs join, has its second number beyond all images.

    JAX drops updates there, so that each update of the scores sees an image once.
    """
    arrays: tuple[Any, ...] = (images, labels, weight, np.arange(len(images), dtype=np.int32))
    data = Batch(*arrays)
    drawn = from_arrays(data, batch, seed)

    def unique(number: int) -> Batch:
        found = drawn(number)
        first = np.isin(np.arange(batch), np.unique(found.index, return_index=True)[1])
        return found._replace(index=np.where(first, found.index, len(images)).astype(np.int32))

    return unique


# ── the two ways to probe: (training, states of the scores, predictions) at every snapshot ──


def _separate(
    seed: int, model: Any, images: Any, labels: Any, s: Settings, chosen: Any, train: TrainState, states: States
) -> Iterator[tuple[TrainState, States, np.ndarray]]:
    weight = np.ones(len(images), np.float32)
    for now, _ in _train(seed, model, images, labels, weight, s, train, s.every):
        states, predictions = probe_all(model, chosen, now.params, states, images, labels)
        yield now, states, predictions


def _riding(
    seed: int, model: Any, images: Any, labels: Any, s: Settings, chosen: Any, train: TrainState, states: States
) -> Iterator[tuple[TrainState, States, np.ndarray]]:
    method = dynamics.riding_algorithm(model, s, scores.trackers(chosen))
    weight = np.ones(len(images), np.float32)
    batches = batches_of(seed, images, labels, weight, s.batch)
    steps = s.steps - int(train.step)
    start = method.init(train, states)
    check = require_finite_loss  # not the state: a score may start from infinity
    for now, _ in iterate.loop(method, start, steps, inputs=batches, every=s.every, check=check, donate=True):
        yield now.train, now.states, predict(model, now.train.params, images)


def _train(
    seed: int, model: Any, images: Any, labels: Any, weight: Any, s: Settings, state: TrainState, every: int
) -> Iterator[tuple[TrainState, Any]]:
    batches = batches_of(seed, images, labels, weight, s.batch)
    steps = s.steps - int(state.step)
    return iterate.loop(
        dynamics.algorithm(model, s), state, steps, inputs=batches, every=every, check=require_finite_loss, donate=True
    )


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _probed(
    model: Network,
    trackers: Trackers,
    readings: tuple[str, ...],
    params: PyTree,
    states: States,
    index: Array,
    images: Array,
    labels: Array,
) -> tuple[States, Array]:
    """The scores' states after a look at these images by the parameters as they are, and the classes predicted."""
    seen = probe(partial(finest_logits, model), params, images, labels, readings)
    return scores.update(trackers, states, index, seen), jnp.argmax(seen.logits, axis=-1)


@partial(jax.jit, static_argnums=0)
def _classes(model: Network, params: PyTree, images: Array) -> Array:
    return jnp.argmax(finest_logits(model, params, images), axis=-1)
