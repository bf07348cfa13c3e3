"""Training of a registration network on pairs of affinely aligned heads, and its evaluation.

write_heads(path, heads)      heads = read_heads(path)        one npz file, that travels without the atlas
network = train(folder, heads, …)                             resumes there
rows = evaluate(network, heads)                               Dice, folds, seconds: affine, network, greedy, refined
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from medjax import iterate
from medjax.atomic import replacing
from medjax.errors import ConfigError, DataError
from medjax.io.files import read_npz
from medjax.registration import greedy, network, network_file
from medjax.registration.evaluation import dice, folds_fraction, sd_log_jacobian
from medjax.registration.greedy import Deformation
from medjax.registration.network_file import NetworkSettings, TrainedNetwork
from medjax.registration.network_training import WEIGHT, pair_indices, trainer, validation_loss
from medjax.registration.warp import warp_labels
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, append_jsonl, filter_jsonl, open_workdir
from medjax.tools.checks import as_paths, check_seed
from medjax.training import checkpoint
from medjax.training.parallel import mesh_for_batches, on_mesh
from medjax.training.state import TrainState, require_finite_loss

FILE = "registration.npz"  # file name in the work directory
HELD_OUT = 4  # heads, the last ones, that are not trained on
VALIDATION_PAIRS = 4
REPORTS_BETWEEN_CHECKPOINTS = 5
METHODS = ("affine", "network", "greedy", "refined")
REFINEMENT = {"factors": (2, 1), "iterations": (40, 50)}  # of `greedy.register`, from a network's prediction


class Heads(NamedTuple):
    """Heads on one grid, affinely aligned: images and labels, whole numbers."""

    images: UInt8[np.ndarray, "head x y z"]  # T1, 255 its largest value
    labels: UInt8[np.ndarray, "head x y z"]  # 0: background
    voxel_mm: float

    def select(self, chosen: Any) -> "Heads":
        """The heads of a slice or an index array."""
        return Heads(self.images[chosen], self.labels[chosen], self.voxel_mm)

    def learnt(self) -> "Heads":
        """The heads that are trained on: all but the last `HELD_OUT`."""
        return self.select(slice(-HELD_OUT))

    def held_out(self) -> "Heads":
        """The heads that are not trained on."""
        return self.select(slice(-HELD_OUT, None))


class Training(NamedTuple):
    """Settings of a training."""

    settings: NetworkSettings
    steps: int
    batch: int
    rate: float
    weight: float
    pairs: int
    seed: int
    every: int  # steps between reports
    mesh: Mesh | None  # devices that each batch is divided among


def write_heads(path: Path, heads: Heads) -> None:
    """Write heads to one compressed npz file.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        np.savez_compressed(file, **heads._asdict())


def read_heads(path: Path) -> Heads:
    """Read heads of `write_heads`.

    Raises:
        DataError: there is none, or it holds none, or fewer than `HELD_OUT` and two to train on.
    """
    kept = read_npz(path, "a file of --make-heads")
    if missing := [name for name in Heads._fields if name not in kept or kept[name].dtype.kind not in "fu"]:
        raise DataError(f"{path}: no {missing[0]}, or no numbers; expected a file of --make-heads")
    heads = Heads(kept["images"], kept["labels"], 0.0)
    if kept["voxel_mm"].size != 1 or heads.images.shape != heads.labels.shape or heads.images.ndim != 4:
        raise DataError(f"{path}: images {heads.images.shape}, labels {heads.labels.shape}; expected equal ones")
    heads = heads._replace(voxel_mm=float(kept["voxel_mm"].item()))
    if len(heads.images) < HELD_OUT + 2:
        raise DataError(f"{path}: {len(heads.images)} heads; expected at least {HELD_OUT + 2}, {HELD_OUT} held out")
    return heads


def train(
    folder: Path | str,
    heads: Heads,
    steps: int = 2000,
    batch: int = 4,
    weight: float = WEIGHT,
    rate: float = 1e-3,
    pairs: int = 0,
    widths: tuple[int, ...] = NetworkSettings().widths,
    seed: int = 0,
    *,
    every: int = 50,
    devices: int = 1,
) -> TrainedNetwork:
    """Train a registration network in `folder`, or resume there; the moving average of the parameters is kept.

    Args:
        folder: work directory; the network is `registration.npz` in it.
        heads: aligned heads; the last `HELD_OUT` are for validation.
        steps: training steps.
        batch: pairs in a step.
        weight: weight of the diffusion regulariser.
        rate: largest learning rate.
        pairs: number of pairs of heads to train on; 0: all.
        widths: channels of each level of the network.
        seed: random seed.
        every: steps between reports; every fifth is followed by a checkpoint.
        devices: number of devices that each batch is divided among.

    Raises:
        ConfigError, DataError: an argument cannot be used, or training failed.
        WorkdirError: the folder belongs to another training.
    """
    [folder] = as_paths(folder)
    check_seed(seed)
    if min(steps, batch, every) < 1 or not (rate > 0 and weight >= 0 and pairs >= 0):
        raise ConfigError(
            f"steps {steps}, batch {batch}, every {every}, rate {rate}, weight {weight}, pairs {pairs}; "
            "expected positive numbers"
        )
    learnt, shape = heads.learnt(), heads.images.shape[1:]
    about = (
        f"{pairs or len(learnt.images) * (len(learnt.images) - 1)} pairs of {len(learnt.images)} heads, {steps} steps"
    )
    settings = NetworkSettings(tuple(widths), len(shape), heads.voxel_mm, about)
    if any(side % settings.multiple for side in shape):
        raise ConfigError(f"heads of {shape} voxels; {len(widths)} levels need multiples of {settings.multiple}")
    pair_indices(0, len(learnt.images), batch, seed, pairs)
    training = Training(settings, steps, batch, rate, weight, pairs, seed, every, mesh_for_batches(devices, batch))
    digest = int(heads.images.sum(dtype=np.int64))
    config = training._asdict() | {"settings": str(settings), "heads": len(heads.images), "sum_of_images": digest}
    del config["mesh"]  # the numbers are the same
    with open_workdir(folder, config) as work:
        return _train(work, heads, training)


def _train(work: WorkDir, heads: Heads, training: Training) -> TrainedNetwork:
    """Train from the latest checkpoint; write the network at every checkpoint, and even if no step is left."""
    settings, steps, batch, rate, weight, pairs, seed, every, mesh = training
    model, images, folder = network_file.built_in(settings), heads.learnt().images, work.checkpoints / "training"
    algorithm = trainer(model, steps, rate, weight)
    key = jax.random.key(seed)
    params = model.init(jax.random.fold_in(key, 1), *network_file.example_inputs(settings))
    state = algorithm.init(params, jax.random.fold_in(key, 2))
    if (kept := checkpoint.restore(folder, state)) is not None:
        state = kept[1]
        say(f"continuing after step {int(state.step)}")
    filter_jsonl(work, lambda row: row["step"] <= int(state.step))
    algorithm, state = on_mesh(mesh, algorithm, state)
    validation, saved = _pairs(heads.held_out().images, VALIDATION_PAIRS), int(state.step)

    def batches(number: int) -> tuple[np.ndarray, np.ndarray]:
        fixed, moving = pair_indices(number, len(images), batch, seed, pairs)
        return images[fixed], images[moving]

    def trained(state: TrainState) -> TrainedNetwork:
        return TrainedNetwork(model, state.ema_params, settings)

    def save(state: TrainState, made: int) -> None:
        if made % (REPORTS_BETWEEN_CHECKPOINTS * every) == 0 or made == steps:
            checkpoint.save(folder, made, state)
            network_file.save(work.path / FILE, trained(state))

    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    say(f"{heads.images.shape[1:]} voxels, {len(images)} heads, {weights} weights; compiling")
    start, first = time.perf_counter(), saved
    states = iterate.loop(
        algorithm, state, steps - saved, inputs=batches, every=every, check=require_finite_loss, save=save,
        donate=True, progress=lambda numbers: track(numbers, "training"),
    )  # fmt: skip
    for state, infos in states:
        step = int(state.step)
        row = {"step": step, "loss": float(np.mean(infos.loss))}
        if step % (REPORTS_BETWEEN_CHECKPOINTS * every) == 0 or step == steps:
            row["validation"] = validation_loss(model, state.ema_params, validation, weight)
        append_jsonl(work, row)
        values = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "step")
        say(f"step {step}: {values}; {(time.perf_counter() - start) / (step - first):.3f} s a step")
        start, first = time.perf_counter(), step  # the first ones are compiled, the others are not
    network_file.save(work.path / FILE, trained(state))
    return trained(state)


def evaluate(
    trained: TrainedNetwork, heads: Heads, pairs: int = 6, methods: tuple[str, ...] = METHODS, **settings: Any
) -> list[dict[str, float | str]]:
    """Registration of pairs of held-out heads: a row for each method, means over the pairs.

    `affine` is what the alignment left. Seconds are those of a pair, without compilation. `settings` are keywords of
    `greedy.register`.

    Raises:
        ConfigError: no such method.
    """
    if wrong := [name for name in methods if name not in METHODS]:
        raise ConfigError(f"method {wrong[0]}; expected {', '.join(METHODS)}")
    heads = heads.held_out()
    model, params, multiple = trained.model, trained.params, trained.settings.multiple
    run: dict[str, Callable[..., Any]] = {
        "network": jax.jit(partial(network.predict, model, multiple=multiple)),
        "greedy": jax.jit(lambda params, fixed, moving: greedy.register(fixed, moving, **settings)),
        "refined": jax.jit(partial(network.refine, model, multiple=multiple, **settings | REFINEMENT)),
    }
    chosen = _pair_numbers(len(heads.images), pairs)
    rows = []
    for name in methods:
        found = [_evaluate_pair(run.get(name), params, heads, *pair) for pair in track(chosen, name)]
        rows.append({"method": name, **{key: float(np.mean([one[key] for one in found])) for key in found[0]}})
    return rows


def _evaluate_pair(
    run: Callable[..., Deformation] | None, params: Any, heads: Heads, fixed: int, moving: int
) -> dict[str, float]:
    images = [jnp.asarray(heads.images[k], jnp.float32) / 255 for k in (fixed, moving)]
    labels = [heads.labels[k].astype(np.int32) for k in (fixed, moving)]
    if run is None:
        return {"dice": mean_dice(*labels), "folds": 0.0, "sd_log_jacobian": 0.0, "seconds": 0.0}
    jax.block_until_ready(run(params, *images))
    start = time.perf_counter()
    field = jax.block_until_ready(run(params, *images)).displacement
    seconds = time.perf_counter() - start
    warped = np.asarray(warp_labels(jnp.asarray(labels[1]), field))
    return {
        "dice": mean_dice(labels[0], warped),
        "folds": float(folds_fraction(field)),
        "sd_log_jacobian": float(sd_log_jacobian(field)),
        "seconds": seconds,
    }


def mean_dice(fixed: np.ndarray, moving: np.ndarray) -> float:
    """Mean Dice over the labels of the fixed image, background aside."""
    values = dice(jnp.asarray(moving), jnp.asarray(fixed), 1 + int(max(fixed.max(), moving.max())))
    return float(np.nanmean(np.asarray(values)))


def _pairs(images: np.ndarray, number: int) -> tuple[Float[np.ndarray, "pair x y z"] | np.ndarray, np.ndarray]:
    fixed, moving = np.array(_pair_numbers(len(images), number)).T
    return images[fixed], images[moving]


def _pair_numbers(heads: int, number: int) -> list[tuple[int, int]]:
    """Pairs of different heads, spread over them."""
    every = [(k, (k + step) % heads) for step in range(1, heads) for k in range(heads)]
    return every[:number]
