"""The same numbers on one device, on eight and in two processes: nnU-Net trained for three steps, a 3-D scan by MLEM.

    python scripts/compare_devices.py

Eight devices are simulated on the CPU; two processes on this machine talk by `jax.distributed` (gloo). Training is data
parallel (`training.parallel`), MLEM has its views divided among the devices. The processes also write a checkpoint
together, which one process reads. Prints the table devices × case × largest difference × time; ends with an error
unless every difference is at most 1e-5 of the largest value.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax import iterate
from medjax.iterate import Algorithm
from medjax.models.plain_unet import plain_unet
from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.projector3d import backproject, project
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system3d import build_system3d, subsets3d
from medjax.report.html import Table
from medjax.report.terminal import print_table
from medjax.segmentation import nnunet
from medjax.training.augment_nnunet import augmentation_for_plan
from medjax.training.checkpoint import restore, save
from medjax.training.parallel import data_mesh, on_mesh
from medjax.training.state import TrainState

STEPS, ITERATIONS, TOLERANCE = 3, 5, 1e-5
PATCH, BATCH, CLASSES = (16, 16, 8), 8, 3
SCANNER, GRID = Scanner("test", 128, 3, 80.0, 4.0, 15, 2.0), Grid((12, 12, 5), (6.0, 6.0, 2.0))
READ = "checkpoint"  # of two processes, read by one
CASES = ("training", "reconstruction")
SETUPS = {"1 device": (1, 1), "8 devices": (8, 1), "2 processes": (1, 2)}  # devices of a process, processes


def training(mesh: Mesh) -> tuple[Algorithm, TrainState]:
    """nnU-Net's training algorithm and its state before the first step, on the mesh."""
    model = plain_unet(CLASSES, (4, 8), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)))
    settings = nnunet.StepSettings(10, 1, augmentation_for_plan(PATCH, None, (0, 1, 2))._replace(patch=PATCH), True)
    params = model.init(jax.random.key(0), jnp.zeros((1, *PATCH, 1)))
    algorithm = nnunet.trainer(model, settings, 0.01)
    return on_mesh(mesh, algorithm, algorithm.init(params, jax.random.key(1)))


def batches(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a step, larger than the patches that augmentation leaves."""
    rng = np.random.default_rng(number)
    labels = rng.integers(0, CLASSES, (BATCH, *(2 * side for side in PATCH)), dtype=np.int32)
    return (labels[..., None] + rng.normal(size=(*labels.shape, 1))).astype(np.float32), labels


def train(mesh: Mesh) -> tuple[TrainState, float]:
    """Training state after three steps, and the seconds of the last two."""
    algorithm, last = training(mesh)
    ends = list[float]()
    for now, _ in iterate.loop(algorithm, last, STEPS, inputs=batches):
        last = now
        ends.append(time.perf_counter())
    return last, ends[-1] - ends[0]


def reconstruct(mesh: Mesh) -> tuple[jax.Array, float]:
    """MLEM image of a scan with oblique planes, its views divided among the devices, and the seconds."""
    whole = build_system3d(lors(SCANNER), michelogram(3), 4.0, GRID)
    parts, views = subsets3d(whole, mesh.size)
    rng = np.random.default_rng(0)
    truth = jnp.asarray(rng.random(GRID.shape, dtype=np.float32))
    counts = rng.poisson(np.asarray(project(whole, truth))).astype(np.float32)
    split, same = PartitionSpec(mesh.axis_names[0]), PartitionSpec()

    def mlem(part: object, counts: jax.Array) -> jax.Array:
        part, counts = jax.tree.map(lambda leaf: leaf[0], (part, counts))
        total = lambda sinogram: jax.lax.psum(backproject(part, sinogram), mesh.axis_names[0])  # noqa: E731
        sensitivity = total(jnp.ones_like(counts))

        def update(_: object, image: jax.Array) -> jax.Array:
            expected = project(part, image)
            ratio = jnp.where(expected > 0, counts / jnp.where(expected > 0, expected, 1.0), 0.0)
            return jnp.where(sensitivity > 0, image * total(ratio) / jnp.where(sensitivity > 0, sensitivity, 1.0), 0.0)

        return jax.lax.fori_loop(0, ITERATIONS, update, jnp.ones(GRID.shape))

    def place(leaf: object) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, split), lambda index: host[index])

    arguments = jax.tree.map(place, (parts, counts[views]))
    program = jax.jit(jax.shard_map(mlem, mesh=mesh, in_specs=(split, split), out_specs=same))
    image = program.lower(*arguments).compile()
    start = time.perf_counter()
    made = jax.block_until_ready(image(*arguments))
    return made, time.perf_counter() - start


def work(folder: Path, name: str, arguments: list[str]) -> None:
    """Run both cases in this process and write their numbers; two processes write a checkpoint together too."""
    if arguments:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(arguments[0], int(arguments[1]), int(arguments[2]))
    mesh = data_mesh()
    if name == READ:
        [_, state], image, seconds = (
            restore(folder / "checkpoint", training(mesh)[1]) or (0, None),
            np.zeros(0),
            list[float](),
        )
    else:
        state, trained = train(mesh)
        made, taken = reconstruct(mesh)
        image, seconds = np.asarray(made.addressable_data(0)), [trained, taken]
    if jax.process_count() > 1:
        save(folder / "checkpoint", STEPS, state)
    if jax.process_index() == 0 and state is not None:
        leaves = [np.asarray(leaf.addressable_data(0)).ravel() for leaf in jax.tree.leaves(state.params)]
        found = {"training": np.concatenate(leaves), "reconstruction": image, "seconds": np.array(seconds)}
        np.savez(folder / f"{name}.npz", allow_pickle=False, **found)


def start(folder: Path, name: str, *more: str, devices: int = 1) -> subprocess.Popen:
    """A process of this script that runs the cases on so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, str(folder), name, *more]
    return subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags})


def run(folder: Path, name: str, devices: int, processes: int) -> dict[str, np.ndarray]:
    """Numbers of both cases on so many devices in each of so many processes.

    Raises:
        RuntimeError: a process failed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]}"
    each = [[where, str(processes), str(k)] if processes > 1 else [] for k in range(processes)]
    running = [start(folder, name, *more, devices=devices) for more in each]
    try:
        codes = [process.wait(timeout=900) for process in running]
    finally:
        for process in running:
            process.kill()
    if any(codes):
        raise RuntimeError(f"{name}: a process ended with {max(codes, key=abs)}")
    with np.load(folder / f"{name}.npz") as kept:
        return dict(kept)


def main() -> None:
    """Run all, print the table, and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {setup: run(folder, setup, *sizes) for setup, sizes in SETUPS.items()}
        kept = run(folder, READ, 1, 1)
    rows, worst = list[list[str | float]](), 0.0
    for setup, own in found.items():
        for k, case in enumerate(CASES):
            largest = np.abs(found["1 device"][case]).max()
            difference = np.abs(own[case] - found["1 device"][case]).max() / largest
            worst = max(worst, float(difference))
            rows.append([setup, case, float(f"{difference:.1e}"), round(float(own["seconds"][k]), 3)])
    same = np.array_equal(kept["training"], found["2 processes"]["training"])
    print_table(Table(("devices", "case", "largest difference / largest value", "seconds"), rows))
    print(f"\ncheckpoint of two processes, read by one: {'equal bit for bit' if same else 'another'}")
    if not same or worst > TOLERANCE:
        sys.exit(f"expected differences of {TOLERANCE:g} at most")


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else work(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
