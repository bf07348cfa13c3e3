"""The two supervised baselines of the PET experiments: a U-Net behind OSEM, and unrolled EM with a learned regulariser.

Both learn from scans of heads of the training family, at all count levels together, with the truth as target. Networks
of several studies that differ in seed or learning rate train as one population.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree, Scalar

from experiments.pet.comparison import Session
from experiments.pet.methods import Run, batched
from experiments.pet.scans import Reconstruction, Scan, Scans, Setup, scan_of
from medjax.diffusion.score_matching import intensity_scale
from medjax.errors import MedjaxError
from medjax.iterate import Algorithm
from medjax.models.model import Network
from medjax.models.residual import residual_cnn
from medjax.models.score_unet import score_unet
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.unrolled import unrolled
from medjax.running.arrays import from_numbered, numbered
from medjax.training import study
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Loss, trainer

UNET = score_unet((16, 32, 64), 1, (2,))  # apply(params, image, level) → what the image lacks
CNN = residual_cnn()  # apply(params, planes) → regularised planes
SUBSETS, UPDATES = 7, 10  # of the unrolled network
PASSES, FILTER_MM = 2.0, 0.0  # of the OSEM image both begin with


class Learner(NamedTuple):
    """A supervised reconstruction: how it is trained, and what it does then."""

    name: str  # of its stage
    init: Callable[[Array, Array], PyTree]  # (key, a slice (1, x, y, 1)) → params
    loss: Loss
    data: Callable[[Scans], Callable[[np.ndarray], PyTree]]  # (scans) → (cases' numbers) → what the loss is given
    run: Run  # (key, cases, {}, params): it has nothing to tune


def osem_start(osem: Run, cases: Scans) -> np.ndarray:
    """The OSEM image of each case."""
    knobs = {"passes": np.full(cases.number, PASSES), "filter_mm": np.full(cases.number, FILTER_MM)}
    return osem(jax.random.key(0), cases, knobs).image


def unet_behind_osem(setup: Setup, osem: Run, size: int, model: Network = UNET) -> Learner:
    """image + network(image, log10 of the trues per mm³), not below 0; trained on images mirrored at random."""

    def clean(params: PyTree, image: Array, level: Array) -> Array:
        scale = jax.vmap(intensity_scale)(image).reshape(-1, 1, 1, 1)
        scale = jnp.where(scale > 0, scale, 1)
        x = image / scale
        return jnp.maximum(x + model.apply(params, x, level), 0) * scale

    def loss(params: PyTree, data: PyTree, key: Array) -> Scalar:
        image, truth, level = data
        chosen = jax.random.bernoulli(key, 0.5, (len(level), 1, 1, 1))
        image, truth = (jnp.where(chosen, a[:, ::-1], a) for a in (image, truth))
        return _error(clean(params, image, level), truth)

    def levels(cases: Scans) -> np.ndarray:
        return np.log10(cases.level).astype(np.float32)

    def data(scans: Scans) -> Callable[[np.ndarray], PyTree]:
        images = osem_start(osem, scans)
        return lambda index: (images[index], scans.truth[index], levels(scans)[index])

    def one(key: Array, scan: Scan, image: Array, level: Array, params: PyTree) -> Reconstruction:
        return Reconstruction(clean(params, image[None], level[None])[0], jnp.asarray(2 * PASSES))

    def run(key: Array, cases: Scans, knobs: Any, params: PyTree) -> Reconstruction:
        return apply(key, cases, {"image": osem_start(osem, cases), "level": levels(cases)}, params)

    apply = batched(setup, one, size)
    return Learner("unet", lambda key, image: model.init(key, image, jnp.zeros(1)), loss, data, run)


def unrolled_em(setup: Setup, osem: Run, size: int, model: Network = CNN) -> Learner:
    """EM updates, each fused with what a CNN says, and the strength of that; gradients go through the projector."""

    def reconstruct(params: PyTree, image: Array, stacked: Acquisition) -> Array:
        scale = intensity_scale(image)
        scale = jnp.where(scale > 0, scale, 1)

        def regularise(x: Array) -> Array:
            planes = model.apply(params["cnn"], jnp.moveaxis(x, 2, 0)[..., None] / scale)
            return scale * jnp.moveaxis(planes[..., 0], 0, 2)

        return unrolled(stacked, image, regularise, jnp.exp(params["log_strength"]), UPDATES)

    def subsets(case: Scans) -> Acquisition:
        return ordered_subsets(scan_of(setup, case).acquisition, SUBSETS)

    def loss(params: PyTree, data: PyTree, key: Array) -> Scalar:
        def one(case: Scans, image: Array, sensitivity: Array) -> Array:
            return reconstruct(params, image, replace(subsets(case), sensitivity=sensitivity))

        return _error(jax.vmap(one)(*data), data[0].truth)

    def data(scans: Scans) -> Callable[[np.ndarray], PyTree]:
        images = osem_start(osem, scans)
        return lambda index: (scans.where(index), images[index], split(scans.where(index)))

    def init(key: Array, image: Array) -> PyTree:
        return {"cnn": model.init(key, image), "log_strength": jnp.zeros(())}

    def one(key: Array, scan: Scan, image: Array, params: PyTree) -> Reconstruction:
        cost = jnp.asarray(2 * PASSES + 2 * UPDATES / SUBSETS)
        return Reconstruction(reconstruct(params, image, ordered_subsets(scan.acquisition, SUBSETS)), cost)

    def run(key: Array, cases: Scans, knobs: Any, params: PyTree) -> Reconstruction:
        return apply(key, cases, {"image": osem_start(osem, cases)}, params)

    split = jax.jit(jax.vmap(lambda case: subsets(case).sensitivity))  # once a batch: no gradient goes through it
    apply = batched(setup, one, size)
    return Learner("unrolled", init, loss, data, run)


def train(
    learner: Learner, sessions: Sequence[Session], scans: Sequence[Scans], rates: Sequence[float], steps: int,
    batch: int, strategy: str | None = None, width: int | None = None,
) -> list[Run | MedjaxError]:  # fmt: skip
    """The method of each session, its network a member of one population; an error where the training diverged."""

    def make(settings: Mapping[str, Any]) -> Algorithm:
        optimizer = optax.adam(warmup_cosine(settings["rate"], steps))
        return trainer(learner.loss, optax.chain(optax.clip_by_global_norm(1.0), optimizer), decay=0.99)

    def init(member: int) -> PyTree:
        return learner.init(jax.random.key(sessions[member].seed), jnp.zeros((1, *scans[member].truth.shape[1:3], 1)))

    def training(member: int) -> study.Training:
        data, seed, cases, params = learner.data(scans[member]), sessions[member].seed, scans[member], init(member)
        state = make({"rate": rates[member]}).init(params, jax.random.key(seed + 1))

        def batches(number: int) -> PyTree:
            return data(np.random.default_rng((seed, number)).integers(cases.number, size=batch))

        return study.Training(state, batches, finish=numbered, average=True)

    members = [
        study.Member(session.work, learner.name, make, {"rate": rate}, steps, every=100)
        for session, rate in zip(sessions, rates, strict=True)
    ]
    kept = study.train(members, lambda numbers: [training(number) for number in numbers], strategy, width)
    like = jax.eval_shape(partial(init, 0))
    return [
        one if isinstance(one, MedjaxError) else partial(learner.run, params=from_numbered(one, like)) for one in kept
    ]


def _error(image: Array, truth: Array) -> Scalar:
    return jnp.mean((image - truth) ** 2) / jnp.mean(truth**2)
