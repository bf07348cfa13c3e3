"""Speed of sampling with the shipped prior: whole runs against their floor, network forwards plus projections.

One mMR ring, 8 slices of 96² voxels, 50 steps. The floor is what the parts take alone, jitted and warm: 50 forward
passes of the network, and as many projections as the method says it made. Best of three, on an idle machine.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.diffusion import conditioning, sampler, schedule
from medjax.diffusion.prior import estimator, load_prior, score
from medjax.pet import em
from medjax.pet.acquisition import acquire
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import grid, lines, preset
from medjax.pet.system import build_system

SLICES, STEPS, UPDATES = 8, 50, 2


def best(function: Callable[..., Any], *inputs: Any, repeats: int = 3) -> float:
    """Seconds of the fastest of a few calls, after one that compiles."""
    jax.block_until_ready(function(*inputs))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*inputs))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Measure and print."""
    ring, prior = preset("mmr"), load_prior()
    voxels = grid(ring, 96, 2.5, SLICES)
    system = build_system(lines(ring), voxels)
    head = np.hypot(*np.meshgrid(*[np.arange(96) - 47.5] * 2))[..., None] < 32
    truth = jnp.asarray(np.repeat(head, SLICES, axis=2), jnp.float32)
    empty = acquire(system, jnp.zeros((ring.views, ring.bins, SLICES)), 0.2, 5.0, gaussian_psf(voxels, 4.5))
    counts = jax.random.poisson(jax.random.key(0), empty.expected(truth)).astype(jnp.float32)
    scan = acquire(system, counts, 0.2, 5.0, gaussian_psf(voxels, 4.5))

    x = jax.random.normal(jax.random.key(0), (SLICES, 96, 96))
    network = best(jax.jit(lambda x: score(prior, x, 0.3)), x, repeats=10)
    pair = best(jax.jit(lambda image: scan.ascend(image)), truth, repeats=10)
    print(f"network: {SLICES / network:.0f} slices/s, {1000 * network:.1f} ms for {SLICES}")
    rate = 2 * SLICES / pair
    print(f"projector: {rate:.0f} slices/s, {1000 * pair:.1f} ms for a forward and a back-projection of {SLICES}")

    plain, times = estimator(prior), sampler.time_grid(STEPS, 0.5, 1e-2)
    goal = schedule.targets(scan, em.init(scan).image, 20.0, STEPS, 40)
    methods = {
        "prior alone": plain,
        f"DDS, {UPDATES} updates": conditioning.dds(plain, conditioning.whole(scan), 1e-3, updates=UPDATES),
        "likelihood schedule": schedule.likelihood_schedule(plain, scan, goal.deviance),
    }
    for name, guided in methods.items():
        run = jax.jit(
            partial(
                sampler.run, estimator=guided, sde=prior.sde, times=times, shape=voxels.shape, move=sampler.ddim(1.0)
            )
        )
        _, info = run(jax.random.key(0), image=truth)
        calls = float(jnp.sum(info.projections)) if info else 0.0
        seconds, floor = best(lambda run=run: run(jax.random.key(0), image=truth)), STEPS * network + calls / 2 * pair
        print(
            f"{name}: {seconds:.2f} s, {seconds / SLICES:.2f} s a slice; {calls:.0f} projections, floor {floor:.2f} s, "
            f"overhead {100 * (seconds / floor - 1):.0f} %"
        )


if __name__ == "__main__":
    main()
