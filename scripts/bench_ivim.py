"""Bi-exponential fits: voxels a second on one core, against SciPy with an analytic Jacobian and DIPY, in one process.

    python scripts/bench_ivim.py [--voxels 65536] [--peer-voxels 60] [--snr 50] [--json FILE]

Fetal-lung-like voxels with Gaussian noise, 16 b-values. SciPy's `least_squares` (trf with bounds, lm without) starts
from the middle of the simulated ranges; DIPY's bound on f, 0.2 by default and below what lungs have, is widened to 1.
Peers get the first voxels only. The process is pinned to one core. Also says what the first call costs (compilation),
the memory that fits at once, and how the optima compare: the sum of squares relative to SciPy's best of eight starts.
"""

import argparse
import importlib
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX counts cores

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy import optimize  # noqa: E402

from medjax.atomic import write_text  # noqa: E402
from medjax.ivim.fit import fit  # noqa: E402
from medjax.ivim.signal import UM2_PER_MS, Ivim, signal  # noqa: E402
from medjax.running.environment import keep_freed_memory, peak_memory  # noqa: E402

B = np.array([0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800], np.float32)
LOWER, UPPER = [0, 0, 0.1, 3], [np.inf, 1, 6, 500]


def lungs(number: int, snr: float) -> np.ndarray:
    """Noisy signals (b, voxel) of mean S0 1."""
    draw = np.random.default_rng(0)
    ranges = ((0.9, 1.1), (0.2475, 0.3909), (1.39e-3, 1.97e-3), (13.06e-3, 32.78e-3))
    truth = Ivim(*(draw.uniform(*ends, number).astype(np.float32) for ends in ranges))
    return (np.asarray(signal(truth, B)) + draw.normal(size=(len(B), number)) / snr).astype(np.float32)


def model(p: np.ndarray) -> np.ndarray:
    """One voxel's signal; diffusivities in µm²/ms."""
    return p[0] * ((1 - p[1]) * np.exp(-B * UM2_PER_MS * p[2]) + p[1] * np.exp(-B * UM2_PER_MS * p[3]))


def jacobian(p: np.ndarray, *_: Any) -> np.ndarray:
    """Jacobian of the signal of one voxel."""
    b, slow, fast = B * UM2_PER_MS, np.exp(-B * UM2_PER_MS * p[2]), np.exp(-B * UM2_PER_MS * p[3])
    rows = (
        (1 - p[1]) * slow + p[1] * fast,
        p[0] * (fast - slow),
        -p[0] * (1 - p[1]) * b * slow,
        -p[0] * p[1] * b * fast,
    )
    return np.stack(rows, 1)


def scipys(y: np.ndarray, method: str, start: tuple[float, ...] = (1, 0.3, 1.5, 20)) -> Any:
    """SciPy's fit of one voxel."""
    bounds = (LOWER, UPPER) if method == "trf" else (-np.inf, np.inf)
    return optimize.least_squares(
        lambda p: model(p) - y, start, jacobian, bounds=bounds, method=method, x_scale=(1, 0.3, 1.5, 20)
    )


def dipys() -> Callable[[np.ndarray], Any]:
    """DIPY's trust-region fit of voxels one after the other."""
    gradients = importlib.import_module("dipy.core.gradients")
    models = importlib.import_module("dipy.reconst.ivim")
    table = gradients.gradient_table(B, bvecs=np.tile([1.0, 0, 0], (len(B), 1)) * (B > 0)[:, None], b0_threshold=0)
    bounds = ([0.0, 0.0, 0.0, 0.0], [np.inf, 1.0, 1.0, 1.0])
    return models.IvimModel(table, fit_method="trr", bounds=bounds).fit


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    fastest = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return float(fastest)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=65_536)
    parser.add_argument("--peer-voxels", type=int, default=60)
    parser.add_argument("--snr", type=float, default=50.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    y = lungs(options.voxels, options.snr)
    few = y[:, : options.peer_voxels].astype(float)
    signals, bvalues = jnp.asarray(y), jnp.asarray(B)
    before = peak_memory()["run.peak_memory_mib"]
    first = seconds(lambda: fit(signals, bvalues).cost.block_until_ready(), 1)
    rates = {"medjax": options.voxels / seconds(lambda: fit(signals, bvalues).cost.block_until_ready(), 5)}
    memory = peak_memory()["run.peak_memory_mib"] - before
    for method in ("lm", "trf"):
        rates[f"SciPy {method}"] = options.peer_voxels / seconds(lambda m=method: [scipys(v, m) for v in few.T], 3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = dipys()
            rates["DIPY trr"] = options.peer_voxels / seconds(lambda: theirs(few.T), 2)
    except ImportError:
        Console(stderr=True).print("DIPY is not installed: left out")
    table = Table("fit", "voxels/s", "medjax is faster by")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{rates['medjax'] / rate:,.0f}")
    Console().print(table)
    starts = [(1, f, d, s) for f in (0.1, 0.4) for d in (0.8, 2.0) for s in (8.0, 40.0)]
    best = np.array([min(2 * scipys(v, "trf", start).cost for start in starts) for v in few.T])
    numbers: dict[str, float] = {f"voxels_per_s/{name}": rate for name, rate in rates.items()}
    for steps in (12, 60):
        ours = np.asarray(fit(jnp.asarray(few, jnp.float32), bvalues, steps=steps).cost, float)
        numbers[f"excess_mean/{steps}"] = float(np.sum(ours) / np.sum(best) - 1)
        numbers[f"excess_largest/{steps}"] = float(np.max(ours / best) - 1)
    numbers |= {"first_call_s": first, "memory_mib": memory}
    for name, value in list(numbers.items())[len(rates) :]:
        print(f"{name}: {value:.3g}")
    if options.json:
        import json

        write_text(options.json, json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
