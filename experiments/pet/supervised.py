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

from experiments.pet.comparison import StudyInputs
from experiments.pet.methods import Reconstructor, batch_cases
from experiments.pet.scans import Reconstruction, Scan, Scans, ScanSetup, scan_of
from medjax.diffusion.score_matching import intensity_scale
from medjax.errors import MedjaxError
from medjax.iterate import Algorithm
from medjax.models.model import Network
from medjax.models.residual import residual_cnn
from medjax.pet.acquisition import Acquisition, ordered_subsets
from medjax.pet.unrolled_em import unrolled_em
from medjax.running.arrays import from_numbered_leaves, to_numbered_leaves
from medjax.training import study
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Loss, trainer

CNN = residual_cnn()  # apply(params, planes) → regularised planes
UNROLLED_SUBSETS, UNROLLED_UPDATES = 7, 10  # subsets and updates of the unrolled network
OSEM_ITERATIONS, OSEM_FILTER_MM = 2.0, 0.0  # iterations and post-filter of the OSEM image that both begin with


class SupervisedMethod(NamedTuple):
    """A supervised reconstruction: initial parameters, loss and data of its training, and the trained method."""

    name: str  # name of its stage
    init: Callable[[Array, Array], PyTree]  # (key, a slice (1, x, y, 1)) → params
    loss: Loss
    data: Callable[[Scans], Callable[[np.ndarray], PyTree]]  # (scans) → (cases' numbers) → the loss's data
    run: Reconstructor  # (key, cases, {}, params): no hyper-parameters


def osem_images(osem: Reconstructor, cases: Scans) -> np.ndarray:
    """OSEM image of each case."""
    hyperparameters = {
        "iterations": np.full(cases.number, OSEM_ITERATIONS),
        "filter_mm": np.full(cases.number, OSEM_FILTER_MM),
    }
    return osem(jax.random.key(0), cases, hyperparameters).image


def unet_behind_osem(setup: ScanSetup, osem: Reconstructor, batch: int, model: Network) -> SupervisedMethod:
    """U-Net behind OSEM: max(image + network(image, log10 of the trues per mm³), 0), trained with random mirroring."""

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
        images = osem_images(osem, scans)
        return lambda index: (images[index], scans.truth[index], levels(scans)[index])

    def one(key: Array, scan: Scan, image: Array, level: Array, params: PyTree) -> Reconstruction:
        return Reconstruction(clean(params, image[None], level[None])[0], jnp.asarray(2 * OSEM_ITERATIONS))

    def run(key: Array, cases: Scans, hyperparameters: Any, params: PyTree) -> Reconstruction:
        return apply(key, cases, {"image": osem_images(osem, cases), "level": levels(cases)}, params)

    apply = batch_cases(setup, one, batch)
    return SupervisedMethod("unet", lambda key, image: model.init(key, image, jnp.zeros(1)), loss, data, run)


def unrolled_em_network(setup: ScanSetup, osem: Reconstructor, batch: int, model: Network = CNN) -> SupervisedMethod:
    """Unrolled EM: updates fused with a CNN's output by a learned strength; gradients go through the projector."""

    def reconstruct(params: PyTree, image: Array, stacked: Acquisition) -> Array:
        scale = intensity_scale(image)
        scale = jnp.where(scale > 0, scale, 1)

        def regularize(x: Array) -> Array:
            planes = model.apply(params["cnn"], jnp.moveaxis(x, 2, 0)[..., None] / scale)
            return scale * jnp.moveaxis(planes[..., 0], 0, 2)

        return unrolled_em(stacked, image, regularize, jnp.exp(params["log_strength"]), UNROLLED_UPDATES)

    def subsets(case: Scans) -> Acquisition:
        return ordered_subsets(scan_of(setup, case).acquisition, UNROLLED_SUBSETS)

    def loss(params: PyTree, data: PyTree, key: Array) -> Scalar:
        def one(case: Scans, image: Array, sensitivity: Array) -> Array:
            return reconstruct(params, image, replace(subsets(case), sensitivity=sensitivity))

        return _error(jax.vmap(one)(*data), data[0].truth)

    def data(scans: Scans) -> Callable[[np.ndarray], PyTree]:
        images = osem_images(osem, scans)
        return lambda index: (scans.select(index), images[index], split(scans.select(index)))

    def init(key: Array, image: Array) -> PyTree:
        return {"cnn": model.init(key, image), "log_strength": jnp.zeros(())}

    def one(key: Array, scan: Scan, image: Array, params: PyTree) -> Reconstruction:
        cost = jnp.asarray(2 * OSEM_ITERATIONS + 2 * UNROLLED_UPDATES / UNROLLED_SUBSETS)
        return Reconstruction(reconstruct(params, image, ordered_subsets(scan.acquisition, UNROLLED_SUBSETS)), cost)

    def run(key: Array, cases: Scans, hyperparameters: Any, params: PyTree) -> Reconstruction:
        return apply(key, cases, {"image": osem_images(osem, cases)}, params)

    split = jax.jit(jax.vmap(lambda case: subsets(case).sensitivity))  # once a batch: no gradient goes through it
    apply = batch_cases(setup, one, batch)
    return SupervisedMethod("unrolled", init, loss, data, run)


def train(
    method: SupervisedMethod, inputs: Sequence[StudyInputs], scans: Sequence[Scans], rates: Sequence[float],
    steps: int, batch: int, strategy: str | None = None, width: int | None = None,
) -> list[Reconstructor | MedjaxError]:  # fmt: skip
    """Train the network of each study as one population; each reconstruction, or an error where training diverged.

    Args:
        inputs: inputs of each study: its seed and work directory.
        scans: training scans of each study.
        rates: learning rate of each study.
        steps: training steps.
        batch: scans in a training step.
        strategy: strategy by which the population is trained (loop, vmap, sharded); None: the backend's best.
        width: networks trained at once; None: the strategy's own.
    """

    def make(settings: Mapping[str, Any]) -> Algorithm:
        optimizer = optax.adam(warmup_cosine(settings["rate"], steps))
        return trainer(method.loss, optax.chain(optax.clip_by_global_norm(1.0), optimizer), ema_decay=0.99)

    def init(member: int) -> PyTree:
        return method.init(jax.random.key(inputs[member].seed), jnp.zeros((1, *scans[member].truth.shape[1:3], 1)))

    def training(member: int) -> study.MemberTraining:
        data, seed, cases, params = method.data(scans[member]), inputs[member].seed, scans[member], init(member)
        state = make({"rate": rates[member]}).init(params, jax.random.key(seed + 1))

        def batches(number: int) -> PyTree:
            return data(np.random.default_rng((seed, number)).integers(cases.number, size=batch))

        return study.MemberTraining(state, batches, finish=to_numbered_leaves, average=True)

    members = [
        study.StudyMember(one.work, method.name, make, {"rate": rate}, steps, every=100)
        for one, rate in zip(inputs, rates, strict=True)
    ]
    kept = study.train(members, lambda numbers: [training(number) for number in numbers], strategy, width)
    like = jax.eval_shape(partial(init, 0))
    return [
        one if isinstance(one, MedjaxError) else partial(method.run, params=from_numbered_leaves(one, like))
        for one in kept
    ]


def _error(image: Array, truth: Array) -> Scalar:
    return jnp.mean((image - truth) ** 2) / jnp.mean(truth**2)
