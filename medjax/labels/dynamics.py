"""Training step of a segmentation network on augmented, weighted images, with or without tracking of label scores.

    algorithm(model, settings)                                  step(TrainState, Batch)
    tracking_algorithm(model, settings, trackers(scores))       step(TrackedState, Batch)

The tracking step trains alike, and continues its one backward pass through the augmentation to the images of the data
set. From that it makes an in-step `Probe` of the batch and updates the scores' states, at little cost:
`scripts/bench_probe.py` measures it. Such a probe has the gradient of the loss alone, each image's at the step that it
is trained on. Its logits, labels and losses are those of the augmented image.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.iterate import Algorithm, static_partial
from medjax.labels.probe import Probe, image_losses
from medjax.labels.scores import States, Trackers, update
from medjax.models.model import Network, finest_logits
from medjax.training.augment import Augmentation, augment
from medjax.training.losses import dice_cross_entropy
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Info, TrainState, apply_gradients, init, trainer

DROPOUT = 2**31 - 1  # folded into a step's key, apart from the keys of the images


class TrainingSettings(NamedTuple):
    """Training hyper-parameters. All but the learning rate is hashed, for it decides what is compiled."""

    classes: int  # number of classes, with background
    learning_rate: float | Scalar = 5e-3  # Adam's peak learning rate; traced: another one compiles nothing anew
    batch: int = 16  # images in a batch
    steps: int = 400  # number of training steps
    probe_every: int = 25  # steps between probes
    latest_judgement: int = 200  # step at which labels are judged if early learning has not ended before
    ema_decay: float = 0.98  # decay of the parameters' moving average
    cycles: int = 0  # learning-rate cycles, each from the peak to 0, as in O2U-Net; 0: warm-up and one cosine
    loss: Callable[[Array, Array], Array] = dice_cross_entropy  # (logits, labels) → (batch,)
    augmentation: Augmentation | None = Augmentation()  # None: no augmentation


class Batch(NamedTuple):
    """Images and labels, their weights in the loss, and their indices in the data set."""

    images: Float[Array, "batch *space channel"]
    labels: Int[Array, "batch *space"] | Float[Array, "batch *space class"]
    weight: Float[Array, " batch"]
    index: Int[Array, " batch"]


class TrackedState(NamedTuple):
    """Training state and the states of the label scores that its steps update."""

    train: TrainState
    states: States

    @property
    def step(self) -> Int[Array, ""]:
        """Steps made."""
        return self.train.step


def algorithm(model: Network, settings: TrainingSettings) -> Algorithm:
    """Training algorithm: init(key, images) → TrainState, step(TrainState, Batch) → TrainState, Info.

    Compiled once for equal models and settings; the learning rate is traced, so that it can be vmapped.
    """
    static, rate = _split(settings)
    return Algorithm(static_partial(_init, model, static), Partial(static_partial(_step, model, static), rate))


def tracking_algorithm(model: Network, settings: TrainingSettings, trackers: Trackers) -> Algorithm:
    """Training with in-step probes: init(train, states) → TrackedState, step(TrackedState, Batch) → it and an Info."""
    static, rate = _split(settings)
    return Algorithm(TrackedState, Partial(static_partial(_tracking_step, model, static, trackers), rate))


def _split(settings: TrainingSettings) -> tuple[TrainingSettings, Scalar]:
    """What is compiled, and the learning rate, which is traced."""
    return settings._replace(learning_rate=0.0), jnp.asarray(settings.learning_rate, jnp.float32)


def _init(model: Network, s: TrainingSettings, key: Array, images: Array | np.ndarray) -> TrainState:
    return init(model.init(key, jnp.asarray(images[:1])), _optimizer(s, s.learning_rate), key)


def _step(
    model: Network, s: TrainingSettings, rate: Scalar, state: TrainState, batch: Batch
) -> tuple[TrainState, Info]:
    def loss(params: PyTree, batch: Batch, key: Array) -> Scalar:
        return _loss(model, s, params, batch.images, batch, key)[0]

    return trainer(loss, _optimizer(s, rate), s.ema_decay).step(state, batch)


def _tracking_step(
    model: Network, s: TrainingSettings, trackers: Trackers, rate: Scalar, state: TrackedState, batch: Batch
) -> tuple[TrackedState, Info]:
    train = state.train
    loss = jax.value_and_grad(partial(_loss, model, s), argnums=(0, 1), has_aux=True)
    now = jax.random.fold_in(train.key, train.step)
    (value, (outputs, labels)), (gradient, pulled) = loss(train.params, batch.images, batch, now)
    losses = image_losses(outputs, labels)
    probe = Probe(outputs, labels, losses, {"loss": loss_maps(pulled, batch.weight)})
    info = Info(value, optax.tree.norm(gradient))
    train = apply_gradients(train, gradient, _optimizer(s, rate), s.ema_decay)
    return TrackedState(train, update(trackers, state.states, batch.index, probe)), info


def loss_maps(
    gradient: Float[Array, "batch *space channel"], weight: Float[Array, " batch"]
) -> Float[Array, "batch *space"]:
    """Loss gradient map of each image, N ∂ℓ / ∂ image of N voxels, from ∂ (Σ_i w_i ℓ_i / Σ_i w_i) / ∂ image.

    It is the gradient of a sum over voxels, mean over channels, as in `probe`; an image of weight 0 has a map of zeros.
    """
    maps = jnp.mean(gradient, axis=-1)
    factor = jnp.where(weight > 0, jnp.maximum(jnp.sum(weight), 1.0) / jnp.where(weight > 0, weight, 1.0), 0.0)
    return maps * (factor * maps[0].size).reshape(-1, *(1,) * (maps.ndim - 1))


def _loss(
    model: Network, s: TrainingSettings, params: PyTree, images: Array, batch: Batch, key: Array
) -> tuple[Scalar, tuple[Array, Array]]:
    """Loss of a batch with these images; and logits and labels of the augmented images."""
    augmented, labels = images, batch.labels
    if s.augmentation is not None:
        keys = jax.random.split(key, len(images))
        augmented, labels = jax.vmap(partial(augment, settings=s.augmentation))(keys, images, labels)
    outputs = finest_logits(model, params, augmented, jax.random.fold_in(key, DROPOUT))
    value = jnp.sum(batch.weight * s.loss(outputs, labels)) / jnp.maximum(jnp.sum(batch.weight), 1.0)
    return value, (outputs, labels)


def _optimizer(s: TrainingSettings, rate: float | Scalar) -> optax.GradientTransformation:
    cosine = warmup_cosine(rate, s.steps, rate / 50)
    cyclic = partial(cyclic_rate, rate, max(s.steps // max(s.cycles, 1), 1))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(cyclic if s.cycles else cosine))


def cyclic_rate(peak: float | Scalar, steps: int, count: Any) -> Any:
    """Cyclic learning rate at step `count`: from `peak` linearly to 0 in `steps` steps, again and again."""
    return peak * (1 - (count % steps) / steps)
