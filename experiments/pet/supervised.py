"""The two supervised baselines of the PET experiments: a U-Net behind MLEM and OSEM, and unrolled EM with a U-Net.

Both begin with the MLEM and the OSEM image of a scan and learn from scans of the family of heads (`phantoms.uptake`) at
all count levels together, with the truth as target, until the error on validation scans no longer falls. Networks of
several studies that differ in seed or learning rate train as one population.

    data = training_set(setup, heads, (2.5, 10.0, 50.0), realizations=2, size=5)
    methods = [unet_behind_osem(model, 96), unrolled_em_network(setup)]
    [unets, unrolled] = train(methods, inputs, data, rates=[1e-3], steps=(1000, 600), batch=8)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, Scalar

from experiments.pet.comparison import StudyInputs
from experiments.pet.methods import Reconstructor, batch_cases
from experiments.pet.scans import Reconstruction, Scan, Scans, ScanSetup, Subject, scan_of
from experiments.pet.training_scans import draw_scans, noise_free
from medjax import iterate
from medjax.diffusion.score_matching import intensity_scale
from medjax.errors import ConfigError, MedjaxError
from medjax.iterate import Algorithm
from medjax.models.model import Network
from medjax.models.score_unet import score_unet
from medjax.pet import em
from medjax.pet.acquisition import ordered_subsets
from medjax.pet.unrolled_em import unrolled_em
from medjax.running.arrays import from_numbered_leaves, to_numbered_leaves
from medjax.running.chunks import map_in_chunks
from medjax.running.progress import say
from medjax.running.workdir import WorkDir
from medjax.training import study
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Loss, trainer

MLEM_ITERATIONS, OSEM_ITERATIONS, OSEM_SUBSETS = 10, 4, 14  # of the images that both networks begin with
START_CALLS = 2.0 * (MLEM_ITERATIONS + OSEM_ITERATIONS)  # projector calls of these two images
UNROLLED_ITERATIONS, UNROLLED_SUBSETS = 2, 7  # of unrolled EM; an output of the network for each iteration
# λ of unrolled EM before training, its logarithm at 10 trues/mm³ and what a decade of counts adds: 1 / (counts · the
# variance of the network's error), of which the latter falls more slowly than the counts rise.
LOG_STRENGTH = (-1.8, -1.8)
EVERY, SIMULATED_AT_ONCE = 100, 60  # steps between validations; scans whose counts are in memory together


class SupervisedMethod(NamedTuple):
    """A supervised reconstruction: initial parameters, loss and data of its training, and the trained method."""

    name: str  # name of its stage
    init: Callable[[Array, int], PyTree]  # (key, side of a slice) → params
    data: Callable[[Scans, np.ndarray], PyTree]  # (cases, their start images) → what the network sees
    reconstruct: Callable[[PyTree, PyTree], Array]  # (params, data) → images (case, x, y, 1)
    loss: Loss  # of (params, (data, truth), key)
    projector_calls: float
    counts: bool  # whether the data include the counts


class TrainingSet(NamedTuple):
    """What supervised networks learn from; nothing is simulated before a network has to be trained."""

    scans: Callable[[], tuple[Scans, Scans]]  # noise-free scans to learn from, and to validate on
    levels: tuple[float, ...]  # trues per mm³
    realizations: int  # of a training slice at each level
    start: Callable[[Scans], np.ndarray]  # see `start_images`


def training_set(
    setup: ScanSetup, subjects: Callable[[], tuple[Sequence[Subject], Sequence[Subject]]], levels: Sequence[float],
    realizations: int, size: int,
) -> TrainingSet:  # fmt: skip
    """Training set of slices to learn from and to validate on, `subjects()`, at all count levels.

    Args:
        setup: scanner and grid of the scans.
        subjects: slices to learn from, and to validate on: called when a network has to be trained.
        levels: trues per mm³.
        realizations: noise realisations of a training slice at each level.
        size: scans reconstructed at once.
    """

    @cache
    def scans() -> tuple[Scans, Scans]:
        learnt, validated = subjects()
        return noise_free(setup, learnt), noise_free(setup, validated)

    return TrainingSet(scans, tuple(levels), realizations, start_images(setup, size))


def start_images(setup: ScanSetup, size: int) -> Callable[[Scans], np.ndarray]:
    """Function of cases that gives their MLEM and OSEM images as channels (case, x, y, 2), `size` cases at once."""

    def one(key: Array, scan: Scan) -> Float[Array, "x y 2"]:
        stacked = ordered_subsets(scan.acquisition, OSEM_SUBSETS)
        mlem, osem = em.mlem(scan.acquisition), em.osem(stacked)
        early = iterate.repeat(mlem, mlem.init(), MLEM_ITERATIONS)
        late = iterate.repeat(osem, osem.init(), em.updates(stacked, OSEM_ITERATIONS))
        return jnp.concatenate([early.image, late.image], axis=-1)

    run = batch_cases(setup, one, size)
    return lambda cases: run(jax.random.key(0), cases, {})


def unet_behind_osem(model: Network, side: int) -> SupervisedMethod:
    """U-Net behind MLEM and OSEM: max(MLEM + network((MLEM, OSEM), log10 of the trues per mm³), 0), mirrored at random.

    Raises:
        ConfigError: the network does not give one channel of two.
    """
    images, level = jax.ShapeDtypeStruct((1, side, side, 2), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)

    def clean(params: PyTree, data: PyTree) -> Array:
        images, level = data
        scale = _scales(images)
        x = images / scale
        return jnp.maximum(x[..., :1] + model.apply(params, x, level), 0) * scale

    def loss(params: PyTree, batch: PyTree, key: Array) -> Scalar:
        (images, level), truth = batch
        chosen = jax.random.bernoulli(key, 0.5, (len(level), 1, 1, 1))
        images, truth = (jnp.where(chosen, a[:, ::-1], a) for a in (images, truth))
        return _error(clean(params, (images, level)), truth)

    def init(key: Array, side: int) -> PyTree:
        return model.init(key, jnp.zeros((1, side, side, 2)), jnp.zeros(1))

    def made(images: Array, level: Array) -> Array:
        return model.apply(model.init(jax.random.key(0), images, level), images, level)

    if (found := jax.eval_shape(made, images, level).shape) != (1, side, side, 1):
        raise ConfigError(
            f"--part network: gives {found} for the MLEM and OSEM images {images.shape}; expected {(1, side, side, 1)}"
        )
    return SupervisedMethod(
        "unet", init, lambda cases, images: (images, _log_level(cases)), clean, loss, START_CALLS, False
    )


def unrolled_em_network(setup: ScanSetup, model: Network | None = None) -> SupervisedMethod:
    """Unrolled EM from the MLEM image: passes over ordered subsets, each towards one output of the network.

    The network, a small U-Net at half resolution unless given, sees the image so far and the two that it began with;
    how strongly it is followed is learned, as a function of the trues per mm³. Gradients go through the projector.
    """
    network = score_unet((32, 64, 96), 1, (), patch=2) if model is None else model

    def one(params: PyTree, case: Scans, images: Array, level: Array) -> Array:
        scale = _scales(images[None])[0]

        def regularize(x: Array) -> Array:
            seen = jnp.concatenate([x, images], axis=-1) / scale
            return x + scale * network.apply(params["network"], seen[None], level[None])[0]

        offset, slope = params["log_strength"]
        stacked = ordered_subsets(scan_of(setup, case).acquisition, UNROLLED_SUBSETS)
        updates = UNROLLED_ITERATIONS * UNROLLED_SUBSETS
        strength = jnp.exp(offset + slope * (level - 1))
        return unrolled_em(stacked, images[..., :1], regularize, strength, updates, UNROLLED_SUBSETS)

    def reconstruct(params: PyTree, data: PyTree) -> Array:
        return jax.vmap(partial(one, params))(*data)

    def loss(params: PyTree, batch: PyTree, key: Array) -> Scalar:
        data, truth = batch
        return _error(reconstruct(params, data), truth)

    def init(key: Array, side: int) -> PyTree:
        first = network.init(key, jnp.zeros((1, side, side, 3)), jnp.zeros(1))
        return {"network": first, "log_strength": jnp.asarray(LOG_STRENGTH)}

    def data(cases: Scans, images: np.ndarray) -> PyTree:
        return cases, images, _log_level(cases)

    return SupervisedMethod("unrolled", init, data, reconstruct, loss, START_CALLS + 2.0 * UNROLLED_ITERATIONS, True)


def train(
    methods: Sequence[SupervisedMethod], inputs: Sequence[StudyInputs], data: TrainingSet, rates: Sequence[float],
    steps: Sequence[int], batch: int, strategy: str | None = None, width: int | None = None,
) -> list[list[Reconstructor | MedjaxError]]:  # fmt: skip
    """Train each method's network of each study, a method's as one population; the best on validation scans is kept.

    Args:
        methods: methods that are trained one after the other.
        inputs: inputs of each study: its seed and work directory.
        data: training set; each study draws its own noise.
        rates: peak learning rate of each study.
        steps: training steps of each method; the rate falls to 0 by a cosine.
        batch: scans in a training step.
        strategy: strategy by which a population is trained (loop, vmap, sharded); None: the backend's best.
        width: networks trained at once; None: the strategy's own.

    Returns:
        Of each method the reconstruction of each study, or an error where training diverged.
    """

    @cache
    def images(seed: int) -> tuple[np.ndarray, Scans, np.ndarray]:
        """Start images of all training scans; validation scans with theirs."""
        say("images that supervised networks begin with")
        learnt, validated = data.scans()
        numbers = np.arange(learnt.number * len(data.levels) * data.realizations)
        parts = np.split(numbers, range(SIMULATED_AT_ONCE, len(numbers), SIMULATED_AT_ONCE))
        first = [data.start(draw_scans(seed, learnt, data.levels, part)) for part in parts]
        cases = draw_scans(seed, validated, data.levels, range(validated.number * len(data.levels)))
        return np.concatenate(first), cases, data.start(cases)

    return [
        _train(method, inputs, data, images, rates, number, batch, strategy, width)
        for method, number in zip(methods, steps, strict=True)
    ]


def _train(
    method: SupervisedMethod, inputs: Sequence[StudyInputs], data: TrainingSet, images: Callable[[int], Any],
    rates: Sequence[float], steps: int, batch: int, strategy: str | None, width: int | None,
) -> list[Reconstructor | MedjaxError]:  # fmt: skip
    side = inputs[0].setup.grid.shape[0]
    reconstruct = jax.jit(method.reconstruct)

    def predict(params: PyTree, cases: Scans, start: np.ndarray) -> np.ndarray:
        return map_in_chunks(partial(reconstruct, params), inputs[0].batch)(method.data(cases, start))

    def run(key: Array, cases: Scans, hyperparameters: Any, params: PyTree) -> Reconstruction:
        made = predict(params, cases, data.start(cases))
        return Reconstruction(made, np.full(cases.number, method.projector_calls, np.float32))

    make = partial(training_algorithm, method.loss, steps)

    def training(member: int) -> study.MemberTraining:
        seed, (learnt, _) = inputs[member].seed, data.scans()
        start, validated, validated_start = images(seed)
        params = method.init(jax.random.key(seed), side)

        def batches(number: int) -> PyTree:
            chosen = np.random.default_rng((seed, number)).integers(len(start), size=batch)
            cases = draw_scans(seed, learnt, data.levels, chosen, method.counts)
            return method.data(cases, start[chosen]), cases.truth

        def validate(params: PyTree) -> dict[str, float]:
            errors = _nrmse(predict(params, validated, validated_start), validated)
            levels = {f"validation/{level:g}": float(errors[validated.level == level].mean()) for level in data.levels}
            return {"validation": float(np.mean([*levels.values()])), **levels}

        state = make({"rate": rates[member]}).init(params, jax.random.key(seed + 1))
        return study.MemberTraining(state, batches, finish=to_numbered_leaves, validate=validate)

    members = [
        study.StudyMember(one.work, method.name, make, {"rate": rate}, steps, EVERY)
        for one, rate in zip(inputs, rates, strict=True)
    ]
    kept = study.train(members, lambda numbers: [training(number) for number in numbers], strategy, width)
    like = jax.eval_shape(lambda key: method.init(key, side), jax.random.key(0))
    return [
        one if isinstance(one, MedjaxError) else partial(run, params=from_numbered_leaves(one, like)) for one in kept
    ]


def training_algorithm(loss: Loss, steps: int, settings: Mapping[str, Any]) -> Algorithm:
    """Training by Adam, its `rate` as a cosine over the steps, gradients clipped at norm 1."""
    optimizer = optax.adam(warmup_cosine(settings["rate"], steps))
    return trainer(loss, optax.chain(optax.clip_by_global_norm(1.0), optimizer))


def learning_curve(work: WorkDir, name: str) -> dict[str, np.ndarray]:
    """Learning curve of a method in a work directory: step, loss, and validation NRMSE, of all and at each count level.

    Keys are `step`, `loss`, `validation` and `validation/COUNTS`, of a value for each validation.
    """
    lines = (work.path / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("member") == name]
    return {key: np.array([row[key] for row in rows]) for key in (rows[0] if rows else {}) if key != "member"}


def _scales(images: Array) -> Array:
    """Mean emission of each MLEM image, by which the network's images are divided; 1 for an empty one."""
    scale = jax.vmap(intensity_scale)(images[..., 0]).reshape(-1, 1, 1, 1)
    return jnp.where(scale > 0, scale, 1)


def _log_level(cases: Scans) -> np.ndarray:
    return np.log10(cases.level).astype(np.float32)


def _error(image: Array, truth: Array) -> Scalar:
    """NRMSE of whole slices, mean over the batch: each count level and each head has about the same weight."""
    axes = (1, 2, 3)
    return jnp.mean(jnp.sqrt(jnp.sum((image - truth) ** 2, axes) / jnp.sum(truth**2, axes)))


def _nrmse(images: np.ndarray, cases: Scans) -> np.ndarray:
    """NRMSE of each image in the brain."""
    error, square = ((cases.mask * values**2).sum(axis=(1, 2, 3)) for values in (images - cases.truth, cases.truth))
    return np.sqrt(error / square)
