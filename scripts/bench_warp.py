"""Cost of warps, exponentials of velocity fields and LNCC at 64³ voxels, in ms, best of many.

    taskset -c 0 python scripts/bench_warp.py

Reference figures were measured on another machine, on one core. CPU ms are the process's own, which other programs on
the machine disturb less than wall clock.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.registration.similarity import lncc
from medjax.registration.velocity import exponential
from medjax.registration.warp import warp

SIDE, REPEATS = 64, 50


def best_ms(function: Callable[..., Any], *arguments: jax.Array) -> tuple[float, float]:
    """Shortest wall-clock and CPU time of a jitted call, ms."""
    call = jax.jit(function)
    jax.block_until_ready(call(*arguments))
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(REPEATS):
        start, start_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call(*arguments))
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return 1e3 * min(wall), 1e3 * min(cpu)


def main() -> None:
    """Measure and print."""
    draw = np.random.default_rng(0)
    image, other = (jnp.asarray(draw.normal(size=(SIDE,) * 3), jnp.float32) for _ in range(2))
    smooth = np.stack([ndimage.gaussian_filter(draw.normal(size=(SIDE,) * 3), 6) for _ in range(3)])
    field = jnp.asarray(smooth * 3 / np.abs(smooth).max(), jnp.float32)
    similarity = lncc(4)
    rows: list[tuple[str, str, Callable[..., Any], tuple[jax.Array, ...]]] = [
        ("warp", "1.7", warp, (image, field)),
        (
            "gradient of a warp by the displacement",
            "21",
            jax.grad(lambda u, m: jnp.sum(warp(m, u) ** 2)),
            (field, image),
        ),
        ("exponential, 7 steps", "30–35", exponential, (field,)),
        ("LNCC 9³", "3.4", lambda w, f: similarity(w, f, None), (image, other)),
        ("LNCC 9³ and gradient", "25.8", lambda w, f: jax.value_and_grad(similarity)(w, f, None), (image, other)),
        ("LNCC 5³ and gradient", "–", lambda w, f: jax.value_and_grad(lncc(2))(w, f, None), (image, other)),
    ]
    print("| | wall ms | CPU ms | reference ms |\n|---|---|---|---|")
    for name, reference, function, arguments in rows:
        wall, cpu = best_ms(function, *arguments)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {reference} |", flush=True)


if __name__ == "__main__":
    main()
