"""Train a registration network on pairs of simulated heads, and compare it with greedy optimisation on held-out ones.

    python scripts/train_registration.py --make-heads 52 --heads-file heads.npz         needs the atlas, no accelerator
    python scripts/train_registration.py --heads-file heads.npz --time-steps 10        seconds a step, to choose --steps
    python scripts/train_registration.py --heads-file heads.npz --out runs/registration --steps 3000 --batch 4
    python scripts/train_registration.py --heads-file heads.npz --evaluate runs/registration/registration.npz

Heads are of 80 × 96 × 80 voxels of 2.5 mm and affinely aligned; four are held out. The same command resumes.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from medjax import iterate
from medjax.registration import network_file
from medjax.registration.network_training import pair_indices, trainer
from medjax.running.progress import say
from medjax.tools import registration_training as tool
from medjax.tools.registration_heads import simulated_heads
from medjax.tools.registration_training import Heads


def main() -> None:
    """Run what the command line asks for."""
    options = parse()
    file = options.heads_file
    if options.make_heads:
        shape = tuple(options.shape)
        heads = simulated_heads(options.make_heads, options.seed, shape, options.voxel_mm, options.anatomy)
        if file is not None:
            tool.write_heads(file, heads)
            say(f"{file}: {options.make_heads} heads, {file.stat().st_size / 2**20:.1f} MB")
    else:
        heads = tool.read_heads(file)
    if options.time_steps:
        seconds = time_steps(heads, options)
        say(f"{seconds:.3f} s a step of {options.batch} pairs")
    if options.out is not None:
        start = time.perf_counter()
        network = tool.train(
            options.out, heads, options.steps, options.batch, options.weight, options.rate, options.pairs,
            tuple(options.widths), options.seed, every=options.every, devices=options.devices,
        )  # fmt: skip
        say(f"{options.out / tool.FILE}: {network.settings.about}; {time.perf_counter() - start:.0f} s")
    if options.evaluate is not None:
        rows = tool.evaluate(
            network_file.load(options.evaluate), heads, options.evaluated_pairs, tuple(options.methods)
        )
        for row in rows:
            say(
                ", ".join(
                    f"{name} {value if isinstance(value, str) else f'{value:.4f}'}" for name, value in row.items()
                )
            )


def time_steps(heads: Heads, options: argparse.Namespace) -> float:
    """Seconds of a training step, without compilation."""
    settings = network_file.NetworkSettings(tuple(options.widths))
    model, images = network_file.built_in(settings), heads.learnt().images
    algorithm, key = trainer(model, 1000, options.rate, options.weight), jax.random.key(0)
    state = algorithm.init(model.init(key, *network_file.example_inputs(settings)), key)

    def batches(number: int) -> tuple[np.ndarray, np.ndarray]:
        fixed, moving = pair_indices(number, len(images), options.batch, 0)
        return images[fixed], images[moving]

    state = iterate.last(iterate.loop(algorithm, state, 1, inputs=batches), state)
    start = time.perf_counter()
    iterate.last(iterate.loop(algorithm, state, options.time_steps, inputs=batches, every=options.time_steps), state)
    return (time.perf_counter() - start) / options.time_steps


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--make-heads", type=int, default=0, metavar="N", help="Number of heads to simulate")
    add("--heads-file", type=Path, help="File of the heads: written with --make-heads, else read")
    add("--anatomy", type=Path, nargs="+", default=(), help="Further anatomies: skull-stripped T1s, or folders")
    add("--shape", type=int, nargs=3, default=(80, 96, 80), help="Voxels of the heads")
    add("--voxel-mm", type=float, default=2.5, help="Voxel size of the heads, mm")
    add("--out", type=Path, help="Work directory of the training")
    add("--steps", type=int, default=2000, help="Training steps")
    add("--batch", type=int, default=4, help="Pairs in a step")
    add("--devices", type=int, default=1, help="Devices that each batch is divided among")
    add("--weight", type=float, default=0.05, help="Weight of the diffusion regulariser")
    add("--rate", type=float, default=1e-3, help="Largest learning rate")
    add("--pairs", type=int, default=0, help="Number of pairs to train on; 0: all pairs of two heads")
    add("--widths", type=int, nargs="+", default=(32, 64, 96, 128), help="Channels of each level of the network")
    add("--every", type=int, default=50, help="Steps between reports; every fifth is followed by a checkpoint")
    add("--seed", type=int, default=0, help="Random seed")
    add("--time-steps", type=int, default=0, help="Number of steps to time, without training")
    add("--evaluate", type=Path, metavar="FILE", help="Network to evaluate on the held-out heads")
    add("--evaluated-pairs", type=int, default=6, help="Pairs of held-out heads to evaluate")
    add("--methods", nargs="+", default=("affine", "network", "greedy", "refined"), help="Methods to evaluate")
    options = parser.parse_args()
    if not (options.make_heads or options.heads_file):
        parser.error("expected --heads-file, --make-heads, or both")
    return options


if __name__ == "__main__":
    main()
