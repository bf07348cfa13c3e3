"""Speed of sampling with the shipped prior: whole runs against their floor, network and projector apart.

One mMR ring, 8 slices of 96² voxels, one sample of each method with its defaults. The floor is what the parts take
alone, jitted and warm: as many forward passes of the network and projector calls as the method makes. Best of five
turns, all calls in turn.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Scalar

from medjax.diffusion import reconstruct, split_gibbs
from medjax.diffusion.prior import denoiser, slice_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.pet import em
from medjax.pet.acquisition import acquire
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import grid, lors, preset
from medjax.pet.system import build_system

SLICES, STEPS = 8, 50  # steps of the published samplers
SOLVED_STEPS, CHAIN = 8, split_gibbs.DEFAULTS._replace(chains=1)


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


def problem_of(scan: Any, prior: Any) -> reconstruct.InverseProblem:
    """Inverse problem of a scan with a prior of slices."""
    return reconstruct.inverse_problem(scan, denoiser(prior), em.init(scan).image, scan.sensitivity)


@partial(jax.jit, static_argnames="name")
def sample(name: str, key: Array, scan: Any, prior: Any) -> tuple[Array, Scalar]:
    """One sample of a method, and its projector calls."""
    problem = problem_of(scan, prior)
    if name == "split Gibbs":
        made = split_gibbs.chains(key, problem, CHAIN)
        return made.images, made.projector_calls
    methods = {
        "DDS": lambda: reconstruct.dds(problem, 0.06),
        "likelihood schedule": lambda: reconstruct.likelihood_schedule(problem, 20.0, STEPS),
        "DDS, solved step": lambda: reconstruct.dds_cg(problem, steps=SOLVED_STEPS),
        "likelihood schedule, solved step": lambda: reconstruct.likelihood_schedule_cg(problem, steps=SOLVED_STEPS),
    }
    made = reconstruct.sample(key, problem, methods[name](), reconstruct.SamplerSettings(STEPS))
    return made.image, made.projector_calls


EVALUATIONS = {  # of the network
    "DDS": STEPS,
    "likelihood schedule": STEPS,
    "DDS, solved step": SOLVED_STEPS,
    "likelihood schedule, solved step": SOLVED_STEPS,
    "split Gibbs": CHAIN.rounds * CHAIN.reverse_steps,
}


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

    network, pair = jax.jit(lambda x: slice_denoiser(prior)(x, jnp.full(SLICES, 0.3))), jax.jit(scan.update)
    x = jax.random.normal(jax.random.key(0), (SLICES, 96, 96))
    calls: dict[str, Callable[[], Any]] = {
        "network": lambda: [network(x) for _ in range(10)],
        "pair": lambda: [pair(truth) for _ in range(10)],
    }
    calls |= {name: partial(sample, name, jax.random.key(0), scan, prior) for name in EVALUATIONS}
    projector_calls = {name: float(calls[name]()[1]) for name in EVALUATIONS}
    seconds = best(calls)

    forward, both = seconds["network"] / 10, seconds["pair"] / 10
    print(f"network: {SLICES / forward:.0f} slices/s, {1000 * forward:.1f} ms for {SLICES}")
    print(f"projector: {2 * SLICES / both:.0f} slices/s, {1000 * both:.1f} ms for {SLICES} forward and back")
    for name, made in projector_calls.items():
        networks, projectors = EVALUATIONS[name] * forward, made / 2 * both
        print(
            f"{name}: {seconds[name] / SLICES:.2f} s a slice; network {networks / SLICES:.2f} s "
            f"({EVALUATIONS[name]} evaluations), projector {projectors / SLICES:.2f} s ({made:.0f} calls), overhead "
            f"{100 * (seconds[name] / (networks + projectors) - 1):.0f} %"
        )


if __name__ == "__main__":
    main()
