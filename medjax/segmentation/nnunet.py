"""nnU-Net's training and prediction, on arrays in memory.

    p = plan(fingerprint(cases, classes=3))                 cases: [Case(volume, labels, spacing in mm), ...]
    ready = [prepare(case, p) for case in cases]
    for training, validation in folds(len(cases)):
        fold = train_fold([ready[i] for i in training], [ready[i] for i in validation], p)
        networks.append(fold.state.params)                  the last ones, as nnU-Net; fold.best has the best
    said = predict_case(networks, volume, spacing, p)       said.labels on the volume's own grid

A fold is a pytree of arrays: what `report` gets after an epoch can be saved, and given back as `state` it goes on, bit
for bit. Nothing here reads or writes files.

Source: Isensee et al., Nature Methods 18, 2021; the values are those of nnU-Net v2's trainer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.errors import DataError
from medjax.metrics.overlap import overlap
from medjax.models.plain_unet import plain_unet
from medjax.segmentation.components import keep_largest
from medjax.segmentation.patches import Batches, Prepared, patches, prepared_image
from medjax.segmentation.plan import Plan
from medjax.segmentation.resample import Spacing, logits_resampled, restored
from medjax.segmentation.sliding_window import predict
from medjax.training.augment_volumes import Augmentation, augment, for_plan, source_patch
from medjax.training.batches import read_ahead
from medjax.training.loop import training as train
from medjax.training.losses import deep_supervision, dice_ce
from medjax.training.old_state import TrainState, init, make_train_step

MOMENTUM, WEIGHT_DECAY, CLIP, EXPONENT = 0.99, 3e-5, 12.0, 0.9
VALIDATED = 5  # steps of training for one batch of validation
FORGETTING = 0.1  # of the pseudo-Dice's average, each epoch


class Fold(NamedTuple):
    """A fold between two epochs."""

    state: TrainState
    best: PyTree  # the parameters whose average pseudo-Dice was the best
    ema: Float[Array | np.ndarray, ""]  # average pseudo-Dice, NaN before the first epoch
    best_ema: Float[Array | np.ndarray, ""]


class Prediction(NamedTuple):
    """What networks say of an image, on its own grid."""

    labels: Int[np.ndarray, "x y z"]
    probabilities: Float[np.ndarray, "x y z class"]


class _Tools(NamedTuple):
    step: Any  # not jitted: the loop does it
    count: Any


def folds(
    count: int, seed: int = 0, number: int = 5
) -> list[tuple[Int[np.ndarray, " training"], Int[np.ndarray, " validation"]]]:
    """(training, validation) cases of each fold, sorted: every case validates one fold, sizes differ by 1 at most.

    Raises:
        DataError: fewer cases than folds, or fewer than 2 folds.
    """
    if not 2 <= number <= count:
        raise DataError(f"folds: {number} of {count} cases; expected 2 folds or more, and a case for each")
    parts = np.array_split(np.random.default_rng(seed).permutation(count), number)
    return [(np.setdiff1d(np.arange(count), part), np.sort(part)) for part in parts]


def train_fold(
    training: Sequence[Prepared],
    validation: Sequence[Prepared],
    plan: Plan,
    *,
    seed: int = 0,
    epochs: int = 1000,
    iterations: int = 250,
    rate: float = 0.01,
    augmentation: Augmentation | None = None,
    state: Fold | None = None,
    report: Callable[[Fold, dict[str, float | int]], Any] = lambda fold, values: None,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Fold:
    """The fold after `epochs` of `iterations` steps, from the start or from `state` on.

    Stochastic gradient descent with Nesterov momentum 0.99, weight decay 3e-5, gradients clipped to a norm of 12; epoch
    e has the rate `rate` (1 − e / epochs)^0.9. After each epoch patches of the validation cases give a pseudo-Dice, the
    mean over structures of 2 TP / (2 TP + FP + FN) of all patches' voxels together, and its average (0.9 old, 0.1 new)
    decides on what is best. `report` gets the fold, whose memory the next step reuses (copy what you keep), and epoch,
    step, loss, pseudo_dice and ema. `progress` wraps the range of steps.

    Raises:
        DataError: no case, a case of another make than the plan's, epochs or iterations below 1, or a loss that is not
            finite: the message has the step, and what was reported last is the last good state.
    """
    if epochs < 1 or iterations < 1:
        raise DataError(f"train_fold: {epochs} epochs of {iterations} iterations; expected 1 or more of each")
    settings = for_plan(plan.patch, plan.flat_axis) if augmentation is None else augmentation
    tools = _tools(plan, epochs, iterations, rate, settings._replace(patch=plan.patch))
    source = source_patch(settings, plan.patch)
    batches = patches(training, source, plan.patch, plan.batch, (seed, 0))
    unseen = patches(validation, plan.patch, plan.patch, plan.batch, (seed, 1))
    fold = start(seed, plan) if state is None else jax.tree.map(jnp.asarray, state)
    steps = range(int(fold.state.step), epochs * iterations)
    with read_ahead(batches) as ahead:
        for now, values in train(jax.random.key(seed), tools.step, fold.state, ahead, progress(steps), iterations):
            epoch = int(now.step) // iterations
            dice = _pseudo_dice(tools, now.params, unseen, epoch - 1, max(iterations // VALIDATED, 1))
            fold = _judged(fold, now, dice)
            report(fold, {**values, "epoch": epoch, "pseudo_dice": dice, "ema": float(fold.ema)})
    return fold


def start(seed: int, plan: Plan, params: PyTree | None = None) -> Fold:
    """The fold before its first epoch, from random parameters or from those of another task; what to restore `like`."""
    if params is None:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        model = plain_unet(plan.classes, plan.widths, plan.kernels, plan.strides)
        params = model.init(key, jnp.zeros((1, *plan.patch, len(plan.channels))))
    unknown = jnp.asarray(jnp.nan, jnp.float32)
    return Fold(init(params, _optimiser(lambda count: 0.0)), params, unknown, unknown)


def predict_case(
    params: Sequence[PyTree],
    image: Float[np.ndarray, "x y z channel"],
    spacing: Spacing,
    plan: Plan,
    *,
    step: float = 0.5,
    mirror: tuple[int, ...] = (0, 1, 2),
    keep: int | Mapping[int, int] | None = None,
    batch: int = 1,
) -> Prediction:
    """Labels and probabilities of every voxel of the image, by one network or several of one plan.

    Cropped, scaled and resampled as in training; the mean logits of the networks in overlapping tiles, `step` tiles
    apart, mirrored along `mirror` and averaged; interpolated back linearly, then the softmax. Outside the crop all is
    background. `keep` says how many components of the structures stay (`keep_largest`), None all; probabilities are as
    they were.

    Raises:
        DataError: no network, an image of other channels than planned, NaN, or every voxel 0.
    """
    ready, box = prepared_image(image, spacing, plan)
    model = plain_unet(plan.classes, plan.widths, plan.kernels, plan.strides, deep=False)
    logits = np.asarray(predict(model.apply, params, ready, plan.patch, step, mirror, batch))
    x, y, z = image[box].shape[:3]
    logits = logits_resampled(logits, plan.spacing, spacing, (x, y, z))
    shares = np.asarray(jax.nn.softmax(logits))
    background = np.eye(plan.classes, dtype=np.float32)[0]
    probabilities = restored(shares, box, image.shape[:3], background)
    labels = probabilities.argmax(-1).astype(np.int32)
    return Prediction(labels if keep is None else keep_largest(labels, keep), probabilities)


def adopted(
    predictions: Sequence[Int[np.ndarray, "..."]],
    references: Sequence[Int[np.ndarray, "..."]],
    classes: int,
    count: int = 1,
) -> dict[int, int]:
    """{class: count} of each structure whose mean Dice rises where its `count` largest components alone are kept.

    For a cross-validation's predictions; cases in which neither has the structure are left out. What comes back suits
    `keep` of `predict_case`. Of paired organs the largest component is one of two: use count 2.
    """
    chosen = dict[int, int]()
    for kind in range(1, classes):
        plain = _mean_dice(predictions, references, kind)
        kept = _mean_dice([keep_largest(one, {kind: count}) for one in predictions], references, kind)
        if kept > plain:
            chosen[kind] = count
    return chosen


def case_dice(
    prediction: Int[np.ndarray, "*space"], reference: Int[np.ndarray, "*space"], classes: int
) -> Float[np.ndarray, " structure"]:
    """Dice of each class above 0; NaN where neither has it."""
    return np.asarray(overlap(prediction, reference, classes).dice)[1:]


@lru_cache(maxsize=8)
def _tools(plan: Plan, epochs: int, iterations: int, rate: float, settings: Augmentation) -> _Tools:
    """The same plan and settings give the same functions, so that what is compiled for them is kept."""
    net = (plan.classes, plan.widths, plan.kernels, plan.strides)
    levels = plain_unet(*net).apply
    finest = plain_unet(*net, deep=False).apply
    dice = partial(dice_ce, batch=plan.batch_dice)

    def loss(params: PyTree, batch: tuple[Array, Array], key: Array) -> Scalar:
        images, labels = batch
        keys = jax.random.split(key, len(images))
        moved, named = jax.vmap(partial(augment, settings=settings))(keys, images, labels)
        return jnp.mean(deep_supervision(levels(params, moved), named, plan.strides, dice))

    def count(params: PyTree, images: Array, labels: Array) -> Array:
        """Voxels of each structure that are right, said and true."""
        said = jax.nn.one_hot(jnp.argmax(finest(params, images), axis=-1), plan.classes)
        true = jax.nn.one_hot(labels, plan.classes)
        space = tuple(range(labels.ndim))
        return jnp.stack([jnp.sum(one, axis=space) for one in (said * true, said, true)])[:, 1:]

    def rate_of(step: Array) -> Array:
        return rate * (1 - (step // iterations) / epochs) ** EXPONENT

    return _Tools(make_train_step(loss, _optimiser(rate_of)), jax.jit(count))


def _optimiser(rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.add_decayed_weights(WEIGHT_DECAY),
        optax.sgd(rate, momentum=MOMENTUM, nesterov=True),
    )


def _pseudo_dice(tools: _Tools, params: PyTree, batches: Batches, epoch: int, number: int) -> float:
    """Mean over the structures that were met; NaN if none was. Every epoch has patches of its own."""
    both, said, true = np.sum(
        [jax.device_get(tools.count(params, *batches(epoch * number + k))) for k in range(number)], axis=0, dtype=float
    )
    met = said + true > 0
    return float(np.mean(2 * both[met] / (said + true)[met])) if met.any() else np.nan


def _judged(fold: Fold, now: TrainState, dice: float) -> Fold:
    old, best = float(fold.ema), float(fold.best_ema)
    ema = dice if np.isnan(old) else old if np.isnan(dice) else (1 - FORGETTING) * old + FORGETTING * dice
    if np.isnan(ema) or not ema <= best:
        return Fold(now, jax.tree.map(jnp.array, now.params), jnp.float32(ema), jnp.float32(ema))
    return Fold(now, fold.best, jnp.float32(ema), fold.best_ema)


def _mean_dice(predictions: Sequence[np.ndarray], references: Sequence[np.ndarray], kind: int) -> float:
    pairs = [(said == kind, true == kind) for said, true in zip(predictions, references, strict=True)]
    scores = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if a.any() or b.any()]
    return float(np.mean(scores)) if scores else np.nan
