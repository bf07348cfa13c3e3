"""Bootstrap of medians against a NumPy loop: 256 regions, 1,000 images, 10,000 resamples, in one process.

    python scripts/bench_bootstrap.py

Rank maps of one model, with ties. The loop is np.median(ranks[drawn], axis=0) for each resample, its draws not counted,
timed over 500 resamples and multiplied by 20, between two timings of the others, which draw resamples too. Results are
compared with the loop's on the same resamples. Times are wall clock; the ratio is what counts.
"""

import time
from collections.abc import Callable

import jax
import numpy as np
from scipy.stats import rankdata

from medjax.shortcuts.median_bootstrap import bootstrap_medians

REGIONS, IMAGES, RESAMPLES, LOOPED, WINDOW = 256, 1000, 10_000, 500, 80


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    draw, key = np.random.default_rng(0), jax.random.key(0)
    maps = draw.normal(size=(IMAGES, REGIONS)) + np.linspace(0, 3, REGIONS)
    ranks = rankdata(np.maximum(maps, 0.5), axis=1).astype(np.float32)  # as of a rectified map: many are tied
    drawn = [
        np.asarray(jax.random.randint(jax.random.fold_in(key, number), (IMAGES,), 0, IMAGES))
        for number in range(LOOPED)
    ]

    def looped() -> np.ndarray:
        return np.stack([np.median(ranks[images], axis=0) for images in drawn])

    ways = {
        "exact": lambda: bootstrap_medians(key, ranks[None], RESAMPLES),
        f"window of {WINDOW}, with fall-back": lambda: bootstrap_medians(key, ranks[None], RESAMPLES, window=WINDOW),
    }
    expected = looped()
    for name, way in ways.items():
        off = np.abs(np.asarray(way())[:LOOPED, 0] - expected).max()
        print(f"{name}: largest difference from the loop {off:g}")
    times = {name: [seconds(way)] for name, way in ways.items()}
    loop = seconds(looped) * RESAMPLES / LOOPED
    print(f"\n| {'':28} | seconds | times as fast |\n|---|---|---|")
    print(f"| {'NumPy loop, extrapolated':28} | {loop:.1f} | 1 |")
    for name, way in ways.items():
        best = min(*times[name], seconds(way))
        print(f"| {name:28} | {best:.2f} | {loop / best:.1f} |")


if __name__ == "__main__":
    main()
