"""Speed of eight small U-Nets, 4 learning rates × 2 seeds, under each strategy, and how far the results differ.

    python scripts/bench_population.py [--devices 2] [--steps 20] [--rounds 2]

Strategies take turns in one process. A step is one of all eight members, the best block of five: wall time, and CPU
time of all threads, which other programs disturb less. Compiling is what the first block takes longer, without JAX's
cache of programs. Differences are of parameters after all steps, relative to the norm of those of eight single runs of
`fit`. On CPU, --devices says into how many devices it is divided.
"""

import argparse
import os
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from medjax.models.unet import unet
from medjax.training.batches import from_arrays
from medjax.training.loop import fit
from medjax.training.old_state import TrainState, init, make_train_step
from medjax.training.population import (
    Hyper,
    Strategy,
    fit_population,
    grid,
    layout,
    make_member_step,
)

STRATEGIES: tuple[Strategy, ...] = ("loop", "shard", "vmap")
SIDE, BATCH, BLOCK = 32, 8, 5
SINGLE = optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root", "nesterov"))
model = unet(classes=2, widths=(8, 16))
apply = model.apply
AXES = {"rate": (3e-4, 1e-3, 3e-3, 1e-2), "seed": (0, 1)}


def discs() -> tuple[np.ndarray, np.ndarray]:
    """64 noisy images of a disc each, and its mask."""
    draw = np.random.default_rng(0)
    centre, radius = draw.uniform(8, 24, (64, 2, 1, 1)), draw.uniform(3, 8, (64, 1, 1))
    mask = np.hypot(*(np.indices((SIDE, SIDE))[:, None] - np.moveaxis(centre, 1, 0))) < radius
    return (mask + draw.normal(size=mask.shape)).astype(np.float32)[..., None], mask.astype(np.int32)


def clocks() -> tuple[float, float]:
    """Seconds on the wall and of the CPU, all threads."""
    return time.perf_counter(), time.process_time()


def loss(params: PyTree, batch: PyTree, key: Array, one: Hyper) -> Array:
    """Cross-entropy."""
    image, mask = batch
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, image), mask).mean()


def optimiser(one: Hyper) -> optax.GradientTransformation:
    """Adam with the member's learning rate."""
    return optax.adam(one["rate"])


def start(hyper: Hyper) -> TrainState:
    """The members before training; parameters are drawn on the host, which spares a compilation."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)))
    draw = np.random.default_rng(0)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        kernel = draw.normal(size=(8, *shape.shape)) / np.sqrt(np.prod(shape.shape[:-1]))
        return np.asarray(kernel if len(shape.shape) > 1 else np.full_like(kernel, path[-1].key == "scale"), np.float32)

    params = jax.tree_util.tree_map_with_path(leaf, shapes)
    return jax.vmap(lambda mine, one: init(mine, optimiser(one)))(params, hyper)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)
    jax.config.update("jax_enable_compilation_cache", False)
    hyper = grid(**AXES)
    batches = from_arrays(discs(), BATCH, seed=0)
    keys = jax.vmap(jax.random.key)(hyper["seed"])
    first = start(hyper)
    step = make_member_step(loss, optimiser)

    def trained(strategy: Strategy) -> tuple[TrainState, np.ndarray]:
        stamps = [clocks()]
        state = fit_population(
            keys, step, first, hyper, batches, range(given.steps),
            lambda state, values: stamps.append(clocks()), BLOCK, strategy,
        )  # fmt: skip
        return state, np.diff(stamps, axis=0)

    singles, blocks = alone(keys, hyper, first.params, batches, given.steps)
    times, states = {"8 × fit": [blocks]}, {"8 × fit": singles}
    for _ in range(given.rounds):
        for strategy in STRATEGIES:
            states[strategy], blocks = trained(strategy)
            times.setdefault(strategy, []).append(blocks)

    machine = f"{jax.default_backend()}, {len(jax.local_devices())} devices, {os.cpu_count()} cores"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}; default: {layout(8)}")
    print(f"{'':10}{'ms a step':>12}{'CPU ms':>10}{'compiling s':>14}{'CPU s':>10}{'difference':>14}")
    for name, runs in times.items():
        block = np.min([run[1:].min(axis=0) for run in runs], axis=0)
        (step_ms, step_cpu), (wall, cpu) = 1000 * block / BLOCK, np.min([run[0] for run in runs], axis=0) - block
        print(f"{name:10}{step_ms:12.0f}{step_cpu:10.0f}{wall:14.1f}{cpu:10.1f}{apart(states[name], singles):14.1e}")


def alone(keys: Array, hyper: Hyper, params: PyTree, batches: Any, steps: int) -> tuple[TrainState, np.ndarray]:
    """Each member by itself, one after the other, with one program for all; the times of its blocks summed."""
    step = make_train_step(partial(loss, one={}), SINGLE(learning_rate=1.0))
    states: list[TrainState] = []
    blocks: list[np.ndarray] = []
    for i, key in enumerate(keys):
        adam = SINGLE(learning_rate=hyper["rate"][i])
        stamps: list[tuple[float, float]] = []

        def stamp(*_: Any, stamps: list[tuple[float, float]] = stamps) -> None:
            stamps.append(clocks())

        state = init(jax.tree.map(lambda leaf, i=i: leaf[i], params), adam)
        stamp()
        states.append(fit(key, step, state, batches, range(steps), stamp, BLOCK))
        blocks.append(np.diff(stamps, axis=0))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states), np.sum(blocks, axis=0)


def apart(a: TrainState, b: TrainState) -> float:
    """‖a − b‖ / ‖b‖ of the parameters of the member that differs most."""

    def squares(tree: PyTree) -> np.ndarray:
        return np.sum([np.sum(np.square(leaf).reshape(8, -1), axis=1) for leaf in jax.tree.leaves(tree)], axis=0)

    difference = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y), a.params, b.params)
    return float(np.sqrt(np.max(squares(difference) / squares(jax.tree.map(np.asarray, b.params)))))


if __name__ == "__main__":
    main()
