"""Train a U-Net on labels as they are and look at every image's label while it goes on.

    for moment in watch(seed, images, labels, settings):      probes, `settings.every` steps apart
        scores.scores(moment.log, labels)["vog"]           high: suspect
        moment.turned                                         it has stopped learning fast: now is the time to ask

Images are `(image, *space, channel)` in about 0 … 1, labels class numbers. From any moment training can go on with
other labels and other weights of images (`go_on`), as if they had been given from then on.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.errors import DataError
from medjax.labels import scores
from medjax.labels.probe import probe
from medjax.labels.refurbish import turning_point
from medjax.metrics.overlap import mean_dice
from medjax.models.unet import unet
from medjax.training.augment import Augmentation, augment
from medjax.training.batches import from_arrays
from medjax.training.loop import training
from medjax.training.losses import dice_cross_entropy
from medjax.training.old_state import TrainState, init, make_train_step


class Settings(NamedTuple):
    """Network and training. Hashable, for it decides what is compiled."""

    classes: int
    widths: tuple[int, ...] = (16, 32, 64, 96)
    rate: float = 5e-3
    batch: int = 16
    steps: int = 400
    every: int = 25  # steps between probes
    latest: int = 200  # step by which the labels are judged at the latest
    decay: float = 0.98  # of the parameters' average
    pool: int = 1  # blocks of places that share a VOG, to save memory: 12 maps an image are kept
    dtype: Any = jnp.float32  # of those maps
    cycles: int = 0  # of the learning rate, each from `rate` to 0, as O2U-Net wants; 0: warm-up and one cosine

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this."""
        return 2 ** (len(self.widths) - 1)


class Moment(NamedTuple):
    """A probe of all images."""

    state: TrainState
    log: scores.Log
    agreement: float  # mean Dice of what the network says with the labels it was given
    turned: bool


class _Tools(NamedTuple):
    initialise: Any
    apply: Any
    optimiser: Any
    step: Any  # not jitted: the loop does it
    look: Any
    predict: Any


def watch(
    seed: int, images: Float[np.ndarray, "image *space channel"], labels: Int[np.ndarray, "image *space"], s: Settings
) -> Iterator[Moment]:
    """Probes of a run on `labels`, which goes on in the memory of what was yielded, state and log: copy what you keep.

    Raises:
        DataError: sides that the network cannot halve, fewer images than a batch, labels beyond `s.classes`, images
            outside 0 … 1 (augmentation would cut them), or a loss that is not finite.
    """
    if any(side % s.multiple for side in images.shape[1:-1]):
        raise DataError(f"images of {images.shape[1:-1]}; {len(s.widths)} levels need multiples of {s.multiple}")
    if len(images) < s.batch:
        raise DataError(f"{len(images)} images; expected at least a batch of {s.batch}")
    if labels.min() < 0 or labels.max() >= s.classes:
        raise DataError(f"labels from {labels.min()} to {labels.max()}; expected 0 to {s.classes - 1}")
    if not (images.min() >= -0.01 and images.max() <= 1.01):
        raise DataError(f"images from {images.min():.3g} to {images.max():.3g}; expected about 0 to 1")
    log, agreement = scores.init(len(images), labels.shape[1:], s.pool, s.dtype), list[float]()
    for state in _run(seed, images, labels, None, s, start(seed, images, s), s.every):
        log, given = _probed(state, log, images, labels, s)
        agreement.append(given)
        yield Moment(state, log, given, turning_point(agreement) or int(state.step) >= s.latest)


def go_on(
    seed: int,
    state: TrainState,
    images: Float[np.ndarray, "image *space channel"],
    labels: Int[np.ndarray, "image *space"] | Float[np.ndarray, "image *space class"],
    weight: Float[np.ndarray, " image"],
    s: Settings,
) -> TrainState:
    """The state at the end, trained from `state` on with these labels and weights, in the batches of the first run."""
    return next(_run(seed, images, labels, weight, s, state, s.steps), state)


def start(seed: int, images: Float[np.ndarray, "image *space channel"], s: Settings) -> TrainState:
    """The state before the first step."""
    tools = _tools(s)
    return init(tools.initialise(jax.random.key(seed), jnp.asarray(images[:1])), tools.optimiser)


def predicted(
    params: PyTree, images: Float[np.ndarray, "image *space channel"], s: Settings, batch: int = 32
) -> Int[np.ndarray, "image *space"]:
    """The class of every place."""
    parts = [_tools(s).predict(params, jnp.asarray(images[k : k + batch])) for k in range(0, len(images), batch)]
    return np.concatenate([np.asarray(part) for part in parts])


def network(s: Settings) -> Any:
    """apply(params, images) → logits."""
    return _tools(s).apply


def _run(
    seed: int, images: Any, labels: Any, weight: Any, s: Settings, state: TrainState, every: int
) -> Iterator[TrainState]:
    weight = np.ones(len(images), np.float32) if weight is None else weight
    batches = from_arrays((images, labels, weight), s.batch, seed)
    steps = range(int(state.step), s.steps)
    for now, _ in training(jax.random.key(seed), _tools(s).step, state, batches, steps, every):
        yield now


def _probed(state: TrainState, log: scores.Log, images: Any, labels: Any, s: Settings, batch: int = 32) -> Any:
    """One look at every image, by the parameters as they are; and the Dice of what they say with the labels."""
    said = []
    for k in range(0, len(images), batch):
        rows = jnp.arange(k, min(k + batch, len(images)))
        log, own = _tools(s).look(state.params, log, rows, images[k : k + batch], labels[k : k + batch])
        said.append(np.asarray(own))
    pairs = zip(np.concatenate(said), labels, strict=True)
    return log, float(np.mean([mean_dice(one, given) for one, given in pairs]))


def _cyclic(rate: float, steps: int, count: Any) -> Any:
    """From `rate` to 0 in so many steps, again and again."""
    return rate * (1 - (count % steps) / steps)


@lru_cache(maxsize=8)
def _tools(s: Settings) -> _Tools:
    """The same settings give the same functions, so that what is compiled for them is kept."""
    model = unet(s.classes, s.widths)
    apply = model.apply
    cosine = optax.warmup_cosine_decay_schedule(0.0, s.rate, max(s.steps // 20, 1), s.steps, s.rate / 50)
    cyclic = partial(_cyclic, s.rate, max(s.steps // max(s.cycles, 1), 1))
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(cyclic if s.cycles else cosine))

    def loss(params: PyTree, batch: tuple[Array, Array, Array], key: Array) -> Scalar:
        images, labels, weight = batch
        keys = jax.random.split(key, len(images))
        moved, named = jax.vmap(partial(augment, settings=Augmentation()))(keys, images, labels)
        return jnp.sum(weight * dice_cross_entropy(apply(params, moved), named)) / jnp.maximum(jnp.sum(weight), 1.0)

    def look(params: PyTree, log: scores.Log, rows: Array, images: Array, labels: Array) -> tuple[Any, Array]:
        return scores.record(log, rows, probe(apply, params, images, labels)), predict(params, images)

    def predict(params: PyTree, images: Array) -> Array:
        return jnp.argmax(apply(params, images), axis=-1)

    step = make_train_step(loss, optimiser, s.decay)
    return _Tools(model.init, apply, optimiser, step, jax.jit(look, donate_argnums=1), jax.jit(predict))
