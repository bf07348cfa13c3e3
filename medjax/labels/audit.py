"""Train a network on labels as they are, and read from its training dynamics which labels are suspect.

    for snapshot in training_dynamics(seed, model, images, labels, settings):       probes, `settings.every` steps apart
        scores.evaluate(scores.built_in(), snapshot.states, labels)["vog"]       high: suspect
        snapshot.memorization            early learning has ended: now is the time to ask

The network is any segmentation Model; none is built here. Images are `(image, *space, channel)` in about 0 … 1, labels
class numbers. From any snapshot training can go on with other labels and other weights of images
(`continue_training`), as if they had been given from then on.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from medjax import iterate
from medjax.errors import ConfigError, DataError, WorkdirError
from medjax.labels import dynamics, scores
from medjax.labels.dynamics import Batch, Settings
from medjax.labels.probe import Probe, image_losses, probe
from medjax.labels.refurbish import end_of_early_learning
from medjax.labels.scores import LabelScore, States, Trackers
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network, finest_logits
from medjax.training.batches import Batches, from_arrays
from medjax.training.checkpoint import restore, save
from medjax.training.state import TrainState, require_finite_loss

RIDING = ("loss",)  # the gradients that a training step has anyway
Images = Float[np.ndarray, "image *space channel"]
ImageLabels = Int[np.ndarray, "image *space"]


class Snapshot(NamedTuple):
    """The training after a probe of all images."""

    state: TrainState
    states: States  # of the scores, for `scores.evaluate`
    agreement: float  # mean Dice of the network's predictions with the labels it was given
    memorization: bool  # early learning has ended, or the latest step is reached


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
    chosen = _chosen(label_scores, probe)
    _check_data(images, labels, settings)
    check_network(model, images, settings.classes)
    _check_scores(chosen, labels, settings.classes)
    snapshots = _riding if probe == "riding" else _separate
    train = dynamics.algorithm(model, settings).init(jax.random.key(seed), images)
    kept: dict[str, Any] = {
        "train": train,
        "scores": scores.init(chosen, len(images), labels.shape[1:]),
        "agreement": np.full(-(-settings.steps // settings.every), np.nan),
        "run": {} if checkpoints is None else _fingerprint(seed, images, labels, settings, probe, chosen),
    }
    if checkpoints is not None and (found := restore(checkpoints, kept)) is not None:
        _check_run(checkpoints, found[1]["run"], kept["run"])
        kept = found[1]
        yield _snapshot(kept, settings)
    run = snapshots(seed, model, images, labels, settings, chosen, kept["train"], kept["scores"])
    for kept["train"], kept["scores"], predictions in run:
        agreement = [mean_dice(one, given) for one, given in zip(predictions, labels, strict=True)]
        kept["agreement"] = np.array(kept["agreement"])
        kept["agreement"][np.isnan(kept["agreement"]).argmax()] = np.mean(agreement)
        if checkpoints is not None:
            save(checkpoints, int(kept["train"].step), kept, keep=1)
        yield _snapshot(kept, settings)


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


def check_network(model: Network, images: Images, classes: int) -> None:
    """Pass a network that gives logits of these classes for these images; nothing is computed.

    Raises:
        DataError: it does not take images of that size, or gives something else.
    """
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), one)
        found = jax.eval_shape(partial(finest_logits, model), params, one)
    except Exception as error:  # whatever a user's network raises
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise DataError(f"the network does not take images of {images.shape[1:]} (space, channel): {reason}") from error
    shape, wanted = getattr(found, "shape", f"a {type(found).__name__}"), (1, *images.shape[1:-1], classes)
    if shape != wanted:
        raise DataError(f"the network gives {shape} for an image of {images.shape[1:]}; expected {wanted}")


# ── the two ways to probe: (training, states of the scores, predictions) at every snapshot ──


def _separate(
    seed: int, model: Any, images: Any, labels: Any, s: Settings, chosen: Any, train: TrainState, states: States
) -> Iterator[tuple[TrainState, States, np.ndarray]]:
    trackers, readings = scores.trackers(chosen), scores.readings_of(chosen)
    weight, size = np.ones(len(images), np.float32), 32
    for now, _ in _train(seed, model, images, labels, weight, s, train, s.every):
        predictions = []
        for k in range(0, len(images), size):
            part = slice(k, k + size)
            index = jnp.arange(k, min(k + size, len(images)))
            states, own = _probed(model, trackers, readings, now.params, states, index, images[part], labels[part])
            predictions.append(np.asarray(own))
        yield now, states, np.concatenate(predictions)


def _riding(
    seed: int, model: Any, images: Any, labels: Any, s: Settings, chosen: Any, train: TrainState, states: States
) -> Iterator[tuple[TrainState, States, np.ndarray]]:
    method = dynamics.riding_algorithm(model, s, scores.trackers(chosen))
    weight = np.ones(len(images), np.float32)
    batches = _batches(seed, images, labels, weight, s)
    steps = s.steps - int(train.step)
    start = method.init(train, states)
    check = require_finite_loss  # not the state: a score may start from infinity
    for now, _ in iterate.loop(method, start, steps, inputs=batches, every=s.every, check=check, donate=True):
        yield now.train, now.states, predict(model, now.train.params, images)


def _train(
    seed: int, model: Any, images: Any, labels: Any, weight: Any, s: Settings, state: TrainState, every: int
) -> Iterator[tuple[TrainState, Any]]:
    batches = _batches(seed, images, labels, weight, s)
    steps = s.steps - int(state.step)
    return iterate.loop(
        dynamics.algorithm(model, s), state, steps, inputs=batches, every=every, check=require_finite_loss, donate=True
    )


def _batches(seed: int, images: Any, labels: Any, weight: Any, s: Settings) -> Batches:
    """Batch n; an image that is there twice, where epochs join, has its second number beyond all images.

    JAX drops updates there, so that each update of the scores sees an image once.
    """
    numbers: Any = np.arange(len(images), dtype=np.int32)
    data = Batch(images, labels, weight, numbers)
    batches = from_arrays(data, s.batch, seed)

    def unique(number: int) -> Batch:
        batch = batches(number)
        first = np.isin(np.arange(s.batch), np.unique(batch.index, return_index=True)[1])
        return batch._replace(index=np.where(first, batch.index, len(images)).astype(np.int32))

    return unique


def _snapshot(kept: dict[str, Any], s: Settings) -> Snapshot:
    known = np.asarray(kept["agreement"])
    known = known[~np.isnan(known)]
    late = int(kept["train"].step) >= s.latest
    return Snapshot(kept["train"], kept["scores"], float(known[-1]), end_of_early_learning(known) or late)


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


# ── checks ──


def _check_data(images: np.ndarray, labels: np.ndarray, s: Settings) -> None:
    if len(images) < s.batch:
        raise DataError(f"{len(images)} images; expected at least a batch of {s.batch}")
    if labels.min() < 0 or labels.max() >= s.classes:
        raise DataError(f"labels from {labels.min()} to {labels.max()}; expected 0 to {s.classes - 1}")
    if not (images.min() >= -0.01 and images.max() <= 1.01):
        raise DataError(f"images from {images.min():.3g} to {images.max():.3g}; expected about 0 to 1")


def _chosen(label_scores: Mapping[str, LabelScore] | None, kind: str) -> dict[str, LabelScore]:
    if label_scores is None:
        return scores.built_in(readings=RIDING) if kind == "riding" else scores.built_in()
    lacking = [name for name, score in label_scores.items() if not set(score.readings) <= set(RIDING)]
    if kind == "riding" and lacking:
        wanted = sorted(set(scores.readings_of({name: label_scores[name] for name in lacking})) - set(RIDING))
        raise ConfigError(
            f"scores {', '.join(lacking)} need the gradients {', '.join(wanted)}; riding probes have {RIDING[0]} only"
        )
    return dict(label_scores)


def _check_scores(chosen: Mapping[str, LabelScore], labels: np.ndarray, classes: int) -> None:
    """Trace every score once, with the gradients that it names."""
    one, space = (1, *labels.shape[1:]), labels.shape[1:]

    def updated(score: LabelScore) -> Any:
        outputs, given = jnp.zeros((*one, classes)), jnp.zeros(one, jnp.int32)
        gradients = {name: jnp.zeros(one) for name in score.readings}
        seen = Probe(outputs, given, image_losses(outputs, given), gradients)
        return score.update(score.init(len(labels), space), jnp.zeros(1, jnp.int32), seen)

    for name, score in chosen.items():
        try:
            jax.eval_shape(partial(updated, score))
        except KeyError as error:
            raise ConfigError(
                f"score {name} looks at {error} of a probe; expected some of its readings {score.readings}"
            ) from error


def _fingerprint(
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


def _check_run(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, np.ndarray]) -> None:
    other = [name for name, digest in wanted.items() if not np.array_equal(found[name], digest)]
    if other:
        raise WorkdirError(f"{folder} holds another run: other {', '.join(other)}; delete it or give another folder")
