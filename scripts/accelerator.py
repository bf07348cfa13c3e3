"""An accelerator against this machine's CPU: the same numbers, and how much faster; without one, the CPU alone.

    python scripts/accelerator.py [--quick] [--case NAME …] [--repeats N] [--out FILE.md]

Every case is one compiled program with the same arguments on both. Difference: the norm of the difference of the
results, over the norm of the CPU's. Times are medians, the first call (compilation) apart. --quick takes sizes for
minutes on two cores; without it the CPU takes a quarter of an hour. The table is Markdown, for RESULTS.md.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from medjax import iterate
from medjax.atomic import write_text
from medjax.diffusion import reconstruct
from medjax.diffusion.prior import denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.ivim.fit import fit
from medjax.ivim.signal import Ivim, signal
from medjax.models.plain_unet import plain_unet
from medjax.models.unet import unet
from medjax.pet import em, projector, projector3d
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, grid, lors, preset
from medjax.pet.system import build_system
from medjax.pet.system3d import build_system3d
from medjax.registration.greedy import register
from medjax.training.losses import cross_entropy, deep_supervision
from medjax.training.state import trainer


class Case(NamedTuple):
    """One program and its arguments."""

    name: str
    size: str
    call: Callable[..., PyTree]
    arguments: tuple[Any, ...]


class Row(NamedTuple):
    """Seconds of the first and of the median later call on each device, and how far results differ."""

    first: list[float]
    median: list[float]
    difference: float


def projections(small: bool) -> list[Case]:
    """Forward and back, direct and oblique planes."""
    rng, planes = np.random.default_rng(0), 16 if small else 64
    ring, rings = preset("mmr"), 8 if small else 32
    direct = build_system(lors(ring), grid(ring, 128, 2.0, planes))
    cylinder = Scanner("cylinder", 320, rings, 120.0, 2.0, 128, 1.0)
    space = Grid((128, 128, 2 * rings - 1), (1.0, 1.0, 1.0))
    oblique = build_system3d(lors(cylinder), michelogram(rings, 1), 2.0, space)
    cases = list[Case]()
    for name, module, system, shape, bins in (
        ("direct planes", projector, direct, (128, 128, planes), (ring.views, ring.bins, planes)),
        ("oblique planes", projector3d, oblique, space.shape, oblique.sinogram_shape),
    ):
        x, y = (rng.random(size, dtype=np.float32) for size in (shape, bins))
        size = f"{y.size / 1e6:.1f} million lines of response"
        cases += [Case(f"{name}, forward", size, module.project, (system, x))]
        cases += [Case(f"{name}, back", size, module.backproject, (system, y))]
    return cases


def scan(slices: int) -> Any:
    """A disc on the mMR's ring, 96² voxels."""
    ring = preset("mmr")
    voxels = grid(ring, 96, 2.5, slices)
    system, psf = build_system(lors(ring), voxels), gaussian_psf(voxels, 4.5)
    disc = np.hypot(*np.meshgrid(*[np.arange(96) - 47.5] * 2))[..., None] < 32
    empty = acquire(system, jnp.zeros((ring.views, ring.bins, slices)), 0.2, 5.0, psf)
    expected = empty.expected(jnp.asarray(np.repeat(disc, slices, axis=2), jnp.float32))
    counts = np.random.default_rng(0).poisson(np.asarray(expected)).astype(np.float32)
    return acquire(system, jnp.asarray(counts), 0.2, 5.0, psf)


def osem(data: Any) -> Array:
    """Two iterations."""
    return iterate.scan(em.osem(data), em.init(data), n=em.updates(data, 2))[0].image


def sample(key: Array, data: Any, prior: Any) -> Array:
    """A sample of the shipped prior of each slice, DDS with solved steps."""
    problem = reconstruct.inverse_problem(data, denoiser(prior), em.init(data).image, data.sensitivity)
    return reconstruct.sample(key, problem, reconstruct.dds_cg(problem)).image


def reconstructions(small: bool) -> list[Case]:
    """OSEM and sampling."""
    slices = 2 if small else 16
    data, size = scan(slices), f"{slices} slices of 96²"
    return [
        Case("OSEM, 2 iterations of 21 subsets", size, osem, (ordered_subsets(data, 21),)),
        Case("sample of a prior, DDS solved", size, sample, (jax.random.key(0), data, load_prior())),
    ]


def train_step(apply: Callable[..., Any], params: PyTree, images: Array, labels: Array) -> PyTree:
    """Parameters after one step of nnU-Net's optimizer."""
    algorithm = trainer(partial(segmentation_loss, apply), optax.sgd(0.01, 0.99, nesterov=True))
    return algorithm.step(algorithm.init(params, jax.random.key(0)), (images, labels))[0].params


def segmentation_loss(apply: Callable[..., Any], params: PyTree, batch: PyTree, key: Array) -> Array:
    """Cross-entropy with deep supervision."""
    return jnp.mean(deep_supervision(apply(params, batch[0]), batch[1], loss=cross_entropy))


def member_step(apply: Callable[..., Any], params: PyTree, images: Array, labels: Array, rate: Array) -> PyTree:
    """Parameters after a step of one member of a population, at its learning rate."""

    def loss(params: PyTree, batch: PyTree, key: Array) -> Array:
        logits = apply(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    algorithm = trainer(loss, optax.adam(rate))
    return algorithm.step(algorithm.init(params, jax.random.key(0)), (images, labels))[0].params


def trainings(small: bool) -> list[Case]:
    """A step of a 3-D segmentation, and of eight U-Nets by vmap and one after the other."""
    rng, widths = np.random.default_rng(0), (8, 16, 32) if small else (32, 64, 128, 256)
    patch = (16, 32, 32) if small else (64, 128, 128)
    net = plain_unet(3, widths, ((3, 3, 3),) * len(widths), ((1, 1, 1), *((2, 2, 2),) * (len(widths) - 1)))
    images = rng.normal(size=(2, *patch, 1)).astype(np.float32)
    labels = rng.integers(0, 3, (2, *patch))
    params = net.init(jax.random.key(0), images)
    size = f"batch 2 of {' × '.join(map(str, patch))}, widths {widths[0]} to {widths[-1]}"
    flat = unet(classes=2, widths=(8, 16) if small else (32, 64, 128))
    side = 32 if small else 128
    slices = rng.normal(size=(8, side, side, 1)).astype(np.float32)
    masks, rates = rng.integers(0, 2, (8, side, side)), jnp.logspace(-4, -2, 8)
    one = partial(
        member_step, flat.apply, flat.init(jax.random.key(0), slices), jnp.asarray(slices), jnp.asarray(masks)
    )
    members = f"8 U-Nets, batch 8 of {side}²"
    return [
        Case("training step, 3-D segmentation", size, partial(train_step, net.apply), (params, images, labels)),
        Case("training step of a population, vmap", members, jax.vmap(one), (rates,)),
        Case("the same, one after the other", members, partial(jax.lax.map, one), (rates,)),
    ]


def fits(small: bool) -> list[Case]:
    """IVIM and deformable registration."""
    rng, voxels, side = np.random.default_rng(0), 8192 if small else 262_144, 32 if small else 128
    b = np.array([0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800], np.float32)
    ranges = ((0.9, 1.1), (0.25, 0.39), (1.4e-3, 2e-3), (13e-3, 33e-3))
    truth = Ivim(*(rng.uniform(*ends, voxels).astype(np.float32) for ends in ranges))
    noisy = np.asarray(signal(truth, b)) + rng.normal(size=(len(b), voxels)) / 50
    at = np.indices((side,) * 3) / side - 0.5
    ball, egg = (
        np.exp(-40 * (at[0] ** 2 / s + at[1] ** 2 + at[2] ** 2)).astype(np.float32) for s in (1.0, 1.5)
    )  # smooth, so that rounding does not decide
    return [
        Case(
            "IVIM fit",
            f"{voxels} voxels, 16 b-values",
            lambda y: fit(y, jnp.asarray(b)).parameters,
            (noisy.astype(np.float32),),
        ),
        Case("deformable registration", f"{side}³ voxels", lambda f, m: register(f, m).displacement, (ball, egg)),
    ]


def measure(case: Case, devices: list[jax.Device], repeats: int) -> Row:
    """Run a case on each device."""
    first, median, results = list[float](), list[float](), list[list[np.ndarray]]()
    for device in devices:
        arguments, call, seconds = jax.device_put(case.arguments, device), jax.jit(case.call), list[float]()
        out = None
        with jax.default_device(device):
            for _ in range(repeats + 1):
                start = time.perf_counter()
                out = jax.block_until_ready(call(*arguments))
                seconds.append(time.perf_counter() - start)
        first.append(seconds[0])
        median.append(float(np.median(seconds[1:])))
        results.append([np.asarray(leaf, float) for leaf in jax.tree.leaves(out)])
    gap = sum(float(np.sum((one - other) ** 2)) for one, other in zip(results[0], results[-1], strict=True))
    return Row(first, median, float(np.sqrt(gap / sum(float(np.sum(one**2)) for one in results[0]))))


def line(case: Case, row: Row) -> str:
    """A line of the table."""
    times = [f"{1000 * value:.1f}" for value in row.median]
    against = [times[1], f"{row.median[0] / row.median[1]:.1f}", f"{row.difference:.0e}"] if len(times) > 1 else []
    return "| " + " | ".join([case.name, case.size, times[0], *against, f"{row.first[-1]:.1f}"]) + " |"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--case", action="append", help="only cases whose name contains this; may be repeated")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    cpu, found = jax.local_devices(backend="cpu")[0], jax.local_devices()[0]
    devices = [cpu] if found.platform == "cpu" else [cpu, found]
    names = ["CPU ms"] if len(devices) == 1 else ["CPU ms", f"{found.device_kind} ms", "times faster", "difference"]
    head = ["case", "size", *names, "first call s"]
    lines = [f"jax {jax.__version__}, {found.device_kind}\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    print("\n".join(lines), flush=True)
    for cases in (projections, reconstructions, trainings, fits):
        for case in cases(given.quick):
            if not given.case or any(part in case.name for part in given.case):
                lines.append(line(case, measure(case, devices, given.repeats)))
                print(lines[-1], flush=True)
    if given.out:
        write_text(given.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
