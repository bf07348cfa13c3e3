"""Speed of eight small U-Nets, 4 learning rates × 2 seeds, under each strategy, and how far the results differ.

    python scripts/bench_population.py [--devices 2] [--steps 20] [--rounds 2]

Strategies take turns in one process. A step is one of all eight members, the best block of five: wall time, and CPU
time of all threads, which other programs disturb less; against one member is the CPU time over that of a member alone,
8 where a population costs what its members cost one after the other. Compiling is what the first block takes longer,
without JAX's cache of programs. Differences are of parameters after all steps, relative to the norm of those of eight
members alone. `scan` is the one line jax.vmap(lambda rate: iterate.scan(trainer(…, adam(rate)), …))(rates) of the four
rates of one seed; a convolution's gradient is slow in a scan on CPU. On CPU, --devices says into how many devices it is
divided.
"""

import argparse
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from medjax import iterate
from medjax.iterate import Algorithm
from medjax.models.unet import unet
from medjax.training import population
from medjax.training.batches import from_arrays
from medjax.training.layout import STRATEGIES, device_layout
from medjax.training.population import State, grid
from medjax.training.state import TrainState, trainer

SIDE, BATCH, BLOCK = 32, 8, 5
model = unet(classes=2, widths=(8, 16))
AXES = {"rate": (3e-4, 1e-3, 3e-3, 1e-2), "seed": (0, 1)}


def discs() -> tuple[np.ndarray, np.ndarray]:
    """64 noisy images of a disc each, and its mask."""
    draw = np.random.default_rng(0)
    center, radius = draw.uniform(8, 24, (64, 2, 1, 1)), draw.uniform(3, 8, (64, 1, 1))
    mask = np.hypot(*(np.indices((SIDE, SIDE))[:, None] - np.moveaxis(center, 1, 0))) < radius
    return (mask + draw.normal(size=mask.shape)).astype(np.float32)[..., None], mask.astype(np.int32)


def clocks() -> tuple[float, float]:
    """Seconds on the wall and of the CPU, all threads."""
    return time.perf_counter(), time.process_time()


def loss(params: PyTree, batch: PyTree, key: Array) -> Array:
    """Cross-entropy."""
    image, mask = batch
    return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, image), mask).mean()


def make(settings: PyTree) -> Algorithm:
    """A member: Adam with its learning rate."""
    return trainer(loss, optax.adam(settings["rate"]))


def start(settings: PyTree) -> State:
    """The members before training; parameters are drawn on the host, which spares a compilation."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)))
    draw = np.random.default_rng(0)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        kernel = draw.normal(size=(8, *shape.shape)) / np.sqrt(np.prod(shape.shape[:-1]))
        return np.asarray(kernel if len(shape.shape) > 1 else np.full_like(kernel, path[-1].key == "scale"), np.float32)

    params = jax.tree_util.tree_map_with_path(leaf, shapes)
    return population.init(make, settings, params, jax.vmap(jax.random.key)(settings["seed"]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)
    jax.config.update("jax_enable_compilation_cache", False)
    settings = grid(**AXES)
    batches = from_arrays(discs(), BATCH, seed=0)
    first = start(settings)

    def trained(strategy: str) -> tuple[TrainState, np.ndarray]:
        stamps, state = [clocks()], first
        for now, _ in population.loop(
            make, settings, first, given.steps, inputs=batches, every=BLOCK, strategy=strategy
        ):
            stamps.append(clocks())
            state = now
        return state.members, np.diff(stamps, axis=0)

    singles, blocks = alone(settings, first.members, batches, given.steps)
    times, states = {"8 × alone": [blocks]}, {"8 × alone": singles}
    for _ in range(given.rounds):
        for strategy in STRATEGIES:
            states[strategy], blocks = trained(strategy)
            times.setdefault(strategy, []).append(blocks)

    machine = f"{jax.default_backend()}, {len(jax.local_devices())} devices, {os.cpu_count()} cores"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}; default: {device_layout(8)}")
    print(
        f"{'':10}{'ms a step':>12}{'CPU ms':>10}{'against one':>14}{'compiling s':>14}{'CPU s':>10}{'difference':>14}"
    )
    one = times["8 × alone"][0][1:].min(axis=0)[1] / 8
    for name, runs in times.items():
        block = np.min([run[1:].min(axis=0) for run in runs], axis=0)
        (step_ms, step_cpu), (wall, cpu) = 1000 * block / BLOCK, np.min([run[0] for run in runs], axis=0) - block
        print(
            f"{name:10}{step_ms:12.0f}{step_cpu:10.0f}{block[1] / one:14.1f}{wall:14.1f}{cpu:10.1f}"
            f"{apart(states[name], singles):14.1e}"
        )
    scanned(first.members, batches, given.steps, one / BLOCK)


def alone(settings: PyTree, members: TrainState, batches: Any, steps: int) -> tuple[TrainState, np.ndarray]:
    """Each member by itself, one after the other, with one program for all; the times of its blocks summed."""
    states: list[TrainState] = []
    blocks: list[np.ndarray] = []
    for i, rate in enumerate(settings["rate"]):
        algorithm = Algorithm(make, jax.tree_util.Partial(_step, rate))
        state = jax.tree.map(lambda leaf, i=i: leaf[i], members)
        stamps, reached = [clocks()], state
        for now, _ in iterate.loop(algorithm, state, steps, inputs=batches, every=BLOCK, donate=True):
            stamps.append(clocks())
            reached = jax.tree.map(jnp.array, now)
        states.append(reached)
        blocks.append(np.diff(stamps, axis=0))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), np.sum(blocks, axis=0)


def _step(rate: Array, state: TrainState, batch: PyTree) -> Any:
    return make({"rate": rate}).step(state, batch)


def scanned(members: TrainState, batches: Any, steps: int, one: float) -> None:
    """Print what the sweep in one line costs: vmap over trainer + scan, four rates of one start."""
    params, key = jax.tree.map(lambda leaf: leaf[0], (members.params, members.key))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(batches(n) for n in range(steps)))

    @jax.jit
    def sweep(rates: Array, stacked: PyTree) -> PyTree:
        def at(rate: Array) -> PyTree:
            algorithm = make({"rate": rate})
            return iterate.scan(algorithm, algorithm.init(params, key), steps, stacked)[0].params

        return jax.vmap(at)(rates)

    rates = jnp.array(AXES["rate"])
    jax.block_until_ready(sweep(rates, stacked))
    before = clocks()
    jax.block_until_ready(sweep(rates, stacked))
    wall, cpu = (np.array(clocks()) - before) / steps
    print(f"{'scan':10}{1000 * wall:12.0f}{1000 * cpu:10.0f}{cpu / one:14.1f}    (4 members)")


def apart(a: TrainState, b: TrainState) -> float:
    """‖a − b‖ / ‖b‖ of the parameters of the member that differs most."""

    def squares(tree: PyTree) -> np.ndarray:
        return np.sum([np.sum(np.square(leaf).reshape(8, -1), axis=1) for leaf in jax.tree.leaves(tree)], axis=0)

    difference = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y), a.params, b.params)
    return float(np.sqrt(np.max(squares(difference) / squares(jax.tree.map(np.asarray, b.params)))))


if __name__ == "__main__":
    main()
