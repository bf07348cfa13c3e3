"""nnU-Net's training with cross-validation, on arrays in memory; its prediction is in `nnunet_predict`.

    p = plan(fingerprint(cases, classes=3))                 cases: [Case(volume, labels, spacing in mm), ...]
    model = plain_unet(p.classes, p.widths, p.kernels, p.strides)           or any other Model of volumes
    prepared = [prepare(case, p) for case in cases]
    for training, validation in folds(len(cases)):
        fold = train_fold(model, [prepared[i] for i in training], [prepared[i] for i in validation], p)
        params.append(fold.state.params)                    the last ones, as nnU-Net; fold.best has the best

or, resumed where it was stopped, params = train_folds(model, cases, p, folder).

A FoldState is a pytree of arrays: the one that `report` gets after an epoch can be saved, and training continues from
it bit for bit. `train_resumable_fold` does so in a folder, `train_folds` for an ensemble; nothing else here reads or
writes files.

Source: Isensee et al., Nature Methods 18, 2021; the values are those of nnU-Net v2's trainer.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Scalar

from medjax import defaults, iterate
from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial
from medjax.models.model import Network, check_network
from medjax.segmentation.patches import PreparedCase, patches, prepare
from medjax.segmentation.plan import Case, Plan
from medjax.segmentation.pseudo_dice import pseudo_dice
from medjax.training import state as training_state
from medjax.training.augment_nnunet import NnunetAugmentation, augment_nnunet, augmentation_for_plan, source_patch
from medjax.training.batches import read_ahead
from medjax.training.checkpoint import restore, save
from medjax.training.losses import NNUNET_LOSS, NNUNET_REGION_LOSS, deep_supervision
from medjax.training.parallel import on_mesh
from medjax.training.state import Info, TrainState, mean_loss, require_finite_loss

MOMENTUM, WEIGHT_DECAY, GRADIENT_CLIP, POLYNOMIAL_EXPONENT = 0.99, 3e-5, 12.0, 0.9
FOLDS = 5
STEPS_PER_VALIDATION = 5  # training steps for one batch of validation
EMA_WEIGHT = 0.1  # weight of the newest pseudo-Dice in its moving average


class FoldState(NamedTuple):
    """Training state of a fold after an epoch, and its best parameters so far."""

    state: TrainState
    best: PyTree  # parameters of the best moving average of the pseudo-Dice
    ema: Float[Array | np.ndarray, ""]  # moving average of the pseudo-Dice, NaN before the first epoch
    best_ema: Float[Array | np.ndarray, ""]  # largest moving average so far


class StepSettings(NamedTuple):
    """Static settings of the compiled training step."""

    epochs: int
    iterations: int  # steps of an epoch
    augmentation: NnunetAugmentation
    batch_dice: bool
    ignore: int | None = None  # class number of voxels that do not count
    regions: tuple[tuple[int, ...], ...] = ()  # classes of each region that the network predicts; (): classes


def folds(
    count: int, seed: int = 0, number: int = FOLDS
) -> list[tuple[Int[np.ndarray, " training"], Int[np.ndarray, " validation"]]]:
    """Cross-validation folds of `count` cases: (training, validation) indices of `number` folds, sorted.

    Every case is in the validation set of one fold; their sizes differ by 1 at most.

    Raises:
        DataError: fewer cases than folds, or fewer than 2 folds.
    """
    if not 2 <= number <= count:
        raise DataError(f"folds: {number} of {count} cases; expected 2 folds or more, and a case for each")
    parts = np.array_split(np.random.default_rng(seed).permutation(count), number)
    return [(np.setdiff1d(np.arange(count), part), np.sort(part)) for part in parts]


def train_fold(
    model: Network,
    training: Sequence[PreparedCase],
    validation: Sequence[PreparedCase],
    plan: Plan,
    *,
    seed: int = 0,
    epochs: int = defaults.SEGMENT_EPOCHS,
    iterations: int = defaults.SEGMENT_ITERATIONS,
    rate: float = defaults.SEGMENT_RATE,
    augmentation: NnunetAugmentation | None = None,
    state: FoldState | None = None,
    report: Callable[[FoldState, dict[str, float | int]], Any] = lambda fold, values: None,
    progress: Callable[[range], Iterable[int]] = iter,
    mesh: Mesh | None = None,
) -> FoldState:
    """Trained fold after `epochs` of `iterations` steps, from random parameters or continued from `state`.

    Stochastic gradient descent with Nesterov momentum 0.99, weight decay 3e-5, gradients clipped to a norm of 12; epoch
    e has the learning rate `rate` (1 − e / epochs)^0.9. After each epoch patches of the validation cases give a
    `pseudo_dice`; the best parameters are those of the highest moving average of it (0.9 old, 0.1 new).

    Args:
        model: gives logits (batch, x, y, z, class) of patches, or a tuple of them, finest first: deep supervision. If
            the plan has regions, logits are of those.
        rate: learning rate of the first epoch.
        augmentation: default: nnU-Net's for the plan's patch and mirror axes.
        state: fold state of an earlier epoch, to continue from.
        report: called after each epoch with the FoldState, whose memory the next step reuses (copy what you keep), and
            epoch, step, loss, pseudo_dice and ema.
        progress: wraps the range of steps.
        mesh: devices among which every batch is divided, see `training.parallel`.

    Raises:
        DataError: no case, a case not prepared for the plan, epochs or iterations below 1, logits of other classes than
            the plan's, or a loss that is not finite, with its step: the last reported state is the last good one.
    """
    if epochs < 1 or iterations < 1:
        raise DataError(f"train_fold: {epochs} epochs of {iterations} iterations; expected 1 or more of each")
    if augmentation is None:
        augmentation = augmentation_for_plan(plan.patch, plan.flat_axis, plan.mirror)
    augmentation = augmentation._replace(patch=plan.patch)
    settings = StepSettings(epochs, iterations, augmentation, plan.batch_dice, plan.ignore, plan.regions)
    batches = patches(training, source_patch(augmentation, plan.patch), plan.patch, plan.batch, (seed, 0))
    unseen = patches(validation, plan.patch, plan.patch, plan.batch, (seed, 1))
    number = max(iterations // STEPS_PER_VALIDATION, 1)
    check_network(model, (*plan.patch, len(plan.channels)), plan.outputs)
    fold = init(model, plan, seed) if state is None else state
    left = epochs * iterations - int(fold.state.step)
    algorithm, start = on_mesh(mesh, trainer(model, settings, rate), fold.state)
    with read_ahead(batches) as ahead:
        for now, infos in iterate.loop(
            algorithm, start, left, inputs=ahead, every=iterations, progress=progress,
            check=_require_finite, donate=True,
        ):  # fmt: skip
            step = int(now.step)
            dice = pseudo_dice(model, plan, now.params, unseen, step // iterations - 1, number)
            fold = _next_fold(fold, now, dice)
            averages: dict[str, float | int] = {"pseudo_dice": dice, "ema": float(fold.ema)}
            report(fold, {**mean_loss(infos, step), "epoch": step // iterations, **averages})
    return fold


def train_resumable_fold(
    checkpoints: Path,
    model: Network,
    training: Sequence[PreparedCase],
    validation: Sequence[PreparedCase],
    plan: Plan,
    *,
    seed: int = 0,
    epochs: int = defaults.SEGMENT_EPOCHS,
    save_every: int = 1,
    resume: Callable[[int], Any] = lambda step: None,
    report: Callable[[FoldState, dict[str, float | int]], Any] = lambda fold, values: None,
    **settings: Any,
) -> FoldState:
    """Trained fold, as `train_fold`, resumed from the last checkpoint in the folder `checkpoints` if there is one.

    A checkpoint is written after each `save_every` epochs and after the last, once `report` is done. `resume` is called
    with the checkpoint's number of steps before training continues; `settings` are other keywords of `train_fold`.

    Raises:
        DataError: as `train_fold`.
        WorkdirError: the last checkpoint is damaged, or of another network.
    """
    start = init(model, plan, seed)
    restored = restore(checkpoints, start)
    if restored is not None:
        step, start = restored
        resume(step)

    def report_and_save(fold: FoldState, values: dict[str, float | int]) -> None:
        report(fold, values)
        if values["epoch"] % save_every == 0 or values["epoch"] == epochs:
            save(checkpoints, int(values["step"]), fold, keep=1)

    return train_fold(
        model, training, validation, plan, seed=seed, epochs=epochs, state=start, report=report_and_save, **settings
    )


def train_folds(
    model: Network,
    cases: Sequence[Case],
    plan: Plan,
    checkpoints: Path,
    *,
    seed: int = 0,
    number: int = FOLDS,
    progress: Callable[[range, int], Iterable[int]] = lambda steps, fold: steps,
    **settings: Any,
) -> list[PyTree]:
    """Final parameters of the first `number` of five cross-validation folds: an ensemble for `predict_case`.

    Fold k is trained in the folder fold_k of `checkpoints`, from the seed 5 seed + k, by `train_resumable_fold` with
    `settings`; `progress` wraps its range of steps, and gets k too. Fewer than five cases make as many folds.

    Raises:
        DataError, WorkdirError: as `train_resumable_fold`.
    """
    prepared, out = [prepare(case, plan) for case in cases], list[PyTree]()
    for k, (training, validation) in enumerate(folds(len(prepared), seed, min(FOLDS, len(prepared)))[:number]):
        fold = train_resumable_fold(
            checkpoints / f"fold_{k}", model, [prepared[i] for i in training], [prepared[i] for i in validation], plan,
            seed=FOLDS * seed + k, progress=lambda steps, fold=k: progress(steps, fold), **settings,
        )  # fmt: skip
        out.append(fold.state.params)
    return out


def init(model: Network, plan: Plan, seed: int, params: PyTree | None = None) -> FoldState:
    """Fold state before the first epoch, from random parameters or pretrained ones."""
    key = jax.random.key(seed)
    if params is None:
        params = model.init(jax.random.fold_in(key, 1), jnp.zeros((1, *plan.patch, len(plan.channels))))
    unknown = jnp.asarray(jnp.nan, jnp.float32)
    return FoldState(training_state.init(params, _optimizer(lambda step: 0.0), key), params, unknown, unknown)


def trainer(model: Network, settings: StepSettings, rate: float | Scalar) -> Algorithm:
    """nnU-Net's training step: init(params, key) → TrainState; step(state, (images, labels)) → TrainState, Info.

    Images are source patches, which the step augments. Compiled once for equal models and settings; the learning rate
    `rate` is traced.
    """
    return Algorithm(Partial(_init), Partial(static_partial(_step, model, settings), jnp.asarray(rate, jnp.float32)))


def _init(params: PyTree, key: PRNGKeyArray) -> TrainState:
    return training_state.init(params, _optimizer(lambda step: 0.0), key)


def _step(
    model: Network, settings: StepSettings, rate: Scalar, state: TrainState, batch: tuple[Array, Array]
) -> tuple[TrainState, Info]:
    def polynomial(step: Scalar) -> Scalar:
        return rate * (1 - (step // settings.iterations) / settings.epochs) ** POLYNOMIAL_EXPONENT

    loss = partial(_loss, model, settings)
    return training_state.trainer(loss, _optimizer(polynomial)).step(state, batch)


def _loss(
    model: Network, settings: StepSettings, params: PyTree, batch: tuple[Array, Array], key: PRNGKeyArray
) -> Scalar:
    images, labels = batch
    keys = jax.random.split(key, len(images))
    images, labels = jax.vmap(partial(augment_nnunet, settings=settings.augmentation))(keys, images, labels)
    logits = model.apply(params, images, key=jax.random.fold_in(key, len(images)))
    levels = logits if isinstance(logits, tuple) else (logits,)
    counting = {"batch": settings.batch_dice, "ignore": settings.ignore}
    if settings.regions:
        loss = partial(NNUNET_REGION_LOSS, regions=settings.regions, **counting)
    else:
        loss = partial(NNUNET_LOSS, **counting)
    return jnp.mean(deep_supervision(levels, labels, loss=loss))


def _optimizer(rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(GRADIENT_CLIP),
        optax.add_decayed_weights(WEIGHT_DECAY),
        optax.sgd(rate, momentum=MOMENTUM, nesterov=True),
    )


def _require_finite(state: TrainState, infos: Info, step: int) -> None:
    """Check loss, gradients and, which the last step may spoil, the parameters: none is reported or saved otherwise."""
    require_finite_loss(state, infos, step)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params))):
        raise DataError(f"training: a parameter is not finite by step {step}; try a smaller learning rate")


def _next_fold(fold: FoldState, now: TrainState, dice: float) -> FoldState:
    old, best = float(fold.ema), float(fold.best_ema)
    ema = dice if np.isnan(old) else old if np.isnan(dice) else (1 - EMA_WEIGHT) * old + EMA_WEIGHT * dice
    if np.isnan(ema) or not ema <= best:
        return FoldState(now, jax.tree.map(jnp.array, now.params), jnp.float32(ema), jnp.float32(ema))
    return FoldState(now, fold.best, jnp.float32(ema), fold.best_ema)
