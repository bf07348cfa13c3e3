"""Speed and memory of predictive samples by each strategy: a 2-D U-Net on the slices of a short-axis stack.

    python scripts/bench_predictive.py [--samples 5] [--rounds 3] [--slices 20] [--side 80]

Deep ensemble of as many members as samples, test-time augmentation, Monte-Carlo dropout. Strategies take turns in one
process; each figure is the best round: wall time of all samples, CPU time of all threads, which other programs disturb
less, and wall time over that of `loop`. Compiling is what the first call takes longer, without JAX's cache of
programs. Temporary memory is the compiler's, of the programs of as many samples and of four times as many: it should
not grow, but for `vmap` up to eight samples. `loop` holds one sample's logits besides, and its program is that of one
sample whatever their number.
"""

import argparse
import os
import time
from functools import partial

import jax
import numpy as np
from jaxtyping import PyTree

from medjax.models.unet import unet
from medjax.uncertainty import predictive, sampling
from medjax.uncertainty.predictive import Method, deep_ensemble, monte_carlo_dropout
from medjax.uncertainty.sampling import STRATEGIES, class_counts, samples
from medjax.uncertainty.transforms import compose, flips, gamma, noise, quarter_turns, rotation_and_shift

KEY = jax.random.key(0)
model = unet(classes=4, widths=(16, 32, 64, 96), dropout=0.2)
TRANSFORM = compose(flips(), quarter_turns(), rotation_and_shift(), gamma(), noise())


def parameters(images: np.ndarray, members: int) -> PyTree:
    """Parameters of an ensemble, drawn on the host, which spares a compilation."""
    shapes = jax.eval_shape(model.init, KEY, images)
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (draw.normal(size=(members, *leaf.shape)) / np.sqrt(max(leaf.size, 9) / leaf.shape[-1])).astype(
            np.float32
        ),
        shapes,
    )


def clocks() -> tuple[float, float]:
    """Seconds on the wall and of the CPU, all threads."""
    return time.perf_counter(), time.process_time()


def temporary_mib(draw: Method, params: PyTree, images: np.ndarray, n: int, strategy: str) -> float:
    """Temporary memory of the program of n samples, MiB."""
    if strategy == "loop":
        lowered = sampling._sample.lower(draw, model, KEY, params, images, np.int32(0))
    else:
        numbers = sampling._numbers(n, strategy)
        lowered = sampling._samples.lower(draw, model, class_counts, KEY, params, images, numbers)
    used = lowered.compile().memory_analysis()
    return float("nan") if used is None else used.temp_size_in_bytes / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--side", type=int, default=80)
    asked = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    n = asked.samples
    draw = np.random.default_rng(1)
    images = draw.normal(size=(asked.slices, asked.side, asked.side, 1)).astype(np.float32)
    stacked = parameters(images, 4 * n)
    ensemble, one = (jax.tree.map(lambda leaf, part=part: leaf[part], stacked) for part in (slice(n), 0))
    count = sum(leaf.size for leaf in jax.tree.leaves(one))
    print(
        f"{jax.default_backend()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; U-Net of {count} parameters,"
        f" {n} samples of images {images.shape}"
    )
    print(f"{'':22}{'':6}{'s':>8}{'CPU s':>8}{'÷ loop':>8}{'compiling s':>13}{'MiB':>8}{f'MiB, {4 * n}':>12}")
    methods = {
        "deep_ensemble": (deep_ensemble, ensemble, stacked),
        "monte_carlo_dropout": (monte_carlo_dropout, one, one),
        "test_time_augmentation": (predictive.test_time_augmentation(TRANSFORM), one, one),
    }
    for name, (method, params, more) in methods.items():
        runs: dict[str, list[np.ndarray]] = {strategy: [] for strategy in STRATEGIES}
        for _ in range(asked.rounds + 1):  # the first compiles
            for strategy in STRATEGIES:
                before = clocks()
                samples(method, KEY, model, params, images, n, strategy=strategy)
                runs[strategy].append(np.subtract(clocks(), before))
        best = {strategy: np.min(each[1:], axis=0) for strategy, each in runs.items()}
        memory = partial(temporary_mib, method)
        for strategy, (wall, cpu) in best.items():
            compiling = runs[strategy][0][0] - wall
            few = memory(params, images, n, strategy)
            many = few if strategy == "loop" else memory(more, images, 4 * n, strategy)
            print(
                f"{name:22}{strategy:6}{wall:8.3f}{cpu:8.3f}{wall / best['loop'][0]:8.2f}{compiling:13.1f}"
                f"{few:8.1f}{many:12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
