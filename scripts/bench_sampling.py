"""Speed of sampling with the shipped prior: whole runs against their floor, network and projector calls.

One mMR ring, 8 slices of 96² voxels, 50 steps. The floor is what the parts take alone, jitted and warm: 50 forward
passes of the network, and as many projector calls as the method counts. Best of five turns, all calls in turn.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import iterate
from medjax.diffusion import guidance, likelihood_schedule, sampler
from medjax.diffusion.prior import denoiser, slice_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.pet import em
from medjax.pet.acquisition import acquire
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import grid, lors, preset
from medjax.pet.system import build_system

SLICES, STEPS, UPDATES = 8, 50, 2


def best(calls: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Seconds of the fastest of a few turns of each call, taken in turn so that all see the same machine."""
    seconds = {name: np.inf for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:  # the first one compiles
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


@jax.jit
def run(algorithm: iterate.Algorithm, key: Any, image: Any) -> Any:
    """All steps of a sampler from an initial image."""
    return iterate.scan(algorithm, algorithm.init(key, image.shape, image), STEPS)


def main() -> None:
    """Measure and print."""
    ring, prior = preset("mmr"), load_prior()
    voxels = grid(ring, 96, 2.5, SLICES)
    system = build_system(lors(ring), voxels)
    head = np.hypot(*np.meshgrid(*[np.arange(96) - 47.5] * 2))[..., None] < 32
    truth = jnp.asarray(np.repeat(head, SLICES, axis=2), jnp.float32)
    empty = acquire(system, jnp.zeros((ring.views, ring.bins, SLICES)), 0.2, 5.0, gaussian_psf(voxels, 4.5))
    counts = jax.random.poisson(jax.random.key(0), empty.expected(truth)).astype(jnp.float32)
    scan = acquire(system, counts, 0.2, 5.0, gaussian_psf(voxels, 4.5))

    x = jax.random.normal(jax.random.key(0), (SLICES, 96, 96))
    volumes, times = denoiser(prior), sampler.uniform_times(STEPS, 0.5, 1e-2)
    targets = likelihood_schedule.targets(scan, em.init(scan).image, 20.0, STEPS, 40)
    methods = {
        "prior alone": guidance.prior_only(volumes),
        f"DDS, {UPDATES} updates": guidance.dds(volumes, scan, 1e-3, updates=UPDATES),
        "likelihood schedule": likelihood_schedule.likelihood_schedule(volumes, scan, targets.deviance),
    }
    network, pair = jax.jit(lambda x: slice_denoiser(prior)(x, jnp.full(SLICES, 0.3))), jax.jit(scan.update)
    x = jax.random.normal(jax.random.key(0), (SLICES, 96, 96))
    calls: dict[str, Callable[[], Any]] = {
        "network": lambda: [network(x) for _ in range(10)],
        "pair": lambda: [pair(truth) for _ in range(10)],
    }
    projector_calls = {}
    for name, guided in methods.items():
        algorithm = sampler.sampler(guided, prior.sde, times, sampler.ddim(1.0))
        calls[name] = partial(run, algorithm, jax.random.key(0), truth)
        projector_calls[name] = float(jnp.sum(calls[name]()[1].projector_calls))
    seconds = best(calls)

    forward, both = seconds["network"] / 10, seconds["pair"] / 10
    print(f"network: {SLICES / forward:.0f} slices/s, {1000 * forward:.1f} ms for {SLICES}")
    print(f"projector: {2 * SLICES / both:.0f} slices/s, {1000 * both:.1f} ms for {SLICES} forward and back")
    for name, made in projector_calls.items():
        floor = STEPS * forward + made / 2 * both
        print(
            f"{name}: {seconds[name]:.2f} s, {seconds[name] / SLICES:.2f} s a slice; {made:.0f} projector calls, "
            f"floor {floor:.2f} s, overhead {100 * (seconds[name] / floor - 1):.0f} %"
        )


if __name__ == "__main__":
    main()
