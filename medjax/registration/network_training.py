"""Unsupervised training of a registration network, as an Algorithm for `iterate.loop`.

    algorithm = trainer(model, similarity, steps, rate, weight)
    state = algorithm.init(model.init(key, fixed, moving), key)
    params = state.ema_params                      the exponential moving average (EMA) of the parameters is kept

The loss of a pair is S(moving ∘ exp(v), fixed) + weight · R(v): a similarity of the warped and the fixed image, and the
diffusion regulariser, the mean squared gradient of the velocity field. No truth is needed.

Pairs are affinely aligned. On the device both are moved by one random affine map, the moving image a little more, as
affine registration errs; each has a random gamma, bias field and noise.

Source: VoxelMorph, Dalca et al., Medical Image Analysis 57, 2019.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial
from medjax.models.model import Network
from medjax.registration.network import displacement, normalize
from medjax.registration.regularizer import diffusion
from medjax.registration.similarity import Similarity, lncc
from medjax.registration.warp import identity, warp
from medjax.training import state as training
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Info, TrainState

EMA_DECAY, MAX_GRADIENT_NORM = 0.999, 1.0  # decay of the parameters' moving average; clipping of the gradient
SIMILARITY = lncc(3)
WEIGHT = 0.05  # of the regulariser


class Augmentation(NamedTuple):
    """Random changes of a training pair, as standard deviations; all 0: none. Hashable."""

    affine: float = 0.05  # of the elements of the linear map that both images share
    shift: float = 2.0  # voxels, shared
    residual_affine: float = 0.01  # of the moving image alone
    residual_shift: float = 0.4  # voxels
    gamma: float = 0.2  # of the logarithm of the exponent
    bias: float = 0.15  # of the logarithm of the bias field, per coefficient
    noise: float = 0.02  # largest standard deviation, relative to the bright part


AUGMENTATION, UNCHANGED = Augmentation(), Augmentation(*[0.0] * 7)


def trainer(
    model: Network,
    steps: int,
    rate: float | Scalar = 1e-3,
    weight: float | Scalar = WEIGHT,
    *,
    similarity: Similarity = SIMILARITY,
    augmentation: Augmentation = AUGMENTATION,
) -> Algorithm:
    """Training algorithm of a registration network: Adam, warm-up and cosine, gradients clipped at norm 1.

    init(params, key) → TrainState; step(state, batch) → TrainState, Info. A batch is (fixed, moving), each of
    `(batch, *space)`, of any real or whole-number type.

    Args:
        model: network to train.
        steps: training steps, for the schedule.
        rate: largest learning rate; traced, as the weight.
        weight: weight of the regulariser.
        similarity: loss of a warped and a fixed image.
        augmentation: random changes of the pairs.
    """
    static = (model, similarity, augmentation, steps)
    return Algorithm(*(Partial(static_partial(function, *static), rate, weight) for function in (_init, _step)))


def validation_loss(
    model: Network,
    params: PyTree,
    pairs: tuple[Float[np.ndarray, "pair *space"] | np.ndarray, np.ndarray],
    weight: float | Scalar = WEIGHT,
    similarity: Similarity = SIMILARITY,
) -> float:
    """Mean loss of validation pairs (fixed, moving), one after the other and unchanged."""
    losses = [
        _validated(model, similarity, params, *(one[None] for one in pair), weight) for pair in zip(*pairs, strict=True)
    ]
    return float(np.mean(jax.device_get(losses)))


def pair_indices(number: int, heads: int, batch: int, seed: int, pairs: int = 0) -> np.ndarray:
    """Indices (2, batch) of the fixed and the moving heads of batch `number`: two different ones, of `pairs` pairs.

    The pairs are the same ones throughout the training; 0: any of the heads · (heads − 1).

    Raises:
        DataError: fewer than two heads, or more pairs than there are.
    """
    every = heads * (heads - 1)
    if heads < 2 or pairs > every:
        raise DataError(
            f"pairs: {pairs} of {heads} heads; expected two heads or more and at most {max(every, 0)} pairs"
        )
    chosen = np.random.default_rng(seed).permutation(every)[: pairs or every]
    one = chosen[np.random.default_rng((seed, number)).integers(len(chosen), size=batch)]
    fixed, other = np.divmod(one, heads - 1)
    return np.stack([fixed, other + (other >= fixed)])


def augment(
    key: PRNGKeyArray, fixed: Float[Array, "*space"], moving: Float[Array, "*space"], settings: Augmentation
) -> tuple[Float[Array, "*space"], Float[Array, "*space"]]:
    """A training pair, changed at random and normalised."""
    keys = jax.random.split(key, 6)
    if settings.affine or settings.shift or settings.residual_affine or settings.residual_shift:
        shared = random_affine(keys[0], fixed.shape, settings.affine, settings.shift)
        own = random_affine(keys[1], fixed.shape, settings.residual_affine, settings.residual_shift)
        fixed, moving = warp(fixed, shared), warp(moving, shared + own)
    changed = (random_intensity(keys[2 + k], image, settings) for k, image in enumerate((fixed, moving)))
    one, other = (normalize(image) for image in changed)
    return one, other


def random_affine(key: PRNGKeyArray, shape: tuple[int, ...], linear: float, shift: float) -> Float[Array, "dim *space"]:
    """Displacement, in voxels, of a random affine map about the centre: (N − 1)(x − c) + s."""
    dim = len(shape)
    one, other = jax.random.split(key)
    matrix = linear * jax.random.normal(one, (dim * dim,)).reshape(dim, dim)
    center = (jnp.asarray(shape, jnp.float32) - 1) / 2
    coordinates = identity(shape) - center.reshape(dim, *(1,) * dim)
    moved = jnp.tensordot(matrix, coordinates, 1, precision=jax.lax.Precision.HIGHEST)
    return moved + (shift * jax.random.normal(other, (dim,))).reshape(dim, *(1,) * dim)


def random_intensity(
    key: PRNGKeyArray, image: Float[Array, "*space"], settings: Augmentation
) -> Float[Array, "*space"]:
    """The image, normalised, with a random exponent, bias field (log-quadratic along each axis) and noise."""
    gamma, bias, level, noise = jax.random.split(key, 4)
    changed = normalize(image)
    if settings.gamma:
        # 1e-3 keeps the power's gradient finite, should anybody ask for it
        changed = (changed + 1e-3) ** jnp.exp(settings.gamma * jax.random.normal(gamma))
    if settings.bias:
        coefficients = settings.bias * jax.random.normal(bias, (2 * image.ndim,))
        for axis, side in enumerate(image.shape):
            t = jnp.linspace(-1, 1, side)
            log = coefficients[2 * axis] * t + coefficients[2 * axis + 1] * (t**2 - 1 / 3)
            changed = changed * jnp.exp(log).reshape([side if k == axis else 1 for k in range(image.ndim)])
    if settings.noise:
        # drawn flat: a draw of several axes compiles slowly for CPUs
        drawn = jax.random.normal(noise, (image.size,)).reshape(image.shape)
        changed = changed + settings.noise * jax.random.uniform(level) * drawn
    return changed


def pair_loss(
    model: Network,
    params: PyTree,
    fixed: Float[Array, "batch *space"],
    moving: Float[Array, "batch *space"],
    similarity: Similarity,
    weight: float | Scalar,
) -> Scalar:
    """Mean loss of normalised pairs, S(moving ∘ exp(v), fixed) + weight · R(v)."""
    velocity = jnp.moveaxis(model.apply(params, fixed, moving), -1, 1)

    def of_one(velocity: Array, fixed: Array, moving: Array) -> Array:
        return similarity(warp(moving, displacement(velocity)), fixed, None) + weight * diffusion(velocity)

    return jnp.mean(jax.vmap(of_one)(velocity, fixed, moving))


@partial(jax.jit, static_argnums=(0, 1))
def _validated(
    model: Network, similarity: Similarity, params: PyTree, fixed: Array, moving: Array, weight: Any
) -> Array:
    one, other = (jax.vmap(normalize)(jnp.asarray(each, jnp.float32)) for each in (fixed, moving))
    return pair_loss(model, params, one, other, similarity, weight)


def _trainer(
    model: Network, similarity: Similarity, augmentation: Augmentation, steps: int, rate: Any, weight: Any
) -> Algorithm:
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_GRADIENT_NORM), optax.adam(warmup_cosine(rate, steps)))

    def changed(key: Array, fixed: Array, moving: Array) -> tuple[Array, Array]:
        return augment(key, fixed, moving, augmentation)

    def loss(params: PyTree, batch: tuple[Array, Array], key: PRNGKeyArray) -> Scalar:
        fixed, moving = (jnp.asarray(each, jnp.float32) for each in batch)
        fixed, moving = jax.vmap(changed)(jax.random.split(key, len(fixed)), fixed, moving)
        return pair_loss(model, params, fixed, moving, similarity, weight)

    return training.trainer(loss, optimizer, EMA_DECAY)


def _init(*arguments: Any) -> TrainState:
    *settings, params, key = arguments
    return _trainer(*settings).init(params, key)


def _step(*arguments: Any) -> tuple[TrainState, Info]:
    *settings, state, batch = arguments
    return _trainer(*settings).step(state, batch)
