"""Training of a prior's network on slices, as an Algorithm for `iterate.loop`.

algorithm = trainer(model, settings, sigma_data, steps)
state = algorithm.init(initial_params(model, key, examples), key)
prior = Prior(state.ema_params, sigma_data, …)          the exponential moving average (EMA) of the parameters is kept
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from medjax.diffusion.denoiser import from_model
from medjax.diffusion.prior import PriorSettings
from medjax.diffusion.score_matching import denoising_loss, drop_condition, edm_weight, log_uniform_times
from medjax.diffusion.sde import vp
from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial
from medjax.models.inflate import add_inputs
from medjax.models.model import Network
from medjax.training import state as training
from medjax.training.schedules import warmup_stable_decay
from medjax.training.state import Info, TrainState

EMA_DECAY, MAX_GRADIENT_NORM = 0.999, 1.0  # decay of the parameters' moving average; clipping of the gradient
MIN_EMISSION_FRACTION = 0.02  # fraction of a training slice's voxels that emit
SIGMAS = 0.03, 4.0  # noise levels of training, in units of the mean emission; log-uniform


class Augmentation(NamedTuple):
    """Random changes of training slices; traced. A prior of one subject is to know which side and place is which."""

    mirror: bool | Scalar = True  # left and right, in every second coronal or transverse slice
    shift: int | Scalar = 3  # largest translation, voxels


AUGMENTATION = Augmentation()
OF_ONE_ANATOMY = Augmentation(mirror=False, shift=0)  # for images of one anatomy


def trainer(
    model: Network,
    settings: PriorSettings,
    sigma_data: float | Scalar,
    steps: int,
    rate: float | Scalar = 1e-3,
    decay: float | Scalar = EMA_DECAY,
    augmentation: Augmentation = AUGMENTATION,
) -> Algorithm:
    """Training algorithm of a score prior: Adam, warm-up–stable–decay schedule, gradients clipped at norm 1.

    init(params, key) → TrainState; step(state, batch) → TrainState, Info.

    A batch is slices `(batch, a, b, 1)` of mean emission 1 and the axes they are perpendicular to; of an MR-guided
    prior `(batch, a, b, 2)`, the second channel the MR. On the device they are mirrored (left and right), shifted by up
    to 3 voxels and the PET is scaled by U(0.5, 1.5); one MR in ten is dropped.

    Args:
        model: network to train.
        settings: settings of the prior.
        sigma_data: standard deviation of training images; traced, as rate and decay: all can be vmapped.
        steps: training steps, for the schedule.
        rate: largest learning rate.
        decay: decay of the parameters' exponential moving average.
        augmentation: whether slices are mirrored, and how far they are shifted.
    """
    static, traced = (model, settings, steps), (sigma_data, rate, decay, augmentation)
    return Algorithm(*(Partial(static_partial(function, *static), *traced) for function in (_init, _step)))


def training_slices(
    volumes: Iterable[Float[np.ndarray, "x y z channel"]], orientations: Sequence[int] = (0, 1, 2)
) -> dict[str, np.ndarray]:
    """Training slices of the volumes in each orientation: `slices` with emission, as float16, and their `axes`.

    The first channel is the PET; a slice is kept if more than 2 % of its voxels emit.

    Raises:
        DataError: no slice has enough emission.
    """
    kept: list[np.ndarray] = []
    axes: list[np.ndarray] = []
    for volume in volumes:
        for axis in orientations:
            stack = np.moveaxis(volume, axis, 0)
            emitting = np.mean(stack[..., 0] > 0.01 * volume[..., 0].max(), axis=(1, 2))
            kept.append(stack[emitting > MIN_EMISSION_FRACTION].astype(np.float16))
            axes.append(np.full(len(kept[-1]), axis, np.int32))
    slices = np.concatenate(kept)
    if not len(slices):
        raise DataError("images: no slice has emission; expected PET images")
    return {"slices": slices, "axes": np.concatenate(axes)}


def initial_params(
    model: Network,
    key: PRNGKeyArray,
    example_inputs: tuple[Array, ...],
    pretrained: PyTree | None = None,
    patch: int = 1,
) -> PyTree:
    """Initial parameters of the model: those of `pretrained` where it has them, else as the model initialises them.

    Inputs that `pretrained` lacks, an MR image say, get weights of 0: at first the network's output is that of the
    pretrained one. `patch` is the network's number of voxels along each side of a block that becomes channels.
    """
    return _merge(model.init(key, *example_inputs), pretrained or {}, patch**2)


def _trainer(
    model: Network,
    settings: PriorSettings,
    steps: int,
    sigma_data: Any,
    rate: Any,
    decay: Any,
    augmentation: Augmentation,
) -> Algorithm:
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_GRADIENT_NORM), optax.adam(warmup_stable_decay(rate, steps)))
    sde = vp(settings.beta_min, settings.beta_max)

    def loss(params: PyTree, batch: tuple[Array, Array], key: PRNGKeyArray) -> Scalar:
        dropping = jax.random.fold_in(key, 2)  # apart from the two that follow, which are fold_in(key, 0) and (key, 1)
        key, own = jax.random.split(key)
        slices, axes = batch
        images = _augment(own, slices, axes, augmentation)
        inputs = [jax.nn.one_hot(axes, 3)]
        if settings.mr_guided:
            inputs.append(drop_condition(dropping, images[..., 1:]))
        denoiser = from_model(model, params, sde, *inputs, sigma_data=sigma_data)
        times = log_uniform_times(sde, SIGMAS)
        return denoising_loss(key, denoiser, images[..., :1], edm_weight(sde, sigma_data), times)

    return training.trainer(loss, optimizer, decay)


def _init(*arguments: Any) -> TrainState:
    *settings, params, key = arguments
    return _trainer(*settings).init(params, key)


def _step(*arguments: Any) -> tuple[TrainState, Info]:
    *settings, state, batch = arguments
    return _trainer(*settings).step(state, batch)


def _augment(key: PRNGKeyArray, slices: Array, axes: Array, augmentation: Augmentation) -> Array:
    """Sagittal slices (axis 0) have no left and right to mirror."""
    flip, shift, scale = jax.random.split(key, 3)
    chosen = augmentation.mirror & jax.random.bernoulli(flip, 0.5, axes.shape) & (axes > 0)
    mirrored = jnp.where(chosen[:, None, None, None], slices[:, ::-1], slices)
    most = augmentation.shift
    shifted = jax.vmap(lambda one, by: jnp.roll(one, by, (0, 1)))(
        mirrored, jax.random.randint(shift, (len(axes), 2), -most, most + 1)
    )
    factor = jax.random.uniform(scale, (len(axes), 1, 1, 1), minval=0.5, maxval=1.5)
    return jnp.concatenate([shifted[..., :1] * factor, shifted[..., 1:]], axis=-1)


def _merge(params: PyTree, start: PyTree, blocks: int) -> PyTree:
    """`params`, with the leaves of `start` where it has them; kernels may have more input channels than there.

    Raises:
        DataError: another axis than that of the input channels differs.
    """
    if isinstance(params, dict):
        return {name: _merge(value, start.get(name, {}), blocks) for name, value in params.items()}
    if isinstance(start, dict):
        return params
    start = jnp.asarray(start, params.dtype)
    if start.shape == params.shape:
        return start
    if start.ndim < 2 or (*start.shape[:-2], start.shape[-1]) != (*params.shape[:-2], params.shape[-1]):
        raise DataError(
            f"prior to start from: an array of shape {start.shape}; expected {params.shape}, or fewer input channels, "
            "the last axis but one"
        )
    return add_inputs(start, params.shape[-2], blocks)
