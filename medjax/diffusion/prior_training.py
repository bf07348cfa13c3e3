"""Training of a prior's network on slices, as an Algorithm for `iterate.loop`.

algorithm = trainer(model, settings, sigma_data, steps)
state = algorithm.init(initial_params(model, key, examples), key)
prior = Prior(state.ema_params, sigma_data, …)          the average of the parameters is what is kept
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from medjax.diffusion.denoiser import from_model
from medjax.diffusion.prior import Settings
from medjax.diffusion.score_matching import denoising_loss, drop_condition, edm_weight
from medjax.diffusion.sde import vp
from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial
from medjax.models.model import Network
from medjax.training import state as training
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Info, TrainState

DECAY, CLIP = 0.999, 1.0  # of the parameters' moving average; largest norm of a gradient
LEAST_EMISSION = 0.02  # fraction of a slice's voxels that must emit for it to be trained on
MOVE = 3  # voxels that a slice is moved by at most


def trainer(
    model: Network,
    settings: Settings,
    sigma_data: float | Scalar,
    steps: int,
    rate: float | Scalar = 1e-3,
    decay: float | Scalar = DECAY,
) -> Algorithm:
    """init(params, key) → TrainState; step(state, batch): Adam, warm-up over 5 %, cosine to 0, gradients clipped at 1.

    `sigma_data`, `rate` and `decay` are traced: others of them are the same program, and `vmap` takes many.

    A batch is slices `(batch, a, b, 1)` of mean emission 1 and the axes they are perpendicular to; of an MR-guided
    prior `(batch, a, b, 2)`, the second channel the MR. On the device they are mirrored (left and right), moved by up
    to 3 voxels and the PET is scaled by U(0.5, 1.5); one MR in ten is taken away.
    """
    given, traced = (model, settings, steps), (sigma_data, rate, decay)
    return Algorithm(*(Partial(static_partial(function, *given), *traced) for function in (_init, _step)))


def training_slices(
    volumes: Iterable[Float[np.ndarray, "x y z channel"]], orientations: Sequence[int] = (0, 1, 2)
) -> dict[str, np.ndarray]:
    """The `slices` of each volume perpendicular to each of the orientations that have emission, as float16, and `axes`.

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
            kept.append(stack[emitting > LEAST_EMISSION].astype(np.float16))
            axes.append(np.full(len(kept[-1]), axis, np.int32))
    slices = np.concatenate(kept)
    if not len(slices):
        raise DataError("images: no slice has emission; expected PET images")
    return {"slices": slices, "axes": np.concatenate(axes)}


def initial_params(
    model: Network, key: PRNGKeyArray, examples: tuple[Array, ...], start: PyTree | None = None
) -> PyTree:
    """The model's first parameters; `start` holds some to begin with, and what it lacks begins as usual.

    Inputs that `start` does not know, an MR image say, get weights of 0.
    """
    return _merge(model.init(key, *examples), start or {})


def _trainer(model: Network, settings: Settings, steps: int, sigma_data: Any, rate: Any, decay: Any) -> Algorithm:
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(warmup_cosine(rate, steps)))
    sde = vp(settings.beta_min, settings.beta_max)

    def loss(params: PyTree, batch: tuple[Array, Array], key: PRNGKeyArray) -> Scalar:
        dropping = jax.random.fold_in(key, 2)  # apart from the two that follow, which are fold_in(key, 0) and (key, 1)
        key, own = jax.random.split(key)
        slices, axes = batch
        images = _augment(own, slices, axes)
        inputs = [jax.nn.one_hot(axes, 3)]
        if settings.guided:
            inputs.append(drop_condition(dropping, images[..., 1:]))
        denoiser = from_model(model, params, sde, *inputs, sigma_data=sigma_data)
        return denoising_loss(key, denoiser, images[..., :1], edm_weight(sde, sigma_data))

    return training.trainer(loss, optimizer, decay)


def _init(*given: Any) -> TrainState:
    *settings, params, key = given
    return _trainer(*settings).init(params, key)


def _step(*given: Any) -> tuple[TrainState, Info]:
    *settings, state, batch = given
    return _trainer(*settings).step(state, batch)


def _augment(key: PRNGKeyArray, slices: Array, axes: Array) -> Array:
    """Sagittal slices (axis 0) have no left and right to mirror."""
    flip, move, scale = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(flip, 0.5, axes.shape) & (axes > 0)
    mirrored = jnp.where(chosen[:, None, None, None], slices[:, ::-1], slices)
    moved = jax.vmap(lambda one, by: jnp.roll(one, by, (0, 1)))(
        mirrored, jax.random.randint(move, (len(axes), 2), -MOVE, MOVE + 1)
    )
    factor = jax.random.uniform(scale, (len(axes), 1, 1, 1), minval=0.5, maxval=1.5)
    return jnp.concatenate([moved[..., :1] * factor, moved[..., 1:]], axis=-1)


def _merge(params: PyTree, start: PyTree) -> PyTree:
    """`params`, with the leaves of `start` where it has them."""
    if not isinstance(params, dict):
        known = tuple(slice(side) for side in np.shape(start))
        return params if isinstance(start, dict) else jnp.zeros_like(params).at[known].set(start)
    return {name: _merge(value, start.get(name, {})) for name, value in params.items()}
