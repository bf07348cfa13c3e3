"""What a sweep by vmap costs: MAP-EM at several strengths at once, against one, and against one after the other.

    python scripts/bench_sweep.py

Eight values of beta share one system and one set of counts; only images and weights have an axis of their own. Calls
alternate in one process; ratios are of medians. The numbers of a sweep are those of single runs to rounding.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import iterate
from medjax.penalty import Quadratic, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import grid, lors, preset
from medjax.pet.system import build_system
from medjax.running.environment import keep_freed_memory

BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SIZE, SUBSETS, UPDATES, ROUNDS = 128, 7, 28, 5


def scan() -> Acquisition:
    """Counts of a cylinder with a hot rod on the mMR's ring, one plane, stacked in subsets."""
    ring = preset("mmr")
    image_grid = grid(ring, SIZE, 2.08625, 1)
    system = build_system(lors(ring), image_grid)
    x, y = np.meshgrid(*2 * (np.arange(SIZE) - SIZE / 2 + 0.5,), indexing="ij")
    truth = 1.0 * (np.hypot(x, y) < 45) + 3.0 * (np.hypot(x - 15, y) < 6)
    empty = acquire(system, jnp.zeros((ring.views, ring.bins, 1)), 0.05, 1.0, gaussian_psf(image_grid, 4.5))
    expected = empty.expected(jnp.asarray(truth[..., None], jnp.float32))
    counts = np.random.default_rng(0).poisson(expected).astype(np.float32)
    return ordered_subsets(acquire(system, jnp.asarray(counts), 0.05, 1.0, empty.psf), SUBSETS)


def _argument_bytes(program: Any, *arguments: Any) -> int:
    return program.lower(*arguments).compile().memory_analysis().argument_size_in_bytes


def main() -> None:
    """Print one row."""
    keep_freed_memory()
    stacked = scan()
    penalty = Quadratic(neighbors((SIZE, SIZE, 1), (2.08625,) * 3))
    start = em.init(stacked)
    weights = jnp.stack([em.penalty_weight(stacked, beta) for beta in BETAS])

    @jax.jit
    def one(stacked: Acquisition, weight: Array) -> Array:
        return iterate.scan(em.map_em(stacked, penalty, weight), start, UPDATES)[0].image

    sweep = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    together = np.asarray(sweep(stacked, weights))
    alone = np.stack([np.asarray(one(stacked, weight)) for weight in weights])
    seconds: dict[str, list[float]] = {"one": [], "sweep": [], "each": []}
    for _ in range(ROUNDS):
        for name, run in (
            ("one", lambda: one(stacked, weights[0])),
            ("sweep", lambda: sweep(stacked, weights)),
            ("each", lambda: [one(stacked, weight) for weight in weights]),
        ):
            begun = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begun)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    held = [_argument_bytes(program, stacked, values) for program, values in ((sweep, weights), (one, weights[0]))]
    print(f"one {1e3 * median['one']:.0f} ms; eight by vmap {median['sweep'] / median['one']:.2f} x one;")
    print(f"one after the other {median['each'] / median['one']:.2f} x one; arguments {held[0] / held[1]:.3f} x one's;")
    print(f"largest difference {np.abs(together - alone).max() / alone.max():.1e} of the maximum")


if __name__ == "__main__":
    main()
