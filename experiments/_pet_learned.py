"""The two supervised baselines of the PET experiments: a U-Net behind OSEM, and unrolled EM with a learned regulariser.

Both learn from scans of heads of the training family, at all count levels together, with the truth as target.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree, Scalar

from experiments._pet import Scans, Setup, acquisition
from experiments._pet_batched import Method, Reconstruction, batched, to_device
from experiments._pet_conventional import osem
from medjax import iterate
from medjax.diffusion.score_matching import intensity_scale
from medjax.models.model import Model
from medjax.models.residual import residual_cnn
from medjax.models.score_unet import score_unet
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.unrolled import unrolled
from medjax.running.progress import track
from medjax.training.schedules import warmup_cosine
from medjax.training.state import require_finite_loss, trainer

UNET = score_unet((16, 32, 64), 1, (2,))  # apply(params, image, level) → what the image lacks
CNN = residual_cnn()  # apply(params, planes) → regularised planes
SUBSETS, UPDATES = 7, 10  # of the unrolled network
START = {"passes": 2.0, "filter_mm": 0.0}  # the OSEM image both begin with


def started(b: Setup, cases: Scans) -> np.ndarray:
    """The OSEM image of each case."""
    run = batched(b, osem, 10)
    return run(jax.random.key(0), cases, {name: np.full(cases.number, value) for name, value in START.items()}).image


# ── U-Net behind OSEM ──


def _clean(model: Model, params: PyTree, image: Array, level: Array) -> Array:
    """`image` (batch, x, y, 1) + network; `level`: log10 of the trues per mm³."""
    scale = jax.vmap(intensity_scale)(image).reshape(-1, 1, 1, 1)
    scale = jnp.where(scale > 0, scale, 1)
    x = image / scale
    return jnp.maximum(x + model.apply(params, x, level), 0) * scale


def train_unet(b: Setup, cases: Scans, steps: int, batch: int, seed: int, model: Model = UNET) -> PyTree:
    """Parameters after `steps` of Adam on the squared error, images mirrored at random."""
    images = started(b, cases)
    levels = np.log10(cases.level).astype(np.float32)

    def loss(params: PyTree, data: PyTree, key: Array) -> Scalar:
        image, truth, level = data
        chosen = jax.random.bernoulli(key, 0.5, (len(level), 1, 1, 1))
        image, truth = (jnp.where(chosen, a[:, ::-1], a) for a in (image, truth))
        return _error(_clean(model, params, image, level), truth)

    def batches(number: int) -> PyTree:
        index = np.random.default_rng((seed, number)).integers(cases.number, size=batch)
        return jnp.asarray(images[index]), jnp.asarray(cases.truth[index]), jnp.asarray(levels[index])

    params = model.init(jax.random.key(seed), jnp.asarray(images[:1]), jnp.zeros(1))
    return _fit(loss, params, batches, steps, seed, "training the U-Net")


def unet_method(b: Setup, params: PyTree, model: Model = UNET) -> Method:
    """The trained U-Net; it has nothing to tune."""
    clean = jax.jit(partial(_clean, model, params))

    def run(key: Array, cases: Scans, knobs: Any) -> Reconstruction:
        level = jnp.asarray(np.log10(cases.level), jnp.float32)
        made = clean(jnp.asarray(started(b, cases)), level)
        return Reconstruction(np.asarray(made), np.full(cases.number, 2 * START["passes"]))

    return Method("supervised", run, {})


# ── unrolled EM ──


def _unrolled(b: Setup, model: Model, params: PyTree, case: Scans, image: Array, stacked: Acquisition) -> Array:
    scale = intensity_scale(image)
    scale = jnp.where(scale > 0, scale, 1)

    def regularise(x: Array) -> Array:
        return scale * jnp.moveaxis(model.apply(params["cnn"], jnp.moveaxis(x, 2, 0)[..., None] / scale)[..., 0], 0, 2)

    return unrolled(stacked, image, regularise, jnp.exp(params["log_strength"]), UPDATES)


def train_unrolled(b: Setup, cases: Scans, steps: int, batch: int, seed: int, model: Model = CNN) -> PyTree:
    """Parameters of the CNN and the log of its strength; gradients go through the projector."""
    images = started(b, cases)
    split = jax.jit(jax.vmap(lambda case: _sensitivities(b, case)))

    def loss(params: PyTree, data: PyTree, key: Array) -> Scalar:
        case, image, sensitivity = data

        def one(case: Scans, image: Array, sensitivity: Array) -> Array:
            stacked = replace(ordered_subsets(acquisition(b, case), SUBSETS), sensitivity=sensitivity)
            return _unrolled(b, model, params, case, image, stacked)

        return _error(jax.vmap(one)(case, image, sensitivity), case.truth)

    def batches(number: int) -> PyTree:
        index = np.random.default_rng((seed, number)).integers(cases.number, size=batch)
        case = to_device(cases, index)
        return case, jnp.asarray(images[index]), split(case)

    shape = jnp.zeros((1, *b.grid.shape[:2], 1))
    params = {"cnn": model.init(jax.random.key(seed), shape), "log_strength": jnp.zeros(())}
    return _fit(loss, params, batches, steps, seed, "training the unrolled EM")


def _sensitivities(b: Setup, case: Scans) -> Array:
    return ordered_subsets(acquisition(b, case), SUBSETS).sensitivity


def unrolled_method(b: Setup, params: PyTree, size: int, model: Model = CNN) -> Method:
    """The trained unrolled EM; it has nothing to tune."""

    def one(b: Setup, key: Array, case: Scans) -> Reconstruction:
        image = osem(b, key, case, jnp.asarray(START["passes"]), jnp.asarray(START["filter_mm"])).image
        stacked = ordered_subsets(acquisition(b, case), SUBSETS)
        cost = jnp.asarray(2 * START["passes"] + 2 * UPDATES / SUBSETS)
        return Reconstruction(_unrolled(b, model, params, case, image, stacked), cost)

    return Method("unrolled", batched(b, one, size), {})


def _error(image: Array, truth: Array) -> Scalar:
    return jnp.mean((image - truth) ** 2) / jnp.mean(truth**2)


def _fit(loss: Callable[..., Scalar], params: PyTree, batches: Any, steps: int, seed: int, name: str) -> PyTree:
    schedule = warmup_cosine(2e-3, steps)
    algorithm = trainer(loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), decay=0.99)
    state = algorithm.init(params, jax.random.key(seed + 1))
    states = iterate.loop(
        algorithm, state, steps, inputs=batches, every=100, progress=partial(track, description=name),
        check=require_finite_loss, donate=True,
    )  # fmt: skip
    return jax.tree.map(np.asarray, iterate.last(states, state).ema_params)
